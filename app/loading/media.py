"""What serves Falcon's `req.media` and `resp.media`, where Falcon's own would fail."""

import json
from collections.abc import Iterator
from typing import Any

import falcon
from falcon.media import BaseHandler, JSONHandler, MultipartFormHandler
from falcon.media.multipart import BodyPart, MultipartForm, MultipartParseError

from app.loading.strict_json import parse_media, to_utf8

NO_END = 1 << 62
"""The length of a body of which none is known."""


def essence(content_type: str) -> str:
    """Return a media type as it is compared (RFC 9110, 8.3.1): in lower case, no parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Tell whether a media type is JSON, or a kind of JSON, as `application/problem+json`."""
    return essence(content_type).endswith(("/json", "+json"))


class _Form(MultipartForm):
    """Falcon's form, whose parts can tell their name, file name and type."""

    def __iter__(self) -> Iterator[BodyPart]:
        """Yield the parts; raise `MultipartParseError`, a 400, for one that cannot be read."""
        for number, part in enumerate(super().__iter__(), 1):
            try:
                _ = part.name, part.content_type  # which decode its headers
            except UnicodeDecodeError as error:
                raise MultipartParseError(
                    description=f"The headers of part {number} of the form are not "
                    f"{error.encoding.upper()}."
                ) from None
            yield part


class MultipartHandler(MultipartFormHandler):
    """Falcon's handler, for chunked bodies too: it asserts that there is a length."""

    def deserialize(self, stream: Any, content_type: str | None, content_length: int | None) -> Any:
        """Return the form, as Falcon's does."""
        if content_length is None:
            content_length = NO_END
        return self._deserialize_form(stream, content_type, content_length, _Form)


def install_media_handlers(app: "falcon.App[Any, Any]") -> None:
    """Have an application's requests and responses use the handlers."""
    for options in (app.req_options, app.resp_options):
        options.media_handlers.update(_media_handlers())


def _media_handlers() -> dict[str, BaseHandler]:
    """Return the handlers, by media type."""
    dump = json.JSONEncoder(ensure_ascii=False).encode
    return {
        falcon.MEDIA_JSON: JSONHandler(
            dumps=lambda media: to_utf8(dump(media)),
            loads=lambda text: parse_media(text),
        ),
        falcon.MEDIA_MULTIPART: MultipartHandler(),
    }
