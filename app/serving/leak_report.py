"""Whether what generations took comes back after their cleanup, and what keeps it if not."""

import logging
import queue
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.conditions import Conditions
from app.loading.started_threads import started_threads
from app.records import ServedRow
from app.serving.collector import Collector
from app.serving.hung_loads import HungLoads
from app.serving.left_threads import LeftThreads
from app.serving.referrers import describe_referrers
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
LEAK_LOOK_SECONDS = 30.0
REPORT_SECONDS = 2.0
"""How long after its cleanup a generation may still be in memory, before it counts as a leak."""


@dataclass(slots=True, eq=False)
class Remains:
    """A generation that was cleaned up and should be gone from memory.

    `plugin` is its plugin's name, `label` its own in the log, `generation` that of its package;
    `traces` are references to what is alive as long as anything of it is; `loaded_at` and
    `report_at` are in monotonic seconds.
    """

    plugin: str
    label: str
    generation: str
    traces: "list[weakref.ref[Any]]"
    loaded_at: float
    report_at: float = 0.0
    collected: bool = False
    """Whether a collection saw it, or passed it by because it was frozen."""
    reported: bool = False

    def survivors(self) -> list[object]:
        """Return what is alive of it."""
        return [item for trace in self.traces if (item := trace()) is not None]

    def is_gone(self) -> bool:
        """Tell whether nothing of it is alive."""
        return all(trace() is None for trace in self.traces)


class LeakReport(OwnThread):
    """Has memory collected once generations were cleaned up, and reports once what stays.

    In a thread of its own, `benana-collector`: a collection runs the finalizers of plugins, which
    may take long, and may not even return. Nobody waits for it, and it shares no lock: `add` puts
    what was cleaned up into a queue.
    """

    def __init__(
        self, conditions: Conditions, tidy: Callable[[str], None] = lambda _plugin: None
    ) -> None:
        """Make it; call `start` for its thread.

        Args:
            conditions: where what stays is said.
            tidy: is told the plugin of each generation that has gone from memory.
        """
        super().__init__("benana-collector")
        self._tidy = tidy
        self._added: queue.SimpleQueue[Remains | None] = queue.SimpleQueue()
        self._remains: list[Remains] = []
        self._looked_at = 0.0
        self._collector = Collector()
        self._threads = LeftThreads(conditions, started_threads.running)
        self._hung = HungLoads(conditions)
        self._max_leaked = 0
        self._replace: Callable[[], None] | None = None

    def freeze(self) -> None:
        """Note that what is loaded now will stay for long."""
        self._collector.freeze()

    def replace_process(self, replace: Callable[[], None], max_leaked: int) -> None:
        """Call `replace` once more than `max_leaked` generations leave something behind."""
        self._replace = replace
        self._max_leaked = max_leaked

    @property
    def leaked(self) -> int:
        """How many generations are still there, though cleaned up or given up."""
        kept = {x.generation for x in list(self._remains) if x.reported and not x.is_gone()}
        return len(kept | self._threads.generations) + self._hung.count

    def expect(self) -> None:
        """Have what is garbage from now on finalized in this thread; by any thread."""
        if not self._stopped:
            self._collector.take_over()
            self._added.put(None)  # it may wait for nothing, and has to hand it back

    def add(self, remains: Remains) -> None:
        """Expect the memory and the threads of a generation back, which was cleaned up just now."""
        remains.report_at = time.monotonic() + REPORT_SECONDS
        self._added.put(remains)

    def add_failed(self, plugin: str, generation: str) -> None:
        """Expect the threads of a generation back that could not be loaded.

        Args:
            plugin: its plugin's name.
            generation: the name under which its threads are noted.
        """
        self.add(Remains(plugin, plugin, generation, [], time.monotonic()))

    def add_hung(self, row: ServedRow, has_ended: Callable[[], bool]) -> None:
        """Expect a load to return that nobody waits for any more; see `HungLoads.add`."""
        self._hung.add(row, has_ended)
        self._added.put(None)  # which wakes the thread

    def end(self) -> None:
        """Tell the thread to end; do not wait for it."""
        self._stopped = True
        self._added.put(None)

    def _run(self) -> None:
        try:
            self._collect_and_report()
        finally:
            self._collector.give_back()

    def _collect_and_report(self) -> None:
        while not self._stopped:
            self._await_look()
            if self._stopped:
                return
            try:
                self._look()
            except Exception:
                # A fault of ours must not end the thread: nothing would be collected any more.
                log.exception("looking at what generations leave failed; these are given up")
                self._remains.clear()
            self._collector.hand_back(waiting=self._is_waiting())

    def _await_look(self) -> None:
        """Take what is added until it is time for a look: one for all that comes meanwhile."""
        wait = self._next_look()
        with suppress(queue.Empty):
            while not self._stopped:
                self._take(self._added.get(timeout=wait))
                wait = self._rest()
                if not wait:
                    return

    def _take(self, remains: Remains | None) -> None:
        if remains is None:
            return
        if not self._is_waiting():
            # Not at once: a collection would hold up the first requests of the successor.
            self._collector.put_off(LOOK_SECONDS)
        self._remains.append(remains)
        self._threads.add(remains.plugin, remains.generation)

    def _next_look(self) -> float | None:
        """Return the seconds until the remains are worth a look, None if there are none."""
        own = LOOK_SECONDS if self._collector.taken_over else None
        asked = (self._threads.next_look(), self._hung.next_look(), self._next_memory(), own)
        looks = [look for look in asked if look is not None]
        return max(min(looks), self._rest()) if looks else None

    def _rest(self) -> float:
        """Return the seconds until the next look at the earliest."""
        return max(0.0, self._looked_at + LOOK_SECONDS - time.monotonic())

    def _is_waiting(self) -> bool:
        """Tell whether something waits for its first collection."""
        return any(not item.collected for item in self._remains)

    def _next_memory(self) -> float | None:
        if not self._remains:
            return None
        now = time.monotonic()
        if self._is_waiting() or any(now < x.report_at + LOOK_SECONDS for x in self._remains):
            return LOOK_SECONDS
        waiting = any(not item.reported for item in self._remains)
        return REPORT_SECONDS if waiting else LEAK_LOOK_SECONDS

    def _look(self) -> None:
        """Report what stays, and forget what is gone."""
        self._looked_at = time.monotonic()
        self._threads.look()
        self._hung.look()
        left: list[Remains] = []
        for item in self._remains:
            if item.is_gone():
                self._tidy(item.plugin)
            else:
                left.append(item)
        self._remains = left
        if self._remains:
            self._look_at_memory()
        if self._replace is not None and self.leaked > self._max_leaked:
            log.warning(
                "%d generations stay in memory, leave threads or hang in their load, more than %d: "
                "replacing this worker",
                self.leaked,
                self._max_leaked,
            )
            replace, self._replace = self._replace, None
            replace()

    def _look_at_memory(self) -> None:
        """Collect if it is time for it."""
        # A generation is full of cycles: classes, and functions with their globals.
        now, collector = time.monotonic(), self._collector
        overdue = [item for item in self._remains if not item.reported and now >= item.report_at]
        frozen = [item for item in overdue if collector.passes_by(item.loaded_at)]
        seen = [item for item in overdue if item not in frozen]
        if frozen and collector.collect_thoroughly(len(frozen)):
            seen = overdue
        else:
            waiting = [item.loaded_at for item in self._remains if not item.collected]
            # Of what is frozen only that is seen which it has made since, and its finalizers run.
            urgent = bool(seen) or not all(map(collector.passes_by, waiting))
            if not ((urgent or waiting) and collector.collect(urgent=urgent)):
                return
        for item in self._remains:
            item.collected = True
        self._report_leaks(seen)

    def _report_leaks(self, overdue: list[Remains]) -> None:
        for item in overdue:
            survivors = item.survivors()
            if survivors:
                item.reported = True
                log.warning(
                    "%s: still in memory after its cleanup; %s",
                    item.label,
                    _describe(item, survivors),
                )
                self._collector.freeze()  # looking for who holds it has thawed everything
            del survivors


def _describe(item: Remains, survivors: list[object]) -> str:
    try:
        return describe_referrers(survivors, item.generation)
    except BaseException as error:  # noqa: BLE001 - it looks at all objects of the process
        return f"what holds it cannot be told ({type(error).__name__})"
