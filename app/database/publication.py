"""One publish in its transaction: its version, its row, its endpoints."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import psycopg2

from app.database.endpoints import parts_of, replace_endpoints, storable_endpoints
from app.database.foreign_triggers import stands_still, undone
from app.database.locks import PUBLISH_LOCK
from app.database.plugin_rows import PLUGIN_ROWS, read_plugin_row
from app.database.rows import fetch_row
from app.database.tables import BY_PUBLISH
from app.database.texts import as_json, storable
from app.database.timeouts import Timeouts
from app.errors import DatabaseBusyError, DatabaseError
from app.plugin import PluginMetadata
from app.records import Artifact, Endpoint, PluginRow, Reload, TrialReport
from app.uri_templates import first_segment, has_fields

KEPT_VERSIONS = 20
"""How many versions of a plugin are kept, so that a row can be set back to one of them."""

LOCKED_MILLISECONDS = 100
"""How long a publish waits for anybody while it holds the lock that all publishes need."""

_FORGET_FAILURE = "DELETE FROM plugin_failures WHERE name = %s"


class Publication:
    """One publish in the making: what it reads and writes stands or falls together."""

    def __init__(self, cursor: Any, timeouts: Timeouts, kept_versions: int) -> None:
        self._cursor = cursor
        self._kept_versions = kept_versions
        self._timeouts = timeouts

    def keep_version(
        self, artifact: Artifact, report: TrialReport, reload: Reload | None = None
    ) -> bool:
        """Keep an archive, unless there is one of its digest, and what is recorded with it.

        The first archive of a digest stays: bytecode is not deterministic, and other hosts may
        serve it already. Over a slow link it takes its time, so it is done before `lock_row`.
        Who keeps the same just now is waited for here, before any lock that it may need.

        Args:
            artifact: what to keep.
            report: what is recorded while it serves: its metadata completed from the manifest.
            reload: how it goes live; None where nothing says so. What is said of a version that is
                kept already stays.

        Returns:
            Whether the archive is the one that is kept, and not another one of the same digest.

        Raises:
            DatabaseRefusedError: a trigger of somebody's undoes it.
        """
        # Two statements: the second sees what the one that was waited for has committed. The row
        # is locked, so that no publish of another digest drops it as too old.
        self._cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s));"
            " SELECT metadata, archive_sha256 FROM plugin_versions"
            " WHERE plugin_name = %s AND source_digest = %s FOR KEY SHARE",
            (artifact.plugin, artifact.digest, artifact.plugin, artifact.digest),
        )
        kept = self._cursor.fetchone()
        metadata = _metadata(report)
        if kept is None:
            self._cursor.execute(
                "INSERT INTO plugin_versions"
                " (plugin_name, source_digest, archive, archive_sha256, metadata, reload)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    artifact.plugin,
                    artifact.digest,
                    psycopg2.Binary(artifact.archive),
                    artifact.sha256,
                    as_json(metadata),
                    as_json(None if reload is None else asdict(reload)),
                ),
            )
            self._expect_version(artifact)
        elif kept[0] != storable(metadata):
            self._cursor.execute(
                f"{BY_PUBLISH}; UPDATE plugin_versions SET metadata = %s"  # noqa: S608 - a constant
                " WHERE plugin_name = %s AND source_digest = %s",
                (as_json(metadata), artifact.plugin, artifact.digest),
            )
        if kept is not None and reload is not None:
            self._cursor.execute(
                "UPDATE plugin_versions SET reload = %s"
                " WHERE plugin_name = %s AND source_digest = %s AND reload IS NULL",
                (as_json(asdict(reload)), artifact.plugin, artifact.digest),
            )
        return kept is None or kept[1] == artifact.sha256

    def _expect_version(self, artifact: Artifact) -> None:
        """Refuse to go on without the archive: nobody could load what the row would say."""
        if self._cursor.rowcount:
            return
        self._cursor.execute(  # or somebody restores it just now
            "SELECT 1 FROM plugin_versions WHERE plugin_name = %s AND source_digest = %s",
            (artifact.plugin, artifact.digest),
        )
        if self._cursor.fetchone() is None:
            what = "the version is not written"
            raise undone(self._cursor, artifact.plugin, "INSERT", what, "plugin_versions")

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
            f" {PLUGIN_ROWS} WHERE p.name = %s FOR UPDATE OF p",
            (name, name),
        )
        row = fetch_row(self._cursor)
        return read_plugin_row(row) if row else None

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
            f"{BY_PUBLISH}; WITH old AS (SELECT v.source_digest FROM plugin_versions v"  # noqa: S608
            " WHERE v.plugin_name = %s"
            " AND v.source_digest IN (SELECT source_digest FROM plugin_versions"
            " WHERE plugin_name = %s ORDER BY created_at DESC OFFSET %s)"
            " AND NOT EXISTS (SELECT 1 FROM plugins p WHERE p.name = v.plugin_name"
            " AND (p.source_digest = v.source_digest"
            " OR p.binary_path LIKE '%%-' || v.source_digest || '.pyz'))"
            " FOR UPDATE SKIP LOCKED)"
            " DELETE FROM plugin_versions v USING old"
            " WHERE v.plugin_name = %s AND v.source_digest = old.source_digest"
            " RETURNING v.source_digest",
            (plugin, plugin, self._kept_versions, plugin),
        )
        return [digest for (digest,) in self._cursor.fetchall()]

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
                f"{_FORGET_FAILURE}; {BY_PUBLISH};"  # noqa: S608 - constants
                " INSERT INTO plugins (name, type, status, description, version, author,"
                " source_path, binary_path, source_digest)"
                " VALUES (%s, 'dynamic', %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (name) DO NOTHING RETURNING id, generation",
                (metadata.name, metadata.name, status, *values),
            )
        else:
            self._cursor.execute(
                f"{_FORGET_FAILURE}; {BY_PUBLISH};"  # noqa: S608 - constants
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
            raise stands_still(self._cursor, metadata.name, generation)
        wanted = storable_endpoints(endpoints)
        if row is None or row.endpoints != wanted:
            replace_endpoints(self._cursor, row_id, wanted)
            if self._cursor.rowcount < len(wanted):
                what = "its endpoints are not written"
                raise undone(self._cursor, metadata.name, "INSERT", what, "plugin_endpoints")
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


def _metadata(report: TrialReport) -> dict[str, Any]:
    metadata = report.metadata
    exclusive = {} if report.exclusive is None else {"exclusive": report.exclusive}
    return {
        **exclusive,
        "version": metadata.version,
        "description": metadata.description,
        "author": metadata.author,
        "endpoints": parts_of(report.endpoints),
        "completed": True,
    }
