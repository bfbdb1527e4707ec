"""What has become of the imports: asked for from another connection, by whichever process.

Each import has a row in the table `_imports`, whose name no table of a user can have. It is
written in transactions of its own, but for the end of a good import, which is committed with its
rows: `done` is true as soon as the rows are there, and never before. While PostgreSQL copies, the
import holds an advisory lock, and so the view of PostgreSQL that counts its rows can be found.
Until then it holds nothing, and says each second that it goes on: one that no longer does, because
its client sends nothing or its process was killed, is called `silent`.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import falcon
from psycopg2 import sql

from .store import Cursor, TableStore
from .values import as_json

_KEPT_DAYS = 7
_SHOWN = 20
_NOTED_SECONDS = 1
_SILENT_SECONDS = 60

_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    dry_run boolean NOT NULL,
    state text NOT NULL DEFAULT 'receiving',
    bytes bigint,
    rows bigint,
    error text,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

_LIST = """
SELECT i.id, i.dry_run,
       CASE WHEN l.pid IS NOT NULL THEN 'copying'
            WHEN i.state IN ('receiving', 'checking')
                AND i.changed < clock_timestamp() - make_interval(secs => {}) THEN 'silent'
            ELSE i.state END AS state,
       i.bytes, p.bytes_processed AS bytes_copied, coalesce(p.tuples_processed, i.rows) AS rows,
       i.error, i.started, i.changed
FROM {} i
LEFT JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint)
        = hashtextextended({} || i.id::text, 0)
LEFT JOIN pg_stat_progress_copy p ON p.pid = l.pid
WHERE i.table_name = {}
ORDER BY i.id DESC
LIMIT {}
"""


class Import:
    """One import whose progress is written down."""

    def __init__(self, imports: "Imports", number: int) -> None:
        self._imports = imports
        self._noted = -math.inf  # when it was last noted that it goes on, in seconds
        self._copies = False
        self.id = number

    def goes_on(self, size: int) -> None:
        """Note that it goes on, and how much of the body is there, in bytes of UTF-8.

        At most once a second, and not while it copies: its lock says so then, and a second
        connection might not be free.
        """
        if self._copies or time.monotonic() - self._noted < _NOTED_SECONDS:
            return
        self._noted = time.monotonic()
        with self._imports.transaction() as cursor:
            self._set(cursor, bytes=size)

    def received(self, size: int) -> None:
        """Note that the whole body is there, in bytes of UTF-8, and is being checked."""
        self._noted = time.monotonic()
        with self._imports.transaction() as cursor:
            self._set(cursor, state="checking", bytes=size)

    def copying(self, cursor: Cursor) -> None:
        """Let others find the COPY that is about to begin in this transaction."""
        self._copies = True
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            (f"{self._imports.key}{self.id}",),
        )

    def done(self, cursor: Cursor, rows: int) -> None:
        """Note the good end, in the transaction of the import."""
        self._set(cursor, state="done", rows=rows)

    def failed(self, error: str) -> None:
        """Note the bad end."""
        with self._imports.transaction() as cursor:
            self._set(cursor, state="failed", error=error)

    def _set(self, cursor: Cursor, **values: Any) -> None:
        pairs = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in values.items()
        ]
        cursor.execute(
            sql.SQL("UPDATE {} SET changed = clock_timestamp(), {} WHERE id = {}").format(
                self._imports.identifier, sql.SQL(", ").join(pairs), sql.Literal(self.id)
            )
        )


class Imports:
    """The imports of all tables of a store."""

    def __init__(self, store: TableStore) -> None:
        self.transaction = store.transaction
        self.identifier = sql.Identifier(store.schema, "_imports")
        self.key = f"benana-import:{store.schema}:"

    def create_table(self, cursor: Cursor) -> None:
        """Make the table if it is not there; the caller sees to it that one does at a time."""
        cursor.execute(sql.SQL(_CREATE).format(self.identifier))

    @contextmanager
    def begin(self, table: str, dry_run: bool) -> Iterator[Import]:
        """Write down an import while the block runs, and how it fails if it does."""
        with self.transaction() as cursor:
            cursor.execute(
                sql.SQL("DELETE FROM {} WHERE changed < now() - make_interval(days => {})").format(
                    self.identifier, sql.Literal(_KEPT_DAYS)
                )
            )
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {} (table_name, dry_run, bytes) VALUES ({}, 0) RETURNING id"
                ).format(
                    self.identifier,
                    sql.SQL(", ").join([sql.Literal(table), sql.Literal(dry_run)]),
                )
            )
            begun = Import(self, cursor.fetchone()[0])
        try:
            yield begun
        except falcon.HTTPError as error:
            begun.failed(error.description or error.title or "")
            raise
        except BaseException as error:
            begun.failed(f"{type(error).__name__}: {_first_line(error)}; the log may say more.")
            raise

    def list(self, cursor: Cursor, table: str) -> list[dict[str, Any]]:
        """Return a table's imports of the last days, the newest first, 20 at most.

        `state` is receiving, checking, copying, silent, done or failed; `bytes` and
        `bytes_copied` are UTF-8, `rows` those that were copied so far, and none of them can be
        seen before `done`.
        """
        query = sql.SQL(_LIST).format(
            sql.Literal(_SILENT_SECONDS),
            self.identifier,
            sql.Literal(self.key),
            sql.Literal(table),
            sql.Literal(_SHOWN),
        )
        cursor.execute(query)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, map(as_json, row), strict=True)) for row in cursor.fetchall()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
