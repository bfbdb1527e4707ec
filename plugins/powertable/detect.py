"""The delimiter of a CSV that came without one: that on which all lines agree."""

import csv

import falcon

from .dialect import Dialect
from .quotes import check_quotes
from .spool import Text, bad_csv
from .values import show

_DELIMITERS = ";\t|"
_ONE_FIELD = "one field"


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
    others = [Dialect(each, quote) for each in _DELIMITERS if each in first]
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


def _misfit(text: Text, dialect: Dialect) -> str | None:
    """Say why not every line has as many fields as the first, and more than one; None if so.

    `_ONE_FIELD` says that the delimiter divides nothing in the first row.
    """
    try:
        check_quotes(text, dialect)
    except falcon.HTTPUnprocessableEntity as error:
        return f"With the delimiter {show(dialect.delimiter)}: {error.description}"
    with text.open_lines() as lines:
        rows = dialect.reader(lines)
        line = 1
        try:
            fields = len(next(rows, []))
            if fields < 2:
                return _ONE_FIELD
            line = rows.line_num + 1
            for row in rows:
                if len(row) != fields:
                    several = "s" if len(row) != 1 else ""
                    return (
                        f"Line {line}: found {len(row)} field{several} with the delimiter "
                        f"{show(dialect.delimiter)}, expected {fields} as in line 1."
                    )
                line = rows.line_num + 1
        except csv.Error:
            return dialect.explain(text)
    return None
