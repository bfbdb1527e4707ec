"""The environment as a load sees it: without what an earlier generation of the plugin has put in.

`load_dotenv` and `os.environ.setdefault` leave alone what is there. So a plugin's own variables are
hidden while its next generation is loaded: from the thread that loads it alone, because requests
still run in the generation before, and read them.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_hidden: dict[int, set[str]] = {}
"""What is hidden from a thread, by its number."""

_environ: Any = os.environ
"""The one that was there first: a plugin may put another one in its place."""

_plain: Any = type(_environ)


class _PartlyHidden(_plain):  # type: ignore[misc]
    """The environment while something is hidden; a variable that is set is hidden no more."""

    def __getitem__(self, key: Any) -> Any:
        if key in _hidden.get(threading.get_ident(), ()):
            raise KeyError(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        _hidden.get(threading.get_ident(), set()).discard(key)

    def __delitem__(self, key: Any) -> None:
        if key in _hidden.get(threading.get_ident(), ()):
            raise KeyError(key)
        super().__delitem__(key)

    def __iter__(self) -> Iterator[Any]:
        hidden = _hidden.get(threading.get_ident(), ())
        return (key for key in super().__iter__() if key not in hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[Mapping[str, str]]:
    """Hide variables from this thread for the length of a `with` block, until it sets them.

    It gives the values that they had; afterwards they have those that were set, or the same.
    """
    values = {name: _environ[name] for name in names if name in _environ}
    if not values:
        yield values
        return
    with _lock:
        _hidden[threading.get_ident()] = set(values)
        _environ.__class__ = _PartlyHidden
    try:
        yield values
    finally:
        with _lock:
            del _hidden[threading.get_ident()]
            if not _hidden:
                _environ.__class__ = _plain


def environment() -> dict[str, Any]:
    """Return the environment as this thread sees it; names and values are encoded."""
    everything: dict[Any, Any] = vars(_environ)["_data"]  # a tenth of the time of a copy
    unseen = _hidden.get(threading.get_ident())
    if unseen:
        encoded = set(map(os.fsencode, unseen))
        return {name: value for name, value in everything.items() if name not in encoded}
    return everything.copy()


def put_variable(name: bytes, value: Any) -> None:
    """Set a variable to an encoded value; anything else removes it."""
    if isinstance(value, bytes):
        _environ[os.fsdecode(name)] = os.fsdecode(value)
    else:
        _environ.pop(os.fsdecode(name), None)
