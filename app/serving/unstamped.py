"""Rows that were changed where our triggers did not fire."""

import logging

from app.conditions import Conditions
from app.database.repository import Repository
from app.errors import DatabaseError
from app.loading.loader import LoadedPlugin
from app.records import ServedRow
from app.serving.live_plugins import Served

log = logging.getLogger(__name__)

_CAUSE = "where our triggers do not fire (session_replication_role = replica, or a restore)"


class UnstampedRows:
    """Has the triggers do what they did not do, for the one thread that compares rows.

    In such a session only what notifies fires. Then a row may name another archive under the same
    generation, which no process would load, and keep what it says of the one before. Call `mend`
    with each row that is compared.
    """

    def __init__(self, repository: Repository, conditions: Conditions) -> None:
        self._repository = repository
        self._conditions = conditions
        self._held: set[str] = set()
        """The plugins of which a condition is held."""

    def mend(self, name: str, row: ServedRow | None, serving: Served | None) -> None:
        """Have a row stamped that is not; a condition is held of one that cannot be.

        Args:
            name: the plugin.
            row: its row, None if there is none.
            serving: what is served of it, None if nothing is.
        """
        if row is None or not (row.unstamped or _serves_another(row, serving)):
            self._end(name)
            return
        try:
            generation = self._repository.stamp(row)
        except DatabaseError as error:
            self._held.add(name)
            served = "nothing of it" if serving is None else f"generation {serving.generation}"
            self._conditions.hold(
                f"record:{name}",
                f"its row was set to {row.binary_path} {_CAUSE}, and that cannot be made good: "
                f"{error}; {served} is served; set binary_path in an ordinary session",
                name,
            )
        else:
            self._end(name)
            if generation is not None:
                log.warning(
                    "%s: its row was set to %s %s; it is generation %d now, and its record is "
                    "that version's",
                    name,
                    row.binary_path,
                    _CAUSE,
                    generation,
                )

    def _end(self, name: str) -> None:
        if name in self._held:
            self._held.discard(name)
            self._conditions.clear(f"record:{name}")


def _serves_another(row: ServedRow, serving: Served | None) -> bool:
    """Tell whether what is served of a row's generation is not the archive that the row names."""
    if not isinstance(serving, LoadedPlugin) or row.binary_path is None:
        return False  # of what another process runs, that one tells
    if (serving.row_id, serving.generation) != (row.id, row.generation):
        return False
    return row.digest != serving.importer.content.digest
