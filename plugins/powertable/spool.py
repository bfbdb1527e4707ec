"""Bodies as files on disk: a CSV that comes in, and one that goes out.

Both directions pass through an unnamed temporary file. A client that sends or receives slowly
then holds neither a connection nor a lock, an export that fails does so before its status is
sent, and an error in line 3 is answered after the body was read, so that the client sees it.
Memory is one chunk, whatever the size.
"""

import codecs
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import falcon

from .charset import MARK_BYTES, Charset, choose_charset
from .kinds import refuse_other_kinds

CHUNK = 64 * 1024
_LINE_CHARACTERS = 10_000_000
_NOTED_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a body, in a file as UTF-8 without a byte order mark.

    `size` is in bytes, `encoding` the one that the body had, `newline` what ends its lines, alone
    or as the last of two characters, and `blank_lines` how many of its last lines were empty and
    are left out. `note` is told the size again and again while somebody reads it.
    """

    file: BinaryIO
    size: int
    encoding: str
    newline: bytes
    blank_lines: int
    note: Callable[[int], None]

    def chunks(self) -> Iterator[bytes]:
        """Yield the file from its beginning, piece by piece."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK):
            self.note(self.size)
            yield chunk

    @contextmanager
    def open_lines(self) -> Iterator[Iterator[str]]:
        """Open the file at its beginning as lines, which keep their ends.

        Raises:
            falcon.HTTPUnprocessableEntity: a line has ten million characters or more.
        """
        self.file.seek(0)
        text = io.TextIOWrapper(self.file, encoding="utf-8", newline=self.newline.decode())
        try:
            yield self._lines(text)
        finally:
            text.detach()

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        number = unnoted = 0
        while line := text.readline(_LINE_CHARACTERS):
            number += 1
            unnoted += len(line)
            if unnoted >= _NOTED_CHARACTERS:
                unnoted = 0
                self.note(self.size)
            if len(line) == _LINE_CHARACTERS:
                raise bad_csv(
                    f"Line {number}: found {_LINE_CHARACTERS:,} characters or more; a table that "
                    "is made first (PUT) takes longer lines."
                )
            yield line


def bad_csv(sentence: str) -> falcon.HTTPUnprocessableEntity:
    return falcon.HTTPUnprocessableEntity(title="Bad CSV", description=sentence)


def new_file(folder: Path) -> BinaryIO:
    """Open an unnamed temporary file; it is gone when it is closed, or its process ends."""
    return tempfile.TemporaryFile(dir=folder)


@contextmanager
def receive_text(
    req: falcon.Request,
    charset: str,
    quote: str | None,
    folder: Path,
    limit: int,
    note: Callable[[int], None],
) -> Iterator[Text]:
    """Read a request's body into a file, chunked ones included.

    Args:
        req: the request.
        charset: what its media type says, empty if it says nothing.
        quote: what its fields are quoted with, None for nothing.
        folder: takes the file.
        limit: the bytes that a body may have.
        note: is told again and again how many bytes of text there are, while they come and later
            while they are read.

    Raises:
        falcon.HTTPContentTooLarge: there are more than `limit` bytes.
        falcon.HTTPBadRequest: the client stopped before the end of the body.
        falcon.HTTPUnsupportedMediaType: the byte order mark and `charset` do not agree, or the body
            is a file of another kind.
        falcon.HTTPUnprocessableEntity: a line holds what its encoding does not have, or NUL.
    """
    with new_file(folder) as file:
        chunks = _read_body(req, limit)
        head = next(chunks, b"")
        try:
            refuse_other_kinds(head)
            found = choose_charset(charset, head[:MARK_BYTES])
            writer = _Writer(file, found)
            writer.write(head[found.mark :])
            for chunk in chunks:
                writer.write(chunk)
                note(file.tell())
            writer.close()
        except Exception:
            # A client that still sends would not see the answer.
            for _ in chunks:
                pass
            raise
        newline = _find_newline(file, (quote or "").encode()) or writer.newline
        blank_lines = _drop_blank_lines(file, newline)
        size = file.seek(0, io.SEEK_END)
        yield Text(file, size, found.name, newline, blank_lines, note)


def _read_body(req: falcon.Request, limit: int) -> Iterator[bytes]:
    if (req.content_length or 0) > limit:
        raise _too_large(limit)
    size = 0
    while chunk := req.bounded_stream.read(CHUNK):
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> falcon.HTTPContentTooLarge:
    return falcon.HTTPContentTooLarge(
        title="CSV too large",
        description=f"The body has more than {limit:,} bytes; send it in parts.",
    )


class _Writer:
    """Writes a body as UTF-8, and knows the line that it cannot read."""

    def __init__(self, file: BinaryIO, charset: Charset) -> None:
        self._file = file
        self._charset = charset
        self._decoder = charset.decoder()
        self._as_it_is = codecs.lookup(charset.name).name == "utf-8"
        self._lines = {b"\n": 0, b"\r": 0}

    @property
    def newline(self) -> bytes:
        return b"\r" if self._lines[b"\r"] and not self._lines[b"\n"] else b"\n"

    def write(self, chunk: bytes, final: bool = False) -> None:
        kept = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(chunk, final)
            # UTF-8 that is all there needs no copy; some encodings have halves of pairs.
            whole = self._as_it_is and not kept and not self._decoder.getstate()[0]
            written = chunk if whole else text.encode("utf-8")
        except UnicodeError as error:
            raise self._refuse(error) from None
        if b"\0" in written:
            raise bad_csv(
                f"Line {self._line(written[: written.index(0)])}: invalid byte sequence, found "
                "NUL; if the file is UTF-16, say so: Content-Type: text/csv; charset=utf-16le."
            )
        for end in self._lines:
            self._lines[end] += written.count(end)
        self._file.write(written)

    def close(self) -> None:
        """Refuse a character that the end of the body cuts."""
        self.write(b"", final=True)

    def _refuse(self, error: UnicodeError) -> falcon.HTTPUnprocessableEntity:
        before, found, nul = b"", "half of a character", False
        if isinstance(error, UnicodeDecodeError):
            before = error.object[: error.start].decode(self._charset.name, "replace").encode()
            found = f"0x{error.object[error.start : error.end].hex()}"
            nul = b"\0" in error.object
        advice = "say which in its Content-Type"
        if self._as_it_is:
            likely = "utf-16le" if nul else "windows-1252"
            advice = f"say which, such as Content-Type: text/csv; charset={likely}"
        return bad_csv(
            f"Line {self._line(before)}: invalid byte sequence, {found} is no "
            f"{self._charset.name}; the file is likely in another encoding: {advice}."
        )

    def _line(self, before: bytes) -> int:
        newline = self.newline
        if newline == b"\n" and not self._lines[b"\n"] and b"\n" not in before:
            newline = b"\r"
        return self._lines[newline] + before.count(newline) + 1


def _find_newline(file: BinaryIO, quote: bytes) -> bytes:
    """Return what ends the first row, empty if that is not to be seen."""
    file.seek(0)
    head = file.read(CHUNK)
    row = rb"[^\r\n]*"
    if quote:
        row = rb"(?:[^%b\r\n]+|%b[^%b]*%b)*" % ((quote,) * 4)
    # Without an end in the pattern there is nothing that it could be tried for again and again.
    match = re.match(row, head)
    end = head[match.end() :] if match else b""
    return b"\n" if end.startswith(b"\r\n") else end[:1] if end[:1] in (b"\r", b"\n") else b""


def _drop_blank_lines(file: BinaryIO, newline: bytes) -> int:
    """Cut the empty lines at the end of a file and return how many there were."""
    size = file.seek(0, io.SEEK_END)
    start = size
    kept = 0
    while start and not kept:
        end, start = start, max(0, start - CHUNK)
        file.seek(start)
        kept = len(file.read(end - start).rstrip(b"\r\n"))
    file.seek(start + kept)
    line_end = 2 if file.read(2) == b"\r\n" else 1
    file.seek(start + kept)
    ends = sum(block.count(newline) for block in iter(lambda: file.read(CHUNK), b""))
    if ends > 1:
        file.truncate(start + kept + line_end)
    return max(ends - 1, 0)
