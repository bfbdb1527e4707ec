"""All SQL on plugins' rows; failures and publishes have files of their own."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from app.database.endpoints import EndpointRepository
from app.database.failures import FailureRepository
from app.database.foreign_triggers import stands_still, undone
from app.database.plugin_rows import PLUGIN_ROWS, read_plugin_row
from app.database.publication import KEPT_VERSIONS, Publication
from app.database.regressions import RegressionRepository
from app.database.reloads import ReloadRepository
from app.database.row_states import RowStateRepository
from app.database.rows import each_row, fetch_records, fetch_row, fetch_rows
from app.database.schema import LOCK_TIMEOUT, apply_schema
from app.database.served_rows import SERVED_ROW, SERVED_ROWS, SERVED_ROWS_AND_SILENCE
from app.database.statements import Lender, statement, transaction
from app.database.tables import BY_PUBLISH, NOTIFIERS, silence_of
from app.database.texts import as_json, encoding_of, storable
from app.database.versions import VersionRepository
from app.errors import DatabaseRefusedError
from app.records import Artifact, PluginRow, ServedRow


class Repository:
    """Reads and writes what is registered; every method is one transaction.

    `failures` are the folders that never were valid plugins, `regressions` the versions that are
    worse than the ones before; `reloads` are how versions go live; `endpoints` corrects the record
    of a version's routes; `versions` gives one back; `states` are how far rows are; `publishing`
    opens a publish.

    All methods raise DatabaseUnavailableError while the database is away, DatabaseBusyError while
    somebody keeps a lock or all connections, and DatabaseRefusedError where it refuses.
    """

    def __init__(self, database: Lender, kept_versions: int = KEPT_VERSIONS) -> None:
        """Make it.

        Args:
            database: who lends its connections.
            kept_versions: how many versions of a plugin a publish keeps.
        """
        self._database = database
        self._kept_versions = kept_versions
        self.failures = FailureRepository(database)
        self.regressions = RegressionRepository(database)
        self.reloads = ReloadRepository(database)
        self.endpoints = EndpointRepository(database)
        self.versions = VersionRepository(database)
        self.states = RowStateRepository(database)

    def apply_schema(self, lock_timeout: str = LOCK_TIMEOUT) -> bool:
        """Bring the database to the schema; return whether anything was applied.

        Args:
            lock_timeout: how long to wait for a lock, as PostgreSQL writes it.
        """
        with self._database.connection() as connection:
            pool = self._database.pool
            return apply_schema(
                connection,
                pool.locks,
                lock_timeout=lock_timeout,
                beginning=pool.sessions.beginning,
            )

    # --- reading ---------------------------------------------------------------------------

    def list_rows(self) -> list[PluginRow]:
        """Return all rows with their endpoints, by name."""
        with statement(self._database) as cursor:
            cursor.execute(f"{PLUGIN_ROWS} ORDER BY p.name")
            return [read_plugin_row(row) for row in each_row(cursor)]

    def find_row(self, name: str) -> PluginRow | None:
        """Return a plugin's row with its endpoints, None if there is none."""
        with statement(self._database) as cursor:
            cursor.execute(
                f"{PLUGIN_ROWS} WHERE p.name = %s", (storable(name, encoding_of(cursor)),)
            )
            row = fetch_row(cursor)
            return read_plugin_row(row) if row else None

    def is_locked(self, row: PluginRow) -> bool:
        """Tell, without waiting, whether somebody else holds a plugin's row."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM plugins WHERE id = %s) AND NOT EXISTS (SELECT 1"
                " FROM (SELECT 1 FROM plugins WHERE id = %s FOR UPDATE SKIP LOCKED) free)",
                (row.id, row.id),
            )
            return bool(cursor.fetchone()[0])

    def find_by_source(self, folder: str, name: str) -> list[PluginRow]:
        """Return the rows whose `source_path` is a folder or lies within it.

        Where there is none, the row of a name, if that is there.
        """
        with statement(self._database) as cursor:
            texts = [storable(text, encoding_of(cursor)) for text in (name, folder, f"{folder}/")]
            cursor.execute(
                f"{PLUGIN_ROWS} WHERE p.name = %s OR p.source_path = %s"
                " OR starts_with(p.source_path, %s)",
                texts,
            )
            rows = [read_plugin_row(row) for row in fetch_rows(cursor)]
        return [row for row in rows if f"{row.source_path}/".startswith(texts[2])] or rows

    def served_rows(self, names: Collection[str] | None = None) -> list[ServedRow]:
        """Return what decides what is served, oldest first; of all plugins or of some.

        Raises:
            DatabaseRefusedError: a table is missing, or a trigger that tells of changes and, where
                names are given, the row of one: as while a dump is restored, when what is not
                there is not gone.
        """
        if names is not None:
            wanted = set(names)
            with statement(self._database) as cursor:
                if len(wanted) == 1:
                    cursor.execute(SERVED_ROW, tuple(wanted))
                else:
                    cursor.execute(SERVED_ROWS, (list(wanted),))
                served = fetch_records(cursor, ServedRow)
            if len(served) == len(wanted):
                return served
        some = None if names is None else list(names)
        with statement(self._database) as cursor:
            cursor.execute(SERVED_ROWS_AND_SILENCE, (list(NOTIFIERS), some, some))
            first = fetch_row(cursor) or {}  # there is one without plugins, too, which names none
            cursor.scroll(0, mode="absolute")
            served = fetch_records(cursor, ServedRow)
        if silent := first["silent"]:
            raise DatabaseRefusedError(silence_of(silent), sqlstate="")
        return [row for row in served if row.id is not None]

    def find_artifact(self, plugin: str, digest: str) -> Artifact | None:
        """Return a version with its archive, None if there is none."""
        with statement(self._database, pace="bulk") as cursor:
            cursor.execute(
                "SELECT archive_sha256, archive FROM plugin_versions"
                " WHERE plugin_name = %s AND source_digest = %s",
                (plugin, digest),
            )
            row = fetch_row(cursor)
            if row is None:
                return None
            return Artifact(plugin, digest, row["archive_sha256"], bytes(row["archive"]))

    # --- publishing ------------------------------------------------------------------------

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Publication]:
        """Open the transaction of one publish; nobody is held up before `lock_row`."""
        with transaction(self._database, pace="bulk") as cursor:
            yield Publication(cursor, self._database.pool.timeouts, self._kept_versions)

    def record_error(self, row: PluginRow, error: Mapping[str, Any] | None) -> None:
        """Note what is wrong with a plugin's newest source, if its row is still the given one.

        With None nothing is wrong with the source; that its generation cannot be loaded stays, and
        so does why the row was set back.
        """
        with statement(self._database, pace="brief") as cursor:
            text = as_json(error, encoding_of(cursor))
            cursor.execute(
                "UPDATE plugins SET error = %s WHERE id = %s AND generation = %s"
                " AND error IS DISTINCT FROM %s AND name ~ '^[a-z][a-z0-9_]{0,62}$'"
                " AND NOT (%s AND coalesce(error ?| ARRAY['generation', 'set_back'], false))",
                (text, row.id, row.generation, text, error is None),
            )
            if error is None:
                cursor.execute("DELETE FROM plugin_failures WHERE name = %s", (row.name,))

    def forget_load_error(self, row: ServedRow) -> None:
        """Note that a row's generation can be loaded after all."""
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "UPDATE plugins SET error = NULL"
                " WHERE id = %s AND generation = %s AND error ? 'generation'",
                (row.id, row.generation),
            )

    def stamp(self, row: ServedRow) -> int | None:
        """Have our triggers do for a row what they did not do when its `binary_path` was set.

        So its generation grows, and it says what it serves.

        Returns:
            The new generation, None if the row is another one by now.

        Raises:
            DatabaseRefusedError: the row cannot be what it says, as a trigger would have said, or
                none fires in sessions of ours either.
        """
        with transaction(self._database, pace="brief") as cursor:
            cursor.execute(
                "SELECT 1 FROM plugins WHERE id = %s AND generation = %s AND binary_path = %s"
                " FOR UPDATE",
                (row.id, row.generation, row.binary_path),
            )
            if cursor.fetchone() is None:
                return None
            # They look at what changes.
            cursor.execute("UPDATE plugins SET binary_path = NULL WHERE id = %s", (row.id,))
            cursor.execute(
                "UPDATE plugins SET binary_path = %s WHERE id = %s RETURNING generation",
                (row.binary_path, row.id),
            )
            generation = int(cursor.fetchone()[0])
            if generation <= row.generation:
                raise stands_still(cursor, row.name, generation)
            return generation

    def unregister(self, name: str, source_path: str) -> bool:
        """Delete the row of a plugin whose source folder is gone; return whether there was one."""
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "DELETE FROM plugins WHERE name = %s AND source_path = %s", (name, source_path)
            )
            return bool(cursor.rowcount)

    def move_sources(self, former: str, root: str) -> int:
        """Have the rows whose source lies in a former plugins' root name the present one.

        Their source digests stay: it is the same source as far as anybody knows yet.

        Returns:
            How many rows there were.
        """
        with transaction(self._database, pace="brief") as cursor:
            cursor.execute(
                f"{BY_PUBLISH}; SELECT id, source_digest FROM plugins"  # noqa: S608 - a constant
                " WHERE starts_with(source_path, %s || '/') ORDER BY name FOR UPDATE",
                (former,),
            )
            rows = cursor.fetchall()
            ids, digests = [row[0] for row in rows], [row[1] for row in rows]
            cursor.execute(
                "UPDATE plugins SET source_path = %s || substr(source_path, %s) WHERE id = ANY(%s)",
                (root, len(former) + 1, ids),
            )
            # The trigger has taken the new path for a wish to compile it.
            cursor.execute(
                "UPDATE plugins SET source_digest = kept.digest"
                " FROM unnest(%s::text[], %s::text[]) AS kept (id, digest)"
                " WHERE plugins.id = kept.id",
                (ids, digests),
            )
            return len(rows)

    # --- what an operator asks for ---------------------------------------------------------

    def toggle(self, name: str) -> ServedRow | None:
        """Turn active to inactive or back; return the new row, None if there is no such row."""
        return self._change(
            "status = CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END", name
        )

    def raise_generation(self, name: str) -> ServedRow | None:
        """Make every process load a plugin again; return the new row, None if there is none."""
        return self._change("generation = generation + 1", name)

    def _change(self, assignment: str, name: str) -> ServedRow | None:
        with transaction(self._database, pace="brief") as cursor:
            cursor.execute("SELECT generation FROM plugins WHERE name = %s FOR UPDATE", (name,))
            before = cursor.fetchone()
            if before is None:
                return None
            cursor.execute(
                f"UPDATE plugins SET {assignment} WHERE name = %s"  # noqa: S608 - a constant
                " RETURNING id, name, generation, status, binary_path",
                (name,),
            )
            changed = fetch_row(cursor)
            if changed is None:
                raise undone(cursor, name, "UPDATE", "the row is not changed")
            row = ServedRow(**changed)
            if row.generation <= before[0]:
                raise stands_still(cursor, name, row.generation)
            return row
