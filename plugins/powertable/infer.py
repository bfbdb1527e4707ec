"""The types of a CSV's columns, from all of its values.

The rule is that nothing is lost: a column has a type only if every value that is not empty can be
read as it and written again. An order number such as 00501, a whole number of more than 64 bits
or a decimal with more digits than a double holds make the column text.
"""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from .spool import bad_csv
from .values import TYPES, ColumnType, read_boolean, read_date, read_integer, read_timestamp

_BATCH_ROWS = 5000
_BATCH_CHARACTERS = 1_000_000
_LINE_CHARACTERS = 10_000_000

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?((?:0|[1-9][0-9]*)(?:\.[0-9]+)?)(?:[eE][+-]?[0-9]+)?")


def infer_types(file: BinaryIO, count: int) -> list[ColumnType]:
    """Return the type of each of the `count` columns of a file, which begins with its header.

    A column without a single value is text. Memory is bounded: a million characters and one
    more row at a time.

    Raises:
        falcon.HTTPUnprocessableEntity: a value has more characters than the csv module reads
            (131,072), or a line more than ten million.
    """
    candidates = [list(_FITS) for _ in range(count)]
    filled = [False] * count
    # What is not UTF-8 passes here, since COPY names its line afterwards.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        reader = csv.reader(_lines(text))
        next(reader)
        for rows in _batches(reader):
            columns = itertools.islice(itertools.zip_longest(*rows, fillvalue=""), count)
            for number, values in enumerate(columns):
                distinct = set(values) - {""}
                filled[number] |= bool(distinct)
                candidates[number] = [
                    name for name in candidates[number] if all(map(_FITS[name], distinct))
                ]
    finally:
        text.detach()
    return [
        TYPES[names[0] if names and has_values else "text"]
        for names, has_values in zip(candidates, filled, strict=True)
    ]


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LINE_CHARACTERS):
        if len(line) == _LINE_CHARACTERS:
            raise bad_csv(f"Found a line of {len(line):,} characters or more, expected less.")
        yield line


def _batches(reader: Iterator[list[str]]) -> Iterator[Sequence[list[str]]]:
    rows: list[list[str]] = []
    characters = 0
    number = 1
    try:
        for number, row in enumerate(reader, start=2):  # noqa: B007 - the error below names it
            rows.append(row)
            characters += sum(map(len, row))
            if len(rows) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
                yield rows
                rows, characters = [], 0
    except csv.Error as error:
        raise bad_csv(f"The row after row {number} (the header is row 1): {error}.") from None
    yield rows


def _fits(read: Callable[[str], object]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return fits


def _fits_integer(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and _fits(read_integer)(text)


def _fits_number(text: str) -> bool:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return False
    if _WHOLE.fullmatch(text):
        return len(text) <= 16 and abs(int(text)) <= 2**53
    mantissa = match[1].replace(".", "").strip("0")
    value = abs(float(text))
    # 17 digits are what a double is written with; one that became 0 or infinite lost them all.
    return len(mantissa) <= 17 and value != float("inf") and (value > 0 or not mantissa)


_FITS: dict[str, Callable[[str], bool]] = {
    "boolean": _fits(read_boolean),
    "integer": _fits_integer,
    "number": _fits_number,
    "date": _fits(read_date),
    "timestamp": _fits(read_timestamp),
}
