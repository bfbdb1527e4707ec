"""The rows of one table: read, added, changed, deleted and aggregated.

Each function runs in the transaction of its cursor, after `TableStore.find_table`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import falcon
import psycopg2.extras
from psycopg2 import sql
from psycopg2.extensions import AsIs

from .columns import ID, Column, Table
from .query import Aggregate, Page
from .store import Cursor
from .values import MAX_BIGINT, as_json

Row = dict[str, Any]

DEFAULT = AsIs("DEFAULT")
"""The value of a column in a row that leaves it to the column's default."""


def names_of(columns: Sequence[Column]) -> sql.Composable:
    """Return the quoted names of columns, with commas."""
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def list_rows(
    cursor: Cursor, table: Table, where: sql.Composable, order: sql.Composable, page: Page
) -> tuple[list[Row], int]:
    """Return the rows of a page, and how many all pages have."""

    def count() -> int:
        cursor.execute(sql.SQL("SELECT count(*) FROM {}{}").format(table.identifier, where))
        return int(cursor.fetchone()[0])

    rows = _select(cursor, table, where + order + page.clause)
    return rows, page.total(len(rows), count)


def get_row(cursor: Cursor, table: Table, row_id: int) -> Row:
    """Return a row.

    Raises:
        falcon.HTTPNotFound: there is no such row.
    """
    rows = _select(cursor, table, _where_id(table, row_id))
    return _only(table, row_id, rows)


def first_rows(cursor: Cursor, table: Table, count: int) -> list[Row]:
    """Return the first rows of a table, without their ids."""
    tail = sql.SQL(" ORDER BY {} LIMIT {}").format(sql.Identifier(ID), sql.Literal(count))
    found = _select(cursor, table, tail)
    return [{name: value for name, value in row.items() if name != ID} for row in found]


def add_rows(cursor: Cursor, table: Table, rows: Sequence[tuple[Any, ...]]) -> list[int]:
    """Add rows of a value for each column that takes one, and return their ids in order."""
    statement = sql.SQL("INSERT INTO {} ({}) VALUES %s RETURNING {}").format(
        table.identifier, names_of(table.written), sql.Identifier(ID)
    )
    found = psycopg2.extras.execute_values(cursor, statement, rows, page_size=1000, fetch=True)
    return [row_id for (row_id,) in found]


def change_row(cursor: Cursor, table: Table, row_id: int, values: Mapping[str, Any]) -> Row:
    """Set columns of a row and return it whole.

    Raises:
        falcon.HTTPNotFound: there is no such row.
    """
    pairs = [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in values.items()
    ]
    cursor.execute(
        sql.SQL("UPDATE {} SET {}{} RETURNING {}").format(
            table.identifier, sql.SQL(", ").join(pairs), _where_id(table, row_id), _all(table)
        )
    )
    return _only(table, row_id, _fetch(cursor, table))


def delete_row(cursor: Cursor, table: Table, row_id: int) -> None:
    """Delete a row.

    Raises:
        falcon.HTTPNotFound: there is no such row.
    """
    where = _where_id(table, row_id)
    cursor.execute(sql.SQL("DELETE FROM {}{}").format(table.identifier, where))
    if cursor.rowcount == 0:
        raise _no_row(table, row_id)


def aggregate(
    cursor: Cursor, table: Table, where: sql.Composable, wanted: Aggregate, page: Page
) -> tuple[list[Row], int]:
    """Return a page of `{"group": {…}, "metrics": {…}}`, and how many groups there are."""
    group_by: sql.Composable = sql.SQL("")
    if wanted.groups:
        group_by = sql.SQL(" GROUP BY {}").format(names_of(wanted.groups))

    def count() -> int:
        groups = sql.SQL("SELECT FROM {}{}{}").format(table.identifier, where, group_by)
        cursor.execute(sql.SQL("SELECT count(*) FROM ({}) AS groups").format(groups))
        return int(cursor.fetchone()[0]) if wanted.groups else 1

    expressions = [
        *(sql.Identifier(column.name) for column in wanted.groups),
        *(metric.expression for metric in wanted.metrics),
    ]
    select = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(expressions), table.identifier)
    cursor.execute(select + where + group_by + wanted.order + page.clause)
    names = [column.name for column in wanted.groups]
    labels = [metric.label for metric in wanted.metrics]
    rows = []
    for row in cursor.fetchall():
        values = [as_json(value) for value in row]
        rows.append(
            {
                "group": dict(zip(names, values[: len(names)], strict=True)),
                "metrics": dict(zip(labels, values[len(names) :], strict=True)),
            }
        )
    return rows, page.total(len(rows), count)


def _all(table: Table) -> sql.Composable:
    return sql.SQL(", ").join(
        [sql.Identifier(ID), *(sql.Identifier(column.name) for column in table.columns)]
    )


def _select(cursor: Cursor, table: Table, tail: sql.Composable) -> list[Row]:
    cursor.execute(sql.SQL("SELECT {} FROM {}").format(_all(table), table.identifier) + tail)
    return _fetch(cursor, table)


def _fetch(cursor: Cursor, table: Table) -> list[Row]:
    names = [ID, *(column.name for column in table.columns)]
    return [dict(zip(names, map(as_json, row), strict=True)) for row in cursor.fetchall()]


def _where_id(table: Table, row_id: int) -> sql.Composable:
    # No row has an id that is no bigint, and PostgreSQL would refuse to compare with it.
    if not 0 < row_id <= MAX_BIGINT:
        raise _no_row(table, row_id)
    return sql.SQL(" WHERE {} = {}").format(sql.Identifier(ID), sql.Literal(row_id))


def _only(table: Table, row_id: int, rows: list[Row]) -> Row:
    if not rows:
        raise _no_row(table, row_id)
    return rows[0]


def _no_row(table: Table, row_id: int) -> falcon.HTTPNotFound:
    return falcon.HTTPNotFound(
        title="No such row", description=f'Table "{table.name}" has no row {row_id}.'
    )
