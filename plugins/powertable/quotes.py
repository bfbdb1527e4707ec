r"""Whether each quote of a CSV opens or closes a field, and each line is one for COPY.

Python's csv module and COPY read a quote in the middle of a field each in its way. After
`check_quotes` there is none, and both read the same fields.
"""

import re

from .dialect import USUAL_DELIMITERS, Dialect, delimiter_name
from .spool import Text, bad_csv
from .values import show

_ADVICE = "; quote=none takes quotes as they are"


def check_quotes(text: Text, dialect: Dialect) -> None:
    r"""Check that each quote opens or closes a field, and that no line is COPY's end marker.

    Raises:
        falcon.HTTPUnprocessableEntity: one does not, or a line is nothing but `\.`; its line and
            what to do are named.
    """
    quotes = _QuoteCheck(dialect, text.newline) if dialect.quote else None
    markers = _EndMarkerCheck((dialect.quote or "").encode(), text.newline)
    for chunk in text.chunks():
        if quotes:
            quotes.feed(chunk)
        markers.feed(chunk)
    # What ends a file ends its last line.
    if quotes:
        quotes.feed(b"\n")
        quotes.close()
    markers.feed(b"\n")


class _QuoteCheck:
    """Walks over the fields of a file, chunk by chunk, and stops at a quote in the wrong place."""

    def __init__(self, dialect: Dialect, newline: bytes) -> None:
        quote = self._quote = (dialect.quote or "").encode()
        separators = re.escape(dialect.delimiter.encode()) + rb"\r\n"
        inner = rb"[^%b]*(?:%b%b[^%b]*)*" % ((quote,) * 4)
        self._inner = re.compile(inner)
        self._after = re.compile(rb"[%b]" % separators)
        # Whole fields in quotes, and all that has no quotes.
        self._outer = re.compile(
            rb"(?:[^%b]+|(?<![^%b])%b%b%b(?=[%b]))*"
            % (quote, separators, quote, inner, quote, separators)
        )
        self._newline = newline
        self._line = 1
        self._opened = 0  # the line of the quote that is open, 0 without one
        self._rest = b"\n"  # what a field's beginning is told by, or a quote that may close one

    def feed(self, chunk: bytes) -> None:
        window = self._rest + chunk
        place = 0 if self._opened else 1
        while place < len(window):
            place = self._pass_inner(window, place) if self._opened else self._pass(window, place)
            if self._opened and place == len(window) - 1:
                break  # a quote at the border: the next chunk tells whether it closes
        self._rest = window[place:] if self._opened else window[-1:]

    def close(self) -> None:
        if self._opened:
            raise bad_csv(f"Line {self._opened}: the quote is never closed{_ADVICE}.")

    def _pass(self, window: bytes, place: int) -> int:
        """Return the place after the next quote that opens, or the end."""
        match = self._outer.match(window, place)
        end = match.end() if match else place
        self._line += window.count(self._newline, place, end)
        if end == len(window):
            return end
        if not self._after.match(window, end - 1):
            raise bad_csv(
                f"Line {self._line}: found a quote inside of a field that does not begin with "
                f"one{self._advice(window[end - 1 : end])}."
            )
        self._opened = self._line
        return end + 1

    def _pass_inner(self, window: bytes, place: int) -> int:
        """Return the place after the quote that closes, or the end, or a quote right before it."""
        match = self._inner.match(window, place)
        end = match.end() if match else place
        self._line += window.count(self._newline, place, end)
        if end + 1 >= len(window):
            return end
        if not self._after.match(window, end + 1):
            since = (
                "" if self._opened == self._line else f", which was opened in line {self._opened}"
            )
            raise bad_csv(
                f"Line {self._line}: found text after the quote that closes a field{since}; a "
                f"quote inside of it is doubled{self._advice(window[end + 1 : end + 2])}."
            )
        self._opened = 0
        return end + 1

    def _advice(self, neighbour: bytes) -> str:
        """Return what to do about a quote in a wrong place, by the character next to it."""
        found = neighbour.decode("latin-1")
        if self._line == 1 and found in "{[":
            return "; rows as JSON are sent to /rows, not to /import"
        if found not in USUAL_DELIMITERS:
            return _ADVICE
        other = f"; if {show(found)} divides the fields, say delimiter={delimiter_name(found)}"
        return other if self._line == 1 else _ADVICE + other


class _EndMarkerCheck:
    r"""Finds a line that is nothing but `\.` outside of quotes, over the borders of chunks.

    COPY would take it as the end of the data, and drop what follows. Each quote opens or closes
    after `_QuoteCheck`, so an even number of them before a place means that it is outside.
    """

    _MARKER = re.compile(rb"[\r\n]\\\.(?=[\r\n])")

    def __init__(self, quote: bytes, newline: bytes) -> None:
        self._quote = quote
        self._newline = newline
        self._quotes = 0
        self._lines = 0
        self._tail = newline

    def feed(self, chunk: bytes) -> None:
        window = self._tail + chunk
        for match in self._MARKER.finditer(window):
            if (self._quotes + self._count(window, match.start())) % 2 == 0:
                line = self._lines + window.count(self._newline, 0, match.start() + 1)
                advice = r'; quote it: "\."' if self._quote else ""
                raise bad_csv(rf"Line {line}: found nothing but \., expected a row{advice}.")
        self._tail = window[-3:]
        before = len(window) - len(self._tail)
        self._quotes += self._count(window, before)
        self._lines += window.count(self._newline, 0, before)

    def _count(self, window: bytes, end: int) -> int:
        return window.count(self._quote, 0, end) if self._quote else 0
