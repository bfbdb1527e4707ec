"""All SQL on versions whose requests fail where those of the version before were answered."""

from collections.abc import Collection

from app.database.events import CHANNEL
from app.database.statements import Lender, statement
from app.database.texts import as_json, encoding_of
from app.records import ServedRow

NOTED_SECONDS = 3600
"""How long it counts what answered in the version before: all workers are replaced by then."""


class RegressionRepository:
    """Keeps what answered before a version, and sets rows back; all raise as `Repository` does.

    It is kept with the version, for one generation of its row: another one begins anew.
    """

    def __init__(self, database: Lender) -> None:
        self._database = database

    def record(self, row: ServedRow, templates: Collection[str], before: str) -> None:
        """Keep with a row's version which routes answered in the version before, and whose path.

        What other processes have recorded of the same stays, and what has answered since is left
        out.
        """
        with statement(self._database) as cursor:
            cursor.execute(
                "UPDATE plugin_versions SET answered = (SELECT"
                " jsonb_build_object('at', extract(epoch FROM clock_timestamp())) || known"
                " || jsonb_build_object('generation', %(generation)s::bigint, 'templates',"
                " (SELECT coalesce(jsonb_agg(DISTINCT t), '[]') FROM jsonb_array_elements_text("
                " coalesce(known->'templates', '[]') || to_jsonb(%(templates)s::text[])) t"
                " WHERE NOT coalesce(known->'since' ? t, false)),"
                " 'before', coalesce(known->>'before', %(before)s::text))"
                " FROM (SELECT CASE WHEN answered->>'generation' = %(generation)s::text"
                " THEN answered ELSE '{}' END AS known) kept)"
                " WHERE plugin_name = %(name)s AND source_digest = %(digest)s",
                {
                    **_version_of(row),
                    "templates": list(templates),
                    "before": before,
                },
            )

    def find(self, row: ServedRow) -> tuple[list[str], str] | None:
        """Return the routes and the path that `record` has kept lately, None if there are none."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT answered->'templates', answered->>'before' FROM plugin_versions"
                " WHERE plugin_name = %(name)s AND source_digest = %(digest)s"
                " AND answered->>'generation' = %(generation)s::text"
                " AND (answered->>'at')::float8 + %(seconds)s"
                " > extract(epoch FROM clock_timestamp())",
                {**_version_of(row), "seconds": NOTED_SECONDS},
            )
            found = cursor.fetchone()
            return None if found is None else (list(found[0]), str(found[1]))

    def acquit(self, row: ServedRow, template: str) -> None:
        """Note that a row's version has answered a route: it is not to be set back for that."""
        with statement(self._database) as cursor:
            cursor.execute(
                "UPDATE plugin_versions SET answered = answered || jsonb_build_object("
                " 'templates', (answered->'templates') - %(template)s::text,"
                " 'since', coalesce(answered->'since', '[]') || to_jsonb(%(template)s::text))"
                " WHERE plugin_name = %(name)s AND source_digest = %(digest)s"
                " AND answered->>'generation' = %(generation)s::text"
                " AND NOT coalesce(answered->'since' ? %(template)s, false)",
                {**_version_of(row), "template": template},
            )

    def announce(self, plugin: str) -> None:
        """Have all processes look at a plugin's row, and at what is kept of its version."""
        with statement(self._database) as cursor:
            cursor.execute(
                "SELECT pg_notify(%s, json_build_object('name', %s, 'schema',"
                " (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE c.oid = 'plugins'::regclass))::text)",
                (CHANNEL, plugin),
            )

    def set_back(
        self, row: ServedRow, binary_path: str, why: str, templates: Collection[str]
    ) -> bool:
        """Have a row serve another version, and say why.

        It says so until the next publish, also where its source is looked at again.

        Returns:
            Whether it did: not if the row is another one by now, or if one of the routes that fail
            (`templates`) has been answered.
        """
        error = {"phase": "request", "message": why, "file": None, "line": None, "set_back": True}
        with statement(self._database, pace="brief") as cursor:
            cursor.execute(
                "UPDATE plugins SET binary_path = %(path)s, error = %(error)s"
                " WHERE id = %(id)s AND generation = %(generation)s AND status = 'active'"
                " AND EXISTS (SELECT 1 FROM plugin_versions"
                " WHERE plugin_name = %(name)s AND source_digest = %(digest)s"
                " AND answered->>'generation' = %(generation)s::text"
                " AND answered->'templates' ?& %(templates)s::text[])",
                {
                    **_version_of(row),
                    "path": binary_path,
                    "error": as_json(error, encoding_of(cursor)),
                    "id": row.id,
                    "templates": list(templates),
                },
            )
            return bool(cursor.rowcount)


def _version_of(row: ServedRow) -> dict[str, object]:
    return {"name": row.name, "digest": row.digest, "generation": row.generation}
