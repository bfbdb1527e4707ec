"""The types of columns: what a value may be, and how it is read."""

import datetime
import decimal
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = str | int | float | bool | decimal.Decimal | datetime.date | datetime.datetime

MAX_BIGINT = 2**63 - 1

NUMBER_DIGITS = 1000
"""How many digits a decimal may have before its point, and as many after it."""

# How a text is written that comes back: letter by letter, but for dates and timestamps, which come
# back as the same moment. PostgreSQL reads more and keeps less: it takes 1e5 for 100000, drops a
# time of day from a date and rounds what is finer than a microsecond. What is written so and is no
# day of the calendar, or an integer beyond 64 bits, it refuses itself.
INTEGER_FORM = r"(?:0|-?[1-9][0-9]{0,18})"
WHOLE_FORM = rf"(?:0|-?[1-9][0-9]{{0,{NUMBER_DIGITS - 1}}})"
NUMBER_FORM = (
    rf"(?:{WHOLE_FORM}(?:\.[0-9]{{1,{NUMBER_DIGITS}}})?"
    # PostgreSQL has no negative zero.
    rf"|-0\.(?=0{{0,{NUMBER_DIGITS - 1}}}[1-9])[0-9]{{1,{NUMBER_DIGITS}}})"
)
_BOOLEAN_FORM = r"(?:true|false)"
_DATE_FORM = r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}/[0-9]{2}/[0-9]{2})"


def timestamp_form(digits: int) -> str:
    """Return the form of a timestamp whose seconds have at most `digits` places, 0 to 6.

    No offset is of 16 hours or more: PostgreSQL takes none.
    """
    fraction = rf"(?:\.[0-9]{{1,{digits}}}0{{0,9}})" if digits else r"(?:\.0{1,9})"
    return (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
        rf"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9]{fraction}?)?"
        r"(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)?)?"
    )


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DATE = re.compile(_DATE_FORM)
_TIMESTAMP_FORM = timestamp_form(6)
_TIMESTAMP = re.compile(_TIMESTAMP_FORM)


def show(found: object) -> str:
    """Return a value as an error's sentence shows it: JSON, cut at 80 characters.

    A lone surrogate, which JSON can bring in, is written as an escape: the answer is UTF-8.
    """
    if isinstance(found, decimal.Decimal):  # a number, not its text
        return _cut(str(found))
    try:
        text = json.dumps(found, ensure_ascii=False, default=str)
    except RecursionError:
        text = "a value nested too deeply"
    return _cut(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def read_text(text: str) -> str:
    # PostgreSQL's text holds every character but NUL, and no half of a surrogate pair.
    if "\0" in text:
        raise ValueError
    text.encode("utf-8")
    return text


def read_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return _fit_bigint(int(text))


def read_number(text: str) -> decimal.Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    try:
        return _fit_number(decimal.Decimal(text))
    except decimal.InvalidOperation:
        raise ValueError from None


def read_double(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    return _fit_double(float(text))


def read_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def read_date(text: str) -> datetime.date:
    if not _DATE.fullmatch(text):
        raise ValueError
    return datetime.date.fromisoformat(text.replace("/", "-"))


def read_timestamp(text: str) -> datetime.datetime:
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=datetime.UTC)
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError from None


def _fit_bigint(value: int) -> int:
    if not -MAX_BIGINT - 1 <= value <= MAX_BIGINT:
        raise ValueError
    return value


def _fit_number(value: int | decimal.Decimal) -> decimal.Decimal:
    value = decimal.Decimal(value)
    exponent = value.as_tuple().exponent
    # Before it is written out: `1e999999999` is short, and its digits are not.
    if type(exponent) is not int or exponent < -NUMBER_DIGITS:
        raise ValueError
    if value and value.adjusted() >= NUMBER_DIGITS:
        raise ValueError
    # A zero such as 0e999 has no digits to keep.
    return value if exponent <= 0 or value else decimal.Decimal(0)


def _fit_double(value: int | decimal.Decimal | float) -> float:
    try:
        value = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(value):
        raise ValueError
    return value


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type that a column can have.

    `sql` is PostgreSQL's name of it, as `format_type` writes it; `json` are the types that a JSON
    value may have; `read` makes a value of a text and `fit` checks one that is no text, both
    raise a bare ValueError; `form` is the regular expression of the texts that come back as they
    were written, None where PostgreSQL reads each text in its way; `keeps` tells whether a column
    keeps a value without rounding it, None if it keeps all; `bounds` is a CHECK over the
    column `{0}`, which keeps out what neither JSON nor Python's dates can hold, through COPY and
    psql too.
    """

    name: str
    sql: str
    expected: str
    json: tuple[type, ...]
    read: Callable[[str], Value]
    fit: Callable[[Any], Value] | None = None
    form: str | None = None
    keeps: Callable[[Any], bool] | None = None
    bounds: str | None = None
    definition: str | None = None
    is_numeric: bool = False


TYPES: Mapping[str, ColumnType] = {
    kind.name: kind
    for kind in (
        ColumnType(
            "text",
            "text",
            "text without NUL or halves of surrogate pairs",
            (str,),
            read_text,
            # By code point, so that order and comparison are the same on every machine.
            definition='text COLLATE "C"',
        ),
        ColumnType(
            "integer",
            "bigint",
            "a whole number of 64 bits",
            (int,),
            read_integer,
            _fit_bigint,
            INTEGER_FORM,
            is_numeric=True,
        ),
        ColumnType(
            "number",
            "numeric",
            f"a number of at most {NUMBER_DIGITS} digits before its point, and after it",
            (int, decimal.Decimal),
            read_number,
            _fit_number,
            NUMBER_FORM,
            # NaN counts as more than all others.
            bounds=f"abs({{0}}) < 1e{NUMBER_DIGITS} AND scale({{0}}) <= {NUMBER_DIGITS}",
            is_numeric=True,
        ),
        ColumnType(
            "double",
            "double precision",
            "a finite number",
            (int, decimal.Decimal),
            read_double,
            _fit_double,
            bounds="{0} > '-Infinity' AND {0} < 'Infinity'",
            is_numeric=True,
        ),
        ColumnType(
            "boolean", "boolean", "true or false", (bool,), read_boolean, bool, _BOOLEAN_FORM
        ),
        ColumnType(
            "date",
            "date",
            "a date such as 2024-12-31",
            (str,),
            read_date,
            form=_DATE_FORM,
            bounds="{0} BETWEEN '0001-01-01' AND '9999-12-31'",
        ),
        ColumnType(
            "timestamp",
            "timestamp with time zone",
            "a timestamp such as 2024-12-31T23:59:59.123456Z",
            (str,),
            read_timestamp,
            form=_TIMESTAMP_FORM,
            bounds="{0} >= '0001-01-01 00:00Z' AND {0} < '10000-01-01 00:00Z'",
        ),
    )
}


def as_json(value: Any) -> Any:
    """Return a value that PostgreSQL gave as one of `exact_json`; dates and times are ISO texts."""
    return value.isoformat() if isinstance(value, datetime.date) else value
