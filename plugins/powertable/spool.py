"""Bodies as files on disk: a CSV that comes in, and one that goes out.

Both directions pass through an unnamed temporary file. A client that sends or receives slowly
then holds neither a connection nor a lock, an export that fails does so before its status is
sent, and an error in line 3 is answered after the body was read, so that the client sees it.
Memory is one chunk, whatever the size.
"""

import csv
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import falcon

from .values import show

_CHUNK = 256 * 1024
_MAX_HEADER = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
# COPY would take such a line, outside of quotes, as the end of the data, and drop what follows.
_END_MARKER = re.compile(rb"[\r\n]\\\.(?=[\r\n])")


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV on disk: the names of its header, and where that begins, in bytes."""

    file: BinaryIO
    header: list[str]
    start: int

    def rewind(self) -> BinaryIO:
        """Return the file at its header, which comes after a byte order mark if there is one."""
        self.file.seek(self.start)
        return self.file


def bad_csv(sentence: str) -> falcon.HTTPUnprocessableEntity:
    return falcon.HTTPUnprocessableEntity(title="Bad CSV", description=sentence)


def new_file(folder: Path) -> BinaryIO:
    """Open an unnamed temporary file; it is gone when it is closed, or its process ends."""
    return tempfile.TemporaryFile(dir=folder)


@contextmanager
def receive_csv(req: falcon.Request, folder: Path, limit: int) -> Iterator[CsvFile]:
    """Read a request's body into a file, chunked ones included, and the header from there.

    Raises:
        falcon.HTTPUnsupportedMediaType: a form or JSON.
        falcon.HTTPContentTooLarge: there are more than `limit` bytes.
        falcon.HTTPBadRequest: the client stopped before the end of the body.
        falcon.HTTPUnprocessableEntity: there is no header, or COPY could not read all of it.
    """
    media = (req.content_type or "").partition(";")[0].strip().lower()
    if media == "multipart/form-data" or media.endswith("json"):
        raise falcon.HTTPUnsupportedMediaType(
            title="Not CSV", description=f"Found a body of {media}, expected text/csv."
        )
    with new_file(folder) as file:
        _copy_body(req, file, limit)
        header, start = _read_header(file)
        yield CsvFile(file, header, start)


def _copy_body(req: falcon.Request, file: BinaryIO, limit: int) -> None:
    guard = _EndMarkerGuard()
    size = 0
    while chunk := req.bounded_stream.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise falcon.HTTPContentTooLarge(
                title="CSV too large",
                description=f"The body has more than {limit:,} bytes; send it in parts.",
            )
        guard.feed(chunk)
        file.write(chunk)
    guard.feed(b"\n")


class _EndMarkerGuard:
    r"""Finds a line that is nothing but `\.` outside of quotes, over the borders of chunks.

    A quote character always opens or closes in COPY's CSV, so that an even number of them
    before a place means that it is outside.
    """

    def __init__(self) -> None:
        self._quotes = 0
        self._lines = 0
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        window = self._tail + chunk
        for match in _END_MARKER.finditer(window):
            if (self._quotes + window.count(b'"', 0, match.start())) % 2 == 0:
                line = self._lines + window.count(b"\n", 0, match.start()) + 2
                raise bad_csv(rf'Line {line}: found nothing but \., expected a row; quote it: "\."')
        self._tail = window[-3:]
        self._quotes += window.count(b'"', 0, len(window) - len(self._tail))
        self._lines += window.count(b"\n", 0, len(window) - len(self._tail))


def _read_header(file: BinaryIO) -> tuple[list[str], int]:
    file.seek(0)
    head = file.read(_MAX_HEADER)
    first = len(_BOM) if head.startswith(_BOM) else 0
    end = _LINE_END.search(head, first)
    if end is None and len(head) == _MAX_HEADER:
        raise bad_csv(f"Found no line end in {_MAX_HEADER:,} bytes, expected a header line.")
    line = head[first : end.start() if end else len(head)]
    try:
        header = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise bad_csv(f"Line 1 is no header: {error}.") from None
    if not header:
        raise bad_csv(f"Line 1: found {show(line.decode())}, expected the names of the columns.")
    return header, first
