r"""Whether the fields of a CSV come back from the columns of a table as they are written.

PostgreSQL takes `0042` for 42, `yes` for true, a day with a time of day for the day, and rounds
what is too fine. Such a field is found on the file's way to COPY, piece by piece, while PostgreSQL
works on the piece before.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .columns import Column
from .dialect import Dialect
from .values import show

# No field that fits a type is longer, quotes included.
_LONGEST = 4096
_LINE_END = rb"(?:\r\n|\n|\r(?=[^\n]))"


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field that would not come back: where it begins in what was fed, in bytes, and why."""

    place: int
    problem: str


class WrittenCheck:
    """Walks over the rows of a file, piece by piece; the quotes of the file are checked.

    Memory is a piece, whatever the length of a field.
    """

    def __init__(self, columns: Sequence[Column], dialect: Dialect) -> None:
        quote = (dialect.quote or "").encode()
        delimiter = dialect.delimiter.encode()
        stops = re.escape(delimiter) + rb"\r\n"
        free = rb"[^%b]*+" % stops
        if quote:
            self._quoted = re.compile(rb"%b[^%b]*+(?:%b%b[^%b]*+)*+" % ((quote,) * 5))
            free = rb"(?:%b%b|%b)" % (self._quoted.pattern, quote, rb"[^%b%b]*+" % (stops, quote))
        self._columns = columns
        self._delimiter = delimiter
        self._quote = quote
        self._forms = [_form(column, quote) for column in columns]
        fields = [free if form is None else b"(?:%b)?" % form for form in self._forms]
        row = re.escape(delimiter).join(fields)
        self._rows = re.compile(b"(?>%b%b)*+" % (row, _LINE_END))
        self._field = re.compile(rb"(%b)(%b|%b)" % (free, re.escape(delimiter), _LINE_END))
        self._column = 0  # the one whose field comes next
        self._rest = b""
        self._fed = 0
        self._is_over = False

    def feed(self, piece: bytes) -> Misfit | None:
        """Return the first field that would not come back, None if there is none so far."""
        if self._is_over:
            return None
        window = self._rest + piece
        self._fed += len(piece)
        place = 0
        while True:
            if self._column == 0 and (rows := self._rows.match(window, place)):
                place = rows.end()
            match = self._field.match(window, place)
            if match is None:
                break
            field, end = match.groups()
            if not self._fits(field):
                return self._misfit(window, place, field)
            place = match.end()
            self._column += 1
            # A row of too many or too few fields is COPY's to refuse, and nothing comes after it.
            if (self._column == len(self._columns)) is (end == self._delimiter):
                self._is_over = True
                return None
            if end != self._delimiter:
                self._column = 0
        self._rest = window[place:]
        if len(self._rest) <= _LONGEST:
            return None
        if self._forms[self._column] is not None:
            return self._misfit(window, place, self._rest)
        self._rest = self._shorten(self._rest)
        return None

    def close(self) -> Misfit | None:
        """Return whether the last row, which may have no line end, would not come back."""
        return self.feed(b"\n") if self._rest or self._column else None

    def _fits(self, field: bytes) -> bool:
        form = self._forms[self._column]
        return form is None or not field or re.fullmatch(form, field) is not None

    def _shorten(self, field: bytes) -> bytes:
        """Return the beginning of a field of any text, to which the rest can be added."""
        if self._quote and field.startswith(self._quote):
            match = self._quoted.match(field)
            return self._quote + field[match.end() if match else 1 :]
        return field[-2:]

    def _misfit(self, window: bytes, place: int, field: bytes) -> Misfit:
        column = self._columns[self._column]
        if self._quote and field.startswith(self._quote):
            field = field[1:].removesuffix(self._quote).replace(self._quote * 2, self._quote)
        text = field[:_LONGEST].decode("utf-8", "replace")
        problem = (
            f'column "{column.name}": found {show(text)}, expected {column.type.expected}'
            f"{_without(column, text)}; a column of text keeps what is written"
        )
        return Misfit(self._fed - (len(window) - place), problem)


def _form(column: Column, quote: bytes) -> bytes | None:
    """Return the regular expression of a column's fields, quoted or not; None is any field."""
    if column.type.form is None:
        return None
    form = column.type.form.encode()
    return rb"%b|%b(?:%b)?%b" % (form, quote, form, quote) if quote else form


def _without(column: Column, text: str) -> str:
    """Return what a number must not have, where it is one but for this."""
    if not column.type.is_numeric or column.type.keeps:
        return ""
    try:
        column.type.read(text.strip())
    except ValueError:
        return ""
    return ", without a plus, an exponent, spaces, or zeros in front"
