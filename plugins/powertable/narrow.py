"""Types that were narrowed in psql: numeric(10,2) rounds, and so does timestamptz(3).

A value that such a column would round is refused.
"""

import datetime
import decimal
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .values import NUMBER_DIGITS, TYPES, WHOLE_FORM, ColumnType, timestamp_form

_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_TIMESTAMP = re.compile(r"timestamp\((\d)\) with time zone")


def narrow_type(sql_type: str) -> ColumnType | None:
    """Return the type of a column that PostgreSQL's `format_type` describes, None if it is none."""
    if found := _NUMERIC.fullmatch(sql_type):
        return _number(int(found[1]), int(found[2]))
    if found := _TIMESTAMP.fullmatch(sql_type):
        return _timestamp(int(found[1]))
    return None


def _number(digits: int, places: int) -> ColumnType:
    """Return the type of numbers of so many digits.

    They are rounded to `places` after the point, before it if < 0.
    """
    before = digits - places
    if places > 0:
        form = rf"(?:{WHOLE_FORM}|-0(?=\.0*[1-9]))\.[0-9]{{{places}}}"
        expected = f"{places} digits after its point, such as {min(before, 1)}.{'5':0<{places}}"
    else:
        form = (
            rf"(?:0|-?[1-9][0-9]{{0,{NUMBER_DIGITS - 1}}}0{{{-places}}})" if places else WHOLE_FORM
        )
        expected = (
            f"{-places} zeros at its end, such as 1{'':0<{-places}}" if places else "no point"
        )
    if before > 0:
        expected += f", and at most {before} digits before the point"
    else:
        expected += f", and less than 1e{before}"
    return replace(
        TYPES["number"],
        expected=f"a number with {expected}",
        form=form,
        keeps=_keeps_number(places),
    )


def _keeps_number(places: int) -> Callable[[Any], bool]:
    step = decimal.Decimal(1).scaleb(-places)

    def keeps(value: decimal.Decimal) -> bool:
        # The usual context rounds to 28 digits by itself.
        with decimal.localcontext(prec=3 * NUMBER_DIGITS):
            return value.quantize(step) == value

    return keeps


def _timestamp(digits: int) -> ColumnType:
    """Return the type of timestamps whose seconds are rounded to so many digits."""

    def keeps(value: datetime.datetime) -> bool:
        return not value.microsecond % 10 ** (6 - digits)

    shown = f".{'123456'[:digits]}" if digits else ""
    return replace(
        TYPES["timestamp"],
        expected=f"a timestamp such as 2024-12-31T23:59:59{shown}Z, and nothing finer",
        form=timestamp_form(digits),
        keeps=keeps,
    )
