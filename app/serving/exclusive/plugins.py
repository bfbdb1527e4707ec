"""The plugins that one process alone runs: which of them this one runs, and what comes next."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from app.conditions import Conditions
from app.errors import PluginError
from app.isolation.runtime_folder import RuntimeFolder
from app.loading.loader import LoadedPlugin
from app.records import CLUSTER, Endpoint, ServedRow
from app.routing.application import LiveApp
from app.serving.exclusive.cluster_lock import ClusterLock
from app.serving.exclusive.giving_way import GivingWay
from app.serving.exclusive.hand_over import DRAIN_SHARE
from app.serving.exclusive.lock_watch import LockWatch
from app.serving.exclusive.seat import Seat
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import LivePlugins, Served

log = logging.getLogger(__name__)


class ExclusivePlugins:
    """The exclusive plugins of this process.

    For the reconciler, which asks what is to be loaded and says what came of it.

    An edit is a hand-over: `suspend` takes the old generation out of the table and has it cleaned
    up, requests wait in its stand-in, and only then the new one is loaded. If that fails, the one
    before it is loaded again.
    """

    def __init__(
        self,
        artifacts_dir: Path,
        app: LiveApp,
        last_known_good: LastKnownGood,
        wait_seconds: float,
        make_cluster_lock: Callable[[str], ClusterLock],
        conditions: Conditions,
        mark: Callable[[str, bool], None],
    ) -> None:
        """Make it; nothing is taken.

        Args:
            artifacts_dir: what the processes of a host have in common.
            app: the application whose table the plugins are in.
            last_known_good: what this host served before.
            wait_seconds: how long a request may wait for such a plugin.
            make_cluster_lock: makes the lock of all hosts, for a plugin's name.
            conditions: where it is held that a plugin runs on another host.
            mark: has the reconciler look at a plugin, with True also if it has just failed;
                returns at once.
        """
        self._folder = RuntimeFolder(artifacts_dir)
        self._app = app
        self._last_known_good = last_known_good
        self._wait_seconds = wait_seconds
        self._make_cluster_lock = make_cluster_lock
        self._mark = mark
        self._seats: dict[str, Seat] = {}
        self._back: dict[str, ServedRow] = {}
        """What is loaded again, because the newer one failed."""
        self._failed: dict[str, tuple[ServedRow, PluginError]] = {}
        """What failed last, and why."""
        self._ending = False
        self.giving_way = GivingWay(artifacts_dir, wait_seconds)
        """Asks for a fresh process where this one is in the way."""
        self._watch = LockWatch(
            lambda: list(self._seats.values()),
            conditions,
            lambda name: mark(name, True),
            self.giving_way.look,
        )

    # --- what the reconciler asks --------------------------------------------------------------

    def runs(self, name: str) -> bool:
        """Tell whether this process runs an exclusive plugin itself."""
        seat = self._seats.get(name)
        return seat is not None and seat.runs

    def owned(self) -> set[str]:
        """Return the plugins that this process is to run."""
        return {name for name, seat in list(self._seats.items()) if seat.owns}

    def is_leaving(self, name: str) -> bool:
        """Tell whether an exclusive plugin ran here, and has not stopped yet."""
        seat = self._seats.get(name)
        return seat is not None and not seat.hand_over.has_left()

    def served_generation(self, name: str, live: Served | None) -> int | None:
        """Return what a request for a plugin finds, None for nothing.

        Args:
            name: the plugin.
            live: what is in the table.
        """
        seat = self._seats.get(name)
        if live is None or isinstance(live, LoadedPlugin) or seat is None:
            return None if live is None else live.generation
        return seat.served_generation

    def is_settled(self, row: ServedRow, live: Served | None) -> bool:
        """Tell whether a row whose generation is in the table is served as it is to be."""
        seat = self._seats.get(row.name)
        if row.exclusive is None:
            return seat is None or isinstance(live, LoadedPlugin)
        if seat is None:
            return False
        here = isinstance(live, LoadedPlugin)
        return seat.owns if here else not seat.owns and seat.hears(row)

    def is_going_back_from(self, row: ServedRow) -> bool:
        """Tell whether the generation before a row's is being loaded, because that failed."""
        failed = self._failed.get(row.name)
        return row.name in self._back and failed is not None and failed[0] == row

    def is_going_back_to(self, row: ServedRow) -> bool:
        """Tell whether a row is what is loaded again, because the one after it failed."""
        return self._back.get(row.name) == row

    def to_load(self, live: LivePlugins, may_try: Callable[[ServedRow], bool]) -> list[ServedRow]:
        """Return what this process has to load, or to stop, whatever the database says.

        Args:
            live: what is in the table.
            may_try: tells whether a row may be loaded now.
        """
        rows = []
        for name, seat in list(self._seats.items()):
            row, here = seat.wanted, isinstance(live.find(name), LoadedPlugin)
            if name in self._back:
                rows.append(self._back[name])
            elif row is not None and seat.owns != here and may_try(row) and name in live:
                rows.append(row)
        return rows

    def suspend(self, rows: Sequence[ServedRow], live: LivePlugins) -> None:
        """Note what is to be loaded; stop what runs here of exclusive plugins, before that.

        Args:
            rows: what is to be loaded.
            live: what is in the table.
        """
        stand_ins: list[Served] = []
        for row in rows:
            if row.exclusive is None:
                continue
            seat = self._seat(row)
            if self._back.get(row.name) not in (None, row):
                self._back.pop(row.name, None)  # something newer is to be loaded
            seat.want(row)
            running = live.find(row.name)
            if isinstance(running, LoadedPlugin):
                endpoints = [e for route in running.routes for e in route.endpoints]
                stand_ins.append(seat.stand_in(running.row_id, running.generation, endpoints))
                seat.shut()
        if stand_ins:
            self.retired(live.swap([], stand_ins, DRAIN_SHARE * self._wait_seconds).ends)

    def load(self, row: ServedRow, load: Callable[[ServedRow], LoadedPlugin]) -> Served:
        """Load a row by a function, or return what stands for it here; for the loader's thread.

        Raises:
            PluginError: it cannot be loaded, here or in the process that is to run it.
        """
        return self._seats[row.name].load(row, load)

    # --- what the reconciler says --------------------------------------------------------------

    def claim(self, plugin: Served) -> None:
        """Note that something that was loaded is the reconciler's from now on."""
        seat = self._seats.get(plugin.name)
        if seat is not None:
            seat.hand_over.claim(plugin)

    def gave_up(self, plugin: Served) -> bool:
        """Tell whether something that was loaded, and is not wanted, needs no more cleanup."""
        seat = self._seats.get(plugin.name)
        return seat is not None and seat.hand_over.give_up(plugin)

    def served(self, plugin: Served, row: ServedRow) -> bool:
        """Note that the table holds a plugin; return whether it is the one before a failed one."""
        seat = self._seats.get(plugin.name)
        went_back = self._back.get(plugin.name) == row
        failed = self._failed.get(plugin.name)
        if went_back:
            del self._back[plugin.name]
        else:
            self._failed.pop(plugin.name, None)
        if seat is None:
            return went_back
        seat.last = row
        if row.exclusive is None:
            seat.unwanted()
        elif isinstance(plugin, LoadedPlugin):
            error = seat.opened(plugin, failed if went_back else None)
            if error is not None:
                log.error("%s", error)
        return went_back

    def retired(self, ends: Mapping[str, threading.Event]) -> None:
        """Note what left the table, by the plugin's name; each event is set after its cleanup."""
        for name, end in ends.items():
            seat = self._seats.get(name)
            if seat is not None:
                seat.hand_over.leave([end])

    def failed(self, row: ServedRow, error: PluginError, live: LivePlugins) -> bool:
        """Note that a row could not be loaded; what ran before it is loaded again, or passed on to.

        Args:
            row: what was to be loaded.
            error: why it could not.
            live: what is in the table.

        Returns:
            Whether it was itself the one before, and everything is said.
        """
        name = row.name
        seat = self._seats.get(name)
        was_back = self._back.get(name) == row
        if seat is None or (row.exclusive is None and not was_back):
            return False
        if was_back:
            del self._back[name]
            log.error("%s; nor can generation %d be loaded again", error, row.generation)
            seat.failed(*self._failed.get(name, (row, error)), comes=False, here=False)
            return True
        self._failed[name] = (row, error)
        if self.giving_way.failed(seat, row, error):
            return False
        last = seat.last
        older = last is not None and last.id == row.id and last.generation < row.generation
        before = last if older else self._last_known_good.find_before(row, error)
        lacks = name not in live and seat.served_generation is not None
        goes_back = before is not None and (seat.owns or lacks or before.exclusive is None)
        seat.failed(row, error, comes=goes_back, here=True)
        if goes_back and before is not None:
            self._back[name] = before
            self._mark(name, False)
        elif not seat.owns:
            self.stand_in(row, live)
        return False

    def stand_in(self, row: ServedRow, live: LivePlugins) -> None:
        """Have requests wait for a plugin of which nothing is in the table: they are a 404 else."""
        if row.exclusive is not None and row.endpoints and row.name not in live:
            known = [Endpoint(*parts) for parts in row.endpoints]
            live.swap([], [self._seat(row).stand_in(row.id, 0, known)])  # 0: nothing is served

    def unwanted(self, names: Iterable[str]) -> None:
        """Note plugins that left the table, or that each process runs by now."""
        for name in names:
            self._back.pop(name, None)
            self._failed.pop(name, None)
            seat = self._seats.get(name)
            if seat is not None:
                seat.unwanted()

    # --- life ----------------------------------------------------------------------------------

    def stop_candidacies(self) -> None:
        """Take nothing over any more: this process only ends its requests."""
        self._ending = True
        for seat in list(self._seats.values()):
            seat.stop_candidacy()

    def end_all(self) -> None:
        """Take no more requests of other processes; what runs is about to be unloaded."""
        for seat in list(self._seats.values()):
            seat.end()

    def close(self) -> None:
        """Give everything away; once nothing of it runs."""
        self._watch.stop()
        for seat in list(self._seats.values()):
            seat.close()
        self._seats.clear()

    def _seat(self, row: ServedRow) -> Seat:
        seat = self._seats.get(row.name)
        if seat is None:
            seat = self._seats[row.name] = Seat(
                row.name, self._folder, self._app, self._wait_seconds, self._watch.look_soon
            )
            if self._ending:
                seat.stop_candidacy()
        cluster = row.exclusive == CLUSTER
        if cluster and seat.cluster_lock is None:
            seat.cluster_lock = self._make_cluster_lock(row.name)
        elif not cluster and seat.cluster_lock is not None:
            lock, seat.cluster_lock = seat.cluster_lock, None
            lock.release()
        self._watch.start_once()
        return seat
