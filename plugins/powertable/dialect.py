"""The dialect of a CSV: one for the check, the types and PostgreSQL's COPY."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from .params import Params, bad_query, one_of
from .spool import Text, bad_csv
from .values import show

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_QUOTES = {'"': '"', "'": "'", "none": None}
# COPY must be told of a quote; one that the file does not have stands for none.
_UNUSED = bytes((*range(1, 9), *range(14, 32), 127))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV separates its fields, and quotes them; without `quote` a quote is a character."""

    delimiter: str = ","
    quote: str | None = '"'

    def rows(self, lines: Iterable[str]) -> Any:
        """Return Python's reader of this dialect."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)

    def copy_options(self, text: Text) -> sql.Composable:
        """Return the options of a COPY that reads a file in this dialect."""
        quote = self.quote or _unused_character(text, self.delimiter)
        return sql.SQL("FORMAT csv, HEADER, ENCODING 'UTF8', DELIMITER {}, QUOTE {}").format(
            sql.Literal(self.delimiter), sql.Literal(quote)
        )


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
