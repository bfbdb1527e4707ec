"""A CSV that is ready to be read: its first row, and where the others begin."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from .dialect import Dialect
from .spool import Text, bad_csv
from .values import show

_MAX_HEADER = 64 * 1024


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV that is ready to be read: its quotes are checked.

    `header` has the names of its first row, None without one; `fields` is the number of that row's
    fields; the rows begin at byte `start`, after `lines` lines; `line_end` ends the first row.
    """

    text: Text
    dialect: Dialect
    header: tuple[str, ...] | None
    fields: int
    start: int
    lines: int
    line_end: bytes

    def rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Yield the rows after the header, from the file's lines.

        Raises:
            falcon.HTTPUnprocessableEntity: a field has more characters than the csv module reads
                (131,072), or a line end of another kind is in a row; the line is named.
        """
        rows = self.dialect.reader(lines)
        try:
            if self.header is not None:
                next(rows)
            yield from rows
        except csv.Error:
            raise bad_csv(self.dialect.explain(self.text)) from None


def open_csv(text: Text, dialect: Dialect, has_header: bool) -> CsvFile:
    """Read the first row of a file whose quotes are checked.

    Raises:
        falcon.HTTPUnprocessableEntity: there is none, or a header has 64 KiB or more.
    """
    read: list[str] = []

    def keep(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            read.append(line)
            if has_header and sum(map(len, read)) >= _MAX_HEADER:
                raise bad_csv(f"Line 1: found {_MAX_HEADER:,} characters, expected a header.")
            yield line

    with text.open_lines() as lines:
        rows = dialect.reader(keep(lines))
        try:
            first: list[str] = next(rows, [])
        except csv.Error:
            raise bad_csv(dialect.explain(text)) from None
    if not read:
        raise bad_csv("Line 1: found nothing, expected rows, the first with the names of columns.")
    if has_header and not first:
        raise bad_csv(f"Line 1: found {show(''.join(read))}, expected the names of the columns.")
    last = read[-1]
    line_end = (last[len(last.rstrip("\r\n")) :] or "\n").encode()
    if not has_header:
        return CsvFile(text, dialect, None, max(len(first), 1), 0, 0, line_end)
    start = len("".join(read).encode())
    return CsvFile(text, dialect, tuple(first), len(first), start, len(read), line_end)
