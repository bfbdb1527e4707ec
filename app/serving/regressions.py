"""Versions whose requests fail where those of the version before were answered.

A library may keep the version before, and let the new one fail at each use: no load shows it. So
such a version is served by fresh workers once; if it goes on, its row is set back.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from app.database.repository import Repository
from app.errors import DatabaseError
from app.loading.loader import LoadedPlugin
from app.loading.routes import Route
from app.records import FRESH, HOT, Reload, ServedRow
from app.serving.last_known_good import LastKnownGood
from app.threads import start_thread

log = logging.getLogger(__name__)

WATCHED_SECONDS = 300.0
"""How long after its load a version is watched: what begins later does not begin with it."""


@dataclass(slots=True)
class _Watched:
    """A generation that is watched: which routes have to answer, and how many requests failed.

    `before` is the `binary_path` of the version before; `fresh` says that this process has loaded
    no other version.
    """

    row: ServedRow
    templates: frozenset[str]
    before: str
    fresh: bool
    until: float
    failed: int = 0


@dataclass(slots=True)
class _Served:
    """What is served of a plugin: its routes, and those of them that have failed."""

    routes: tuple[Route, ...]
    failed: set[str] = field(default_factory=set)


class Regressions:
    """Counts the requests that fail in new versions, and has those versions replaced."""

    def __init__(
        self, repository: Repository, last_known_good: LastKnownGood, max_failed: int
    ) -> None:
        """Make it.

        Args:
            repository: where it is kept with a version, and where rows are set back.
            last_known_good: knows the version before.
            max_failed: how many requests may fail.
        """
        self._repository = repository
        self._last_known_good = last_known_good
        self._max_failed = max_failed
        self._served: dict[str, _Served] = {}
        self._watched: dict[str, _Watched] = {}
        """By `Route.generation`."""
        self._lock = threading.Lock()
        self.replace: Callable[[], None] | None = None
        """Asks for a fresh process in the place of this one; None where nobody can be asked."""

    # --- what the reconciler tells ----------------------------------------------------------

    def served(self, plugin: LoadedPlugin, row: ServedRow) -> None:
        """Note that a generation is served, in the place of what was served of its plugin."""
        answered = self._answered(row.name)
        self.forget(row.name)
        with self._lock:
            self._served[row.name] = _Served(plugin.routes)
        if self.replace is None or row.reload == HOT:
            return
        if answered and (before := self._last_known_good.find(row.name)) is not None:
            self._watch(plugin, row, answered, before.binary_path, fresh=False)
        elif row.reload == FRESH:
            start_thread("benana-regressions", self._recall, plugin, row)

    def leaves(self, row: ServedRow) -> None:
        """Note for fresh processes, which are to load a row, what has answered in this one."""
        answered = self._answered(row.name)
        before = self._last_known_good.find(row.name)
        if not answered or before is None or before.binary_path is None or row.digest is None:
            return
        try:
            self._repository.regressions.record(row.name, row.digest, answered, before.binary_path)
        except DatabaseError as error:
            log.debug("%s: what has answered is not noted: %s", row.name, error)

    def forget(self, name: str) -> None:
        """Note that nothing is served of a plugin any more."""
        with self._lock:
            served = self._served.pop(name, None)
            for route in () if served is None else served.routes:
                self._watched.pop(route.generation, None)

    # --- what requests tell -------------------------------------------------------------------

    def count(self, route: Route, what: str) -> None:
        """Count a request that a plugin has failed to answer; returns at once.

        Args:
            route: where it failed.
            what: what the plugin did, as in "raised KeyError".
        """
        with self._lock:
            served = self._served.get(route.owner)
            if served is not None and route in served.routes:
                served.failed.add(route.template)
            watched = self._watched.get(route.generation)
            if watched is None or route.template not in watched.templates:
                return
            if time.monotonic() >= watched.until:
                del self._watched[route.generation]
                return
            watched.failed += 1
            if watched.failed < self._max_failed:
                return
            del self._watched[route.generation]
        start_thread("benana-regressions", self._judge, watched, route.template, what)

    # --- steps ------------------------------------------------------------------------------------

    def _answered(self, name: str) -> frozenset[str]:
        """Return the routes of what is served of a plugin that were called and never failed."""
        with self._lock:
            served = self._served.get(name)
            if served is None:
                return frozenset()
            # A name gets its number when its route is first called.
            called = {route.template for route in served.routes if route.name.number}
            return frozenset(called - served.failed)

    def _watch(
        self,
        plugin: LoadedPlugin,
        row: ServedRow,
        templates: Collection[str],
        before: str | None,
        *,
        fresh: bool,
    ) -> None:
        if before is not None and plugin.routes and before != row.binary_path:
            until = time.monotonic() + WATCHED_SECONDS
            watched = _Watched(row, frozenset(templates), before, fresh, until)
            with self._lock:
                self._watched[plugin.key] = watched

    def _recall(self, plugin: LoadedPlugin, row: ServedRow) -> None:
        """Watch a generation by what answered in the processes that this one has replaced."""
        if row.digest is None:
            return
        try:
            found = self._repository.regressions.find(row.name, row.digest)
        except DatabaseError as error:
            log.debug("%s: what has answered is not known: %s", row.name, error)
            return
        if found is not None:
            self._watch(plugin, row, found[0], found[1], fresh=True)

    def _judge(self, watched: _Watched, template: str, what: str) -> None:
        row = watched.row
        said = (
            f"{watched.failed} requests failed that were answered in the version before, the last "
            f"one on {template}: the plugin {what}"
        )
        digest = row.digest
        if digest is None:
            return
        try:
            if watched.fresh:
                if self._repository.regressions.set_back(row, watched.before, said):
                    log.error(
                        "%s: generation %d is set back: in fresh workers, too, %s",
                        row.name,
                        row.generation,
                        said,
                    )
                return
            found = Reload(FRESH, said)
            log.error("%s: %s", row.name, found)
            self._repository.reloads.record(row.name, digest, found)
            self._repository.regressions.record(row.name, digest, watched.templates, watched.before)
        except DatabaseError as error:
            log.error("%s: nothing follows from it that %s: %s", row.name, said, error)
            return
        if self.replace is not None:
            self.replace()
