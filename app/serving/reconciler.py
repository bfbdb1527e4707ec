"""Makes what is loaded match the rows: `(id, generation)` here against `(id, generation)` there."""

import logging
import threading
import time
from collections.abc import Collection, Iterable

from app.conditions import Conditions
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.errors import (
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
)
from app.records import ACTIVE, ServedRow
from app.serving.exclusive import ExclusivePlugins
from app.serving.fresh_processes import FreshProcesses
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import LivePlugins, Served
from app.serving.load_queue import TIMEOUT_SECONDS, LoadQueue, LoadResult
from app.serving.outcomes import Outcomes
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.serving.shortfalls import Shortfalls
from app.serving.unstamped import UnstampedRows
from app.threads import OwnThread

log = logging.getLogger(__name__)

FIRST_TIMEOUT_SECONDS = 10.0
"""At the start nobody is served yet: a slow plugin is waited for."""

RETRY_SECONDS = 1.0
MANY_NAMES = 8
"""From so many dirty names on, everything is compared: the notifications of one large transaction
come in several reads, and its rows are to be served with one swap."""


class Reconciler(OwnThread):
    """Follows the rows in the thread `benana-reconciler`; the only one who swaps the table."""

    def __init__(
        self,
        repository: Repository,
        live: LivePlugins,
        loading: LoadQueue,
        recorder: Recorder,
        last_known_good: LastKnownGood,
        upkeep: Upkeep,
        regressions: Regressions,
        exclusive: ExclusivePlugins,
        conditions: Conditions | None = None,
    ) -> None:
        super().__init__("benana-reconciler")
        self._conditions = conditions or Conditions()
        self._repository = repository
        self._loading = loading
        self._last_known_good = last_known_good
        self._upkeep = upkeep
        self._live = live
        self._exclusive = exclusive
        self._shortfalls = Shortfalls(self._conditions)
        self._unstamped = UnstampedRows(repository, self._conditions)
        self._outcomes = Outcomes(
            repository, self._shortfalls, recorder, last_known_good, regressions
        )
        self.fresh = FreshProcesses(loading, self._serving, self._outcomes)
        self._wanted: set[str] = set()
        """The names of the active rows, as they were read last."""
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._again: set[str] = set()
        self._complaint = ""
        """What the database said last when it refused."""
        self.attempted = threading.Event()
        """Set after the first pass, whether the database could be reached or not."""
        self.complete = threading.Event()
        """Set once all rows were compared."""
        self.serves_last_known_good = False
        """Whether it started with what this host served last, for want of a database."""
        self.start_is_over = threading.Event()
        """Set once nothing is missing at the start that may still come."""
        self.settled = threading.Event()
        """Set once no load goes on and none waits to be tried again, after a pass."""

    @property
    def registered(self) -> int | None:
        """How many plugins are to be served, None if that is not known."""
        return len(self._wanted) if self.complete.is_set() or self.serves_last_known_good else None

    @property
    def served(self) -> int:
        """How many plugins are served, in whatever generation."""
        return len(self._live)

    @property
    def missing(self) -> set[str]:
        """The plugins of which nothing is served, and that are to be."""
        return self._wanted - self._live.names()

    def mark(self, names: Iterable[str] | None, *, again: bool = False) -> None:
        """Look at plugins, at all with None; `again` also where they failed; returns at once."""
        with self._wake:
            if again and names is not None:
                self._again.update(names)
            if names is None:
                self._all_dirty = True
            else:
                self._dirty.update(names)
            self._wake.notify_all()

    def unload_all(self) -> None:
        """Take all plugins out of the table and retire them; for the end of the process."""
        self._live.unload_all()
        self._loading.close()

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                times = [self._shortfalls.retry_at(), self._upkeep.look_at]
                retry_at = min((at for at in times if at is not None), default=None)
                timeout = None if retry_at is None else max(0.0, retry_at - time.monotonic())
                self._wake.wait_for(
                    lambda: self._stopped or self._all_dirty or self._dirty, timeout
                )
                if self._stopped:
                    return
                for name in self._again:
                    self._shortfalls.retry(name)
                self._again.clear()
                self._dirty |= self._shortfalls.due()
                everything = self._all_dirty or len(self._dirty) > MANY_NAMES
                everything |= self._upkeep.broken  # where it is seen whether rows can be trusted
                names = None if everything else frozenset(self._dirty)
                self._all_dirty = False
                self._dirty.clear()
            try:
                self._load_whatever_rows_say()
                if not self.complete.is_set():
                    self._repository.apply_schema()
                elif names is None:
                    self._upkeep.mend()
                if names is None or names:
                    self.reconcile(names)
                    self._complaint = ""
                    self._conditions.clear("rows")
                if names is None:
                    self.complete.set()
                if not self._shortfalls.may_pass():
                    self.start_is_over.set()
                    if not self._loading.names():
                        self.settled.set()
                if (look_at := self._upkeep.look_at) is not None and look_at <= time.monotonic():
                    self._upkeep.give_back_endpoints()
            except DatabaseUnavailableError as error:
                log.debug("nothing compared: %s", error)
                self._cannot_compare(str(error))
                self._try_later(names)
            except DatabaseRefusedError as error:
                if str(error) != self._complaint:
                    log.error("%s; serving what is loaded, trying again", error)
                self._complaint = str(error)
                self._cannot_compare(str(error))
                self._try_later(names)
            except Exception as error:
                # A fault of ours must not end the thread: what is loaded keeps serving.
                log.exception("a pass of the reconciler failed")
                self._cannot_compare(f"{type(error).__name__}: {error}")
                self._try_later(None)
            self.attempted.set()

    def _load_whatever_rows_say(self) -> None:
        """Load exclusive plugins that came to this process, stop those that left it."""
        if rows := self._exclusive.to_load(self._live, self._shortfalls.may_try):
            self._apply([], rows)

    def _cannot_compare(self, reason: str) -> None:
        self._conditions.hold(
            "rows", f"the rows cannot be read, what is loaded is served: {reason}"
        )

    def _try_later(self, names: Collection[str] | None) -> None:
        if not self.attempted.is_set():
            self._serve_last_known_good()
            self.attempted.set()
            self.start_is_over.set()  # it serves what it can, and does not wait for the database
        with self._wake:
            # A mark cuts the wait short: the listener makes one when the database is back.
            self._wake.wait(RETRY_SECONDS)
        self.mark(names)

    def _serve_last_known_good(self) -> None:
        kept = self._last_known_good.rows()
        if kept:
            log.warning("starting with what was served last: %d plugins", len(kept))
            self._apply([], kept)
            self._wanted = {row.name for row in kept}
            self.serves_last_known_good = True

    # --- one pass --------------------------------------------------------------------------

    def reconcile(self, names: Collection[str] | None) -> None:
        """Read rows, load what changed, and publish all of it in one swap.

        A plugin that cannot be loaded keeps the generation that it has; the others go ahead.

        Args:
            names: the plugins to compare; None for all.

        Raises:
            DatabaseError: nothing was changed.
        """
        rows = {row.name: row for row in self._repository.served_rows(names)}
        if names is None:
            # After an outage, too: what failed for want of the database may go at once.
            self._shortfalls.retry_transient()
            names = self._live.names() | self._shortfalls.names() | self._loading.names()
            names |= rows.keys()
        leaving: list[Served] = []
        wanted: list[ServedRow] = []
        waiting: list[ServedRow] = []
        for name in [*rows, *(name for name in names if name not in rows)]:
            row = rows.get(name)
            self._unstamped.mend(name, row, self._live.find(name))
            if row is None or row.status != ACTIVE or row.binary_path is None:
                self._loading.abandon(name)
                if (served := self._live.find(name)) is not None:
                    leaving.append(served)
                else:
                    self._exclusive.unwanted([name])
                self._outcomes.unwanted(name, row)
            elif self._is_served(row):
                self._loading.abandon(name)
                self._outcomes.as_wanted(row)
            elif self._shortfalls.may_try(row) and not self._exclusive.is_going_back_from(row):
                (wanted if self._loading.may_load(row) else waiting).append(row)
        self._apply(leaving, wanted)
        for row in waiting:
            self.fresh.leave(row)
        self._wanted.difference_update(names)
        self._wanted.update(
            row.name
            for row in rows.values()
            if row.status == ACTIVE and (row.binary_path is not None or row.unpublished)
        )

    def _is_served(self, row: ServedRow) -> bool:
        """Tell whether what a row says is served, in the process where it is to be."""
        live = self._live
        return live.serves(row) and self._exclusive.is_settled(row, live.find(row.name))

    def _apply(self, leaving: list[Served], wanted: list[ServedRow]) -> None:
        self._exclusive.suspend(wanted, self._live)
        if any(row.name not in self._live for row in wanted):
            self._upkeep.rows_arrived()
        results = [self._load(row) for row in wanted]
        arrived: dict[str, LoadResult] = {}
        failed: list[tuple[ServedRow, PluginError]] = []
        for result in filter(None, results):
            if result.error is not None:
                failed.append((result.row, result.error))
                if (before := self._load_before(result.row)) is not None:
                    arrived[before.row.name] = before
            elif result.plugin is not None:
                arrived[result.row.name] = result
                self._exclusive.claim(result.plugin)
        del results
        if leaving or arrived:
            self._swap(leaving, arrived)
            # Who is cleaned up next is to be held by nobody: its finalizers would run here.
            leaving.clear()
            arrived.clear()
        for row, error in failed:
            if error.passes or self._loading.may_load(row):
                self._fail(row, error)
            else:
                self.fresh.leave(row)

    def _load_before(self, row: ServedRow) -> LoadResult | None:
        """Load what this host served before a generation that failed, where nothing is served."""
        before = self._last_known_good.find_before(row)
        if row.name in self._live or before is None or row.exclusive is not None:
            return None
        if not self._loading.may_load(before):
            self.fresh.spoil(row)
            return None
        self._exclusive.suspend([before], self._live)
        result = self._loading.load(before, TIMEOUT_SECONDS)
        self._loading.abandon(row.name)
        return result if result is not None and result.plugin is not None else None

    def _load(self, row: ServedRow) -> LoadResult | None:
        if self._loading.is_loading(row):
            return None
        self._last_known_good.write_one(row.name)
        timeout = TIMEOUT_SECONDS if self.attempted.is_set() else FIRST_TIMEOUT_SECONDS
        result = self._loading.load(row, timeout)
        if result is None and not self._exclusive.is_going_back_to(row):  # of that, why is said
            owner = self._exclusive.is_leaving(row.name)
            self._outcomes.loading(row, self._serving(row.name), timeout, owner=owner)
        return result

    def _fail(self, row: ServedRow, error: PluginError) -> None:
        if not self._exclusive.failed(row, error):
            self._outcomes.failed(row, error, self._serving(row.name))

    def _serving(self, name: str) -> int | None:
        """Return the generation that a request for a plugin finds, None if there is none."""
        return self._exclusive.served_generation(name, self._live.find(name))

    def _swap(self, leaving: list[Served], arrived: dict[str, LoadResult]) -> None:
        plugins = [result.plugin for result in arrived.values() if result.plugin is not None]
        swap = self._live.swap(leaving, plugins)
        self._exclusive.retired(swap.ends)
        self._exclusive.unwanted(plugin.name for plugin in leaving)
        for plugin in leaving:
            self._last_known_good.forget(plugin.name)
        for plugin in swap.accepted:
            result = arrived[plugin.name]
            went_back = self._exclusive.served(plugin, result.row)
            tell = self._outcomes.went_back if went_back else self._outcomes.served
            tell(plugin, result, owner=self._exclusive.runs(plugin.name))
        for plugin, error in swap.refused:
            self._fail(arrived[plugin.name].row, error)
