"""What serves Falcon's `req.media` and `resp.media`, where Falcon's own would fail."""

import json
from typing import Any

import falcon
from falcon.media import BaseHandler, JSONHandler, MultipartFormHandler

from app.loading.strict_json import parse_media, to_utf8

NO_END = 1 << 62
"""The length of a body of which none is known."""


class _Multipart(MultipartFormHandler):
    """Falcon's handler, for chunked bodies too: it asserts that there is a length."""

    def deserialize(self, stream: Any, content_type: str | None, content_length: int | None) -> Any:
        if content_length is None:
            content_length = NO_END
        return super().deserialize(stream, content_type, content_length)


def media_handlers() -> dict[str, BaseHandler]:
    """Return the handlers, by media type."""
    dump = json.JSONEncoder(ensure_ascii=False).encode
    return {
        falcon.MEDIA_JSON: JSONHandler(
            dumps=lambda media: to_utf8(dump(media)),
            loads=lambda text: parse_media(text),
        ),
        falcon.MEDIA_MULTIPART: _Multipart(),
    }
