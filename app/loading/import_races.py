"""Imports that failed because another thread imported the same just then."""

import importlib._bootstrap
import re
from typing import Any

_bootstrap: Any = importlib._bootstrap

_PARTIAL = re.compile(r"partially initialized module '(?P<module>[\w.]+)'")
_TREE = "recursion depth mismatch"
"""In what CPython 3.11 says where two threads make syntax trees at once (its issue 106905)."""

_MOST_CAUSES = 10


def is_import_race(error: BaseException) -> bool:
    """Tell whether a load met another thread's first import of a library, and may succeed alone.

    Python lets the later one go on with a module that is half made, or gives up, where to wait
    would be a deadlock (`_ModuleLock` in `importlib/_bootstrap.py`). A plugin's own modules are
    nobody else's: of those it is a circle of its own.
    """
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        if type(cause) is _bootstrap._DeadlockError:
            return True
        if type(cause) is SystemError and _TREE in str(cause):
            return True
        if type(cause) is ImportError or type(cause) is AttributeError:
            found = _PARTIAL.search(str(cause))
            if found is not None and not found["module"].startswith("_plugins."):
                return True
        cause = cause.__cause__ or cause.__context__
    return False
