"""All SQL on plugins, their endpoints, versions and failures."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import psycopg2

from app.database.locks import PUBLISH_LOCK
from app.database.schema import apply_schema
from app.database.statements import Lender, statement, transaction
from app.database.tables import FIRES, NOTIFIERS, silence_of
from app.database.texts import as_json, encoding_of, storable
from app.database.timeouts import Timeouts
from app.database.undone import undone
from app.errors import DatabaseBusyError, DatabaseError, DatabaseRefusedError
from app.plugin import PluginMetadata
from app.records import (
    Artifact,
    Endpoint,
    PluginFailure,
    PluginRow,
    ServedRow,
    TrialReport,
)
from app.uri_templates import first_segment, has_fields

KEPT_VERSIONS = 20
"""How many versions of a plugin are kept, so that a row can be set back to one of them."""

LOCKED_MILLISECONDS = 100
"""How long a publish waits for anybody while it holds the lock that all publishes need."""

_ROW = """
    p.id, p.name, p.description, p.version, p.author, p.type, p.status, p.source_path,
    p.binary_path, p.created_at, p.updated_at, p.generation, p.source_digest, p.error
"""
_ROWS = f"""
    SELECT {_ROW}, coalesce((
        SELECT json_agg(json_build_array(e.method, e.path, e.handler) ORDER BY e.id)
        FROM plugin_endpoints e WHERE e.plugin_id = p.id), '[]')
    FROM plugins p
"""  # noqa: S608 - both parts are constants
# The digest that a path ends with, as `records.artifact_digest` reads it: `…-<32 digits>.pyz`.
_SERVED_COLUMNS = """p.id, p.name, p.generation, p.status, p.binary_path, v.archive_sha256,
    p.binary_path IS NULL AND p.source_path IS NOT NULL, coalesce(p.error ? 'generation', false)"""
_SERVED_TABLES = """plugins p LEFT JOIN plugin_versions v
    ON v.plugin_name = p.name AND v.source_digest = left(right(p.binary_path, 36), 32)"""
_SERVED = f"""
    SELECT {_SERVED_COLUMNS} FROM {_SERVED_TABLES}
    WHERE p.name = ANY(%s) ORDER BY p.created_at, p.name
"""  # noqa: S608 - constants
# With it, in the same snapshot, what tells of changes and is missing: while a dump is restored, a
# row that is not there may be one that is not there yet.
_WHOLE = f"""
    SELECT whole.silent, {_SERVED_COLUMNS} FROM (
        SELECT ARRAY(SELECT unnest(%s::name[]) EXCEPT SELECT tgname FROM pg_trigger
            WHERE tgrelid = 'plugins'::regclass AND {FIRES} ORDER BY 1) AS silent) whole
    LEFT JOIN ({_SERVED_TABLES}) ON %s::text[] IS NULL OR p.name = ANY(%s)
    ORDER BY p.created_at, p.name
"""  # noqa: S608 - constants
# For the triggers, which do for psql what a publish does itself.
_BY_PUBLISH = "SET LOCAL benana.publishing = 'on'"
_FORGET_FAILURE = "DELETE FROM plugin_failures WHERE name = %s"


class Repository:
    """Reads and writes what is registered; every method is one transaction.

    All methods raise DatabaseUnavailableError while the database is away, DatabaseBusyError while
    somebody keeps a lock or all connections, and DatabaseRefusedError where it refuses.
    """

    def __init__(self, database: Lender) -> None:
        self._database = database

    def apply_schema(self) -> bool:
        """Bring the database to the schema; return whether anything was applied."""
        with self._database.connection() as connection:
            pool = self._database.pool
            return apply_schema(connection, pool.locks, beginning=pool.sessions.beginning)

    # --- reading ---------------------------------------------------------------------------

    def list_rows(self) -> list[PluginRow]:
        """Return all rows with their endpoints, by name."""
        with statement(self._database) as cursor:
            cursor.execute(f"{_ROWS} ORDER BY p.name")
            return [_row(found) for found in cursor.fetchall()]

    def find_row(self, name: str) -> PluginRow | None:
        """Return a plugin's row with its endpoints, None if there is none."""
        with statement(self._database) as cursor:
            cursor.execute(f"{_ROWS} WHERE p.name = %s", (storable(name, encoding_of(cursor)),))
            found = cursor.fetchone()
            return _row(found) if found else None

    def is_locked(self, row: PluginRow) -> bool:
        """Tell, without waiting, whether somebody else holds a plugin's row."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM plugins WHERE id = %s) AND NOT EXISTS (SELECT 1"
                " FROM (SELECT 1 FROM plugins WHERE id = %s FOR UPDATE SKIP LOCKED) free)",
                (row.id, row.id),
            )
            return bool(cursor.fetchone()[0])

    def unpublished_names(self) -> list[str]:
        """Return the names of the rows whose source is not published yet."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT name FROM plugins WHERE source_digest IS NULL AND source_path IS NOT NULL"
            )
            return [found[0] for found in cursor.fetchall()]

    def names_of_source(self, folder: str) -> list[str]:
        """Return the names of the rows whose `source_path` is a folder or lies within it."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT name FROM plugins WHERE source_path = %s OR starts_with(source_path, %s)",
                [storable(text, encoding_of(cursor)) for text in (folder, f"{folder}/")],
            )
            return [found[0] for found in cursor.fetchall()]

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
                cursor.execute(_SERVED, (list(wanted),))
                rows = [ServedRow(*found) for found in cursor.fetchall()]
            if len(rows) == len(wanted):
                return rows
        some = None if names is None else list(names)
        with statement(self._database) as cursor:
            cursor.execute(_WHOLE, (list(NOTIFIERS), some, some))
            found = cursor.fetchall()
        if silent := found[0][0]:
            raise DatabaseRefusedError(silence_of(silent), sqlstate="")
        return [ServedRow(*row) for _, *row in found if row[0] is not None]

    def find_artifact(self, plugin: str, digest: str) -> Artifact | None:
        """Return a version with its archive, None if there is none."""
        with statement(self._database, pace="bulk") as cursor:
            cursor.execute(
                "SELECT archive_sha256, archive FROM plugin_versions"
                " WHERE plugin_name = %s AND source_digest = %s",
                (plugin, digest),
            )
            found = cursor.fetchone()
            return Artifact(plugin, digest, found[0], bytes(found[1])) if found else None

    def list_failures(self) -> list[PluginFailure]:
        """Return the folders that never were valid plugins, by name."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT name, source_path, error, updated_at FROM plugin_failures ORDER BY name"
            )
            return [PluginFailure(*found) for found in cursor.fetchall()]

    def find_failure(self, name: str) -> PluginFailure | None:
        """Return why a folder is no valid plugin, None if nothing is known."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT name, source_path, error, updated_at FROM plugin_failures WHERE name = %s",
                (storable(name, encoding_of(cursor)),),
            )
            found = cursor.fetchone()
            return PluginFailure(*found) if found else None

    # --- publishing ------------------------------------------------------------------------

    @contextlib.contextmanager
    def publishing(self) -> Iterator["Publication"]:
        """Open the transaction of one publish; nobody is held up before `lock_row`."""
        with transaction(self._database, pace="bulk") as cursor:
            yield Publication(cursor, self._database.pool.timeouts)

    def record_error(self, row: PluginRow, error: Mapping[str, Any] | None) -> None:
        """Note what is wrong with a plugin's newest source, if its row is still the given one.

        With None nothing is wrong with the source; that its generation cannot be loaded stays.
        """
        with statement(self._database, pace="brief") as cursor:
            text = as_json(error, encoding_of(cursor))
            cursor.execute(
                "UPDATE plugins SET error = %s WHERE id = %s AND generation = %s"
                " AND error IS DISTINCT FROM %s AND name ~ '^[a-z][a-z0-9_]{0,62}$'"
                " AND NOT (%s AND coalesce(error ? 'generation', false))",
                (text, row.id, row.generation, text, error is None),
            )

    def forget_load_error(self, row: ServedRow) -> None:
        """Note that a row's generation can be loaded after all."""
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "UPDATE plugins SET error = NULL"
                " WHERE id = %s AND generation = %s AND error ? 'generation'",
                (row.id, row.generation),
            )

    def record_failure(self, name: str, source_path: str, error: Mapping[str, Any]) -> None:
        """Note why a folder is no valid plugin."""
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

    def forget_failure(self, name: str) -> None:
        """Forget that a folder was no valid plugin."""
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(_FORGET_FAILURE, (storable(name, encoding_of(cursor))[:255],))

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
                f"{_BY_PUBLISH}; SELECT id, source_digest FROM plugins"  # noqa: S608 - a constant
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
            found = cursor.fetchone()
            if found is None:
                raise undone(cursor, name, "UPDATE", "the row is not changed")
            row = ServedRow(*found)
            if row.generation <= before[0]:
                raise _stands_still(cursor, name, row.generation)
            return row


class Publication:
    """One publish in the making: what it reads and writes stands or falls together."""

    def __init__(self, cursor: Any, timeouts: Timeouts) -> None:
        self._cursor = cursor
        self._timeouts = timeouts

    def keep_version(self, artifact: Artifact, report: TrialReport) -> None:
        """Keep an archive, unless there is one of its digest, and what is recorded with it.

        The first archive of a digest stays: bytecode is not deterministic, and other hosts may
        serve it already. Over a slow link it takes its time, so it is done before `lock_row`.
        Who keeps the same just now is waited for here, before any lock that it may need.

        Args:
            artifact: what to keep.
            report: what is recorded while it serves: its metadata completed from the manifest.
        """
        # Two statements: the second sees what the one that was waited for has committed. The row
        # is locked, so that no publish of another digest drops it as too old.
        self._cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s));"
            " SELECT metadata FROM plugin_versions WHERE plugin_name = %s AND source_digest = %s"
            " FOR KEY SHARE",
            (artifact.plugin, artifact.digest, artifact.plugin, artifact.digest),
        )
        kept = self._cursor.fetchone()
        metadata = _metadata(report)
        if kept is None:
            self._cursor.execute(
                "INSERT INTO plugin_versions"
                " (plugin_name, source_digest, archive, archive_sha256, metadata)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    artifact.plugin,
                    artifact.digest,
                    psycopg2.Binary(artifact.archive),
                    artifact.sha256,
                    as_json(metadata),
                ),
            )
        elif kept[0] != storable(metadata):
            self._cursor.execute(
                "UPDATE plugin_versions SET metadata = %s"
                " WHERE plugin_name = %s AND source_digest = %s",
                (as_json(metadata), artifact.plugin, artifact.digest),
            )

    def lock_row(self, name: str) -> PluginRow | None:
        """Return a plugin's row, locked to the end of the publish; all publishes come in turns.

        The row first: who waits for it, for as long as somebody holds it, must not hold up the
        publishes of others. After that nobody is waited for longer than 100 ms.
        """
        # One statement for both locks: so one timeout bounds the whole wait.
        self._cursor.execute(
            f"{self._timeouts.bounds('brief')}"  # noqa: S608 - all parts are constants
            " WITH locked AS MATERIALIZED (SELECT 1 FROM plugins WHERE name = %s FOR UPDATE)"
            f" SELECT pg_advisory_xact_lock({PUBLISH_LOCK} + 0 * (SELECT count(*) FROM locked));"
            f"{self._timeouts.bounds()} SET LOCAL lock_timeout = {LOCKED_MILLISECONDS};"
            f" {_ROWS} WHERE p.name = %s FOR UPDATE OF p",
            (name, name),
        )
        found = self._cursor.fetchone()
        return _row(found) if found else None

    def other_templates(self, name: str, templates: Collection[str]) -> dict[str, list[str]]:
        """Return the others' templates below the same first segments, by plugin."""
        segments = {first_segment(template) for template in templates}
        self._cursor.execute(
            "SELECT DISTINCT p.name, e.path FROM plugin_endpoints e"
            " JOIN plugins p ON p.id = e.plugin_id"
            " WHERE p.name <> %s AND (split_part(ltrim(e.path, '/'), '/', 1) = ANY(%s)"
            " OR (%s AND split_part(ltrim(e.path, '/'), '/', 1) LIKE '%%{%%'))",
            (name, list(segments), any(map(has_fields, segments))),
        )
        templates_by_plugin: dict[str, list[str]] = {}
        for plugin, path in self._cursor.fetchall():
            templates_by_plugin.setdefault(plugin, []).append(path)
        return templates_by_plugin

    def prune_versions(self, plugin: str) -> list[str]:
        """Drop a plugin's oldest versions and return their digests."""
        # Whom another publish needs just now is left to the next: nobody waits here.
        self._cursor.execute(
            "WITH old AS (SELECT v.source_digest FROM plugin_versions v WHERE v.plugin_name = %s"
            " AND v.source_digest IN (SELECT source_digest FROM plugin_versions"
            " WHERE plugin_name = %s ORDER BY created_at DESC OFFSET %s)"
            " AND NOT EXISTS (SELECT 1 FROM plugins p WHERE p.name = v.plugin_name"
            " AND (p.source_digest = v.source_digest"
            " OR p.binary_path LIKE '%%-' || v.source_digest || '.pyz'))"
            " FOR UPDATE SKIP LOCKED)"
            " DELETE FROM plugin_versions v USING old"
            " WHERE v.plugin_name = %s AND v.source_digest = old.source_digest"
            " RETURNING v.source_digest",
            (plugin, plugin, KEPT_VERSIONS, plugin),
        )
        return [found[0] for found in self._cursor.fetchall()]

    def save(
        self,
        row: PluginRow | None,
        metadata: PluginMetadata,
        endpoints: Collection[Endpoint],
        *,
        source_path: str,
        binary_path: str,
        source_digest: str,
        status: str,
    ) -> tuple[str, int]:
        """Write the row, given as it was locked or None for a new one, and its endpoints.

        Endpoints that are as they were stay untouched: most edits change none.

        Returns:
            The row's id and its new generation.

        Raises:
            DatabaseBusyError: somebody registered the plugin meanwhile; publish it again.
            DatabaseRefusedError: a trigger of somebody's undoes it.
        """
        values = (
            storable(metadata.description),
            storable(metadata.version),
            storable(metadata.author),
            source_path,
            binary_path,
            source_digest,
        )
        if row is None:
            self._cursor.execute(
                f"{_FORGET_FAILURE}; {_BY_PUBLISH};"  # noqa: S608 - constants
                " INSERT INTO plugins (name, type, status, description, version, author,"
                " source_path, binary_path, source_digest)"
                " VALUES (%s, 'dynamic', %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (name) DO NOTHING RETURNING id, generation",
                (metadata.name, metadata.name, status, *values),
            )
        else:
            self._cursor.execute(
                f"{_FORGET_FAILURE}; {_BY_PUBLISH};"  # noqa: S608 - constants
                " UPDATE plugins SET type = 'dynamic', description = %s, version = %s, author = %s,"
                " source_path = %s, binary_path = %s, source_digest = %s, error = NULL,"
                " generation = generation + 1 WHERE id = %s RETURNING id, generation",
                (metadata.name, *values, row.id),
            )
        saved = self._cursor.fetchone()
        if saved is None:
            raise self._not_saved(row, metadata.name)
        row_id, generation = saved
        if row is not None and generation <= row.generation:
            raise _stands_still(self._cursor, metadata.name, generation)
        wanted = tuple(Endpoint(e.method, storable(e.path), storable(e.handler)) for e in endpoints)
        if row is None or row.endpoints != wanted:
            self._cursor.execute(
                "DELETE FROM plugin_endpoints WHERE plugin_id = %s;"
                " INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
                " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[])",
                (
                    *(row_id, row_id),
                    [endpoint.method for endpoint in wanted],
                    [endpoint.path for endpoint in wanted],
                    [endpoint.handler for endpoint in wanted],
                ),
            )
        return row_id, generation

    def _not_saved(self, row: PluginRow | None, name: str) -> DatabaseError:
        """Return why nothing was written; a row that is given is locked, and cannot have gone."""
        if row is None:
            self._cursor.execute("SELECT 1 FROM plugins WHERE name = %s", (name,))
            if self._cursor.fetchone() is not None:
                return DatabaseBusyError(
                    f"{name} was registered by somebody else meanwhile; publish it again"
                )
        operation = "INSERT" if row is None else "UPDATE"
        return undone(self._cursor, name, operation, "the row is not written")


def _stands_still(cursor: Any, name: str, generation: int) -> DatabaseError:
    """Return the refusal of a change that no process would see."""
    return undone(cursor, name, "UPDATE", f"the generation stays {generation}")


def _row(found: tuple[Any, ...]) -> PluginRow:
    *columns, endpoints = found
    return PluginRow(*columns, tuple(Endpoint(*parts) for parts in endpoints))  # type: ignore[call-arg]


def _metadata(report: TrialReport) -> dict[str, Any]:
    metadata = report.metadata
    return {
        "name": metadata.name,
        "version": metadata.version,
        "description": metadata.description,
        "author": metadata.author,
        "endpoints": [[e.method, e.path, e.handler] for e in report.endpoints],
        "completed": True,
    }
