"""What a handler takes by name, seen through methods, partials and decorators."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from app.uri_templates import template_fields

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class HandlerError(Exception):
    """A handler's signature does not fit its template; the message says where and how."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The arguments that a handler takes.

    `named` holds its parameters by name; `rest` tells whether it takes any other name too
    (`**fields`). `hidden` are the names that a method or a partial fills already, `bound` those to
    which a partial gives a default. `opaque` is true for a handler behind `*args`: a decorator
    that does not tell what it takes.
    """

    named: dict[str, Parameter]
    rest: bool
    opaque: bool
    hidden: frozenset[str]
    bound: frozenset[str]


def describe(handler: Callable[..., Any]) -> str:
    """Return a handler's name as messages show it: `MyPlugin.handle_get`."""
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def taken_by(handler: Callable[..., Any]) -> Taken:
    """Return what a handler takes, with its annotations resolved from strings to types.

    For a decorator these are its own parameters, and those of the function that it wraps if it
    passes them on with `**kwargs`.

    Raises:
        HandlerError: the handler has no signature, or an annotation is no type.
    """
    try:
        taken = _taken(handler, 0)
    except (TypeError, ValueError) as error:
        raise HandlerError(f"{describe(handler)} has no signature: {error}") from None
    texts = {n: p.annotation for n, p in taken.named.items() if isinstance(p.annotation, str)}
    if texts:
        hints = _resolve(handler, texts)
        taken.named.update({n: taken.named[n].replace(annotation=h) for n, h in hints.items()})
    return taken


def returned_by(handler: Callable[..., Any]) -> Any:
    """Return the type that a handler says it returns, `Parameter.empty` if it says none.

    Raises:
        HandlerError: it names `Produces` in an annotation that is no type.
    """
    found = getattr(innermost(handler), "__annotations__", {}).get("return", Parameter.empty)
    if not isinstance(found, str):
        return found
    try:
        return _resolve(handler, {"return": found})["return"]
    except HandlerError:
        if "Produces" in found:
            raise
        return Parameter.empty  # it is nothing that a request needs


def is_lambda(handler: Callable[..., Any]) -> bool:
    """Tell whether a handler is a lambda: its defaults usually bind values of its loop or scope."""
    return getattr(innermost(handler), "__name__", None) == "<lambda>"


def responder_fault(responder: Callable[..., Any], fields: Iterable[str]) -> str | None:
    """Return why a Falcon responder cannot be called with a template's fields, None if it can."""
    if _takes_plainly(responder, fields):
        return None
    try:
        signature = inspect.signature(responder, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # a built-in: the call itself will tell
    try:
        signature.bind(None, None, **dict.fromkeys(fields))
    except TypeError as error:
        return f"{describe(responder)}{signature}: {error}"
    return None


def _takes_plainly(responder: Callable[..., Any], fields: Iterable[str]) -> bool:
    """Tell whether it is a plain method `(self, req, resp, …)` that takes the fields by name.

    Most are; `inspect` takes fifty times as long to say so. False says nothing.
    """
    if type(responder) is not types.MethodType:
        return False
    function = responder.__func__
    if type(function) is not types.FunctionType or "__signature__" in function.__dict__:
        return False
    code = function.__code__
    more = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    if more or code.co_kwonlyargcount or code.co_posonlyargcount or code.co_argcount < 3:
        return False
    names = code.co_varnames[3 : code.co_argcount]
    needed = names[: max(0, len(names) - len(function.__defaults__ or ()))]
    return set(needed) <= set(fields) <= set(names)


def resource_fault(
    resource: object,
    responders: Mapping[str, Callable[..., Any]],
    uri_template: str,
    *,
    tried: bool,
) -> str | None:
    """Return why a Falcon resource cannot answer a template, None if it can.

    Args:
        resource: the resource.
        responders: its responders, by method.
        uri_template: the template.
        tried: whether the signatures have been checked before.
    """
    asynchronous = [m for m, f in responders.items() if inspect.iscoroutinefunction(f)]
    if asynchronous:
        return f"answers {', '.join(asynchronous)} with coroutine functions, expected plain ones"
    if not responders:
        return (
            f"is a {type(resource).__qualname__} without responders, expected on_get, on_post or "
            "the like"
        )
    if tried:
        return None
    fields = template_fields(uri_template)
    unfit = [responder_fault(responder, fields) for responder in responders.values()]
    if not all(unfit):  # where one fits, the others may be there for another route
        return None
    return (
        f"takes something else in {unfit[0]}; expected ({', '.join(('req', 'resp', *fields))}) of "
        "an object, not of its class"
    )


def _taken(handler: Any, given: int) -> Taken:
    """Return what a callable takes besides the first `given` positional arguments."""
    if isinstance(handler, functools.partial):
        return _taken_by_partial(handler, given)
    if inspect.ismethod(handler):
        return _taken(handler.__func__, given + 1)
    if isinstance(handler, staticmethod):
        return _taken(handler.__func__, given)
    wrapped = getattr(handler, "__wrapped__", None)
    if not isinstance(handler, types.FunctionType):
        if wrapped is not None:  # as of functools.cache, which lets everything through
            return _taken(wrapped, given)
        if not inspect.isroutine(handler) and inspect.ismethod(handler.__call__):
            return _taken(handler.__call__, given)
    parameters = list(inspect.signature(handler, follow_wrapped=False).parameters.values())
    kinds = {parameter.kind for parameter in parameters}
    rest, opaque = Parameter.VAR_KEYWORD in kinds, Parameter.VAR_POSITIONAL in kinds
    leading = [parameter for parameter in parameters if parameter.kind in _POSITIONAL][:given]
    if len(leading) < given and not opaque:
        raise TypeError(f"it is given {given} arguments and takes {len(leading)}")
    hidden = frozenset(parameter.name for parameter in leading)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.name not in hidden
        and parameter.kind not in {Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL}
    }
    if wrapped is None or not (rest or opaque) or hasattr(handler, "__signature__"):
        return Taken(named, rest, opaque, hidden, frozenset())
    inner = _taken(wrapped, given)
    if not rest:  # no name gets through
        needed = any(p.default is Parameter.empty for p in inner.named.values())
        return Taken(named, rest, inner.opaque or needed, hidden, frozenset())
    # The decorator's own names first: they are not its function's, nor are those that are given.
    named |= {name: p for name, p in inner.named.items() if name not in named.keys() | hidden}
    return Taken(
        named, inner.rest, inner.opaque, hidden | (inner.hidden - named.keys()), inner.bound
    )


def _taken_by_partial(handler: "functools.partial[Any]", given: int) -> Taken:
    inner = _taken(handler.func, given + len(handler.args))
    unknown = handler.keywords.keys() - inner.named.keys()
    if unknown and (not inner.rest or unknown & inner.hidden):
        raise TypeError(f"it is given {', '.join(sorted(unknown))} and does not take it")
    named = {
        name: p.replace(default=handler.keywords[name], kind=Parameter.KEYWORD_ONLY)
        if name in handler.keywords
        else p
        for name, p in inner.named.items()
    }
    bound = inner.bound | handler.keywords.keys()
    return Taken(named, inner.rest, inner.opaque, inner.hidden, bound)


def innermost(handler: Any) -> Any:
    """Return the function behind all decorators of a handler."""
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not isinstance(function, (types.FunctionType, types.MethodType)):
        function = inspect.unwrap(type(function).__call__)
    return function


def _resolve(handler: Any, texts: dict[str, Any]) -> dict[str, Any]:
    """Return the types that annotations written as strings stand for."""
    # `functools.wraps` copies the annotations, so they are those of the innermost function.
    names = getattr(innermost(handler), "__globals__", {})
    stand_in = types.SimpleNamespace(__annotations__=texts)
    try:
        return typing.get_type_hints(stand_in, names, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        raise HandlerError(f"an annotation of {describe(handler)} is no type: {error}") from None
