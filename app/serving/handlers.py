"""A plugin's handler becomes a Falcon responder.

A handler's parameters are resolved once, when it is registered; a request only runs the plan.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import json
import math
import re
import types
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import falcon

from app.serving.templates import template_fields

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest JSON body that is read for a handler's `body`; larger ones come in as a stream."""

Responder = Callable[..., None]
Provider = Callable[[falcon.Request, falcon.Response], Any]

_JSON_TYPES: tuple[type, ...] = (dict, list, str, int, float, bool)


class HandlerError(Exception):
    """A handler's signature does not fit its template; the message says where and how."""


def describe(handler: Callable[..., Any]) -> str:
    """Return a handler's name as it is shown: `MyPlugin.handle_get`."""
    function = inspect.unwrap(handler)
    return getattr(function, "__qualname__", None) or type(handler).__qualname__


def make_responder(handler: Callable[..., Any], uri_template: str) -> Responder:
    """Resolve a handler's parameters against its template.

    Args:
        handler: any callable. Its parameters are filled by name (the template's fields, `body`,
            `req`, `resp`) and by annotation (`falcon.Request`, `falcon.Response`).
        uri_template: a Falcon URI template.

    Returns:
        A responder `(req, resp, **fields)`; the handler's return value becomes the JSON answer,
        None becomes 204 unless the handler took the response in its own hands.

    Raises:
        HandlerError: the signature does not fit; all its faults are named at once.
    """
    if not callable(handler):
        raise HandlerError(f"the handler is {handler!r}, expected a callable")
    called = handler if inspect.isroutine(handler) else type(handler).__call__
    for function in (handler, called):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise HandlerError(f"{describe(handler)} is a coroutine function, expected a plain one")
    parameters = _parameters(handler)
    fields = template_fields(uri_template)
    convert: dict[str, Callable[[str], Any]] = {}
    provide: list[tuple[str, Provider]] = []
    owns_response = False
    takes_rest = False
    faults: list[str] = []
    for parameter in parameters:
        name, annotation = parameter.name, parameter.annotation
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_rest = True
        elif parameter.kind is parameter.VAR_POSITIONAL:
            continue
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            faults.append(f"parameter {name!r} is positional-only, expected one with a name")
        elif name in fields:
            converter = None if fields[name] else _field_converter(annotation)
            if converter is not None:
                convert[name] = converter
        elif _is_a(annotation, falcon.Request) or (_bare(annotation) and name in _REQUEST_NAMES):
            provide.append((name, _give_request))
        elif _is_a(annotation, falcon.Response) or (_bare(annotation) and name in _RESPONSE_NAMES):
            provide.append((name, _give_response))
            owns_response = True
        elif name == "body":
            provide.append((name, _body_provider(annotation, parameter.default)))
        elif parameter.default is parameter.empty:
            faults.append(
                f"parameter {name!r} is not filled by anything, expected a field of the template, "
                "'body', a falcon.Request, a falcon.Response or a default value"
            )
    taken = {parameter.name for parameter in parameters}
    if not takes_rest:
        faults += [f"no parameter takes the field {{{name}}}" for name in fields.keys() - taken]
    if faults:
        raise HandlerError(f"{describe(handler)}: " + "; ".join(faults))
    return _responder(handler, convert, tuple(provide), owns_response)


def _responder(
    handler: Callable[..., Any],
    convert: dict[str, Callable[[str], Any]],
    provide: tuple[tuple[str, Provider], ...],
    owns_response: bool,
) -> Responder:
    def respond(req: falcon.Request, resp: falcon.Response, /, **fields: Any) -> None:
        for name, converter in convert.items():
            try:
                fields[name] = converter(fields[name])
            except ValueError:
                # As with Falcon's converters: the path is not one of this route's.
                raise falcon.HTTPRouteNotFound from None
        for name, provider in provide:
            fields[name] = provider(req, resp)
        answer = handler(**fields)
        if answer is not None:
            resp.content_type = falcon.MEDIA_JSON
            resp.data = to_json(answer)
        elif not owns_response:
            resp.status = falcon.HTTP_204

    return respond


def to_json(answer: Any) -> bytes:
    """Return a handler's answer as JSON.

    Takes dict, list, tuple, str, numbers, bool, None, dataclasses, and inside them dates, UUIDs,
    decimals (as strings), enumerations (by value) and sets.

    Raises:
        TypeError: the answer holds something else.
        ValueError: the answer holds NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(
        answer, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape and UTF-8 cannot hold
        return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _encode(item: object) -> Any:
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        # Field by field and not `asdict`, which copies deeply and breaks on locks and the like.
        return {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    if isinstance(item, (datetime.datetime, datetime.date, datetime.time)):
        return item.isoformat()
    if isinstance(item, (uuid.UUID, decimal.Decimal)):
        return str(item)
    if isinstance(item, enum.Enum):
        return item.value
    if isinstance(item, (set, frozenset)):
        return list(item)
    raise TypeError(f"a handler answered with a {type(item).__qualname__}, which is not JSON")


def _parameters(handler: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return a handler's parameters with their annotations resolved from strings to types."""
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise HandlerError(f"{describe(handler)} has no signature: {error}") from None
    if not any(isinstance(parameter.annotation, str) for parameter in parameters):
        return parameters
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not isinstance(function, (types.FunctionType, types.MethodType)):
        function = type(function).__call__
    # What a handler is said to return may be known to a type checker alone.
    wanted = {k: v for k, v in function.__annotations__.items() if k != "return"}
    stand_in = types.SimpleNamespace(__annotations__=wanted)
    try:
        hints = typing.get_type_hints(stand_in, getattr(function, "__globals__", {}))
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise HandlerError(f"an annotation of {describe(handler)} is no type: {error}") from None
    return [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in parameters
    ]


def _bare(annotation: Any) -> bool:
    return annotation is inspect.Parameter.empty or annotation is Any


def _is_a(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


_REQUEST_NAMES = frozenset({"req", "request"})
_RESPONSE_NAMES = frozenset({"resp", "response"})


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


_FIELD_CONVERTERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: _finite,
    uuid.UUID: uuid.UUID,
}


def _field_converter(annotation: Any) -> Callable[[str], Any] | None:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _field_converter(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return _field_converter(kinds[0]) if len(kinds) == 1 else None
    return _FIELD_CONVERTERS.get(annotation) if isinstance(annotation, type) else None


def _give_request(req: falcon.Request, _resp: falcon.Response) -> falcon.Request:
    return req


def _give_response(_req: falcon.Request, resp: falcon.Response) -> falcon.Response:
    return resp


def _body_provider(annotation: Any, default: Any) -> Provider:
    expected = _json_types(annotation)
    required = default is inspect.Parameter.empty

    def give_body(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, MAX_BODY_BYTES)
        if not raw.strip():
            if required and type(None) not in expected:
                raise falcon.HTTPBadRequest(
                    title="Missing body", description="This call expects a JSON body; it is empty."
                )
            return None if required else default
        try:
            body = json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise falcon.HTTPBadRequest(
                title="Invalid JSON", description=f"The body is not JSON: {error}."
            ) from None
        if expected and not _fits(body, expected):
            names = " or ".join(_JSON_NAMES[kind] for kind in expected)
            raise falcon.HTTPBadRequest(
                title="Unexpected body",
                description=f"The body is {_JSON_NAMES[type(body)]}; expected {names}.",
            )
        return body

    return give_body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _json_types(annotation: Any) -> tuple[type, ...]:
    """Return the JSON types that an annotation of `body` allows; empty allows all."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _json_types(typing.get_args(annotation)[0])
    if typing.is_typeddict(annotation):
        return (dict,)
    if origin in (typing.Union, types.UnionType):
        parts = [_json_types(argument) for argument in typing.get_args(annotation)]
        return tuple(kind for part in parts for kind in part) if all(parts) else ()
    kind = origin or annotation
    if kind in (*_JSON_TYPES, type(None)):
        return (kind,)
    if kind in (collections.abc.Mapping, collections.abc.MutableMapping):
        return (dict,)
    return ()


def _fits(body: Any, expected: Iterable[type]) -> bool:
    kind = type(body)
    return kind in expected or (kind is int and float in expected)


def read_body(req: falcon.Request, limit: int) -> bytes:
    """Read a request's body of at most `limit` bytes, chunked ones included.

    Raises:
        falcon.HTTPContentTooLarge: there is more.
    """
    length = req.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if length is None and req.env.get("wsgi.input_terminated"):
        # A chunked body: the server ends the stream itself, which Falcon's bounded one ignores.
        raw: bytes = req.env["wsgi.input"].read(limit + 1)
    else:
        raw = req.bounded_stream.read(limit + 1)
    if len(raw) > limit:
        raise _too_large(limit)
    return raw


def _too_large(limit: int) -> falcon.HTTPContentTooLarge:
    return falcon.HTTPContentTooLarge(
        title="Body too large", description=f"The body is larger than {limit:,} bytes."
    )
