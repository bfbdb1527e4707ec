"""A child that a plugin has forked and that comes back from the plugin's code: it ends there.

What follows is its parent's: the answer, the load, the loop that waits for the next request. A
child that went on would do that once more, or wait for ever for what comes to its parent alone.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Never, TypeVar

T = TypeVar("T")

_exit, _pid = os._exit, os.getpid  # a plugin may replace them


def end_child(error: BaseException | None = None) -> Never:
    """End this process as Python ends one, but at once: what waits at its end is its parent's.

    Args:
        error: what the plugin's code raised, None if it returned. The exit code is that of a
            `SystemExit`, and 1 for all else, which is printed.
    """
    code: Any = 0
    try:
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
    finally:
        _exit(code & 0xFF if isinstance(code, int) else 1)


def run_in_parent(function: Callable[..., T], *arguments: Any) -> T:
    """Call into a plugin, and return or raise what that does, in this process alone."""
    pid = _pid()
    try:
        returned = function(*arguments)
    except BaseException as error:
        if _pid() != pid:
            end_child(error)
        raise
    if _pid() != pid:
        end_child()
    return returned
