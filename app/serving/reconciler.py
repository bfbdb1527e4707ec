"""Makes what is loaded match the rows: `(id, generation)` here against `(id, generation)` there."""

import logging
import threading
import time
from collections.abc import Collection, Iterable

from app.conditions import Conditions
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.errors import (
    ConflictError,
    DatabaseError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
)
from app.loading.loader import LoadedPlugin
from app.records import ACTIVE, ServedRow
from app.routing.application import LiveApp
from app.routing.table import TableBuilder
from app.serving.last_known_good import LastKnownGood
from app.serving.load_queue import PATIENCE_SECONDS, LoadQueue, LoadResult
from app.serving.reclaimer import Reclaimer
from app.serving.recorder import Recorder
from app.serving.shortfalls import Shortfalls
from app.threads import OwnThread
from app.worker_records import LoadRecord

log = logging.getLogger(__name__)

FIRST_PATIENCE_SECONDS = 10.0
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
        app: LiveApp,
        loading: LoadQueue,
        reclaimer: Reclaimer,
        recorder: Recorder,
        last_known_good: LastKnownGood,
        upkeep: Upkeep,
        conditions: Conditions | None = None,
    ) -> None:
        super().__init__("benana-reconciler")
        self._conditions = conditions or Conditions()
        self._repository = repository
        self._app = app
        self._loading = loading
        self._reclaimer = reclaimer
        self._recorder = recorder
        self._last_good = last_known_good
        self._upkeep = upkeep
        self._loaded: dict[str, LoadedPlugin] = {}
        self._shortfalls = Shortfalls(self._conditions)
        self._under_way: dict[str, ServedRow] = {}
        """The rows whose load takes long, in a thread of their own."""
        self._wanted: set[str] = set()
        """The names of the active rows, as they were read last."""
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._complaint = ""
        """What the database said last when it refused."""
        self.attempted = threading.Event()
        """Set after the first pass, whether the database could be reached or not."""
        self.complete = threading.Event()
        """Set once all rows were compared."""
        self.serves_last_good = False
        """Whether it started with what this host served last, for want of a database."""
        self.settled = threading.Event()
        """Set once nothing is missing at the start that may still come."""

    @property
    def registered(self) -> int | None:
        """How many plugins are to be served, None if that is not known."""
        return len(self._wanted) if self.complete.is_set() or self.serves_last_good else None

    @property
    def served(self) -> int:
        """How many plugins are served, in whatever generation."""
        return len(self._loaded)

    def mark(self, names: Iterable[str] | None) -> None:
        """Look at plugins again, at all with None; returns at once."""
        with self._wake:
            if names is None:
                self._all_dirty = True
            else:
                self._dirty.update(names)
            self._wake.notify_all()

    def unload_all(self) -> None:
        """Take all plugins out of the table and retire them; for the end of the process."""
        builder = self._app.table.builder()
        for name in self._loaded:
            builder.remove(name)
        self._publish(builder, list(self._loaded.values()))
        self._loaded.clear()
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
                self._dirty |= self._shortfalls.due()
                everything = self._all_dirty or len(self._dirty) > MANY_NAMES
                everything |= self._upkeep.broken  # where it is seen whether rows can be trusted
                names = None if everything else frozenset(self._dirty)
                self._all_dirty = False
                self._dirty.clear()
            try:
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
                # A fault of ours must not end the thread: what is loaded goes on being served.
                log.exception("a pass of the reconciler failed")
                self._cannot_compare(f"{type(error).__name__}: {error}")
                self._try_later(None)
            self.attempted.set()

    def _cannot_compare(self, reason: str) -> None:
        self._conditions.hold(
            "rows", f"the rows cannot be read, what is loaded is served: {reason}"
        )

    def _try_later(self, names: Collection[str] | None) -> None:
        if not self.attempted.is_set():
            self._serve_last_good()
            self.attempted.set()
            self.settled.set()  # it serves what it can, and does not wait for the database
        with self._wake:
            # A mark cuts the wait short: the listener makes one when the database is back.
            self._wake.wait(RETRY_SECONDS)
        self.mark(names)

    def _serve_last_good(self) -> None:
        kept = self._last_good.rows()
        if kept:
            log.warning("starting with what was served last: %d plugins", len(kept))
            self._apply([], kept)
            self._wanted = {row.name for row in kept}
            self.serves_last_good = True

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
            names = self._loaded.keys() | self._shortfalls.names() | self._under_way.keys()
            names |= rows.keys()
        leaving: list[LoadedPlugin] = []
        wanted: list[ServedRow] = []
        for name in [*rows, *(name for name in names if name not in rows)]:
            row = rows.get(name)
            if row is None or row.status != ACTIVE or row.binary_path is None:
                self._under_way.pop(name, None)
                if row is not None and row.status == ACTIVE and row.unpublished:
                    self._shortfalls.forget(name)
                    reason = "it is active, and its source was never published"
                    self._shortfalls.hold(row, reason, None)
                else:
                    self._shortfalls.end(name)
                if name in self._loaded:
                    leaving.append(self._loaded[name])
                if row is not None:
                    self._note(row, "unloaded", serving=None)
                else:
                    self._recorder.forget(name)
            elif self._serves(row):
                self._under_way.pop(name, None)
                self._shortfalls.end(name)
                if row.load_error:
                    self._forget_load_error(row)
            elif self._shortfalls.may_try(row):
                wanted.append(row)
        self._apply(leaving, wanted)
        self._wanted.difference_update(names)
        self._wanted.update(
            row.name
            for row in rows.values()
            if row.status == ACTIVE and (row.binary_path is not None or row.unpublished)
        )
        for name in names:
            if name not in self._under_way:
                self._discard(self._loading.take_late(name))

    def _serves(self, row: ServedRow) -> bool:
        current = self._loaded.get(row.name)
        return current is not None and (current.row_id, current.generation) == (
            row.id,
            row.generation,
        )

    def _apply(self, leaving: list[LoadedPlugin], wanted: list[ServedRow]) -> None:
        if any(row.name not in self._loaded for row in wanted):
            self._upkeep.rows_arrived()
        results = [self._load(row) for row in wanted]
        arrived: dict[str, LoadResult] = {}
        failed: list[tuple[ServedRow, PluginError]] = []
        for result in results:
            if result is None:
                continue
            if result.error is not None:
                failed.append((result.row, result.error))
                before = self._load_before(result.row)
                if before is not None:
                    arrived[before.row.name] = before
            elif result.plugin is not None:
                arrived[result.row.name] = result
        del results
        if leaving or arrived:
            self._swap(leaving, arrived)
        for row, error in failed:
            self._fail(row, error)

    def _load_before(self, row: ServedRow) -> LoadResult | None:
        """Load what this host served before a generation that failed, where nothing is served."""
        before = self._last_good.find(row.name)
        if row.name in self._loaded or before is None:
            return None
        if before.id != row.id or before.generation >= row.generation:
            return None
        result = self._loading.load(before, PATIENCE_SECONDS)
        return result if result is not None and result.plugin is not None else None

    def _load(self, row: ServedRow) -> LoadResult | None:
        if row.name in self._under_way:
            late = self._loading.take_late(row.name)
            done = next((result for result in late if result.row == row), None)
            self._discard([result for result in late if result is not done])
            if done is None and self._under_way[row.name] == row:
                return None
            del self._under_way[row.name]
            if done is not None:
                return done
        self._last_good.write_one(row.name)
        patience = PATIENCE_SECONDS if self.attempted.is_set() else FIRST_PATIENCE_SECONDS
        result = self._loading.load(row, patience)
        if result is None:
            self._under_way[row.name] = row
            log.warning(
                "%s: generation %d is still loading after %g s; the others go ahead",
                row.name,
                row.generation,
                patience,
            )
            reason = f"generation {row.generation} is still loading"
            self._shortfalls.hold(row, reason, self._generation_of(row.name))
            self._note(row, "loading", serving=self._loaded.get(row.name))
        return result

    def _generation_of(self, name: str) -> int | None:
        """Return the generation that is served of a plugin, None if nothing is."""
        current = self._loaded.get(name)
        return None if current is None else current.generation

    def _forget_load_error(self, row: ServedRow) -> None:
        """Have the row say no more that its generation cannot be loaded: it is served here."""
        try:
            self._repository.forget_load_error(row)
        except DatabaseError as error:
            log.debug("%s: its error stays until the next comparison: %s", row.name, error)

    def _discard(self, results: Iterable[LoadResult]) -> None:
        for result in results:
            if result.plugin is not None:
                self._reclaimer.retire(result.plugin, self._app.table.number)

    def _fail(self, row: ServedRow, error: PluginError) -> None:
        is_new = self._shortfalls.fail(row, error, self._generation_of(row.name))
        self._note(row, "failed", serving=self._loaded.get(row.name), error=error)
        if is_new:
            log.error("%s; generation %d is not served", error, row.generation)

    # --- swapping --------------------------------------------------------------------------

    def _swap(self, leaving: list[LoadedPlugin], arrived: dict[str, LoadResult]) -> None:
        builder = self._app.table.builder()
        for plugin in leaving:
            builder.remove(plugin.name)
        plugins = [result.plugin for result in arrived.values() if result.plugin is not None]
        accepted, refused = _fit(builder, plugins)
        old = [*leaving, *(self._loaded[p.name] for p in accepted if p.name in self._loaded)]
        number = self._publish(builder, old)
        for plugin in leaving:
            del self._loaded[plugin.name]
            self._last_good.forget(plugin.name)
            log.info("%s: unloaded generation %d", plugin.name, plugin.generation)
        for plugin in accepted:
            self._loaded[plugin.name] = plugin
            self._shortfalls.end(plugin.name)
            self._settle(plugin, arrived[plugin.name])
        for plugin, error in refused:
            self._fail(arrived[plugin.name].row, error)
            self._reclaimer.retire(plugin, number)

    def _settle(self, plugin: LoadedPlugin, result: LoadResult) -> None:
        log.info(
            "%s: serving generation %d, %d routes, loaded in %.0f ms",
            plugin.name,
            plugin.generation,
            len(plugin.routes),
            result.milliseconds,
        )
        self._note(result.row, "serving", serving=plugin)
        self._last_good.remember(result.row)
        if result.row.load_error:
            self._forget_load_error(result.row)

    def _publish(self, builder: TableBuilder, old: list[LoadedPlugin]) -> int:
        table = builder.build()
        self._app.swap(table)
        for plugin in old:
            plugin.context.cancelled.set()
            self._reclaimer.retire(plugin, table.number)
        return table.number

    def _note(
        self,
        row: ServedRow,
        state: str,
        *,
        serving: LoadedPlugin | None,
        error: PluginError | None = None,
    ) -> None:
        record = LoadRecord(
            row.name,
            row.id,
            serving.generation if serving else None,
            row.generation,
            state,
            {**error.as_record(), "generation": row.generation} if error else None,
        )
        self._recorder.note([record])


def _fit(
    builder: TableBuilder, arrived: list[LoadedPlugin]
) -> tuple[list[LoadedPlugin], list[tuple[LoadedPlugin, ConflictError]]]:
    """Put arrivals into a table; one that conflicts leaves its plugin's old routes in place.

    A route may move from one plugin to another within a batch, so what is refused is tried again
    as long as others still make room.
    """
    accepted: list[LoadedPlugin] = []
    waiting = [(plugin, ConflictError(plugin.name, "")) for plugin in arrived]
    while waiting:
        refused = []
        for plugin, _ in waiting:
            old = builder.remove(plugin.name)
            try:
                builder.add(plugin.name, plugin.routes)
            except ConflictError as error:
                builder.add(plugin.name, old)
                refused.append((plugin, error))
            else:
                accepted.append(plugin)
        if len(refused) == len(waiting):
            return accepted, refused
        waiting = refused
    return accepted, []
