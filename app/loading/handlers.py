"""A plugin's handler becomes a Falcon responder.

A handler's parameters are resolved once, when it is registered; a request only runs the plan.
"""

import inspect
from collections.abc import Callable
from typing import Any

import falcon

from app.loading.annotations import (
    AnnotationError,
    Converter,
    field_converter,
    is_a,
    is_bare,
)
from app.loading.body_parameter import MAX_BODY_BYTES, Provider, body_provider
from app.loading.request_faults import UnfitRequest
from app.loading.request_values import RequestValue, fill_values, marker_of, request_value
from app.loading.return_values import answer_as, has_status, take_status
from app.loading.signatures import HandlerError, describe, is_lambda, refuse_kind, taken_by
from app.loading.strict_json import to_json
from app.loading.typed_body import BodyFaults
from app.uri_templates import template_fields

Responder = Callable[..., None]


def make_responder(
    handler: Callable[..., Any], uri_template: str, *, max_body_bytes: int = MAX_BODY_BYTES
) -> Responder:
    """Resolve a handler's parameters against its template.

    Args:
        handler: any callable. Its parameters are filled by name (the template's fields, `body`,
            `req`, `resp`), by annotation (`falcon.Request`, `falcon.Response`) and from the query.
        uri_template: a Falcon URI template.
        max_body_bytes: the size of the largest body that is read for a parameter `body`.

    Returns:
        What is called as `(req, resp, **fields)`. The handler's return value becomes the JSON
        answer; None becomes 204, unless the handler takes the response.

    Raises:
        HandlerError: the signature does not fit the template; all faults are named at once.
    """
    if not callable(handler):
        raise HandlerError(f"the handler is {handler!r}, expected a callable")
    refuse_kind(handler)
    taken = taken_by(handler)
    fields = template_fields(uri_template)
    convert: dict[str, Converter] = {}
    provide: list[tuple[str, Provider]] = []
    owns_response = False
    values: list[RequestValue] = []
    faults: list[str] = []
    if taken.opaque:
        faults.append(
            "it takes *args, which nothing fills; if that is a decorator, put "
            "@functools.wraps(function) above its inner function, and let it take **kwargs"
        )
    for name, parameter in taken.named.items():
        annotation = parameter.annotation
        if parameter.kind is parameter.POSITIONAL_ONLY:
            faults.append(f"parameter {name!r} is positional-only, expected one with a name")
        elif marker_of(annotation) is not None:
            if name in fields:
                faults.append(f"the field {name!r} is annotated with where else it comes from")
            values += _request_values(name, parameter, faults)
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
                provide.append((name, body_provider(annotation, parameter.default, max_body_bytes)))
            except AnnotationError as error:
                faults.append(f"body is annotated {error}")
        elif _is_own(handler, name, parameter.default, taken.bound):
            continue  # the plugin gives it itself
        else:
            values += _request_values(name, parameter, faults)
    for name in fields.keys() & taken.hidden:
        faults.append(f"the field {{{name}}} is given to it already, expected another name")
    if not taken.rest:
        missing = fields.keys() - taken.named.keys() - taken.hidden
        faults += [f"no parameter takes the field {{{name}}}" for name in missing]
    if faults:
        raise HandlerError(f"{describe(handler)}: " + "; ".join(faults))
    return _responder(handler, convert, tuple(values), tuple(provide), owns_response)


def _request_values(
    name: str, parameter: inspect.Parameter, faults: list[str]
) -> list[RequestValue]:
    """Return how the request fills a parameter, if it does; add why it cannot to `faults`."""
    try:
        found = request_value(name, parameter.annotation, parameter.default)
    except AnnotationError as error:
        faults.append(f"parameter {name!r} is annotated {error}")
        return []
    if found is not None:
        return [found]
    if parameter.default is parameter.empty:
        faults.append(
            f"parameter {name!r} is not filled by anything, expected a field of the template, "
            "'body', a falcon.Request, a falcon.Response, a default value, or the annotation of a "
            "query parameter, as int"
        )
    return []


def _is_own(handler: Callable[..., Any], name: str, default: Any, bound: frozenset[str]) -> bool:
    """Tell whether a parameter's default is what the plugin wants it to be."""
    if default is inspect.Parameter.empty:
        return False
    return name.startswith("_") or name in bound or is_lambda(handler)


def _responder(
    handler: Callable[..., Any],
    convert: dict[str, Converter],
    values: tuple[RequestValue, ...],
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
        faults = fill_values(req, values, fields) if values else None
        try:
            for name, provider in provide:
                fields[name] = provider(req, resp)
        except BodyFaults as error:
            raise UnfitRequest([*(faults or ()), *error.faults]) from None
        if faults:
            raise UnfitRequest(faults)
        answer = handler(**fields)
        if type(answer) is tuple and has_status(answer):
            answer = take_status(resp, *answer)
            if answer is None:
                return
        if answer is not None:
            if owns_response and resp.content_type is not None:
                answer_as(resp, resp.content_type, answer)
            else:
                resp.content_type = falcon.MEDIA_JSON
                resp.data = to_json(answer)
        elif not owns_response:
            resp.status = falcon.HTTP_204

    return respond


_REQUEST_NAMES = frozenset({"req", "request"})
_RESPONSE_NAMES = frozenset({"resp", "response"})


def _give_request(req: falcon.Request, _resp: falcon.Response) -> falcon.Request:
    return req


def _give_response(_req: falcon.Request, resp: falcon.Response) -> falcon.Response:
    return resp
