"""Which callables can answer a request: what would fail at each one is refused before."""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from app.loading.signatures import HandlerError, describe, innermost


def refuse_kind(handler: Callable[..., Any]) -> None:
    """Refuse a callable that cannot answer a request.

    Raises:
        HandlerError: it is a class, a coroutine function, or what some decorators make.
    """
    function = outermost(handler)
    name = describe(handler)
    if isinstance(function, type):
        raise HandlerError(
            f"the handler is the class {name}, expected a function or a method of an object, as "
            f"{name}().handle"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerError(f"{name} is a coroutine function, expected a plain one")
    made = _MADE_BY.get(getattr(function, "__code__", None))
    if made is not None:
        raise HandlerError(f"{name} is decorated with {made}")


def with_result(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that answers what a coroutine has for a result.

    A plain decorator around a coroutine function may run it, or return the coroutine as it is;
    that cannot be seen in it. Any other handler is returned as it is.
    """
    if not inspect.iscoroutinefunction(innermost(handler)):
        return handler

    @functools.wraps(handler)
    def run(**values: Any) -> Any:
        answer = handler(**values)
        if not inspect.iscoroutine(answer):
            return answer
        import asyncio  # with the first one that needs it

        return asyncio.run(answer)

    return run


def hidden_function(handler: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the function that a decorator has hidden, None if none has.

    It is one that the handler holds, and that was defined where the handler stands now.
    """
    method = handler if isinstance(handler, types.MethodType) else None
    outer = handler if method is None else method.__func__
    if hasattr(outer, "__wrapped__"):
        return None
    for held in _held_by(outer):
        if isinstance(held, types.FunctionType) and _stands_at(held) is outer:
            return held if method is None else types.MethodType(held, method.__self__)
    return None


def _held_by(decorated: Any) -> Iterator[Any]:
    """Yield what a decorator's inner function, or its object, holds."""
    if not isinstance(decorated, types.FunctionType):
        yield from getattr(decorated, "__dict__", {}).values()
        return
    for cell in decorated.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _stands_at(function: types.FunctionType) -> Any:
    """Return what stands at the place where a function was defined, None if it is not known."""
    first, *names = function.__qualname__.split(".")
    found = function.__globals__.get(first)
    for name in names:
        found = vars(found).get(name) if isinstance(found, type) else None
    return found.__func__ if isinstance(found, staticmethod) else found


def outermost(handler: Any) -> Any:
    """Return the function that a call of the handler enters first, or the class if it is one."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, (types.MethodType, staticmethod)):
            handler = handler.__func__
        elif isinstance(handler, (types.FunctionType, types.BuiltinFunctionType, type)):
            return handler
        elif hasattr(handler, "__wrapped__"):
            handler = handler.__wrapped__
        elif isinstance(type(handler).__call__, types.FunctionType):
            return type(handler).__call__
        else:
            return handler


class _Sample:
    @functools.singledispatchmethod
    def method(self, _value: Any) -> None: ...


def _sample(*_values: Any) -> Any:
    yield


_MANAGER = "contextlib.{}, which makes a context manager, expected a function that answers"
_DISPATCH = (
    "functools.{}, which chooses by an argument without a name, expected a function whose "
    "parameters are filled by name"
)
_MADE_BY: dict[Any, str] = {
    outermost(made).__code__: said.format(name)
    for made, said, name in (
        (contextlib.contextmanager(_sample), _MANAGER, "contextmanager"),
        (contextlib.asynccontextmanager(_sample), _MANAGER, "asynccontextmanager"),
        (functools.singledispatch(_sample), _DISPATCH, "singledispatch"),
        (_Sample().method, _DISPATCH, "singledispatchmethod"),
    )
}
"""What the standard library's decorators make that no request can be answered with."""
