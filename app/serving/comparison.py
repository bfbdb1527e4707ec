"""Compares rows with what is loaded, loads what is not, and swaps: one pass of the reconciler."""

import time
from collections.abc import Collection

from app.conditions import Conditions
from app.database import restores
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.errors import PluginError
from app.records import ACTIVE, ServedRow
from app.serving.crashes import SETTLE_SECONDS
from app.serving.exclusive.plugins import ExclusivePlugins
from app.serving.fresh_processes import FreshProcesses
from app.serving.kept_versions import KeptVersions
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import LivePlugins, Served
from app.serving.load_queue import TIMEOUT_SECONDS, LoadQueue
from app.serving.outcomes import Outcomes
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.serving.row_loader import LoadResult
from app.serving.shortfalls import Shortfalls
from app.serving.unstamped import UnstampedRows

FIRST_TIMEOUT_SECONDS = 10.0
"""At the start nobody is served yet: slow plugins are waited for, all of them together."""

PATIENCE_SECONDS = 2.0
"""How long the first load that hangs keeps the next one from beginning, at the start; a second one
half as long, and so on."""


class Comparison:
    """Makes what is loaded match the rows, by `(id, generation)` here and there.

    For the reconciler's thread alone.
    """

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
        conditions: Conditions,
    ) -> None:
        self._repository = repository
        self._loading = loading
        self._last_known_good = last_known_good
        self._upkeep = upkeep
        self._live = live
        self._exclusive = exclusive
        self.shortfalls = Shortfalls(conditions)
        """What is not served as the rows say."""
        self._unstamped = UnstampedRows(repository, conditions)
        self.versions = KeptVersions(repository, conditions)
        """What is served and not kept."""
        self._outcomes = Outcomes(
            repository, self.shortfalls, recorder, last_known_good, regressions
        )
        self.fresh = FreshProcesses(loading, self._serving, self._outcomes)
        """What is left to fresh processes."""
        self.wanted: frozenset[str] = frozenset()
        """The names of the active rows, as they were read last."""
        self.timeout = FIRST_TIMEOUT_SECONDS
        """How long loads are waited for, before what is loaded is served."""

    @property
    def served(self) -> set[str]:
        """The plugins that are served, in whatever generation."""
        return self._live.names()

    @property
    def served_count(self) -> int:
        """How many those are."""
        return len(self._live)

    @property
    def loads_go_on(self) -> bool:
        """Whether a load takes longer than it is waited for."""
        return bool(self._loading.names())

    def follow(self, names: Collection[str] | None) -> None:
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
            self.shortfalls.retry_transient()
            names = self._live.names() | self.shortfalls.names() | self._loading.names()
            names |= rows.keys()
        leaving: list[Served] = []
        wanted: list[ServedRow] = []
        waiting: list[ServedRow] = []
        for name in [*rows, *(name for name in names if name not in rows)]:
            row = rows.get(name)
            self._unstamped.mend(name, row, self._live.find(name))
            self.versions.mend(name, row, self._live.find(name))
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
            elif self.shortfalls.may_try(row) and not self._exclusive.is_going_back_from(row):
                (wanted if self._loading.loader.may_load(row) else waiting).append(row)
        self._apply(leaving, wanted)
        for row in waiting:
            self.fresh.leave(row)
        wanted_now = {
            row.name
            for row in rows.values()
            if row.status == ACTIVE and (row.binary_path is not None or row.unpublished)
        }
        if self.wanted.intersection(names) != wanted_now:  # to make it anew takes 1 ms of 10,000
            self.wanted = self.wanted.difference(names) | wanted_now

    def follow_owners(self) -> None:
        """Load exclusive plugins that came to this process, stop those that left it."""
        if rows := self._exclusive.to_load(self._live, self.shortfalls.may_try):
            self._apply([], rows)

    def serve_last_known_good(self) -> int:
        """Serve what this host served last; return how many plugins that are."""
        kept = [row for row in self._last_known_good.rows() if row.name not in self._live]
        if kept:
            self._apply([], kept)
            self.wanted = self.wanted.union(self._live.names(), (row.name for row in kept))
        return len(kept)

    def _is_served(self, row: ServedRow) -> bool:
        """Tell whether what a row says is served, in the process where it is to be."""
        live = self._live
        return live.serves(row) and self._exclusive.is_settled(row, live.find(row.name))

    def _apply(self, leaving: list[Served], wanted: list[ServedRow]) -> None:
        self._exclusive.suspend(wanted, self._live)
        if any(row.name not in self._live for row in wanted):
            self._upkeep.routes.look_in(restores.SETTLE_SECONDS)
        results = self._load_all(wanted)
        arrived: dict[str, LoadResult] = {}
        failed: list[tuple[ServedRow, PluginError]] = []
        for result in results:
            if result.error is not None:
                failed.append((result.row, result.error))
                if (before := self._load_before(result.row, result.error)) is not None:
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
            if error.passes or self._loading.loader.may_load(row):
                self._fail(row, error)
            else:
                self.fresh.leave(row)

    def _load_before(self, row: ServedRow, error: PluginError) -> LoadResult | None:
        """Load what this host served before a generation that failed, where nothing is served."""
        if row.name in self._live or row.exclusive is not None:
            return None
        before = self._last_known_good.find_before(row, error)
        if before is None:
            return None
        if not self._loading.loader.may_load(before):
            self.fresh.spoil(row)
            return None
        self._exclusive.suspend([before], self._live)
        result = self._loading.load(before, TIMEOUT_SECONDS)
        self._loading.abandon(row.name)
        return result if result is not None and result.plugin is not None else None

    def _load_all(self, rows: Collection[ServedRow]) -> list[LoadResult]:
        """Load rows one after the other, beside those that take long; return what is done.

        What takes long is waited for once, at the end: ten that hang cost no more than one.
        """
        until = time.monotonic() + self.timeout
        done: list[LoadResult] = []
        late: list[ServedRow] = []
        for row in rows:
            if self._loading.is_loading(row):
                continue
            self._last_known_good.write_one(row.name, SETTLE_SECONDS)
            patience = max(PATIENCE_SECONDS / (1 + len(late)), TIMEOUT_SECONDS)
            result = self._loading.load(row, min(patience, self.timeout))
            if result is None:
                late.append(row)
            else:
                done.append(result)
        for row in late:
            result = self._loading.load(row, max(0.0, until - time.monotonic()))
            if result is None:
                self._tell_late(row)
            else:
                done.append(result)
        return done

    def _tell_late(self, row: ServedRow) -> None:
        if not self._exclusive.is_going_back_to(row):  # of that, why is said
            owner = self._exclusive.is_leaving(row.name)
            self._outcomes.loading(row, self._serving(row.name), self.timeout, owner=owner)
        self._exclusive.stand_in(row, self._live)

    def _fail(self, row: ServedRow, error: PluginError) -> None:
        if not self._exclusive.failed(row, error, self._live):
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
