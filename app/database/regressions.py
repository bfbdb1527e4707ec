"""All SQL on versions whose requests fail where those of the version before were answered."""

from collections.abc import Collection

from app.database.statements import Lender, statement
from app.database.texts import as_json, encoding_of
from app.records import ServedRow


class RegressionRepository:
    """Keeps what answered before a version, and sets rows back; all raise as `Repository` does."""

    def __init__(self, database: Lender) -> None:
        self._database = database

    def record(self, plugin: str, digest: str, templates: Collection[str], before: str) -> None:
        """Keep with a version which routes answered in the version before, and that one's path.

        What other processes have recorded of the same stays.
        """
        with statement(self._database) as cursor:
            cursor.execute(
                "UPDATE plugin_versions SET answered = jsonb_build_object('before', %s::text,"
                " 'templates', (SELECT jsonb_agg(DISTINCT t) FROM jsonb_array_elements_text("
                " coalesce(answered->'templates', '[]') || to_jsonb(%s::text[])) t))"
                " WHERE plugin_name = %s AND source_digest = %s",
                (before, list(templates), plugin, digest),
            )

    def find(self, plugin: str, digest: str) -> tuple[list[str], str] | None:
        """Return the routes and the path that `record` has kept, None if there are none."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT answered->'templates', answered->>'before' FROM plugin_versions"
                " WHERE plugin_name = %s AND source_digest = %s AND answered IS NOT NULL",
                (plugin, digest),
            )
            row = cursor.fetchone()
            return None if row is None else (list(row[0]), str(row[1]))

    def set_back(self, row: ServedRow, binary_path: str, why: str) -> bool:
        """Have a row serve another version, and say why; return whether it is still the given one.

        It says so until the next publish, also where its source is looked at again.
        """
        error = {"phase": "request", "message": why, "file": None, "line": None, "set_back": True}
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "UPDATE plugins SET binary_path = %s, error = %s"
                " WHERE id = %s AND generation = %s AND status = 'active'",
                (binary_path, as_json(error, encoding_of(cursor)), row.id, row.generation),
            )
            return bool(cursor.rowcount)
