"""The dialect of a CSV: one for the check, the types and PostgreSQL's COPY."""

import contextlib
import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from .params import Params, bad_query, one_of
from .spool import Text, bad_csv
from .values import show

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
USUAL_DELIMITERS = "".join(_DELIMITERS.values())
_QUOTES = {'"': '"', "'": "'", "none": None}
# COPY must be told of a quote; one that the file does not have stands for none.
_UNUSED = bytes((*range(1, 9), *range(14, 32), 127))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV separates its fields, and quotes them; without `quote` a quote is a character."""

    delimiter: str = ","
    quote: str | None = '"'

    def reader(self, lines: Iterable[str]) -> Any:
        """Return Python's reader of this dialect; where it raises, `explain` says why."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)

    def explain(self, text: Text) -> str:
        """Return where Python's reader stops in a file whose quotes are checked, and why."""
        first = 1
        with text.open_lines() as lines, contextlib.suppress(csv.Error):
            reader = self.reader(lines)
            for _ in reader:
                first = reader.line_num + 1
        last = reader.line_num
        with text.open_lines() as lines:
            row = "".join(itertools.islice(lines, first - 1, last))
        limit = csv.field_size_limit()
        for start, content in self._fields(row):
            if len(content) > limit:
                line = first + row.count(text.newline.decode(), 0, start)
                return (
                    f"Line {line}: found a field of more than {limit:,} characters; a table that "
                    "is made first (PUT) takes longer ones."
                )
        return (
            f"Line {last}: found a line end within a field that has no quotes, expected the lines "
            "to end alike, and quotes around a field of several lines."
        )

    def _fields(self, row: str) -> Iterator[tuple[int, str]]:
        """Yield where each field of a row begins, and what it has; the last one may be cut."""
        pattern = rf"([^{re.escape(self.delimiter)}\r\n]+)"
        quote = self.quote or ""
        if quote:
            pattern = f"{quote}((?:[^{quote}]++|{quote}{quote})*+){quote}?|{pattern}"
        for field in re.finditer(pattern, row):
            content = field[field.lastindex or 0]
            yield field.start(), content.replace(quote * 2, quote) if quote else content

    def copy_options(self, text: Text) -> sql.Composable:
        """Return the options of a COPY that reads a file in this dialect."""
        quote = self.quote or _unused_character(text, self.delimiter)
        return sql.SQL("FORMAT csv, HEADER, ENCODING 'UTF8', DELIMITER {}, QUOTE {}").format(
            sql.Literal(self.delimiter), sql.Literal(quote)
        )


def delimiter_name(delimiter: str) -> str:
    """Return how `delimiter=` of a query is written."""
    return next((name for name, found in _DELIMITERS.items() if found == delimiter), delimiter)


def read_quote(params: Params) -> str | None:
    """Read `quote`, a double quote if it is absent.

    Raises:
        falcon.HTTPBadRequest: it is none of those that are known.
    """
    text = one_of(params, "quote", '"')
    if text not in _QUOTES:
        raise bad_query(f"quote: found {show(text)}, expected \", ' or none.")
    return _QUOTES[text]


def read_delimiter(params: Params) -> str | None:
    """Read `delimiter`, None if it is absent.

    Raises:
        falcon.HTTPBadRequest: it is nothing that can separate fields.
    """
    text = one_of(params, "delimiter", None)
    if text is None:
        return None
    found = _DELIMITERS.get(text, text)
    usable = len(found) == 1 and found.isascii() and not found.isalnum()
    if not usable or found in "\0\r\n\\\"'":
        raise bad_query(
            f"delimiter: found {show(text)}, expected one character such as ; or | or one of "
            f"{', '.join(_DELIMITERS)}; no letter, digit, quote, backslash or line end."
        )
    return found


def _unused_character(text: Text, delimiter: str) -> str:
    unused = set(_UNUSED) - set(delimiter.encode())
    for chunk in text.chunks():
        unused -= set(chunk)
    if not unused:
        raise bad_csv(
            "Found every control character in the file, expected one that is not there: "
            "quote=none needs it."
        )
    return chr(min(unused))
