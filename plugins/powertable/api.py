"""What the HTTP calls do. README.md describes them from outside."""

from typing import Any

import falcon

from app.plugin import Answer

from . import rows
from .answers import Ids, Json, RowPage, ShownTable, Tables, exact
from .columns import Table, columns_from_json
from .exact_json import numbers_as_text, read_json
from .params import check_known, read_numbers, read_params
from .query import (
    AGGREGATE,
    PAGING,
    Page,
    parse_aggregate,
    parse_filters,
    parse_list,
    parse_page,
    parse_sort,
)
from .settings import Settings
from .store import TableStore, check_table_name
from .values import show


class TableApi:
    """The handlers of all routes but those of CSV."""

    def __init__(self, store: TableStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def list_tables(self, req: falcon.Request) -> Tables:
        """List the tables."""
        check_known(req)
        with self._store.transaction() as cursor:
            return {"tables": self._store.list_tables(cursor)}

    def create_table(self, table: str, body: bytes, req: falcon.Request) -> Answer[ShownTable]:
        """Make a table.

        Args:
            body: `{"columns": [{"name": "price", "type": "number", "required": true}]}`
        """
        check_known(req)
        check_table_name(table)
        definition = read_json(body)
        try:
            columns = columns_from_json(definition, self._settings.max_columns)
        except ValueError as error:
            raise _bad_body(str(error)) from None
        with self._store.transaction() as cursor:
            made = self._store.create_table(cursor, table, columns)
            answer = self._store.describe(cursor, made)
        return exact(answer, made=made.name)

    def get_table(self, table: str, req: falcon.Request) -> ShownTable:
        """Show a table."""
        check_known(req)
        with self._store.transaction() as cursor:
            return self._store.describe(cursor, self._store.find_table(cursor, table))

    def drop_table(self, table: str, req: falcon.Request) -> None:
        """Drop a table, with its rows."""
        check_known(req)
        with self._store.transaction() as cursor:
            self._store.drop_table(cursor, table)

    def list_rows(self, table: str, req: falcon.Request) -> Answer[RowPage]:
        """List rows.

        The query takes `page`, `page_size`, `sort=-a,b`, `numbers=text` and filters, as `a__gt=5`.
        """
        params = read_params(req)
        page = parse_page(req, self._settings.page_size, self._settings.max_page_size)
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            where = parse_filters(params, found, PAGING)
            order = parse_sort(parse_list(req, "sort"), found)
            answer, total = rows.list_rows(cursor, found, where, order, page)
        return _page(req, answer, page, total)

    def add_rows(self, table: str, body: bytes, req: falcon.Request) -> Answer[Ids]:
        """Add rows, all or none.

        Args:
            body: an object by column, or an array of them.
        """
        as_text = _only_numbers(req)
        entries = read_json(body)
        entries = entries if isinstance(entries, list) else [entries]
        limit = self._settings.max_insert_rows
        if not 0 < len(entries) <= limit:
            raise _bad_body(f"Found {len(entries)} rows, expected 1 to {limit}.")
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            if not found.written:
                raise _bad_body(f'Table "{table}" has no column that takes values.')
            values = [
                _read_row(found, entry, as_text, f"Row {number}: ")
                for number, entry in enumerate(entries, start=1)
            ]
            ids = rows.add_rows(cursor, found, [tuple(row.values()) for row in values])
        return exact(numbers_as_text({"ids": ids}) if as_text else {"ids": ids})

    def get_row(self, table: str, row_id: int, req: falcon.Request) -> Answer[Json]:
        """Show a row."""
        as_text = _only_numbers(req)
        with self._store.transaction() as cursor:
            row = rows.get_row(cursor, self._store.find_table(cursor, table), row_id)
        return exact(numbers_as_text(row) if as_text else row)

    def change_row(self, table: str, row_id: int, body: bytes, req: falcon.Request) -> Answer[Json]:
        """Change a row.

        Args:
            body: an object by column; a column that it leaves out stays as it is.
        """
        as_text = _only_numbers(req)
        entry = read_json(body)
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            values = _read_row(found, entry, as_text, partial=True)
            if not values:
                raise _bad_body(f"Found no column, expected some of {_names(found)}.")
            row = rows.change_row(cursor, found, row_id, values)
        return exact(numbers_as_text(row) if as_text else row)

    def delete_row(self, table: str, row_id: int, req: falcon.Request) -> None:
        """Delete a row."""
        check_known(req)
        with self._store.transaction() as cursor:
            rows.delete_row(cursor, self._store.find_table(cursor, table), row_id)

    def aggregate(self, table: str, req: falcon.Request) -> Answer[RowPage]:
        """Aggregate rows.

        The query takes `metrics=count,avg:wind`, `group_by=a,b`, `sort`, `page`, `page_size`,
        `numbers=text` and filters, as `a__gt=5`.
        """
        params = read_params(req)
        page = parse_page(req, self._settings.page_size, self._settings.max_page_size)
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            where = parse_filters(params, found, AGGREGATE)
            wanted = parse_aggregate(req, found)
            answer, total = rows.aggregate(cursor, found, where, wanted, page)
        return _page(req, answer, page, total)


def _page(req: falcon.Request, answer: list[rows.Row], page: Page, total: int) -> Answer[RowPage]:
    """Return a page of rows, whose numbers are texts if the request says so."""
    if read_numbers(req.params):
        answer = numbers_as_text(answer)
    shown = {"rows": answer, "page": page.number, "page_size": page.size, "total": total}
    return exact(shown)


def _only_numbers(req: falcon.Request) -> bool:
    """Refuse every parameter but `numbers`, and return whether numbers are texts."""
    return read_numbers(check_known(req, ("numbers",)))


def _read_row(
    table: Table, entry: object, as_text: bool, place: str = "", partial: bool = False
) -> dict[str, Any]:
    """Return a value for each column; what the entry leaves out is its default, null without one.

    A partial entry has nothing but what it names.
    """
    if not isinstance(entry, dict):
        raise _bad_body(f"{place}Found {show(entry)}, expected an object with {_names(table)}.")
    known = {column.name for column in table.written}
    for name in entry.keys() - known:
        column = table.find(name)
        why = " PostgreSQL fills it itself." if column and column.is_filled else ""
        raise _bad_body(f"{place}Found the column {show(name)}, expected {_names(table)}.{why}")
    columns = [column for column in table.written if not partial or column.name in entry]
    try:
        return {
            column.name: rows.DEFAULT
            if column.has_default and column.name not in entry
            else column.from_json(entry.get(column.name), as_text)
            for column in columns
        }
    except ValueError as error:
        raise _bad_body(f"{place}{error}") from None


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.written)


def _bad_body(sentence: str) -> falcon.HTTPUnprocessableEntity:
    return falcon.HTTPUnprocessableEntity(title="Bad values", description=sentence)
