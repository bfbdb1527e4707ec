"""The `body` of a handler: read, parsed and checked against its annotation."""

import inspect
from collections.abc import Callable
from typing import Any

import falcon

from app.loading.shapes import ANYTHING, allows_none, body_shape, is_raw
from app.loading.strict_json import parse_json

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
        return _raw_provider(None if required and allows_none(annotation) else default, limit)
    expected = body_shape(annotation)

    def give_body(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, limit)
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


def _raw_provider(default: Any, limit: int) -> Provider:
    """Return what provides the body unparsed; an empty body becomes the default, if any."""

    def give_raw(req: falcon.Request, _resp: falcon.Response) -> Any:
        raw = read_body(req, limit)
        return default if not raw and default is not inspect.Parameter.empty else raw

    return give_raw


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
