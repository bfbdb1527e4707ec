"""What Falcon calls of a plugin: whether it takes what it is given, found before a request."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from app.loading.signatures import describe

HOOK_BEFORE = ("req", "resp", "resource", "params")
HOOK_AFTER = ("req", "resp", "resource")
ERROR_HANDLER = ("req", "resp", "ex", "params")
ERROR_SERIALIZER = ("req", "resp", "exception")
SINK = ("req", "resp")
"""What Falcon calls each with, by position."""

_OF_MIDDLEWARE = {
    "process_request": ("req", "resp"),
    "process_resource": ("req", "resp", "resource", "params"),
    "process_response": ("req", "resp", "resource", "req_succeeded"),
}


def call_fault(
    function: Callable[..., Any], arguments: Iterable[str], names: Iterable[str] = ()
) -> str | None:
    """Return why a function cannot be called as Falcon does, None if it can be.

    Args:
        function: what is called.
        arguments: what Falcon gives it by position, as a sentence names it.
        names: what it gives it by name.
    """
    arguments, names = tuple(arguments), tuple(names)
    shown = ", ".join((*arguments, *(f"{name}=…" for name in names)))
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # a built-in: the call itself will tell
    if isinstance(function, type) and "__call__" in dir(function):
        name = function.__qualname__
        return f"the class {name}, expected an object that Falcon calls ({shown}), as {name}()"
    try:
        signature.bind(*arguments, **dict.fromkeys(names))
    except TypeError as error:
        return f"{describe(function)}{signature}, which Falcon calls ({shown}): {error}"
    if inspect.iscoroutinefunction(function):
        return f"{describe(function)}, a coroutine function, expected a plain one"
    return None


def check_call(
    what: str, function: Any, arguments: Iterable[str], names: Iterable[str] = ()
) -> None:
    """Raise TypeError if a plugin's function cannot be called as Falcon does.

    Args:
        what: what the function is to be, for the sentence.
        function: what the plugin gave.
        arguments: what Falcon gives it by position.
        names: what it gives it by name.
    """
    fault = call_fault(function, arguments, names) if callable(function) else repr(function)
    if fault is not None:
        raise TypeError(f"{what} is {fault}")


def middleware_in(given: Any) -> list[Any]:
    """Return the components of what `add_middleware` is given: one, or several.

    Raises:
        TypeError: Falcon could not call one of them.
    """
    if not given:  # Falcon adds nothing then
        return []
    try:
        components = list(given)
    except TypeError:
        components = [given]
    for component in components:
        for name, arguments in _OF_MIDDLEWARE.items():
            method = getattr(component, name, None)
            if method is None:
                continue
            if not hasattr(method, "__self__"):
                raise TypeError(f"add_middleware was given {_unbound(component, name)}")
            if fault := call_fault(method, arguments):
                raise TypeError(f"the middleware has {fault}")
    return components


def _unbound(component: Any, name: str) -> str:
    """Say what is wrong with a component whose method belongs to no object."""
    if isinstance(component, type):
        called = component.__qualname__
        return f"the class {called}, expected an object of it: {called}()"
    return f"{component!r}, whose {name} is no method, expected an object of a class that has it"
