"""What an operation answers, as OpenAPI's `responses`."""

import collections.abc
import typing
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import falcon

from app.admin.openapi.schemas import Schema, Schemas, Use, without_markers
from app.admin.problems import MEDIA_PROBLEM
from app.loading.annotations import is_bare, members
from app.loading.constraints import is_constrained
from app.loading.event_streams import MEDIA_EVENTS
from app.loading.handler_signature import HandlerSignature
from app.loading.route_options import RouteOptions
from app.loading.stream_annotations import is_stream
from app.loading.streamed_answers import MEDIA_BYTES
from app.responses import Answer

PROBLEM_NAME = "Benana.Problem"
"""The component that every error refers to; no plugin's component has a name like it."""

Errors = Literal["problems", "open", "own"]
"""Problems and nothing else; or a plugin's middleware may answer, too; or they are its own."""

_JSON = falcon.MEDIA_JSON
_REFERENCE = {"$ref": f"#/components/schemas/{PROBLEM_NAME}"}
_OF_PROBLEM = {MEDIA_PROBLEM: {"schema": _REFERENCE}}
_NULL = type(None)
_OF_ANY_KIND = (None, _NULL, bytes, str, Answer)
ANY_PROBLEM = {"$ref": f"#/components/responses/{PROBLEM_NAME}"}
"""The response of any error that is a problem."""

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "title": "Problem",
    "description": "A problem as RFC 9457 has it; it may have more members.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "All that is wrong with the request.",
            "items": {
                "type": "object",
                "required": ["name", "reason", "where"],
                "properties": {
                    "name": {"type": "string"},
                    "reason": {"type": "string"},
                    "where": {"type": "string"},
                },
            },
        },
        "error_id": {"type": "string", "description": "Under which the log says more."},
    },
}

_OF_BODY = {
    "400": "The body is malformed.",
    "413": "The body is too large.",
}
_UNFIT = "The request does not fit; `errors` names all that is wrong with it."
_RAISES = "What else it answers."


def problem(description: str) -> dict[str, Any]:
    """Return a response that is a problem."""
    return {"description": description, "content": {MEDIA_PROBLEM: {"schema": _REFERENCE}}}


def json_response(description: str, schema: Schema) -> dict[str, Any]:
    """Return a response that is JSON."""
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def responses_of(
    signature: HandlerSignature,
    options: RouteOptions,
    schemas: Schemas,
    *,
    returns: str,
    errors: Errors,
) -> dict[str, Any]:
    """Return what a handler answers.

    Args:
        signature: what it takes and returns.
        options: the options of its route.
        schemas: writes the plugin's schemas.
        returns: what its docstring says of what it returns.
        errors: how its errors look.
    """
    found = _answers(signature, options, schemas, returns)
    if signature.content_types:
        found = {s: _as_types(each, signature.content_types) for s, each in found.items()}
    if errors != "own":
        found = {**_refusals(signature), **found}
    if "default" not in found:
        found["default"] = ANY_PROBLEM if errors == "problems" else {"description": _RAISES}
    return dict(sorted({**found, **declared(options, schemas)}.items()))


def declared(options: RouteOptions, schemas: Schemas) -> dict[str, Any]:
    """Return the responses that the options of a route say."""
    found: dict[str, Any] = {}
    for status, said in options.responses.items():
        text = said if isinstance(said, str) else phrase_of(status)
        if isinstance(said, Mapping):
            found[status] = {"description": text, **said}
        elif isinstance(said, str):
            is_error = status == "default" or int(status) >= 400
            found[status] = problem(text) if is_error else {"description": text}
        else:
            text, kind = said if isinstance(said, tuple) else (text, said)
            nothing = kind is None or kind is _NULL
            content = {} if nothing else {"content": _content_of(kind, schemas.of)}
            found[status] = {"description": text, **content}
    return found


def phrase_of(status: str) -> str:
    """Return what a status means, in HTTP's words."""
    known = {str(each.value): each.phrase for each in HTTPStatus}
    return known.get(status, "An answer.")


def _refusals(signature: HandlerSignature) -> dict[str, Any]:
    """Return how a request is refused before the handler is called."""
    kinds = {parameter.kind for parameter in signature.parameters}
    found = {}
    if "path" in kinds:
        found["404"] = problem("There is nothing at this path.")
    if kinds & {"body", "form"}:
        found |= {status: problem(text) for status, text in _OF_BODY.items()}
    if "form" in kinds:
        found["415"] = problem("The body is no form.")
    if signature.content_types and signature.content_types != (MEDIA_EVENTS,):
        found["406"] = problem("The request accepts none of the media types.")
    if kinds & {"query", "header", "cookie", "body", "form"} or any(
        is_constrained(parameter.annotation) for parameter in signature.parameters
    ):
        found["422"] = problem(_UNFIT)
    return found


def _answers(
    signature: HandlerSignature, options: RouteOptions, schemas: Schemas, returns: str
) -> dict[str, Any]:
    plain = str(options.status or 200)
    said = returns or phrase_of(plain)
    types = signature.content_types
    of = schemas.of if not types or any(map(_is_data, types)) else _of_nothing
    if any(parameter.kind == "response" for parameter in signature.parameters):
        schema = of(_value_of(signature.returns), "answer")
        return {plain: _of_any_type(said, schema), "default": _anything()}
    kind = without_markers(signature.returns)
    if is_bare(kind):
        nothing = {} if options.status else {"204": {"description": "No answer."}}
        return {plain: _of_any_type(said, {}), **nothing, "default": _anything()}
    found: dict[str, Any] = {}
    rest = []
    parts = members(kind)
    for each in parts if len(parts) > 1 else [kind]:
        if each in (typing.NoReturn, typing.Never):
            continue
        if each is None or each is _NULL:
            found[str(options.status or 204)] = {"description": returns or "No answer."}
        elif is_stream(each) or each is bytes:
            found[plain] = {"description": said, "content": _content_of(each, of)}
        elif (typing.get_origin(each) or each) is collections.abc.Iterable:  # streamed or not
            found[plain] = _of_any_type(said, {})
        elif (typing.get_origin(each) or each) is Answer:
            content = _own_content_of((*typing.get_args(each), Any)[0], of)
            found |= {plain: {"description": said, "content": content}, "default": _anything()}
        elif (answer := _with_status(each)) is not None:
            value, statuses = answer
            has_headers = len(typing.get_args(each)) == 3
            content = (_own_content_of if has_headers else _content_of)(value, of)
            made = {
                s: {"description": returns or phrase_of(s), "content": content} for s in statuses
            }
            of_any = {"description": _RAISES, "content": {**content, **_OF_PROBLEM}}
            found |= made or {"default": of_any}
        else:
            rest.append(each)
    if rest:
        schema = of(typing.Union[tuple(rest)], "answer")  # noqa: UP007 - made of a list
        found[plain] = json_response(said, schema)
    return found


def _value_of(kind: Any) -> Any:
    """Return the type of what a handler that takes the response may answer as JSON."""
    base = typing.get_origin(kind) or kind
    if _with_status(kind) is not None or is_stream(kind) or base in _OF_ANY_KIND:
        return Any
    return kind


def _with_status(kind: Any) -> tuple[Any, list[str]] | None:
    """Return the type of the answer in a tuple with its status, and the statuses if it names them.

    None for a tuple that is an answer itself; see `return_values.has_status`.
    """
    items = typing.get_args(kind)
    if typing.get_origin(kind) is not tuple or len(items) not in (2, 3) or items[-1] is ...:
        return None
    value, status = items[:2]
    if _is_http_status(value):  # which no data is
        value, status = status, value
    if value in (int, float, bool) or (len(items) == 3 and not _is_mapping(items[2])):
        return None
    if typing.get_origin(status) is typing.Literal:
        named = typing.get_args(status)
        if all(isinstance(each, int) for each in named):
            return value, [str(int(each)) for each in named]
    if isinstance(status, type) and issubclass(status, (int, str)) and status is not bool:
        return value, []
    return None


def _is_http_status(kind: Any) -> bool:
    named = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    return kind is HTTPStatus or any(isinstance(each, HTTPStatus) for each in named)


def _is_mapping(kind: Any) -> bool:
    base = typing.get_origin(kind) or kind
    return isinstance(base, type) and issubclass(base, collections.abc.Mapping)


def _as_types(response: dict[str, Any], media_types: Sequence[str]) -> dict[str, Any]:
    """Return a response with the media types that the handler says."""
    content = response.get("content")
    if content is None:
        return response
    schema = content.get(_JSON, {}).get("schema", {})
    kept = {name: each for name, each in content.items() if name == MEDIA_PROBLEM}
    said = {name: {"schema": schema} if _is_data(name) else {} for name in media_types}
    return {**response, "content": said | kept}


def _is_data(media_type: str) -> bool:
    """Tell whether JSON Schema says what is written in a media type."""
    return media_type.partition(";")[0].strip().endswith(("json", "yaml"))


def _of_any_type(description: str, schema: Schema) -> dict[str, Any]:
    """Return a response that is JSON as a rule, and may have another content type."""
    return {"description": description, "content": {_JSON: {"schema": schema}, "*/*": {}}}


def _anything() -> dict[str, Any]:
    return {"description": _RAISES}


def _content_of(kind: Any, of: Callable[[Any, Use], Schema]) -> dict[str, Any]:
    """Return the media types of an answer of a type that has its status with it, or is no JSON."""
    if is_stream(kind):
        return {"*/*": {}}
    return {MEDIA_BYTES: {}} if kind is bytes else {_JSON: {"schema": of(kind, "answer")}}


def _own_content_of(kind: Any, of: Callable[[Any, Use], Schema]) -> dict[str, Any]:
    """Return the media types of an answer whose headers may name another, which text is of then."""
    content = _content_of(kind, of) | {"*/*": {}}
    is_text = any(isinstance(each, type) and issubclass(each, str) for each in members(kind))
    return content | ({_JSON: {"schema": {}}} if is_text and _JSON in content else {})


def _of_nothing(_kind: Any, _use: Use) -> Schema:
    """Stand for the schema of what is written in media types that no schema describes."""
    return {}
