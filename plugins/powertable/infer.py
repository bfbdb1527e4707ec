"""The types of a CSV's columns, from all of its values.

The rule is that nothing changes: a column becomes integer or number only if every value that is
not empty comes back as it was written. An order number such as 00501, `1e5` and `-0` make the
column text. Booleans come back as they were; dates and timestamps as the same moment, in ISO.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from .header import CsvFile
from .values import (
    INTEGER_FORM,
    MAX_BIGINT,
    NUMBER_FORM,
    TYPES,
    ColumnType,
    read_boolean,
    read_date,
    read_timestamp,
)

_BATCH_ROWS = 5000
_BATCH_CHARACTERS = 1_000_000

_WHOLE = re.compile(INTEGER_FORM)
_DECIMAL = re.compile(NUMBER_FORM)


def infer_types(csv_file: CsvFile) -> list[ColumnType]:
    """Return the type of each column of a file.

    A column without a single value is text. Memory is bounded: a million characters and one
    more row at a time.

    Raises:
        falcon.HTTPUnprocessableEntity: a value has more characters than the csv module reads
            (131,072), or a line more than ten million, before all columns are known to be text.
    """
    count = csv_file.fields
    candidates = [list(_FITS) for _ in range(count)]
    filled = [False] * count
    with csv_file.text.open_lines() as lines:
        for rows in _batches(csv_file.rows(lines)):
            columns = itertools.islice(itertools.zip_longest(*rows, fillvalue=""), count)
            for number, values in enumerate(columns):
                if candidates[number]:
                    distinct = set(values) - {""}
                    filled[number] |= bool(distinct)
                    candidates[number] = _narrow(candidates[number], distinct)
            if not any(candidates):
                break  # all of them are text, whatever comes
    return [
        TYPES[names[0] if names and has_values else "text"]
        for names, has_values in zip(candidates, filled, strict=True)
    ]


def _narrow(names: list[str], values: set[str]) -> list[str]:
    """Return those of some types that all values fit."""
    found = []
    for name in names:
        # What fits integer fits number.
        if (name == "number" and "integer" in found) or _FITS[name](values):
            found.append(name)
    return found


def _batches(reader: Iterator[list[str]]) -> Iterator[Sequence[list[str]]]:
    rows: list[list[str]] = []
    characters = 0
    for row in reader:
        rows.append(row)
        characters += sum(map(len, row))
        if len(rows) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield rows
            rows, characters = [], 0
    yield rows


def _fits(read: Callable[[str], object]) -> Callable[[Iterable[str]], bool]:
    def fits(values: Iterable[str]) -> bool:
        try:
            for text in values:
                read(text)
        except ValueError:
            return False
        return True

    return fits


def _fits_integer(values: Iterable[str]) -> bool:
    return all(map(_WHOLE.fullmatch, values)) and all(
        -MAX_BIGINT - 1 <= int(text) <= MAX_BIGINT for text in values if len(text) > 18
    )


def _fits_number(values: Iterable[str]) -> bool:
    return all(map(_DECIMAL.fullmatch, values))


_FITS: dict[str, Callable[[Iterable[str]], bool]] = {
    "boolean": _fits(read_boolean),
    "integer": _fits_integer,
    "number": _fits_number,
    "date": _fits(read_date),
    "timestamp": _fits(read_timestamp),
}
