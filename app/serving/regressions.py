"""Versions whose requests fail where those of the version before were answered.

A library may keep the version before, and let the new one fail at each use: no load shows it. So
such a version is served by fresh workers once; if it goes on, its row is set back.

Who calls may be anybody, and have a request fail that would have failed in the version before,
too. So a version is set back only for routes on which it has answered nobody, in any process, since
its failures were seen first; which these are stands in the database.
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
from app.routing.first_answers import FirstAnswer
from app.serving.last_known_good import LastKnownGood
from app.serving.new_failures import NewFailures
from app.threads import start_thread

log = logging.getLogger(__name__)

WATCHED_SECONDS = 300.0
"""How long after its load a version is watched: what begins later does not begin with it."""

RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Served:
    """What is served of a plugin: its routes, and those of them that have failed.

    `is_recalled` says whether it is known in this process what the database has of it.
    """

    row: ServedRow
    key: str
    routes: tuple[Route, ...]
    failed: set[str] = field(default_factory=set)
    is_recalled: bool = False


class Regressions:
    """Counts the requests that fail in new versions, and has those versions replaced."""

    def __init__(
        self, repository: Repository, last_known_good: LastKnownGood, max_failed: int
    ) -> None:
        """Make it.

        Args:
            repository: where it is kept with a version, and where rows are set back.
            last_known_good: knows the version before.
            max_failed: how many requests may fail; 0 for any number.
        """
        self._repository = repository
        self._last_known_good = last_known_good
        self._max_failed = max_failed
        self._served: dict[str, _Served] = {}
        self._watched: dict[str, NewFailures] = {}
        """By `Route.generation`."""
        self._lock = threading.Lock()
        self.replace: Callable[[], None] | None = None
        """Asks for a fresh process in the place of this one; None where nobody can be asked."""

    # --- what the reconciler tells ----------------------------------------------------------

    def served(self, plugin: LoadedPlugin, row: ServedRow) -> None:
        """Note that a generation is served, in the place of what was served of its plugin."""
        answered = self._answered(row.name)
        self.forget(row.name)
        served = _Served(row, plugin.key, plugin.routes)
        with self._lock:
            self._served[row.name] = served
        if self._is_off or row.reload == HOT:
            return
        if answered and (before := self._last_known_good.find(row.name)) is not None:
            self._watch(served, answered, before.binary_path, fresh=False)
        elif row.reload == FRESH:
            start_thread("benana-regressions", self._recall, served, row.watched)

    def watched(self, row: ServedRow) -> None:
        """Note that of a generation, which is served, the database has what answered before it."""
        with self._lock:
            served = self._served.get(row.name)
        same = served is not None and (served.row.id, served.row.generation) == (
            row.id,
            row.generation,
        )
        if served is not None and same and not served.is_recalled and not self._is_off:
            start_thread("benana-regressions", self._recall, served, True)

    def leaves(self, row: ServedRow) -> None:
        """Note for fresh processes, which are to load a row, what has answered in this one."""
        answered = self._answered(row.name)
        before = self._last_known_good.find(row.name)
        if not answered or before is None or before.binary_path in {None, row.binary_path}:
            return
        try:
            self._repository.regressions.record(row, answered, str(before.binary_path))
        except DatabaseError as error:
            log.debug("%s: what has answered is not noted: %s", row.name, error)

    def forget(self, name: str) -> None:
        """Note that nothing is served of a plugin any more."""
        with self._lock:
            served = self._served.pop(name, None)
            if served is not None:
                self._watched.pop(served.key, None)

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
            if watched is None:
                return
            now = time.monotonic()
            if now >= watched.until:
                del self._watched[route.generation]
                return
            if not watched.count(route.template, now, self._max_failed):
                return
        judge = self._judge_again if watched.fresh else self._judge
        start_thread("benana-regressions", judge, watched, route.template, what)

    # --- steps ------------------------------------------------------------------------------------

    @property
    def _is_off(self) -> bool:
        return self.replace is None or not self._max_failed

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
        self, served: _Served, templates: Collection[str], before: str | None, *, fresh: bool
    ) -> None:
        row = served.row
        if before is not None and served.routes and before != row.binary_path:
            until = time.monotonic() + WATCHED_SECONDS
            watched = NewFailures(row, set(templates), before, fresh, until)
            with self._lock:
                self._watched[served.key] = watched

    def _recall(self, served: _Served, is_known: bool) -> None:
        """Follow what the database has of a generation: it is to be served by fresh processes.

        In these its failures are counted again, and whatever answers, in the others too, is told
        to the database.

        Args:
            served: the generation.
            is_known: whether there is something; what is too old is left alone then.
        """
        row = served.row
        if row.digest is None:
            return
        try:
            found = self._repository.regressions.find(row)
        except DatabaseError as error:
            log.debug("%s: what has answered is not known: %s", row.name, error)
            return
        with self._lock:
            if served.is_recalled:
                return
            served.is_recalled = is_known or found is not None
        if found is None:
            return
        until = time.monotonic() + WATCHED_SECONDS

        def tell(route: Route) -> None:
            with self._lock:
                if (watched := self._watched.get(route.generation)) is not None:
                    watched.templates.discard(route.template)
                    del watched.failed[route.template]
            start_thread("benana-regressions", self._acquit, row, route.template, until)

        is_fresh = row.reload == FRESH
        if is_fresh:
            self._watch(served, found[0], found[1], fresh=True)
        else:
            with self._lock:
                self._watched.pop(served.key, None)
        for route in served.routes:
            FirstAnswer(route, tell)
        if not is_fresh and self.replace is not None:
            self.replace()

    def _acquit(self, row: ServedRow, template: str, until: float) -> None:
        """Tell the database that a route has answered; after an outage, too."""
        while time.monotonic() < until:
            try:
                self._repository.regressions.acquit(row, template)
            except DatabaseError as error:
                log.debug("%s: that %s answers is not noted yet: %s", row.name, template, error)
                time.sleep(RETRY_SECONDS)
            else:
                return

    def _judge(self, watched: NewFailures, template: str, what: str) -> None:
        """Have all processes that serve a version replaced by fresh ones."""
        row, said = watched.row, watched.describe(template, what)
        if row.digest is None:
            return
        found = Reload(FRESH, said)
        log.error("%s: %s", row.name, found)
        try:
            self._repository.regressions.record(row, watched.templates, watched.before)
            self._repository.reloads.record(row.name, row.digest, found)
            self._repository.regressions.announce(row.name)
        except DatabaseError as error:
            log.error("%s: nothing follows from it that %s: %s", row.name, said, error)
            return
        self.watched(row)

    def _judge_again(self, watched: NewFailures, template: str, what: str) -> None:
        """Set back the row of a version that fails in a fresh process, too."""
        row, said = watched.row, watched.describe(template, what)
        with self._lock:
            failing = list(watched.failed)
            if watched.failed.total() < self._max_failed:  # one of them was answered just now
                watched.begin_again(watched.templates)
                return
        waiting: Collection[str] = ()
        try:
            if self._repository.regressions.set_back(row, watched.before, said, failing):
                log.error(
                    "%s: generation %d is set back: in fresh workers, too, %s",
                    row.name,
                    row.generation,
                    said,
                )
            elif (found := self._repository.regressions.find(row)) is not None:
                waiting = found[0]
                log.info(
                    "%s: generation %d stays, because others are answered, though %s",
                    row.name,
                    row.generation,
                    said,
                )
        except DatabaseError as error:
            log.error("%s: nothing follows from it that %s: %s", row.name, said, error)
            waiting = list(watched.templates)
        with self._lock:
            watched.begin_again(waiting)
