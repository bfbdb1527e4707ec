"""A plugin's handler becomes a Falcon responder.

A handler's parameters are resolved once, when it is registered; a request only runs the plan.
"""

import dataclasses
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
from app.loading.body_parameter import MAX_BODY_BYTES, Provider, body_provider
from app.loading.return_values import answer_as, has_status, take_status
from app.loading.signatures import HandlerError, describe, is_lambda, refuse_kind, taken_by
from app.loading.strict_json import to_json
from app.uri_templates import template_fields

Responder = Callable[..., None]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A handler resolved against its template.

    `unfilled` are the parameters that look like query parameters and keep their default on this
    route; on another route of the handler they may be a field.
    """

    responder: Responder
    unfilled: tuple[str, ...]


def make_responder(
    handler: Callable[..., Any], uri_template: str, *, max_body_bytes: int = MAX_BODY_BYTES
) -> Responder:
    """Return the responder of a handler that has only this route.

    Raises:
        HandlerError: as `plan_handler`, or a parameter would always have its default.
    """
    plan = plan_handler(handler, uri_template, max_body_bytes=max_body_bytes)
    if plan.unfilled:
        raise HandlerError(unfilled_fault(handler, plan.unfilled))
    return plan.responder


def unfilled_fault(handler: Callable[..., Any], names: Iterable[str]) -> str:
    """Say that no route of a handler fills these parameters, and what to do about it."""
    return f"{describe(handler)}: " + "; ".join(
        f"parameter {name!r} would always have its default: query parameters are not filled yet; "
        f"take req and read req.get_param({name!r}), or call it '_{name}' if the plugin sets it "
        "itself"
        for name in names
    )


def plan_handler(
    handler: Callable[..., Any], uri_template: str, *, max_body_bytes: int = MAX_BODY_BYTES
) -> Plan:
    """Resolve a handler's parameters against its template.

    Args:
        handler: any callable. Its parameters are filled by name (the template's fields, `body`,
            `req`, `resp`) and by annotation (`falcon.Request`, `falcon.Response`).
        uri_template: a Falcon URI template.
        max_body_bytes: the size of the largest body that is read for a parameter `body`.

    Returns:
        A plan whose responder is called as `(req, resp, **fields)`. The handler's return value
        becomes the JSON answer; None becomes 204, unless the handler takes the response.

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
                provide.append((name, body_provider(annotation, parameter.default, max_body_bytes)))
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
