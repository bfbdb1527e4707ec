"""Reads a request's form, with the files in it: within bounds, and once for all parameters."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import falcon
from falcon import uri
from falcon.media.multipart import BodyPart, MultipartParseOptions

from app.loading.body_parameter import MAX_BODY_BYTES, read_body
from app.loading.media import MultipartHandler, essence
from app.uploads import File

MAX_PARTS = 1000
"""How many fields and files a form may have."""

SPOOLED_BYTES = 1024 * 1024
"""Up to which size a file is held in memory."""

FormData = dict[str, Any]
"""What came under each name: a text, a `File`, or a list of several of them."""


class SkippedFile:
    """Stands for a file that came under a name where no file is wanted."""


_BLOCK = 64 * 1024
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def _multipart() -> MultipartHandler:
    options = MultipartParseOptions()
    options.max_body_part_count = MAX_PARTS
    return MultipartHandler(options)


class _Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file that is closed, without a warning, when nobody refers to it any more."""

    def __init__(self) -> None:
        super().__init__(max_size=SPOOLED_BYTES)

    def __del__(self) -> None:
        """Close it."""
        self.close()


class FormReader:
    """Reads the form of a request, in either of its encodings."""

    def __init__(self, files: Mapping[str, int], limit: int = MAX_BODY_BYTES) -> None:
        """Make it.

        Args:
            files: the names under which files are wanted, and how many bytes may come under each.
            limit: how many bytes all the rest may have.
        """
        self._files = dict(files)
        self._limit = limit
        self._multipart = _multipart()

    def __call__(self, req: falcon.Request) -> FormData:
        """Return what a request's form holds; nothing where there is no body.

        Raises:
            falcon.HTTPUnsupportedMediaType: the body is no form.
            falcon.HTTPContentTooLarge: it is too large, or a file in it is.
            falcon.HTTPBadRequest: it is malformed.
            falcon.HTTPInsufficientStorage: there is no room for a file.
        """
        said = req.content_type
        kind = essence(said or "")
        if kind == falcon.MEDIA_URLENCODED:
            return _read_urlencoded(read_body(req, self._limit))
        if kind == falcon.MEDIA_MULTIPART:
            return self._read_multipart(req)
        if said is None and not read_body(req, self._limit):
            return {}
        raise falcon.HTTPUnsupportedMediaType(
            description=f"This call expects a form, as {falcon.MEDIA_URLENCODED} or "
            f"{falcon.MEDIA_MULTIPART}; its content type is {said or 'missing'}."
        )

    def _read_multipart(self, req: falcon.Request) -> FormData:
        form = self._multipart.deserialize(req.bounded_stream, req.content_type, req.content_length)
        found: FormData = {}
        left, room = self._limit, dict(self._files)
        for part in form:
            name = part.name
            if name is None:
                continue
            if part.filename is None:
                raw = part.stream.read(left + 1)
                if len(raw) > left:
                    raise _too_large(name, self._limit)
                left -= len(raw)
                _add(found, name, _decode(raw, name))
            elif name in room:
                file = _receive(part, name, room[name], self._files[name])
                room[name] -= file.size
                if file.name or file.size:  # else nothing was chosen in a browser's form
                    _add(found, name, file)
            else:
                left -= sum(map(len, _blocks(part, name, left, self._limit)))
                if part.filename:
                    _add(found, name, SkippedFile())
        return found


def _read_urlencoded(raw: bytes) -> FormData:
    if raw.count(b"&") >= MAX_PARTS:
        raise falcon.HTTPBadRequest(
            title="Broken body", description=f"The form has more than {MAX_PARTS:,} fields."
        )
    return dict(uri.parse_query_string(_decode(raw, ""), keep_blank=True))


def _receive(part: BodyPart, name: str, left: int, limit: int) -> File:
    spool = _Spool()
    for block in _blocks(part, name, left, limit):
        try:
            spool.write(block)
        except OSError as error:
            raise falcon.HTTPInsufficientStorage(
                description=f"There is no room for the file {name!r}: {error.strerror}."
            ) from None
    size = spool.tell()
    spool.seek(0)
    called = (part.filename or "").replace("\\", "/").rpartition("/")[2]
    called = _CONTROLS.sub("", called)
    return File("" if called in {".", ".."} else called, part.content_type, size, spool)


def _blocks(part: BodyPart, name: str, left: int, limit: int) -> Iterator[bytes]:
    """Give a part block by block, and no more than is left of what its name may have."""
    while block := part.stream.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise _too_large(name, limit)
        yield block


def _decode(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        what = f"field {name!r} of the form" if name else "form"
        raise falcon.HTTPBadRequest(
            title="Broken body", description=f"The {what} is not UTF-8."
        ) from None


def _add(found: FormData, name: str, value: Any) -> None:
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _too_large(name: str, limit: int) -> falcon.HTTPContentTooLarge:
    return falcon.HTTPContentTooLarge(
        title="Body too large", description=f"What came as {name!r} is larger than {limit:,} bytes."
    )
