"""All SQL on the processes that serve, and on what each of them runs."""

import datetime
from collections.abc import Collection, Mapping
from typing import Any

import psycopg2.errorcodes

from app.database.statements import Lender, statement, transaction
from app.database.tables import LOOK, Tables
from app.database.texts import as_json, encoding_of
from app.errors import DatabaseRefusedError
from app.records import LoadRecord, ServedRow, WorkerLoad, WorkerRow

HEARTBEAT_SECONDS = 2.0
DEAD_AFTER_HEARTBEATS = 3

_ALIVE = (
    f"heartbeat_at >= clock_timestamp() - interval '{HEARTBEAT_SECONDS * DEAD_AFTER_HEARTBEATS} s'"
)

# Whom another process is dropping already is left to that one; so nobody waits for anybody.
_DEAD = f"SELECT id FROM plugin_workers WHERE NOT {_ALIVE} FOR UPDATE SKIP LOCKED"  # noqa: S608


class WorkerRepository:
    """Reads and writes `plugin_workers` and `plugin_loads`.

    All methods raise DatabaseUnavailableError while the database is away, and DatabaseRefusedError
    where it refuses.
    """

    def __init__(self, database: Lender) -> None:
        self._database = database

    def register(
        self,
        worker: str,
        host: str,
        pid: int,
        generations_alive: int,
        started_at: datetime.datetime,
        former: str | None = None,
    ) -> None:
        """Enter a process, without any load; the id that it had before is dropped."""
        with transaction(self._database) as cursor:
            cursor.execute("DELETE FROM plugin_workers WHERE id IN (%s, %s)", (worker, former))
            cursor.execute(
                "INSERT INTO plugin_workers (id, host, pid, generations_alive, started_at)"
                " VALUES (%s, %s, %s, %s, %s)",
                (worker, host[:255], pid, generations_alive, started_at),
            )

    def heartbeat(self, worker: str, generations_alive: int) -> Tables | None:
        """Note that a process lives, drop the dead, and look at our tables: one round trip.

        Returns:
            The tables; None if the process is not entered.
        """
        with statement(self._database) as cursor:
            cursor.execute(
                "WITH beat AS (UPDATE plugin_workers SET heartbeat_at = clock_timestamp(),"  # noqa: S608
                " generations_alive = %s WHERE id = %s RETURNING id),"
                f" dropped AS (DELETE FROM plugin_workers WHERE id IN ({_DEAD}) AND id <> %s)"
                f" SELECT beat.id, tables.* FROM ({LOOK}) tables LEFT JOIN beat ON true",
                (generations_alive, worker, worker),
            )
            known, *tables = cursor.fetchone()
            return Tables.read(tuple(tables)) if known else None

    def record(self, worker: str, loads: Collection[LoadRecord]) -> bool:
        """Note what a process runs of some plugins; return whether it is entered at all."""
        with statement(self._database) as cursor:
            cursor.execute(
                "INSERT INTO plugin_loads (worker_id, plugin_name, plugin_id, generation,"
                " reconciled, state, error, milliseconds)"
                " SELECT w.id, l.*"
                " FROM (SELECT id FROM plugin_workers WHERE id = %s FOR KEY SHARE) w,"
                " unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],"
                " %s::jsonb[], %s::float8[]) l"
                " ON CONFLICT (worker_id, plugin_name) DO UPDATE SET"
                " plugin_id = EXCLUDED.plugin_id, generation = EXCLUDED.generation,"
                " reconciled = EXCLUDED.reconciled, state = EXCLUDED.state,"
                " error = EXCLUDED.error, milliseconds = EXCLUDED.milliseconds,"
                " recorded_at = clock_timestamp()",
                (
                    worker,
                    [load.plugin for load in loads],
                    [load.plugin_id for load in loads],
                    [load.generation for load in loads],
                    [load.reconciled for load in loads],
                    [load.state for load in loads],
                    [as_json(load.error, encoding_of(cursor)) for load in loads],
                    [load.milliseconds for load in loads],
                ),
            )
            return bool(cursor.rowcount)

    def leave(self, worker: str) -> None:
        """Drop a process that ends, and the dead: nobody may be left who would drop them."""
        with statement(self._database) as cursor:
            cursor.execute(
                f"DELETE FROM plugin_workers WHERE id = %s OR id IN ({_DEAD})",  # noqa: S608
                (worker,),
            )

    def list_workers(self) -> list[WorkerRow]:
        """Return the live processes, by host and process id."""
        found = self._read(
            "SELECT id, host, pid, generations_alive, started_at, heartbeat_at"  # noqa: S608
            f" FROM plugin_workers WHERE {_ALIVE} ORDER BY host, pid"
        )
        return [WorkerRow(*row) for row in found]

    def load_errors(self, plugin: str | None = None) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Return why live processes do not serve what the rows of plugins say, if they do not.

        Args:
            plugin: the plugin to ask for, all with None.

        Returns:
            An error for each row's id and generation that one of them could not load: that of the
            first of them, by host and process id, so that everybody is told the same.
        """
        found = self._read(
            "SELECT DISTINCT ON (l.plugin_id, l.reconciled) l.plugin_id, l.reconciled, l.error"  # noqa: S608
            " FROM plugin_loads l JOIN plugin_workers w ON w.id = l.worker_id"
            f" WHERE l.error IS NOT NULL AND {_ALIVE}"
            " AND (%s::text IS NULL OR l.plugin_name = %s)"
            " ORDER BY l.plugin_id, l.reconciled, w.host, w.pid",
            (plugin, plugin),
        )
        return {(row, generation): error for row, generation, error in found}

    def loads_of(self, plugin: str) -> list[WorkerLoad]:
        """Return what every live process runs of a plugin."""
        found = self._read(
            "SELECT w.host, w.pid, l.plugin_id, l.generation, l.reconciled, l.state, l.error,"  # noqa: S608
            " l.milliseconds FROM plugin_workers w LEFT JOIN plugin_loads l"
            f" ON l.worker_id = w.id AND l.plugin_name = %s WHERE {_ALIVE}"
            " ORDER BY w.host, w.pid",
            (plugin,),
        )
        return [
            WorkerLoad(host, pid, LoadRecord(plugin, *load) if load[0] is not None else None)
            for host, pid, *load in found
        ]

    def served_names(self, rows: Collection[ServedRow]) -> set[str]:
        """Return the names of the rows whose generation a live process serves."""
        found = self._read(
            "SELECT DISTINCT l.plugin_name FROM plugin_workers w JOIN plugin_loads l"  # noqa: S608
            " ON l.worker_id = w.id JOIN unnest(%s::text[], %s::bigint[]) AS r (id, generation)"
            f" ON l.plugin_id = r.id AND l.generation = r.generation WHERE {_ALIVE}",
            ([row.id for row in rows], [row.generation for row in rows]),
        )
        return {name for (name,) in found}

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return rows; none from a standby, which has no unlogged tables."""
        try:
            with statement(self._database) as cursor:
                cursor.execute(query, values)
                found: list[tuple[Any, ...]] = cursor.fetchall()
                return found
        except DatabaseRefusedError as error:
            if error.sqlstate != psycopg2.errorcodes.FEATURE_NOT_SUPPORTED:
                raise
            return []
