"""A table's rows as CSV, in and out, by PostgreSQL's COPY."""

import re
from typing import BinaryIO

import falcon
import psycopg2
from psycopg2 import sql

from .columns import ID, Column, Table
from .rows import names_of
from .spool import CsvFile, bad_csv
from .store import Cursor
from .values import show

# `COPY weather, line 3, column wind: "abc"`, the column and its value only where they are known.
# The words are PostgreSQL's and may be in another language.
_PLACE = re.compile(r"COPY [^,]+, \D+(\d+)(?:, \S+ ([a-z][a-z0-9_]*))?(?:: (.*))?", re.DOTALL)


def match_header(table: Table, header: list[str]) -> list[Column]:
    """Return the columns that a CSV's header names, in its order.

    Raises:
        falcon.HTTPUnprocessableEntity: an unknown or repeated column, or a required one missing.
    """
    columns = {column.name: column for column in table.columns}
    for name in header:
        if name not in columns:
            raise bad_csv(
                f"Line 1: found the column {show(name)}, expected some of {', '.join(columns)}."
            )
        if header.count(name) > 1:
            raise bad_csv(f'Line 1: found the column "{name}" twice, expected it once.')
    missing = [column.name for column in table.columns if column.required]
    missing = [name for name in missing if name not in header]
    if missing:
        raise bad_csv(f"Line 1: found no {', '.join(missing)}, expected all required columns.")
    return [columns[name] for name in header]


def copy_from(cursor: Cursor, table: Table, body: CsvFile) -> int:
    """Add all rows of a CSV and return how many there are.

    Raises:
        falcon.HTTPUnprocessableEntity: the header or a line does not fit; it is named.
    """
    columns = match_header(table, body.header)
    # In a text column "" is the empty text and nothing at all is null; elsewhere both are null.
    typed = [column for column in columns if column.type.name != "text"]
    force_null = sql.SQL(", FORCE_NULL ({})").format(names_of(typed)) if typed else sql.SQL("")
    statement = sql.SQL(
        "COPY {} ({}) FROM STDIN WITH (FORMAT csv, HEADER, ENCODING 'UTF8'{})"
    ).format(table.identifier, names_of(columns), force_null)
    try:
        cursor.copy_expert(statement, body.rewind())
    except (psycopg2.DataError, psycopg2.IntegrityError) as error:
        raise _explain(error, table) from None
    return int(cursor.rowcount)


def copy_to(cursor: Cursor, table: Table, where: sql.Composable, file: BinaryIO) -> None:
    """Write rows as CSV with a header, in the order of their ids and without these."""
    # COPY itself writes a boolean as t, the cast writes it as true.
    columns = sql.SQL(", ").join(
        sql.SQL("{0}::text AS {0}" if column.type.name == "boolean" else "{0}").format(
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


def _explain(error: psycopg2.Error, table: Table) -> falcon.HTTPUnprocessableEntity:
    """Say in which line and column COPY stopped, what it found and what it expected."""
    diagnosis = error.diag
    place = _PLACE.match(diagnosis.context or "")
    message = (diagnosis.message_primary or str(error)).rstrip(".")
    if place is None:
        return bad_csv(f"PostgreSQL: {message}.")
    line, name, found = place.groups()
    where = f"Line {line}"
    # A constraint is named like its column.
    column = table.find(name or diagnosis.column_name or diagnosis.constraint_name or "")
    if column is None or found is None:
        return bad_csv(f"{where}: {message}; expected UTF-8 and one value for each column.")
    expected = column.type.expected
    if diagnosis.column_name:
        return bad_csv(f'{where}, column "{column.name}": found nothing, expected {expected}.')
    within = "" if name else "another value in the line "
    return bad_csv(f'{where}, column "{column.name}": found {within}{found}, expected {expected}.')
