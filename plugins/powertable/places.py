r"""In which line of a CSV a field is, as an editor counts them.

Only asked for when something is refused: a file is walked through again, piece by piece.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .header import CsvFile
from .spool import CHUNK


@dataclass(frozen=True, slots=True)
class Record:
    """Where a row begins: its byte in the file, and its line."""

    start: int
    line: int


def line_at(csv_file: CsvFile, place: int) -> int:
    """Return the line of the file in which a byte is."""
    line = 1
    for chunk in csv_file.text.chunks():
        line += chunk.count(csv_file.text.newline, 0, max(0, place))
        place -= len(chunk)
    return line


def find_record(csv_file: CsvFile, counted: int) -> Record:
    r"""Return the row that COPY was at when it had counted so many lines.

    It counts a line for each row, and one for each line end within quotes: with `\r\n` each `\r`,
    and none of the `\n` that a spreadsheet puts into a field. The first line is our own.
    """
    line_end = csv_file.line_end
    left = counted - 1
    record = Record(csv_file.start, csv_file.lines + 1)
    line = record.line
    is_quoted = False
    for place, found in _events(csv_file, record.start):
        if found in _LINE_ENDS:
            line += csv_file.text.newline in found
            left -= line_end[:1] in found
            if found == line_end and not is_quoted:
                if left <= 0:
                    break
                record = Record(place + len(found), line)
        else:
            is_quoted = not is_quoted
    return record


def lines_of_fields(csv_file: CsvFile, record: Record) -> Iterator[int]:
    """Yield the line in which each field of a row begins."""
    line = record.line
    is_quoted = False
    delimiter = csv_file.dialect.delimiter.encode()
    yield line
    for _, found in _events(csv_file, record.start, delimiter):
        if found in _LINE_ENDS:
            if not is_quoted:
                return
            line += csv_file.text.newline in found
        elif found != delimiter:
            is_quoted = not is_quoted
        elif not is_quoted:
            yield line


_LINE_ENDS = (b"\n", b"\r", b"\r\n")


def _events(csv_file: CsvFile, start: int, delimiter: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """Yield each line end and quote, and each delimiter, from a byte on, with its place."""
    quote = (csv_file.dialect.quote or "").encode()
    wanted = re.compile(b"\r\n|[\r\n%b]" % (quote + re.escape(delimiter)))
    file = csv_file.text.file
    file.seek(start)
    while chunk := file.read(CHUNK):
        while chunk.endswith(b"\r") and (more := file.read(1)):
            chunk += more
        for match in wanted.finditer(chunk):
            yield start + match.start(), match[0]
        start += len(chunk)
