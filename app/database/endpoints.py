"""All SQL that corrects what is recorded of a served version's routes."""

import json
from collections.abc import Sequence

from app.database.statements import Lender, transaction
from app.database.texts import storable
from app.records import Endpoint, ServedRow


class EndpointRepository:
    """Writes what a plugin has registered; raises as `Repository` does."""

    def __init__(self, database: Lender) -> None:
        self._database = database

    def record(self, row: ServedRow, digest: str, endpoints: Sequence[Endpoint]) -> None:
        """Note what a served version has registered, where its trial could not tell.

        Args:
            row: the row that is served; nothing is noted if it has changed meanwhile.
            digest: the source digest of its version.
            endpoints: what it has registered.
        """
        with transaction(self._database, pace="brief") as cursor:
            cursor.execute(
                "SELECT 1 FROM plugins WHERE id = %s AND generation = %s FOR UPDATE",
                (row.id, row.generation),
            )
            if cursor.fetchone() is None:
                return
            parts = [[e.method, storable(e.path), storable(e.handler)] for e in endpoints]
            cursor.execute(
                "UPDATE plugin_versions"
                " SET metadata = jsonb_set(metadata, '{endpoints}', %s::jsonb)"
                " WHERE plugin_name = %s AND source_digest = %s;"
                " DELETE FROM plugin_endpoints WHERE plugin_id = %s",
                (json.dumps(parts), row.name, digest, row.id),
            )
            cursor.execute(
                "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
                " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[])",
                (row.id, *([part[column] for part in parts] for column in range(3))),
            )
