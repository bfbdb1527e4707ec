"""All SQL on how versions go live: hot, or by fresh processes."""

from dataclasses import asdict

from app.database.statements import Lender, statement
from app.database.texts import as_json, encoding_of
from app.records import Reload


class ReloadRepository:
    """Keeps with a version how it goes live, and how its successor; all raise as `Repository` does.

    A row of `plugins` is read with both: `PluginRow.reload` and `PluginRow.finding`.
    """

    def __init__(self, database: Lender) -> None:
        self._database = database

    def record(self, plugin: str, digest: str, reload: Reload) -> None:
        """Keep with a version how it goes live.

        What its author says stays, and so does that it needs fresh workers.
        """
        with statement(self._database) as cursor:
            cursor.execute(
                "UPDATE plugin_versions SET reload = %s"
                " WHERE plugin_name = %s AND source_digest = %s AND (reload IS NULL OR"
                " (reload->>'how' <> 'fresh'"
                " AND NOT coalesce((reload->>'forced')::boolean, false)))",
                (as_json(asdict(reload), encoding_of(cursor)), plugin, digest),
            )

    def record_finding(self, plugin: str, digest: str, finding: Reload) -> None:
        """Keep with a version what its rehearsal found, for all hosts."""
        with statement(self._database) as cursor:
            cursor.execute(
                "UPDATE plugin_versions SET finding = %s"
                " WHERE plugin_name = %s AND source_digest = %s",
                (as_json(asdict(finding), encoding_of(cursor)), plugin, digest),
            )

    def find_finding(self, plugin: str, digest: str) -> Reload | None:
        """Return what a version's rehearsal found, None if there was none."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT finding FROM plugin_versions WHERE plugin_name = %s AND source_digest = %s",
                (plugin, digest),
            )
            row = cursor.fetchone()
            return Reload.read(row[0]) if row else None
