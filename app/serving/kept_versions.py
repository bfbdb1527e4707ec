"""Versions that are served, and that somebody has deleted from `plugin_versions`."""

import logging
import time

from app.conditions import Conditions
from app.database.repository import Repository
from app.database.restores import SETTLE_SECONDS
from app.errors import DatabaseError
from app.loading.loader import LoadedPlugin
from app.records import ServedRow
from app.serving.live_plugins import Served

log = logging.getLogger(__name__)


class KeptVersions:
    """Has the database keep what is served, for the one thread that compares rows.

    What is loaded goes on without it, but a process that starts could not load it. Call `mend` with
    each row that is compared, and again with those that are `due`.
    """

    def __init__(self, repository: Repository, conditions: Conditions) -> None:
        self._repository = repository
        self._conditions = conditions
        self._gone: dict[str, float] = {}
        """The plugins whose version is gone, and when each is looked at again, in monotonic s."""

    def retry_at(self) -> float | None:
        """Return when the next is to be looked at again, in monotonic seconds; None for never."""
        return min(self._gone.values(), default=None)

    def due(self) -> set[str]:
        """Return the plugins that are to be looked at again by now."""
        now = time.monotonic()
        return {name for name, at in self._gone.items() if at <= now}

    def names(self) -> set[str]:
        """Return the plugins whose version is gone."""
        return set(self._gone)

    def forget(self, name: str) -> None:
        """Look at a plugin no more."""
        if self._gone.pop(name, None) is not None:
            self._conditions.clear(f"version:{name}")

    def mend(self, name: str, row: ServedRow | None, serving: Served | None) -> None:
        """Give a version back that is gone; a condition is held until it is there.

        Args:
            name: the plugin.
            row: its row, None if there is none.
            serving: what is served of it, None if nothing is.
        """
        if row is None or not _is_gone(row, serving):
            self.forget(name)
            return
        now, look_at = time.monotonic(), self._gone.get(name)
        if look_at is not None and now < look_at:
            return
        self._gone[name] = now + SETTLE_SECONDS
        left = "soon"
        if look_at is not None:
            left = self._give_back(row, serving)
        self._conditions.hold(
            f"version:{name}",
            f"the version that it serves ({(row.digest or '')[:12]}) was deleted from "
            f"plugin_versions, so that a process that starts cannot load it; it is given back "
            f"by itself, {left}",
            name,
        )

    def _give_back(self, row: ServedRow, serving: Served | None) -> str:
        """Give a version back, and say when it is looked at whether it is there."""
        if not isinstance(serving, LoadedPlugin):
            return "by the process that runs it"
        artifact = serving.importer.content.artifact()
        endpoints = [endpoint for route in serving.routes for endpoint in route.endpoints]
        try:
            who = self._repository.versions.give_back(row, artifact, endpoints)
        except DatabaseError as error:
            return f"once that is possible: {error}"
        if who is not None:
            return f"but not while {who}"
        log.warning("%s: the version %s is kept again", row.name, artifact.digest[:12])
        self._gone[row.name] = time.monotonic()  # and is looked at, at once
        return "soon"


def _is_gone(row: ServedRow, serving: Served | None) -> bool:
    """Tell whether the version of a row is served here, and not kept."""
    if row.archive_sha256 is not None or row.digest is None or serving is None:
        return False
    if (serving.row_id, serving.generation) != (row.id, row.generation):
        return False
    return not isinstance(serving, LoadedPlugin) or (serving.importer.content.digest == row.digest)
