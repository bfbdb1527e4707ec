"""All SQL on folders that never were valid plugins, and on errors that a row may not hold."""

from collections.abc import Mapping
from typing import Any

from app.database.rows import columns_of, fetch_record, fetch_records
from app.database.statements import Lender, statement
from app.database.texts import as_json, encoding_of, storable
from app.records import PluginFailure

_FAILURES = f"SELECT {columns_of(PluginFailure)} FROM plugin_failures"  # noqa: S608 - constants


class FailureRepository:
    """Reads and writes `plugin_failures`, as `Repository.failures`; errors as of that."""

    def __init__(self, database: Lender) -> None:
        self._database = database

    def list_all(self) -> list[PluginFailure]:
        """Return the folders that never were valid plugins, by name."""
        with statement(self._database) as cursor:
            cursor.execute(
                f"{_FAILURES} WHERE name NOT IN (SELECT name FROM plugins) ORDER BY name"  # noqa: S608
            )
            return fetch_records(cursor, PluginFailure)

    def find(self, name: str) -> PluginFailure | None:
        """Return why a folder is no valid plugin, None if nothing is known."""
        with statement(self._database) as cursor:
            cursor.execute(f"{_FAILURES} WHERE name = %s", (storable(name, encoding_of(cursor)),))
            return fetch_record(cursor, PluginFailure)

    def record(self, name: str, source_path: str, error: Mapping[str, Any]) -> None:
        """Note why a folder is no valid plugin, or what is wrong with one that is registered."""
        with statement(self._database, pace="brief") as cursor:
            encoding = encoding_of(cursor)
            cursor.execute(
                "INSERT INTO plugin_failures (name, source_path, error) VALUES (%s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET source_path = EXCLUDED.source_path,"
                " error = EXCLUDED.error, updated_at = clock_timestamp()",
                (
                    storable(name, encoding)[:255],
                    storable(source_path, encoding),
                    as_json(error, encoding),
                ),
            )

    def forget(self, name: str) -> None:
        """Forget that a folder was no valid plugin."""
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "DELETE FROM plugin_failures WHERE name = %s",
                (storable(name, encoding_of(cursor))[:255],),
            )
