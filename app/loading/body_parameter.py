"""The `body` of a handler: read, parsed and checked against its annotation."""

import inspect
from collections.abc import Callable
from typing import Any

import falcon

from app.loading.annotations import AnnotationError, holds_itself
from app.loading.constraints import Check, constraint_check, is_constrained
from app.loading.pydantic_types import UnknownTypeError
from app.loading.request_faults import ValueFault
from app.loading.shapes import ANYTHING, Shape, allows_none, body_shape, is_raw
from app.loading.strict_json import parse_json
from app.loading.typed_body import BodyFaults, MakeBody, typed_body

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest body that is read for a handler's `body`; a larger one must be read as a stream."""

Provider = Callable[[falcon.Request, falcon.Response], Any]
"""Provides a parameter's value at a request."""


def body_provider(annotation: Any, default: Any, limit: int) -> Provider:
    """Return what provides the parameter `body` of a handler, parsed and checked.

    Args:
        annotation: the parameter's annotation.
        default: its default, `inspect.Parameter.empty` if it has none.
        limit: the size of the largest body that is read, in bytes.

    Raises:
        AnnotationError: no JSON value has the annotation's type.
    """
    required = default is inspect.Parameter.empty
    if is_raw(annotation):
        empty = None if required and allows_none(annotation) else default
        return _raw_provider(empty, limit, constraint_check(annotation))
    refused = ""
    if not (is_constrained(annotation) or holds_itself(annotation)):
        try:
            expected = body_shape(annotation)
        except AnnotationError as error:
            refused = f"{error}; "
        else:
            return _json_provider(expected, default, limit)
    try:
        make = typed_body(annotation)
    except UnknownTypeError as error:
        raise AnnotationError(f"{refused}{error}") from None
    return _typed_provider(make, allows_none(annotation), default, limit)


def _json_provider(expected: Shape, default: Any, limit: int) -> Provider:
    """Return what provides the body as JSON of a shape."""
    required = default is inspect.Parameter.empty

    def give_body(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, limit)
        if not raw.strip():
            if required and (expected is ANYTHING or not expected.null):
                raise _unfit("it is missing")
            return None if required else default
        body = _read(raw, parse_json)
        if not expected.fits(body):
            raise _unfit(expected.refusal(body))
        return body

    return give_body


def _typed_provider(make: MakeBody, null: bool, default: Any, limit: int) -> Provider:
    """Return what provides the body as a type of its plugin's."""
    required = default is inspect.Parameter.empty

    def give_typed(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, limit)
        if raw and not raw.isspace():
            return _read(raw, make)
        if not required:
            return default
        if null:
            return None
        raise _unfit("it is missing")

    return give_typed


def _read(raw: bytes, parse: MakeBody) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        raise falcon.HTTPBadRequest(
            title="Invalid JSON", description=f"The body is not JSON: {error}."
        ) from None


def _raw_provider(default: Any, limit: int, check: Check | None) -> Provider:
    """Return what provides the body unparsed; an empty body becomes the default, if any."""

    def give_raw(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, limit)
        return default if not raw and default is not inspect.Parameter.empty else raw

    if check is None:
        return give_raw

    def give_checked(req: falcon.Request, resp: falcon.Response) -> Any:
        raw = give_raw(req, resp)
        if raw is default:
            return raw
        try:
            return check(raw)
        except ValueError as error:
            raise _unfit(str(error)) from None

    return give_checked


def _unfit(reason: str) -> BodyFaults:
    return BodyFaults([ValueFault("body", reason, "body")])


def read_body(req: falcon.Request, limit: int) -> bytes:
    """Read a request's body of at most `limit` bytes, chunked ones included.

    Raises:
        falcon.HTTPContentTooLarge: it is larger.
        falcon.HTTPBadRequest: it is malformed, or shorter than its Content-Length.
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
