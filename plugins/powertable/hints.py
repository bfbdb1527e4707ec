"""What is likely wrong with a file that cannot be read as it was said to be."""

import re

from .dialect import USUAL_DELIMITERS, delimiter_name
from .header import CsvFile
from .spool import Text, bad_csv
from .values import show

_EXCELS_LINE = re.compile(rb"sep=([^\r\n])?(?:[\r\n]|$)", re.IGNORECASE)


def refuse_excels_line(text: Text) -> None:
    """Refuse a first line such as `sep=;`: it is for Excel alone, and no row.

    Raises:
        falcon.HTTPUnprocessableEntity: says what to do.
    """
    match = _EXCELS_LINE.match(next(text.chunks(), b""))
    if match:
        name = delimiter_name((match[1] or b",").decode("utf-8", "replace"))
        raise bad_csv(
            f"Line 1: found {show(match[0].decode('utf-8', 'replace').rstrip())}, which only Excel "
            f"reads; delete this line and say delimiter={name}."
        )


def other_delimiter(csv_file: CsvFile) -> str:
    """Return a sentence if line 1 is one field, and likely because of the delimiter; else none."""
    dialect = csv_file.dialect
    first = (
        next(csv_file.text.chunks(), b"").partition(csv_file.line_end)[0].decode(errors="replace")
    )
    if dialect.quote:
        first = re.sub(f"{dialect.quote}[^{dialect.quote}]*{dialect.quote}", "", first)
    others = [each for each in USUAL_DELIMITERS if each in first and each != dialect.delimiter]
    if csv_file.fields != 1 or not others:
        return ""
    names = " or ".join(f"delimiter={delimiter_name(each)}" for each in others)
    return f" The delimiter {show(dialect.delimiter)} divides nothing in line 1; is it {names}?"
