"""All SQL on the processes that serve, and on what each of them runs."""

import datetime
from collections.abc import Collection, Mapping
from typing import Any

import psycopg2.errorcodes

from app.database.foreign_triggers import undone
from app.database.rows import Row, columns_of, fetch_rows, only_row, record_of
from app.database.statements import Lender, statement, transaction
from app.database.tables import LOOK, Tables
from app.database.texts import as_json, encoding_of
from app.errors import DatabaseRefusedError
from app.presence import Presence, own_presence
from app.worker_records import Crew, LoadRecord, WorkerLoad, WorkerReport, WorkerRow

HEARTBEAT_SECONDS = 2.0
"""How often a process says that it lives."""

OVERDUE_SECONDS = 1.0
"""How late a heartbeat, or the database's answer to it, may be before that is said."""

DEAD_AFTER_HEARTBEATS = 3

_ALIVE = (
    f"heartbeat_at >= clock_timestamp() - interval '{HEARTBEAT_SECONDS * DEAD_AFTER_HEARTBEATS} s'"
)

# One that takes no more requests is listed, and not asked what it runs.
_ACCEPTS = "w.status IS DISTINCT FROM 'draining'"

# A process of this machine is looked up by these: one that was killed is not counted until its
# heartbeat expires. For other machines' processes the heartbeat decides.
_PRESENCE = columns_of(Presence, of="w")

_WORKERS = f"""
    SELECT w.machine, w.started, {columns_of(WorkerRow, of="w", without=("reasons", "owns"))},
        coalesce(w.reasons, '[]') AS reasons, ARRAY(SELECT l.plugin_name::text FROM plugin_loads l
            WHERE l.worker_id = w.id AND l.owner ORDER BY 1) AS owns,
        extract(epoch FROM clock_timestamp() - w.heartbeat_at)::float8 AS silent_seconds
    FROM plugin_workers w WHERE {_ALIVE} ORDER BY w.host, w.pid
"""  # noqa: S608 - constants
_LOADS = f"""
    SELECT {_PRESENCE}, w.id, w.host, w.master, w.crew,
        l.plugin_name AS plugin, {columns_of(LoadRecord, of="l", without=("plugin",))}
    FROM plugin_workers w LEFT JOIN plugin_loads l
        ON l.worker_id = w.id AND l.plugin_name = %s
    WHERE {_ALIVE} AND {_ACCEPTS} ORDER BY w.host, w.pid
"""  # noqa: S608 - constants

# A row that another process is deleting already is skipped, so that nobody waits.
_DEAD = f"SELECT id FROM plugin_workers WHERE NOT {_ALIVE} FOR UPDATE SKIP LOCKED"  # noqa: S608

# Part of each statement that deletes processes: there is no foreign key between the two tables.
_THEIR_LOADS = "loads AS (DELETE FROM plugin_loads l USING dropped d WHERE l.worker_id = d.id)"


class WorkerRepository:
    """Reads and writes `plugin_workers` and `plugin_loads`; what it returns is of live processes.

    All methods raise DatabaseUnavailableError while the database is away, and DatabaseRefusedError
    where it refuses.
    """

    def __init__(self, database: Lender) -> None:
        self._database = database

    def register(
        self,
        worker: str,
        host: str,
        presence: Presence,
        master: int,
        started_at: datetime.datetime,
        report: WorkerReport,
        former: str | None = None,
    ) -> None:
        """Enter a process, without any load.

        Args:
            worker: its id, a name of its own.
            host: the host's name.
            presence: how others of its machine can look it up.
            master: the process id of its master.
            started_at: when it began.
            report: what it says of itself.
            former: the id that it had before, which is dropped.
        """
        self._drop_gone()  # such as the one that it comes in place of
        with transaction(self._database) as cursor:
            cursor.execute(
                "WITH dropped AS (DELETE FROM plugin_workers WHERE id IN (%s, %s) RETURNING id),"  # noqa: S608
                f" {_THEIR_LOADS} SELECT count(*) FROM dropped",
                (worker, former),
            )
            cursor.execute(
                "INSERT INTO plugin_workers (id, host, machine, pid, started, master, started_at,"
                " generations_alive, status, reasons, crew)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    worker,
                    host[:255],
                    presence.machine,
                    presence.pid,
                    presence.started,
                    master,
                    started_at,
                    *_columns(report, encoding_of(cursor)),
                ),
            )
            if not cursor.rowcount:
                raise undone(cursor, None, "INSERT", "no process is entered", "plugin_workers")

    def heartbeat(self, worker: str, report: WorkerReport, loads: int = 0) -> Tables | None:
        """Note that a process lives, drop the dead, and look at our tables: one round trip.

        Returns:
            The tables; None if the process is not entered, or not with so many loads.
        """
        with statement(self._database) as cursor:
            cursor.execute(
                "WITH beat AS (UPDATE plugin_workers SET heartbeat_at = clock_timestamp(),"  # noqa: S608
                " generations_alive = %s, status = %s, reasons = %s, crew = %s WHERE id = %s AND %s"
                " <= (SELECT count(*) FROM plugin_loads WHERE worker_id = %s) RETURNING id),"
                f" dropped AS (DELETE FROM plugin_workers WHERE id IN ({_DEAD}) AND id <> %s"
                f" RETURNING id), {_THEIR_LOADS}"
                f" SELECT beat.id, tables.* FROM ({LOOK}) tables LEFT JOIN beat ON true",
                (*_columns(report, encoding_of(cursor)), worker, loads, worker, worker),
            )
            row = only_row(cursor)
            return Tables.read(row) if row["id"] else None

    def record(self, worker: str, loads: Collection[LoadRecord]) -> bool:
        """Note what a process runs of some plugins; return whether it is entered at all."""
        with statement(self._database) as cursor:
            encoding = encoding_of(cursor)
            cursor.execute(
                "WITH w AS (SELECT id FROM plugin_workers WHERE id = %s FOR KEY SHARE),"
                " recorded AS (INSERT INTO plugin_loads (worker_id, plugin_name, plugin_id,"
                " generation, reconciled, state, error, owner) SELECT w.id, l.* FROM w,"
                " unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],"
                " %s::jsonb[], %s::boolean[]) l"
                " ON CONFLICT (worker_id, plugin_name) DO UPDATE SET"
                " plugin_id = EXCLUDED.plugin_id, generation = EXCLUDED.generation,"
                " reconciled = EXCLUDED.reconciled, state = EXCLUDED.state,"
                " error = EXCLUDED.error, owner = EXCLUDED.owner RETURNING 1)"
                " SELECT (SELECT count(*) FROM w), (SELECT count(*) FROM recorded)",
                (
                    worker,
                    [load.plugin for load in loads],
                    [load.plugin_id for load in loads],
                    [load.generation for load in loads],
                    [load.reconciled for load in loads],
                    [load.state for load in loads],
                    [as_json(load.error, encoding) for load in loads],
                    [load.owner for load in loads],
                ),
            )
            entered, recorded = cursor.fetchone()
            if entered and recorded < len(loads):
                raise undone(cursor, None, "INSERT", "what it runs is not written", "plugin_loads")
            return bool(entered)

    def forget(self, worker: str, plugins: Collection[str]) -> None:
        """Drop what a process ran of plugins whose rows are gone."""
        with statement(self._database) as cursor:
            cursor.execute(
                "DELETE FROM plugin_loads WHERE worker_id = %s AND plugin_name = ANY(%s)",
                (worker, list(plugins)),
            )

    def record_failures(self, loads: Collection[LoadRecord]) -> None:
        """Note in the rows why generations cannot be loaded, of those that no process can load.

        Args:
            loads: what a process could not load.
        """
        self._drop_gone()  # a killed process would be waited for as long as its heartbeat counts
        with statement(self._database, pace="brief") as cursor:
            encoding = encoding_of(cursor)
            cursor.execute(
                "UPDATE plugins p SET error = l.error"  # noqa: S608
                " FROM unnest(%s::text[], %s::bigint[], %s::jsonb[]) l (id, generation, error)"
                " WHERE p.id = l.id AND p.generation = l.generation AND p.status = 'active'"
                " AND p.error IS NULL AND NOT EXISTS (SELECT 1 FROM plugin_workers w"
                " LEFT JOIN plugin_loads o ON o.worker_id = w.id AND o.plugin_id = p.id"
                f" WHERE {_ALIVE} AND {_ACCEPTS}"
                " AND (o.state IS NULL OR o.state <> 'failed'"
                " OR o.reconciled < p.generation))",
                (
                    [load.plugin_id for load in loads],
                    [load.reconciled for load in loads],
                    [as_json(load.error, encoding) for load in loads],
                ),
            )

    def _drop_gone(self) -> None:
        """Drop the processes of this machine that have ended without a word."""
        with statement(self._database) as cursor:
            cursor.execute(
                f"SELECT {_PRESENCE}, w.id FROM plugin_workers w WHERE w.machine = %s",  # noqa: S608
                (own_presence().machine,),
            )
            rows = fetch_rows(cursor)
            live = {row["id"] for row in _live(rows)}
            gone = [row["id"] for row in rows if row["id"] not in live]
            if gone:
                cursor.execute(
                    "WITH dropped AS (DELETE FROM plugin_workers WHERE id IN (SELECT id"  # noqa: S608
                    " FROM plugin_workers WHERE id = ANY(%s) FOR UPDATE SKIP LOCKED)"
                    f" RETURNING id), {_THEIR_LOADS} SELECT count(*) FROM dropped",
                    (gone,),
                )

    def leave(self, worker: str) -> None:
        """Drop a process that ends, and the dead: nobody may be left who would drop them."""
        self._drop_gone()
        with transaction(self._database) as cursor:
            cursor.execute(
                f"DELETE FROM plugin_workers WHERE id = %s OR id IN ({_DEAD})",  # noqa: S608
                (worker,),
            )
            # All of nobody's: one may have come while its process was dropped.
            cursor.execute(
                "DELETE FROM plugin_loads l"
                " WHERE NOT EXISTS (SELECT 1 FROM plugin_workers w WHERE w.id = l.worker_id)"
            )

    def list_workers(self) -> list[WorkerRow]:
        """Return the live processes, by host and process id.

        One whose heartbeat is overdue is not called ready: what it said last may not be so any
        more.
        """
        longest = HEARTBEAT_SECONDS + OVERDUE_SECONDS
        return [
            worker if (silent := row["silent_seconds"]) <= longest else worker.unheard(silent)
            for row in self._read_live(_WORKERS)
            for worker in [record_of(WorkerRow, row)]
        ]

    def load_errors(self, plugin: str | None = None) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Return why live processes do not serve what the rows of plugins say, if they do not.

        Args:
            plugin: the plugin to ask for, all with None.

        Returns:
            An error for each row's id and generation that one of them could not load: that of the
            first of them, by host and process id, so that everybody is told the same.
        """
        rows = self._read_live(
            f"SELECT {_PRESENCE}, l.plugin_id, l.reconciled, l.error"  # noqa: S608
            " FROM plugin_loads l JOIN plugin_workers w ON w.id = l.worker_id"
            f" WHERE l.error IS NOT NULL AND {_ALIVE} AND {_ACCEPTS}"
            " AND (%s::text IS NULL OR l.plugin_name = %s)"
            " ORDER BY w.host DESC, w.pid DESC",  # so that the first is the one that stays
            (plugin, plugin),
        )
        return {(row["plugin_id"], row["reconciled"]): row["error"] for row in rows}

    def loads_of(self, plugin: str) -> list[WorkerLoad]:
        """Return what every live process runs of a plugin."""
        return [_worker_load(row) for row in self._read_live(_LOADS, (plugin,))]

    def _read_live(self, query: str, values: tuple[Any, ...] = ()) -> list[Row]:
        """Return the rows of live processes; none from a standby, which has no unlogged tables."""
        try:
            with statement(self._database) as cursor:
                cursor.execute(query, values)
                return _live(fetch_rows(cursor))
        except DatabaseRefusedError as error:
            if error.sqlstate != psycopg2.errorcodes.FEATURE_NOT_SUPPORTED:
                raise
            return []


def _live(rows: list[Row]) -> list[Row]:
    """Return the rows without those of processes that have ended."""
    gone: dict[Presence, bool] = {}
    for row in rows:
        presence = record_of(Presence, row)
        if presence not in gone:
            gone[presence] = presence.is_gone()
    return [row for row in rows if not gone[record_of(Presence, row)]]


def _worker_load(row: Row) -> WorkerLoad:
    crew = (row["machine"], row["master"], row["crew"])
    known = None if None in crew else Crew(*crew)
    load = record_of(LoadRecord, row) if row["plugin_id"] is not None else None
    return WorkerLoad(row["host"], row["pid"], load, row["id"], known)


def _columns(report: WorkerReport, encoding: str | None) -> tuple[Any, ...]:
    reasons = [
        {**reason.as_record(), "since": reason.since.isoformat()} for reason in report.reasons
    ]
    return (report.generations_alive, report.status, as_json(reasons, encoding), report.crew)
