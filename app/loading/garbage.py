"""Garbage is collected; and whether Python does so by itself, which the server pauses for moments.

Who asks Python alone (`gc.isenabled`) takes such a pause for something that a plugin has switched.
"""

import gc
import sys
import threading
import typing
from typing import Any

_lock = threading.Lock()
_paused_by: set[str] = set()
_was_on = True
"""What is to be again after the last pause."""


def collect() -> None:
    """Free what nobody refers to but others of it, and what `typing` and pydantic keep of it.

    They keep what was subscripted last, as `Optional[Order]` and `Annotated[Order, …]`, and with
    the class all of its generation. They fill again by themselves.
    """
    for clear in getattr(typing, "_cleanups", ()):
        clear()
    generics = _generic_models()
    _drop_own(generics)
    before = len(generics)
    gc.collect()
    if len(generics) < before:  # with each its key has gone, and only now what that is made of
        gc.collect()


def _generic_models() -> dict[Any, Any]:
    """Return pydantic's weak references to `Page[Order]` and the like, by what they are made of."""
    module = sys.modules.get("pydantic._internal._generics")
    kept = getattr(getattr(module, "_GENERIC_TYPES_CACHE", None), "data", None)
    return kept if type(kept) is dict else {}  # another version's may be anything


def _drop_own(generics: dict[Any, Any]) -> None:
    """Drop generic models that keep themselves alive: within `Page` `Page[T]` is `Page`."""
    for key, reference in list(generics.items()):
        if type(key) is tuple and reference() is key[0]:  # which is found without, too
            generics.pop(key, None)


def pause(by: str) -> None:
    """Keep Python from collecting by itself until `resume`.

    Args:
        by: whose pause it is; pauses of several may overlap.
    """
    global _was_on
    with _lock:
        if not _paused_by:
            _was_on = gc.isenabled()
            gc.disable()
        _paused_by.add(by)


def resume(by: str) -> None:
    """Let Python collect by itself again, if it did before and nobody else keeps it from that."""
    with _lock:
        was_paused = by in _paused_by
        _paused_by.discard(by)
        if was_paused and not _paused_by and _was_on:
            gc.enable()


def is_on() -> bool:
    """Tell whether Python collects by itself, or will after a pause."""
    with _lock:
        return _was_on if _paused_by else gc.isenabled()


def switch(on: bool) -> None:
    """Have Python collect by itself or not, after a pause if there is one."""
    global _was_on
    with _lock:
        if _paused_by:
            _was_on = on
        elif on:
            gc.enable()
        else:
            gc.disable()
