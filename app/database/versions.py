"""All SQL that gives a version back that somebody has deleted."""

from collections.abc import Iterable

import psycopg2

from app.database.endpoints import parts_of, storable_endpoints
from app.database.restores import brought_by
from app.database.statements import Lender, transaction
from app.database.texts import as_json
from app.records import Artifact, Endpoint, ServedRow


class VersionRepository:
    """Keeps what is served; raises as `Repository` does."""

    def __init__(self, database: Lender) -> None:
        self._database = database

    def give_back(
        self, row: ServedRow, artifact: Artifact, endpoints: Iterable[Endpoint]
    ) -> str | None:
        """Keep the version of a row again, with what the row says of it, unless it is kept.

        Args:
            row: the row, as it is served; nothing is done if it has changed meanwhile.
            artifact: its archive.
            endpoints: what it has registered.

        Returns:
            Who may be about to bring it, for whom it is left; None if it is kept.
        """
        kept: dict[str, object] = {
            "completed": True,
            "endpoints": parts_of(storable_endpoints(endpoints)),
        }
        if row.exclusive is not None:
            kept["exclusive"] = row.exclusive
        with transaction(self._database, pace="bulk") as cursor:
            if (who := brought_by(cursor)) is not None:
                return who
            cursor.execute(
                "INSERT INTO plugin_versions"
                " (plugin_name, source_digest, archive, archive_sha256, metadata)"
                " SELECT name, %s, %s, %s, %s::jsonb || jsonb_build_object('version', version,"
                " 'description', coalesce(description, ''), 'author', coalesce(author, ''))"
                " FROM plugins WHERE id = %s AND generation = %s AND binary_path = %s"
                " ON CONFLICT DO NOTHING",
                (
                    artifact.digest,
                    psycopg2.Binary(artifact.archive),
                    artifact.sha256,
                    as_json(kept),
                    *(row.id, row.generation, row.binary_path),
                ),
            )
        return None
