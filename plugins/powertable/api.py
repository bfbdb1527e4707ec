"""What the HTTP calls do. README.md describes them from outside."""

from pathlib import Path
from typing import Any

import falcon

from . import rows
from .columns import NAME_RULE, Column, Table, check_names, columns_from_json, is_name
from .copying import copy_from, copy_to
from .infer import infer_types
from .query import (
    AGGREGATE,
    PAGING,
    parse_aggregate,
    parse_filters,
    parse_list,
    parse_page,
    parse_sort,
)
from .settings import Settings
from .spool import CsvFile, bad_csv, new_file, receive_csv
from .store import Cursor, TableStore
from .values import show


class TableApi:
    """The handlers of the plugin's routes; `folder` takes the temporary files."""

    def __init__(self, store: TableStore, settings: Settings, folder: Path) -> None:
        self._store = store
        self._settings = settings
        self._folder = folder

    def list_tables(self) -> dict[str, Any]:
        with self._store.transaction() as cursor:
            return {"tables": self._store.list_tables(cursor)}

    def create_table(
        self, table: str, body: dict[str, Any], resp: falcon.Response
    ) -> dict[str, Any]:
        _check_table_name(table)
        try:
            columns = columns_from_json(body, self._settings.max_columns)
        except ValueError as error:
            raise _bad_body(str(error)) from None
        with self._store.transaction() as cursor:
            made = self._store.create_table(cursor, table, columns)
            answer = self._store.describe(cursor, made)
        _created(resp, made)
        return answer

    def get_table(self, table: str) -> dict[str, Any]:
        with self._store.transaction() as cursor:
            return self._store.describe(cursor, self._store.find_table(cursor, table))

    def drop_table(self, table: str) -> None:
        with self._store.transaction() as cursor:
            self._store.drop_table(cursor, table)

    def list_rows(self, table: str, req: falcon.Request) -> dict[str, Any]:
        page = parse_page(req, self._settings.page_size, self._settings.max_page_size)
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            where = parse_filters(req.params, found, PAGING)
            order = parse_sort(parse_list(req, "sort"), found)
            answer, total = rows.list_rows(cursor, found, where, order, page)
        return {"rows": answer, "page": page.number, "page_size": page.size, "total": total}

    def add_rows(
        self, table: str, body: dict[str, Any] | list[Any], resp: falcon.Response
    ) -> dict[str, Any]:
        entries = body if isinstance(body, list) else [body]
        limit = self._settings.max_insert_rows
        if not 0 < len(entries) <= limit:
            raise _bad_body(f"Found {len(entries)} rows, expected 1 to {limit}.")
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            values = [
                _read_row(found, found.columns, entry, f"Row {number}: ")
                for number, entry in enumerate(entries, start=1)
            ]
            ids = rows.add_rows(cursor, found, [tuple(row.values()) for row in values])
        resp.status = falcon.HTTP_201
        return {"ids": ids}

    def get_row(self, table: str, row_id: int) -> dict[str, Any]:
        with self._store.transaction() as cursor:
            return rows.get_row(cursor, self._store.find_table(cursor, table), row_id)

    def change_row(self, table: str, row_id: int, body: dict[str, Any]) -> dict[str, Any]:
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            given = [column for column in found.columns if column.name in body]
            values = _read_row(found, given, body)
            if not values:
                raise _bad_body(f"Found no column, expected some of {_names(found)}.")
            return rows.change_row(cursor, found, row_id, values)

    def delete_row(self, table: str, row_id: int) -> None:
        with self._store.transaction() as cursor:
            rows.delete_row(cursor, self._store.find_table(cursor, table), row_id)

    def aggregate(self, table: str, req: falcon.Request) -> dict[str, Any]:
        page = parse_page(req, self._settings.page_size, self._settings.max_page_size)
        with self._store.transaction() as cursor:
            found = self._store.find_table(cursor, table)
            where = parse_filters(req.params, found, AGGREGATE)
            wanted = parse_aggregate(req, found)
            answer, total = rows.aggregate(cursor, found, where, wanted, page)
        return {"rows": answer, "page": page.number, "page_size": page.size, "total": total}

    def import_csv(self, table: str, req: falcon.Request, resp: falcon.Response) -> dict[str, Any]:
        create = req.get_param_as_bool("create", default=False)
        if create:
            _check_table_name(table)
        limit = self._settings.max_import_bytes
        with receive_csv(req, self._folder, limit) as csv_file:
            columns = self._infer_columns(csv_file) if create else []
            with self._store.transaction() as cursor:
                if create:
                    found = self._store.create_table(cursor, table, columns)
                else:
                    found = self._store.find_table(cursor, table)
                imported = copy_from(cursor, found, csv_file)
        if create:
            _created(resp, found)
        return {"imported": imported, **found.as_json()}

    def export_csv(self, table: str, req: falcon.Request, resp: falcon.Response) -> None:
        file = new_file(self._folder)
        try:
            with self._store.transaction() as cursor:
                self._export(cursor, table, req, file)
            size = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        resp.content_type = "text/csv; charset=utf-8; header=present"
        resp.downloadable_as = f"{table}.csv"
        # The WSGI server closes the file, also when the client goes away.
        resp.set_stream(file, size)

    def _infer_columns(self, csv_file: CsvFile) -> list[Column]:
        names = csv_file.header
        try:
            check_names(names, self._settings.max_columns)
        except ValueError as error:
            raise bad_csv(f"Line 1: {error}") from None
        types = infer_types(csv_file.rewind(), len(names))
        return [Column(name, kind) for name, kind in zip(names, types, strict=True)]

    def _export(self, cursor: Cursor, table: str, req: falcon.Request, file: Any) -> None:
        found = self._store.find_table(cursor, table)
        copy_to(cursor, found, parse_filters(req.params, found, ()), file)


def _read_row(table: Table, columns: Any, entry: object, place: str = "") -> dict[str, Any]:
    """Return a value for each of `columns`; what the entry does not have is null."""
    if not isinstance(entry, dict):
        raise _bad_body(f"{place}Found {show(entry)}, expected an object with {_names(table)}.")
    known = {column.name for column in table.columns}
    for name in entry.keys() - known:
        raise _bad_body(f"{place}Found the column {show(name)}, expected {_names(table)}.")
    try:
        return {column.name: column.from_json(entry.get(column.name)) for column in columns}
    except ValueError as error:
        raise _bad_body(f"{place}{error}") from None


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _check_table_name(name: str) -> None:
    if not is_name(name):
        raise _bad_body(f"Found the table name {show(name)}, expected {NAME_RULE}.")


def _bad_body(sentence: str) -> falcon.HTTPUnprocessableEntity:
    return falcon.HTTPUnprocessableEntity(title="Bad values", description=sentence)


def _created(resp: falcon.Response, table: Table) -> None:
    resp.status = falcon.HTTP_201
    resp.location = f"/powertable/{table.name}"
