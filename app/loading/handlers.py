"""A plugin's handler becomes a Falcon responder.

A handler's parameters are resolved once, when it is registered; a request only runs the plan.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import falcon

from app.loading.annotations import (
    AnnotationError,
    Converter,
    field_converter,
    is_a,
    is_bare,
    looks_like_query,
)
from app.loading.shapes import ANYTHING, allows_none, body_shape, is_raw
from app.loading.signatures import HandlerError, describe, is_lambda, refuse_kind, taken_by
from app.loading.strict_json import parse_json, to_utf8
from app.loading.templates import template_fields

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest JSON body that is read for a handler's `body`; larger ones come in as a stream."""

Responder = Callable[..., None]
Provider = Callable[[falcon.Request, falcon.Response], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A handler resolved against its template.

    `unfilled` are the parameters that look as if the query string should fill them, and that keep
    their default on this route; on another route of the handler they may be a field.
    """

    responder: Responder
    unfilled: tuple[str, ...]


def make_responder(handler: Callable[..., Any], uri_template: str) -> Responder:
    """Return the responder of a handler that has this one route.

    Raises:
        HandlerError: as `plan_handler`, or a parameter would always have its default.
    """
    plan = plan_handler(handler, uri_template)
    if plan.unfilled:
        raise HandlerError(unfilled_fault(handler, plan.unfilled))
    return plan.responder


def unfilled_fault(handler: Callable[..., Any], names: Iterable[str]) -> str:
    """Say that parameters of a handler are filled on none of its routes, and what to do."""
    return f"{describe(handler)}: " + "; ".join(
        f"parameter {name!r} would always have its default: query parameters are not filled yet; "
        f"take req and read req.get_param({name!r}), or call it '_{name}' if the plugin sets it "
        "itself"
        for name in names
    )


def plan_handler(handler: Callable[..., Any], uri_template: str) -> Plan:
    """Resolve a handler's parameters against its template.

    Args:
        handler: any callable. Its parameters are filled by name (the template's fields, `body`,
            `req`, `resp`) and by annotation (`falcon.Request`, `falcon.Response`).
        uri_template: a Falcon URI template.

    Returns:
        With a responder `(req, resp, **fields)`; the handler's return value becomes the JSON
        answer, None becomes 204 unless the handler took the response in its own hands.

    Raises:
        HandlerError: the signature does not fit; all its faults are named at once.
    """
    if not callable(handler):
        raise HandlerError(f"the handler is {handler!r}, expected a callable")
    refuse_kind(handler)
    taken = taken_by(handler)
    fields = template_fields(uri_template)
    convert: dict[str, Converter] = {}
    provide: list[tuple[str, Provider]] = []
    owns_response = False
    faults: list[str] = []
    unfilled: list[str] = []
    if taken.opaque:
        faults.append(
            "it takes *args, which nothing fills; if that is a decorator, put "
            "@functools.wraps(function) above its inner function, and let it take **kwargs"
        )
    for name, parameter in taken.named.items():
        annotation = parameter.annotation
        if parameter.kind is parameter.POSITIONAL_ONLY:
            faults.append(f"parameter {name!r} is positional-only, expected one with a name")
        elif name in fields:
            try:
                converter = None if fields[name] else field_converter(annotation)
            except AnnotationError as error:
                faults.append(f"the field {name!r} is annotated {error}")
                continue
            if converter is not None:
                convert[name] = converter
        elif is_a(annotation, falcon.Request) or (is_bare(annotation) and name in _REQUEST_NAMES):
            provide.append((name, _give_request))
        elif is_a(annotation, falcon.Response) or (is_bare(annotation) and name in _RESPONSE_NAMES):
            provide.append((name, _give_response))
            owns_response = True
        elif name == "body":
            try:
                provide.append((name, _body_provider(annotation, parameter.default)))
            except AnnotationError as error:
                faults.append(f"body is annotated {error}")
        elif parameter.default is parameter.empty:
            faults.append(
                f"parameter {name!r} is not filled by anything, expected a field of the template, "
                "'body', a falcon.Request, a falcon.Response or a default value"
            )
        elif not (
            name.startswith("_")
            or name in taken.bound
            or is_lambda(handler)
            or not looks_like_query(annotation, parameter.default)
        ):
            unfilled.append(name)
    for name in fields.keys() & taken.hidden:
        faults.append(f"the field {{{name}}} is given to it already, expected another name")
    if not taken.rest:
        missing = fields.keys() - taken.named.keys() - taken.hidden
        faults += [f"no parameter takes the field {{{name}}}" for name in missing]
    if faults:
        raise HandlerError(f"{describe(handler)}: " + "; ".join(faults))
    responder = _responder(handler, convert, tuple(provide), owns_response)
    return Plan(responder, tuple(unfilled))


def _responder(
    handler: Callable[..., Any],
    convert: dict[str, Converter],
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
        if type(answer) is tuple and _has_status(answer):
            answer = _take_status(resp, *answer)
            if answer is None:
                return
        if answer is not None:
            if owns_response and resp.content_type is not None:
                _answer_as(resp, resp.content_type, answer)
            else:
                resp.content_type = falcon.MEDIA_JSON
                resp.data = to_json(answer)
        elif not owns_response:
            resp.status = falcon.HTTP_204

    return respond


STATUS_LINES = frozenset(
    line for name, line in vars(falcon.status_codes).items() if name.startswith("HTTP_")
)


def _has_status(answer: tuple[Any, ...]) -> bool:
    """Tell whether a plain tuple is an answer with its status, and maybe headers.

    By its types and not by its values, so that it does not depend on the data: `items, 7` is no
    array either, while two numbers are.
    """
    if len(answer) not in (2, 3) or isinstance(answer[0], (int, float)):
        return False
    if len(answer) == 3 and not isinstance(answer[2], collections.abc.Mapping):
        return False
    status = answer[1]
    if isinstance(status, str):
        return status in STATUS_LINES
    return isinstance(status, int) and not isinstance(status, bool)


def _take_status(
    resp: falcon.Response,
    answer: Any,
    status: int | str,
    headers: collections.abc.Mapping[str, str] | None = None,
) -> Any:
    if isinstance(status, int) and not 200 <= status <= 599:
        raise ValueError(
            f"a handler answered with a tuple of something and {int(status)}: expected (answer, "
            "status) with a status from 200 to 599, or a list, which is sent as an array"
        )
    resp.status = status
    if headers:
        resp.set_headers(dict(headers))
    return answer


def _answer_as(resp: falcon.Response, content_type: str, answer: Any) -> None:
    """Answer with a content type that the handler has set itself."""
    kind = content_type.partition(";")[0].strip().lower()
    if isinstance(answer, bytes):
        resp.data = answer
    elif kind.endswith(("/json", "+json")):
        resp.data = to_json(answer)
    elif isinstance(answer, str):
        resp.text = answer
    else:
        raise TypeError(
            f"a handler set the content type {content_type!r} and answered with a "
            f"{type(answer).__qualname__}, expected text or bytes"
        )


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
    return to_utf8(text)


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


_REQUEST_NAMES = frozenset({"req", "request"})
_RESPONSE_NAMES = frozenset({"resp", "response"})


def _give_request(req: falcon.Request, _resp: falcon.Response) -> falcon.Request:
    return req


def _give_response(_req: falcon.Request, resp: falcon.Response) -> falcon.Response:
    return resp


def _body_provider(annotation: Any, default: Any) -> Provider:
    required = default is inspect.Parameter.empty
    if is_raw(annotation):
        return _raw_provider(None if required and allows_none(annotation) else default)
    expected = body_shape(annotation)

    def give_body(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, MAX_BODY_BYTES)
        if not raw.strip():
            if required and (expected is ANYTHING or not expected.null):
                raise falcon.HTTPBadRequest(
                    title="Missing body", description="This call expects a JSON body; it is empty."
                )
            return None if required else default
        try:
            body = parse_json(raw)
        except ValueError as error:
            raise falcon.HTTPBadRequest(
                title="Invalid JSON", description=f"The body is not JSON: {error}."
            ) from None
        if not expected.fits(body):
            raise falcon.HTTPBadRequest(title="Unexpected body", description=expected.refusal(body))
        return body

    return give_body


def _raw_provider(default: Any) -> Provider:
    """Return what gives the body as it came; an empty one is the default, where there is one."""

    def give_raw(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, MAX_BODY_BYTES)
        return default if not raw and default is not inspect.Parameter.empty else raw

    return give_raw


def read_body(req: falcon.Request, limit: int) -> bytes:
    """Read a request's body of at most `limit` bytes, chunked ones included.

    Raises:
        falcon.HTTPContentTooLarge: there is more.
        falcon.HTTPBadRequest: it is malformed, or shorter than announced.
    """
    length = req.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    raw = req.bounded_stream.read(limit + 1)
    if len(raw) > limit:
        raise _too_large(limit)
    return raw


def _too_large(limit: int) -> falcon.HTTPContentTooLarge:
    return falcon.HTTPContentTooLarge(
        title="Body too large", description=f"The body is larger than {limit:,} bytes."
    )
