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
from .places import find_record, line_at, lines_of_fields
from .rows import names_of
from .spool import CHUNK, bad_csv
from .store import REFUSALS, Cursor, message_of
from .written import Misfit, WrittenCheck

# `COPY weather, line 3, column wind: "abc"`, the column and its value only where they are known.
# The words are PostgreSQL's and may be in another language. Where a trigger refuses, the lines
# before say where in it.
_PLACE = re.compile(r"(?ms)^COPY [^,]+, \D+(\d+)(?:, \S+ ([a-z][a-z0-9_]*))?(?:: (.*))?")


def copy_from(
    cursor: Cursor,
    table: Table,
    columns: Sequence[Column],
    csv_file: CsvFile,
    are_types_inferred: bool,
) -> int:
    """Add all rows of a CSV and return how many there are.

    Args:
        cursor: of a transaction.
        table: the table that takes the rows.
        columns: those that the fields of the file are for, in its order.
        csv_file: the file.
        are_types_inferred: whether the types are those of the file's own values, which come back
            as they were written; of any others it is checked that they do.

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
    check = None
    if not are_types_inferred and any(column.type.form for column in columns):
        check = WrittenCheck(columns, csv_file.dialect)
    source = _Source(csv_file, check)
    try:
        cursor.copy_expert(statement, source, CHUNK)
    except REFUSALS as error:
        raise _explain(error, table, columns, csv_file) from None
    except psycopg2.errors.QueryCanceled:
        # psycopg2's word for a source that raises.
        if source.misfit is None:
            raise
        line = line_at(csv_file, csv_file.start + source.misfit.place)
        raise bad_csv(f"Line {line}, {source.misfit.problem}.") from None
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
    """What COPY reads: a first line of our own and the rows, up to one that does not fit.

    COPY counts line ends within quotes only after its first line, when it knows what a line end
    is, and the header of a file can have some. So its first line is never one of the file.
    """

    def __init__(self, csv_file: CsvFile, check: WrittenCheck | None) -> None:
        self.misfit: Misfit | None = None
        self._first = b"-" + csv_file.line_end
        self._check = check
        self._given = 0
        self._file = csv_file.text.file
        self._file.seek(csv_file.start)

    def read(self, size: int) -> bytes:
        """Return the next piece; COPY sees what is before a field that does not fit."""
        if self._first:
            first, self._first = self._first, b""
            return first
        piece = b""
        if not self.misfit:
            piece = self._file.read(size)
            if self._check:
                self.misfit = self._check.feed(piece) if piece else self._check.close()
            if self.misfit:
                piece = piece[: max(0, self.misfit.place - self._given)]
            self._given += len(piece)
        if self.misfit and not piece:
            raise ValueError(self.misfit.problem)
        return piece


def _explain(
    error: psycopg2.Error, table: Table, columns: Sequence[Column], csv_file: CsvFile
) -> falcon.HTTPUnprocessableEntity:
    """Say in which line and column COPY stopped, what it found and what it expected."""
    diagnosis = error.diag
    place = _PLACE.search(diagnosis.context or "")
    message = message_of(error)
    if table.stands_for:
        message = message.replace(table.name, table.stands_for)
    if place is None:
        return bad_csv(f"PostgreSQL: {message}.")
    counted, name, found = place.groups()
    record = find_record(csv_file, int(counted))
    lines = list(lines_of_fields(csv_file, record))
    # A constraint is named like its column.
    column = table.find(name or diagnosis.column_name or diagnosis.constraint_name or "")
    if column is None or found is None:
        if isinstance(error, psycopg2.errors.BadCopyFileFormat):
            if len(lines) == len(columns):
                message += "; expected line ends that are alike"
            else:
                several = "s" if len(lines) > 1 else ""
                message += f"; found {len(lines)} field{several}, expected {len(columns)}"
        elif diagnosis.message_detail:
            message += f": {diagnosis.message_detail.rstrip('.')}"
        return bad_csv(f"Line {record.line}: {message}.")
    line = lines[columns.index(column)] if column in columns else record.line
    where = f'Line {line}, column "{column.name}": found'
    expected = column.type.expected
    if diagnosis.column_name:
        return bad_csv(f"{where} nothing, expected {expected}.")
    if not name:
        return bad_csv(f"{where} a value in the line {found} that is not {expected}.")
    return bad_csv(f"{where} {found}, expected {expected}.")
