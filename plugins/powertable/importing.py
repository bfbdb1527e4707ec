"""What the calls of CSV do: import, dry run, progress and export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import falcon

from app.plugin import Answer

from . import rows
from .answers import ImportResult, ImportStates, exact
from .charset import read_media_type
from .columns import Column, check_names
from .copying import copy_from, copy_to
from .detect import find_dialect
from .dialect import Dialect, read_delimiter, read_quote
from .exact_json import numbers_as_text
from .header import CsvFile, open_csv
from .hints import other_delimiter, refuse_excels_line
from .infer import infer_types
from .matching import match_columns
from .names import number_names, rename
from .params import Params, check_known, flag, read_numbers, read_params
from .progress import Import, Imports
from .query import parse_filters
from .quotes import check_quotes
from .settings import MAX_COLUMNS, Settings
from .spool import Text, bad_csv, new_file, receive_text
from .store import Cursor, TableStore, check_table_name

_KNOWN = ("create", "delimiter", "dry_run", "numbers", "quote", "rename")
_FIRST_ROWS = 10
_MOST_COLUMNS = 1600


@dataclass(frozen=True, slots=True)
class Order:
    """What an import's query string asks for; `delimiter` is None where it is to be found."""

    create: bool
    dry_run: bool
    rename: bool
    numbers_as_text: bool
    delimiter: str | None
    quote: str | None

    @classmethod
    def read(cls, req: falcon.Request) -> "Order":
        """Read it.

        Raises:
            falcon.HTTPBadRequest: a parameter is unknown, or its value.
        """
        params = check_known(req, _KNOWN)
        return cls(
            flag(params, "create"),
            flag(params, "dry_run"),
            flag(params, "rename"),
            read_numbers(params),
            read_delimiter(params),
            read_quote(params),
        )


class CsvApi:
    """The handlers of import and export; `folder` takes the temporary files."""

    def __init__(
        self, store: TableStore, imports: Imports, settings: Settings, folder: Path
    ) -> None:
        self._store = store
        self._imports = imports
        self._settings = settings
        self._folder = folder

    def import_csv(self, table: str, req: falcon.Request) -> Answer[ImportResult]:
        """Import a CSV file, the body: all of it, or nothing.

        The query takes `create`, `rename`, `dry_run`, `delimiter`, `quote` and `numbers=text`.
        """
        order = Order.read(req)
        check_table_name(table)
        media = read_media_type(req)
        limit = self._settings.max_import_bytes
        with (
            self._imports.begin(table, order.dry_run) as progress,
            receive_text(
                req, media.charset, order.quote, self._folder, limit, progress.goes_on
            ) as text,
        ):
            progress.received(text.size)
            csv_file = _read_file(text, order, media.has_header)
            answer = self._import(table, csv_file, order, progress)
        return exact(answer, made=table if order.create and not order.dry_run else "")

    def list_imports(self, table: str, req: falcon.Request) -> ImportStates:
        """List what is imported, and how the last imports ended."""
        check_known(req)
        check_table_name(table)
        with self._store.transaction() as cursor:
            found = self._imports.list(cursor, table)
            if not found:
                self._store.find_table(cursor, table)
        return {"imports": found}

    def export_csv(self, table: str, req: falcon.Request, resp: falcon.Response) -> None:
        """Export rows as CSV; the query takes filters, as `a__gt=5`."""
        params = read_params(req)
        file = new_file(self._folder)
        try:
            with self._store.transaction() as cursor:
                self._export(cursor, table, params, file)
            size = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        resp.content_type = "text/csv; charset=utf-8; header=present"
        resp.downloadable_as = f"{table}.csv"
        # The WSGI server closes the file, also when the client goes away.
        resp.set_stream(file, size)

    def _export(self, cursor: Cursor, table: str, params: Params, file: BinaryIO) -> None:
        found = self._store.find_table(cursor, table)
        copy_to(cursor, found, parse_filters(params, found, ()), file)

    def _import(
        self, table: str, csv_file: CsvFile, order: Order, progress: Import
    ) -> dict[str, Any]:
        """Copy the rows of a file, or see whether they could be, and return the answer."""
        columns = self._new_columns(csv_file, order) if order.create else []
        first: list[rows.Row] = []
        with self._store.transaction() as cursor:
            progress.copying(cursor)
            cursor.execute("SAVEPOINT before")
            if order.create:
                target = found = self._store.create_table(cursor, table, columns)
            else:
                target = found = self._store.find_table(cursor, table)
                columns = match_columns(found, csv_file, _names(csv_file, order))
                if order.dry_run:
                    target = self._store.create_like(cursor, found, f"_dry_run_{progress.id}")
            imported = copy_from(cursor, target, columns, csv_file, order.create)
            if order.dry_run:
                first = rows.first_rows(cursor, target, _FIRST_ROWS)
                first = numbers_as_text(first) if order.numbers_as_text else first
                cursor.execute("ROLLBACK TO SAVEPOINT before")
            progress.done(cursor, imported)
        answer = {
            "imported": imported,
            "import": progress.id,
            **found.as_json(),
            "delimiter": csv_file.dialect.delimiter,
            "encoding": csv_file.text.encoding,
            "blank_lines": csv_file.text.blank_lines,
        }
        if order.rename and csv_file.header is not None:
            answer["mapping"] = [
                {"header": name, "column": column.name}
                for name, column in zip(csv_file.header, columns, strict=True)
            ]
        if order.dry_run:
            answer |= {"dry_run": True, "imported": 0, "would_import": imported, "rows": first}
        return answer

    def _new_columns(self, csv_file: CsvFile, order: Order) -> list[Column]:
        limit = self._settings.max_columns
        names = _names(csv_file, order)
        try:
            check_names(names, limit)
        except ValueError as error:
            raise bad_csv(f"Line 1: {error}{_advice(csv_file, limit)}") from None
        types = infer_types(csv_file)
        return [Column(name, kind) for name, kind in zip(names, types, strict=True)]


def _advice(csv_file: CsvFile, limit: int) -> str:
    """Return what to do where a header has names that no column can have, or too many."""
    if csv_file.fields <= limit:
        return other_delimiter(csv_file) or " rename=true gives names that can be used."
    if csv_file.fields <= MAX_COLUMNS:
        return f" max_columns in plugin.yaml allows more, up to {MAX_COLUMNS}."
    return f" No table has more than {MAX_COLUMNS}: divide the file by its columns."


def _read_file(text: Text, order: Order, has_header: bool) -> CsvFile:
    refuse_excels_line(text)
    if order.delimiter is None:
        dialect = find_dialect(text, order.quote)
    else:
        dialect = Dialect(order.delimiter, order.quote)
        check_quotes(text, dialect)
    return open_csv(text, dialect, has_header)


def _names(csv_file: CsvFile, order: Order) -> list[str]:
    """Return the names of a file's columns; more than any table has are not worth a new name."""
    if csv_file.header is None:
        return number_names(csv_file.fields)
    renamed = order.rename and csv_file.fields <= _MOST_COLUMNS
    return rename(csv_file.header) if renamed else list(csv_file.header)
