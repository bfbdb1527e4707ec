"""The first row of a CSV, and the delimiter that it and all others agree on."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import falcon

from .dialect import Dialect
from .quotes import check_quotes
from .spool import Text, bad_csv
from .values import show

_MAX_HEADER = 64 * 1024
_TYPED_DELIMITERS = ";\t|"


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
        rows = self.dialect.rows(lines)
        try:
            if self.header is not None:
                next(rows)
            yield from rows
        except csv.Error as error:
            raise _unreadable(rows.line_num, error) from None


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
        rows = dialect.rows(keep(lines))
        try:
            first = next(rows, [])
        except csv.Error as error:
            raise _unreadable(rows.line_num, error) from None
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


def find_dialect(text: Text, quote: str | None) -> Dialect:
    """Return the dialect of a file that came without a delimiter; its quotes are checked.

    Another one than a comma is taken only if all lines have as many fields as the first with it,
    and more than one.

    Raises:
        falcon.HTTPUnprocessableEntity: several fit, or the first line has no comma and the only
            ones that divide it do not fit; a quote is in a wrong place.
    """
    comma = Dialect(",", quote)
    first = next(text.chunks(), b"").partition(text.newline)[0].decode("utf-8", "replace")
    others = [Dialect(each, quote) for each in _TYPED_DELIMITERS if each in first]
    if not others or ("," in first and not _misfit(text, comma)):
        check_quotes(text, comma)
        return comma
    misfits = {each.delimiter: _misfit(text, each) for each in others}
    fitting = [each for each in others if not misfits[each.delimiter]]
    if len(fitting) > 1:
        found = " and ".join(show(each.delimiter) for each in fitting)
        raise bad_csv(f"Line 1: {found} both divide every line into as many fields; say delimiter=")
    if fitting:
        return fitting[0]
    problem = next((each for each in misfits.values() if each != _ONE_FIELD), None)
    if problem and "," not in first:
        raise bad_csv(f"{problem} Found no comma in line 1; say which with delimiter=")
    check_quotes(text, comma)
    return comma


_ONE_FIELD = "one field"


def _misfit(text: Text, dialect: Dialect) -> str | None:
    """Say why not every line has as many fields as the first, and more than one; None if so."""
    try:
        check_quotes(text, dialect)
    except falcon.HTTPUnprocessableEntity as error:
        return f"With the delimiter {show(dialect.delimiter)}: {error.description}"
    with text.open_lines() as lines:
        rows = dialect.rows(lines)
        line = 1
        try:
            fields = len(next(rows, []))
            if fields < 2:
                return _ONE_FIELD
            line = rows.line_num + 1
            for row in rows:
                if len(row) != fields:
                    return (
                        f"Line {line}: found {len(row)} fields with the delimiter "
                        f"{show(dialect.delimiter)}, expected {fields} as in line 1."
                    )
                line = rows.line_num + 1
        except csv.Error as error:
            return f"Line {rows.line_num}: {error}."
    return None


def _unreadable(line: int, error: csv.Error) -> falcon.HTTPUnprocessableEntity:
    return bad_csv(
        f"Line {line}: {error}; a table that is made first (PUT) takes longer fields, and all "
        "lines of a file end alike."
    )
