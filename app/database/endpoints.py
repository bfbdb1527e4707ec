"""All SQL that corrects what is recorded of a served version's routes."""

from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any

from app.database.statements import Lender, transaction
from app.database.tables import BY_PUBLISH
from app.database.texts import storable
from app.records import Endpoint, ServedRow


def storable_endpoints(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return endpoints as PostgreSQL can hold them."""
    return tuple(Endpoint(e.method, storable(e.path), storable(e.handler)) for e in endpoints)


def parts_of(endpoints: Iterable[Endpoint]) -> list[list[str]]:
    """Return endpoints as a version's metadata has them."""
    return [[endpoint.method, endpoint.path, endpoint.handler] for endpoint in endpoints]


def replace_endpoints(cursor: Any, row_id: str, endpoints: Sequence[Endpoint]) -> None:
    """Write a row's endpoints in the place of those that it has; `rowcount` is how many.

    Args:
        cursor: of the transaction.
        row_id: the plugin's row.
        endpoints: from `storable_endpoints`.
    """
    cursor.execute(
        "DELETE FROM plugin_endpoints WHERE plugin_id = %s;"
        " INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[])",
        (
            *(row_id, row_id),
            [endpoint.method for endpoint in endpoints],
            [endpoint.path for endpoint in endpoints],
            [endpoint.handler for endpoint in endpoints],
        ),
    )


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
            wanted = storable_endpoints(endpoints)
            cursor.execute(
                f"{BY_PUBLISH}; UPDATE plugin_versions"  # noqa: S608 - a constant
                " SET metadata = jsonb_set(metadata, '{endpoints}', %s::jsonb)"
                " WHERE plugin_name = %s AND source_digest = %s",
                (dumps(parts_of(wanted)), row.name, digest),
            )
            replace_endpoints(cursor, row.id, wanted)
