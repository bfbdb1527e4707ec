"""What a handler says it yields: whether that can be sent, said before the first request."""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Any

from app.loading.annotations import is_bare, members, parts_of, show
from app.loading.handler_kinds import outermost
from app.loading.markers import produces_of

_STREAMS = (collections.abc.Iterator, collections.abc.Generator)
_ASYNCHRONOUS = (collections.abc.AsyncIterable, collections.abc.Awaitable)
_SENT = (bytes, str, bytearray, memoryview)
"""What is sent part by part, as it is."""

_LINES = (
    "expected an iterator of bytes or text: yield lines of JSON (`item.model_dump_json() + "
    '"\\n"`), return a list, or register it by server.sse, which sends what JSON can hold'
)


def is_stream(kind: Any) -> bool:
    """Tell whether a type is that of what is sent part by part, as a generator or a file."""
    base = typing.get_origin(kind) or kind
    return inspect.isclass(base) and issubclass(base, (collections.abc.Iterator, typing.IO))


def stream_fault(handler: Callable[..., Any], returns: Any, *, events: bool) -> str | None:
    """Return why what a handler says it returns cannot be sent part by part, None if it can be.

    What a decorator makes of it is not known, so nothing is said of a handler that has one.

    Args:
        handler: the handler.
        returns: the annotation of what it returns, `inspect.Parameter.empty` if there is none.
        events: whether what it yields is sent as server-sent events.
    """
    if events and produces_of(returns):
        return "it produces something else, expected events alone of server.sse"
    function = outermost(handler)
    if hasattr(function, "__wrapped__"):
        return None
    kinds = members(returns)
    for kind in parts_of(returns):
        base = typing.get_origin(kind) or kind
        if inspect.isclass(base) and issubclass(base, _ASYNCHRONOUS):
            return f"it returns {show(kind)}, which is asynchronous, expected a plain one"
        if base in _STREAMS and (fault := _item_fault(kind, events=events)):
            return fault
    if events:
        other = next((kind for kind in kinds if not (_is_nothing(kind) or _may_yield(kind))), None)
        return f"it returns {show(other)}, expected it to yield its events" if other else None
    if not inspect.isgeneratorfunction(function):
        return None
    if not any(map(_may_yield, kinds)):
        return f"it yields and says that it returns {show(returns)}, expected Iterator[…]"
    iterable = [kind for kind in kinds if typing.get_origin(kind) is collections.abc.Iterable]
    return next(filter(None, (_item_fault(kind, events=False) for kind in iterable)), None)


def _item_fault(kind: Any, *, events: bool) -> str | None:
    """Return why the items of an iterator cannot be sent, None if they can be."""
    items = members(typing.get_args(kind)[0]) if typing.get_args(kind) else []
    if events:
        raw = any(item in _SENT and item is not str for item in items)
        return f"it returns {show(kind)}, expected text, Event, or what JSON has" if raw else None
    unsent = [item for item in items if not _may_be_sent(item)]
    return f"it returns {show(kind)}, {_LINES}" if unsent else None


def _may_be_sent(item: Any) -> bool:
    if typing.get_origin(item) is typing.Literal:
        return all(isinstance(value, _SENT) for value in typing.get_args(item))
    if isinstance(item, type) and not is_bare(item):
        return item is object or issubclass(item, _SENT)
    return is_bare(item) or isinstance(item, (typing.TypeVar, typing.ForwardRef))


def _is_nothing(kind: Any) -> bool:
    return kind is None or kind is type(None)


def _may_yield(kind: Any) -> bool:
    """Tell whether what a type says may be part by part."""
    base = typing.get_origin(kind) or kind
    if _is_nothing(base) or base is typing.Literal:
        return False
    known = is_bare(base) or base in (object, collections.abc.Iterable) or is_stream(base)
    return known or not inspect.isclass(base)
