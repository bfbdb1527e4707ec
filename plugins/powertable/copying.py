"""A table's rows as CSV, in and out, by PostgreSQL's COPY."""

import re
from collections.abc import Sequence
from typing import BinaryIO

import falcon
import psycopg2
import psycopg2.errors
from psycopg2 import sql

from .columns import ID, Column, Table
from .header import CsvFile
from .rows import names_of
from .spool import CHUNK, bad_csv
from .store import Cursor
from .values import show

# `COPY weather, line 3, column wind: "abc"`, the column and its value only where they are known.
# The words are PostgreSQL's and may be in another language.
_PLACE = re.compile(r"COPY [^,]+, \D+(\d+)(?:, \S+ ([a-z][a-z0-9_]*))?(?:: (.*))?", re.DOTALL)


def match_columns(table: Table, csv_file: CsvFile, names: Sequence[str]) -> list[Column]:
    """Return the columns that a CSV's names mean, in its order; without a header all of them.

    Args:
        table: the table that takes the rows.
        csv_file: the file.
        names: its header, perhaps renamed; empty without one.

    Raises:
        falcon.HTTPUnprocessableEntity: unknown or repeated columns, or a required one missing, or
            another number of fields than of columns; all are named.
    """
    if csv_file.header is None:
        if csv_file.fields != len(table.columns):
            raise bad_csv(
                f"Line 1: found {csv_file.fields} fields and no header, expected "
                f"{', '.join(column.name for column in table.columns)}."
            )
        return list(table.columns)
    columns = {column.name: column for column in table.columns}
    unknown = [name for name in dict.fromkeys(names) if name not in columns]
    repeated = [name for name in columns if names.count(name) > 1]
    required = [column.name for column in table.columns if column.required]
    missing = [name for name in required if name not in names]
    problems = []
    if unknown:
        listed = ", ".join(map(show, unknown[:100]))
        several = "s" if len(unknown) > 1 else ""
        problems.append(
            f"found the column{several} {listed}, expected some of {', '.join(columns)}"
        )
    problems += [f'found the column "{name}" twice, expected it once' for name in repeated]
    if missing:
        problems.append(f"found no {', '.join(missing)}, expected all required columns")
    if problems:
        raise bad_csv(f"Line 1: {'; '.join(problems)}.")
    return [columns[name] for name in names]


def copy_from(cursor: Cursor, table: Table, columns: Sequence[Column], csv_file: CsvFile) -> int:
    """Add all rows of a CSV, whose fields are for these columns, and return how many there are.

    Raises:
        falcon.HTTPUnprocessableEntity: a line does not fit; it is named.
    """
    # In a text column "" is the empty text and nothing at all is null; elsewhere both are null.
    typed = [column for column in columns if column.type.name != "text"]
    force_null = sql.SQL(", FORCE_NULL ({})").format(names_of(typed)) if typed else sql.SQL("")
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH ({}{})").format(
        table.identifier,
        names_of(columns),
        csv_file.dialect.copy_options(csv_file.text),
        force_null,
    )
    try:
        cursor.copy_expert(statement, _Source(csv_file), CHUNK)
    except (
        psycopg2.DataError,
        psycopg2.IntegrityError,
        psycopg2.errors.ProgramLimitExceeded,
    ) as error:
        raise _explain(error, table, csv_file) from None
    return int(cursor.rowcount)


def copy_to(cursor: Cursor, table: Table, where: sql.Composable, file: BinaryIO) -> None:
    """Write rows as CSV with a header, in the order of their ids and without these."""
    columns = sql.SQL(", ").join(
        sql.SQL(_expression(column, alone=len(table.columns) == 1) + " AS {0}").format(
            sql.Identifier(column.name)
        )
        for column in table.columns
    )
    query = sql.SQL("SELECT {} FROM {}{} ORDER BY {}").format(
        columns, table.identifier, where, sql.Identifier(ID)
    )
    cursor.copy_expert(
        sql.SQL("COPY ({}) TO STDOUT WITH (FORMAT csv, HEADER, ENCODING 'UTF8')").format(query),
        file,
    )


def _expression(column: Column, alone: bool) -> str:
    if alone and column.type.name != "text":
        # A null would be a blank line, which an import leaves out at the end; `""` is null too.
        return "coalesce({0}::text, '')"
    # COPY itself writes a boolean as t, the cast writes it as true.
    return "{0}::text" if column.type.name == "boolean" else "{0}"


class _Source:
    """What COPY reads: a first line of our own and the rows.

    COPY counts line ends within quotes only after its first line, when it knows what a line end
    is, and the header of a file can have some. So its first line is never one of the file.
    """

    def __init__(self, csv_file: CsvFile) -> None:
        self._first = b"-" + csv_file.line_end
        self._file = csv_file.text.file
        self._file.seek(csv_file.start)

    def read(self, size: int) -> bytes:
        first, self._first = self._first, b""
        return first or self._file.read(size)


def _explain(
    error: psycopg2.Error, table: Table, csv_file: CsvFile
) -> falcon.HTTPUnprocessableEntity:
    """Say in which line and column COPY stopped, what it found and what it expected."""
    diagnosis = error.diag
    place = _PLACE.match(diagnosis.context or "")
    message = (diagnosis.message_primary or str(error)).rstrip(".")
    if place is None:
        return bad_csv(f"PostgreSQL: {message}.")
    line, name, found = place.groups()
    where = f"Line {_line_of(csv_file, int(line))}"
    # A constraint is named like its column.
    column = table.find(name or diagnosis.column_name or diagnosis.constraint_name or "")
    if column is None or found is None:
        return bad_csv(
            f"{where}: {message}; expected one value for each column, and line ends that are alike."
        )
    expected = column.type.expected
    if diagnosis.column_name:
        return bad_csv(f'{where}, column "{column.name}": found nothing, expected {expected}.')
    within = "" if name else "another value in the line "
    return bad_csv(f'{where}, column "{column.name}": found {within}{found}, expected {expected}.')


def _line_of(csv_file: CsvFile, counted: int) -> int:
    """Return the line of the file that COPY counts as `counted`.

    With `\\r\\n` it takes each `\\r` as the end of one, and none of the `\\n` that a spreadsheet
    puts into a field.
    """
    rows = counted - 1
    if csv_file.line_end != b"\r\n":
        return csv_file.lines + rows
    file = csv_file.text.file
    file.seek(csv_file.start)
    line = csv_file.lines + 1
    while piece := file.readline(CHUNK):
        rows -= piece.count(b"\r")
        if rows <= 0:
            break
        line += piece.endswith(b"\n")
    return line
