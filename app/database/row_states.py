"""All SQL that compares rows with what hosts have published."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from app.database.rows import fetch_records
from app.database.statements import Lender, statement
from app.database.tables import FIRES, NOTIFIERS
from app.database.texts import encoding_of, storable

_ASKS = "source_digest IS NULL AND source_path IS NOT NULL"

# While a dump is restored, the triggers come last, and what is not there is only not there yet.
_UNKNOWN = f"""
    SELECT name FROM unnest(%s::text[], %s::text[]) published (name, digest)
    WHERE NOT EXISTS (SELECT 1 FROM plugins p WHERE p.name = published.name)
        AND NOT EXISTS (SELECT 1 FROM plugin_versions v
            WHERE v.plugin_name = published.name AND v.source_digest = published.digest)
        AND NOT EXISTS (SELECT unnest(%s::name[]) EXCEPT SELECT tgname FROM pg_trigger
            WHERE tgrelid = 'plugins'::regclass AND {FIRES})
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class RowState:
    """How far a row is."""

    name: str
    id: str
    generation: int
    unpublished: bool
    """Whether it asks for a source to be compiled."""


class RowStateRepository:
    """Tells how far rows are; raises as `Repository` does."""

    def __init__(self, database: Lender) -> None:
        self._database = database

    def find(self, names: Collection[str] | None) -> list[RowState]:
        """Return the states of all rows, or of those with some names and those that ask."""
        with statement(self._database) as cursor:
            found = "" if names is None else f" WHERE name = ANY(%s) OR ({_ASKS})"
            encoding = encoding_of(cursor)
            wanted = [storable(name, encoding) for name in names or ()]
            cursor.execute(
                f"SELECT name, id, generation, {_ASKS} AS unpublished FROM plugins{found}",  # noqa: S608
                None if names is None else (wanted,),
            )
            return fetch_records(cursor, RowState)

    def unknown(self, digests: Mapping[str, str]) -> set[str]:
        """Return the plugins of which there is neither a row nor a version; none during a restore.

        Args:
            digests: the source that was published of each.
        """
        with statement(self._database) as cursor:
            names = [storable(name, encoding_of(cursor)) for name in digests]
            cursor.execute(_UNKNOWN, (names, list(digests.values()), list(NOTIFIERS)))
            return {name for (name,) in cursor.fetchall()}
