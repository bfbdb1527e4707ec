"""Whether the database was set back below a running server, to a time before this host's publishes.

However that was done: a copy has the same oids and marks, and what was restored in one moment may
notify nobody. So what this host has published is compared with the rows.
"""

import logging
import threading
from collections.abc import Set as AbstractSet
from pathlib import Path

from app.conditions import Conditions, listed
from app.database.repository import Repository
from app.database.row_states import RowState
from app.publishing.host_state import SHOWN_NAMES, HostState

log = logging.getLogger(__name__)

CONDITION = "watching:unknown"


class SetBack:
    """Compares the rows with what this host published; for the process that watches."""

    def __init__(
        self, root: Path, repository: Repository, seen: HostState, conditions: Conditions
    ) -> None:
        """Make it.

        Args:
            root: the plugins' root.
            repository: the rows.
            seen: what this host published.
            conditions: where it holds which plugins the database does not know any more.
        """
        self._root = root
        self._states = repository.states
        self._seen = seen
        self._conditions = conditions
        self._lock = threading.Lock()
        """Held for a whole look: what is held is what the last one found."""
        self._unknown: AbstractSet[str] = frozenset()
        self._back: AbstractSet[str] = frozenset()
        """The plugins whose rows went back, by the last look at each."""

    def look(self, names: AbstractSet[str] | None) -> list[str]:
        """Compare all plugins with None, or some.

        Returns:
            Those whose folders are to be looked at again: a row asks for it, went back, or is not
            back any more, as after a reload by another process.

        Raises:
            DatabaseError: the rows cannot be read.
        """
        with self._lock:
            if names is not None:
                names = names | self._unknown
            rows = {row.name: row for row in self._states.find(names)}
            self._look_for_unknown((self._seen.plugins() if names is None else names) - rows.keys())
            back = {row.name for row in rows.values() if self._went_back(row)}
            over = self._back - back if names is None else (self._back - back) & names
            self._back = (self._back - over) | back
        return [*(row.name for row in rows.values() if row.unpublished), *(back | over)]

    def followed(self, name: str) -> None:
        """Note that a plugin's row follows its folder: it may be gone, which no row tells of."""
        if name in self._unknown:
            self.look(frozenset())

    def _went_back(self, row: RowState) -> bool:
        last = self._seen.find(row.name)
        return last is not None and last.is_later(row.id, row.generation)

    def _look_for_unknown(self, names: AbstractSet[str]) -> None:
        """Hold which plugins without a row the database has never known, as far as it says.

        Whoever deletes a row leaves its versions; so that is no reason.
        """
        digests = {
            name: last.digest
            for name in names
            if (last := self._seen.find(name)) is not None and (self._root / name).is_dir()
        }
        unknown = self._states.unknown(digests) if digests else frozenset()
        if unknown:
            plugin, what = _sentence(sorted(unknown))
            self._conditions.hold(CONDITION, what, plugin)
            if unknown != self._unknown:
                log.warning("%s%s", f"{plugin}: " if plugin else "", what)
        else:
            self._conditions.clear(CONDITION)
        self._unknown = unknown


def _sentence(names: list[str]) -> tuple[str | None, str]:
    """Return what is to be said of plugins that the database does not know, and whose it is."""
    why = "as after it was set back to a time before, or is another one"
    if len(names) == 1:
        return names[0], (
            "its folder was published here, and the database has neither its row nor that "
            f"version, {why}: it is not served; reload it or restart to register it, or remove its "
            "folder"
        )
    return None, (
        f"{len(names)} plugins' folders were published here, and the database has neither their "
        f"rows nor those versions ({listed(names, SHOWN_NAMES)}), {why}: they are not "
        "served; reload them or restart to register them, or remove their folders"
    )
