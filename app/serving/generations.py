"""Who still runs in an old generation, and when a retired one can be cleaned up.

Grace periods in the manner of read-copy-update (P. E. McKenney, "Is Parallel Programming Hard",
chapter 9.5): a request thread notes in a slot of its own what it runs in, and clears it at the
end, so the request path has no lock and no shared counter. It notes its route table first, and
its route instead once that is found: from then on the request holds back the generation that it
runs in, and no other. The price is that the reclaiming side has to look: it polls the slots while,
and only while, something waits to be cleaned up.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from app.serving.activity import Activity, Name
from app.serving.collector import Collector
from app.serving.registration import Route
from app.serving.remains import holders_of
from app.serving.routes import RouteTable
from app.threads import OwnThread

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
DRAIN_SECONDS = 30.0
LOOK_SECONDS = 0.25
LEAK_LOOK_SECONDS = 30.0
REPORT_SECONDS = 2.0
"""How long after its cleanup a generation may still be in memory, before it counts as a leak."""


class Slot:
    """Where one thread notes what its request runs in; None between requests.

    `cell` is the thread's word of the process's `Activity`.
    """

    __slots__ = ("__weakref__", "at", "cell")

    def __init__(self, cell: memoryview, at: RouteTable | Route | None = None) -> None:
        self.at = at
        self.cell = cell


_NO_CELL = memoryview(bytearray(8)).cast("Q")


class InUse(NamedTuple):
    """What requests run in now.

    `oldest_table` is the number of the oldest table of those that have not found their route yet,
    None if there are none; `generations` are the `Route.generation` of the others.
    """

    oldest_table: int | None
    generations: frozenset[str]


class RunningRequests:
    """What the requests of this process run in now."""

    def __init__(self) -> None:
        self.threads = threading.local()
        """Each thread's `slot`, once it has asked for it."""
        self._activity = Activity()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._streams: set[Slot] = set()
        self._lock = threading.Lock()

    def share(self, activity: Activity) -> None:
        """Show what the threads do in a memory that others see; before the first request."""
        self._activity = activity

    @property
    def crew(self) -> int | None:
        """How many processes like this one its master wants, None if it has no such master."""
        return self._activity.crew or None

    def number(self, name: Name) -> int:
        """Return the number under which threads show what they do."""
        return self._activity.number(name)

    def slot(self) -> Slot:
        """Return the calling thread's slot."""
        try:
            slot: Slot = self.threads.slot
        except AttributeError:
            slot = self._new_slot(self._activity.cell())
        return slot

    def nest(self) -> Slot:
        """Give the calling thread another slot, for a request within its request.

        The thread goes on showing its outer request: a word of its own for each inner one would
        use up those of other threads.

        Returns:
            The slot that it had; set `threads.slot` to it at the end.
        """
        outer: Slot = self.threads.slot
        self._new_slot(_NO_CELL)
        return outer

    def _new_slot(self, cell: memoryview) -> Slot:
        slot = self.threads.slot = Slot(cell)
        with self._lock:
            self._slots.add(slot)
        return slot

    def hold(self, at: RouteTable | Route | None) -> Slot:
        """Hold for a stream what its request ran in; give the slot to `release`."""
        slot = Slot(_NO_CELL, at)
        with self._lock:
            self._streams.add(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Let go of what a stream held."""
        with self._lock:
            self._streams.discard(slot)

    def in_use(self) -> InUse:
        """Return what requests run in."""
        with self._lock:
            slots = list(self._slots)
        # Threads before streams: a request hands over by holding first and clearing then, so
        # whoever has cleared his slot when it is looked at is among the streams afterwards.
        found = [slot.at for slot in slots]
        with self._lock:
            found += [slot.at for slot in self._streams]
        numbers = [at.number for at in found if isinstance(at, RouteTable)]
        generations = frozenset(at.generation for at in found if isinstance(at, Route))
        return InUse(min(numbers, default=None), generations)


class Disposable(Protocol):
    """A loaded generation, as seen from its end."""

    @property
    def label(self) -> str:
        """The generation's name in log lines and thread names."""

    @property
    def key(self) -> str:
        """What its routes have as `Route.generation`."""

    @property
    def loaded_at(self) -> float:
        """When it was loaded, in monotonic seconds."""

    def dispose(self) -> None:
        """Clean the plugin up and forget its modules; never raises."""

    def traces(self) -> "list[weakref.ref[Any]]":
        """Return references to what is alive as long as anything of the generation is."""


@dataclass(slots=True)
class _Retired:
    """A generation that waits for its last request, and then for its cleanup to return."""

    generation: Disposable
    successor: int
    """The number of the first table without this generation."""
    deadline: float
    traces: "list[weakref.ref[Any]]" = field(default_factory=list)
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Remains:
    """A generation that was cleaned up and should be gone from memory."""

    label: str
    traces: "list[weakref.ref[Any]]"
    loaded_at: float
    report_at: float
    collected: bool = False
    """Whether a collection saw it, or passed it by because it was frozen."""
    reported: bool = False

    def survivors(self) -> list[object]:
        """Return what is alive of it."""
        return [found for trace in self.traces if (found := trace()) is not None]


class Undertaker(OwnThread):
    """Cleans retired generations up, each after the last request that could reach it.

    One thread, `benana-cleanup`; each `cleanup` runs in a thread of its own, so that one that
    blocks holds up nobody. Afterwards it looks whether the generation's memory came back.
    """

    def __init__(self, running: RunningRequests, drain_seconds: float = DRAIN_SECONDS) -> None:
        super().__init__("benana-cleanup")
        self._running = running
        self._drain_seconds = drain_seconds
        self._retired: list[_Retired] = []
        self._remains: list[_Remains] = []
        self._collector = Collector()
        self._max_leaked = 0
        self._replace: Callable[[], None] | None = None

    def freeze(self) -> None:
        """Note that what is loaded now will stay for long."""
        self._collector.freeze()

    def replace_process(self, replace: Callable[[], None], max_leaked: int) -> None:
        """Call `replace` once more than `max_leaked` generations stay in memory."""
        self._replace = replace
        self._max_leaked = max_leaked

    def retire(self, generation: Disposable, successor: int) -> None:
        """Clean a generation up once no request runs in it or can come to.

        Args:
            generation: what no table holds from `successor` on.
            successor: the number of the first table without it.
        """
        deadline = time.monotonic() + self._drain_seconds
        with self._wake:
            self._retired.append(_Retired(generation, successor, deadline))
            self._wake.notify_all()

    def stop(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait for what is retired, `timeout` seconds at most, and end the thread."""
        with self._wake:
            deadline = time.monotonic() + timeout
            for item in self._retired:
                item.deadline = min(item.deadline, deadline)
        super().stop(timeout + 1.0)

    @property
    def waiting(self) -> int:
        """How many retired generations are not cleaned up yet."""
        return len(self._retired)

    @property
    def leaked(self) -> int:
        """How many generations are still in memory though they were cleaned up a while ago."""
        return sum(item.reported and bool(item.survivors()) for item in list(self._remains))

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._retired and self._stopped:
                    return
                if not self._retired:
                    self._wake.wait(self._next_look())
                if self._retired:
                    # Not at once: requests run in it still, and other processes swap.
                    self._wake.wait(POLL_SECONDS)
                items = list(self._retired)
            try:
                self._clean_up(items)
                del items  # or this thread would keep the generations that it has cleaned up
                self._look_at_remains()
            except Exception:
                # A fault of ours must not end the thread: no plugin would be cleaned up any more.
                log.exception("cleaning up failed")

    # --- cleaning up -----------------------------------------------------------------------

    def _clean_up(self, items: list[_Retired]) -> None:
        in_use = self._running.in_use()
        now = time.monotonic()
        for item in items:
            if self._is_finished(item, in_use, now):
                with self._wake:
                    self._retired.remove(item)
                if all(other.collected for other in self._remains):
                    # Not at once: a collection would hold up the first requests of the successor.
                    self._collector.put_off(LOOK_SECONDS)
                gone = item.generation
                self._remains.append(
                    _Remains(gone.label, item.traces, gone.loaded_at, now + REPORT_SECONDS)
                )
                del gone

    def _is_finished(self, item: _Retired, in_use: InUse, now: float) -> bool:
        if item.thread is None:
            oldest = in_use.oldest_table
            drained = item.generation.key not in in_use.generations and (
                oldest is None or oldest >= item.successor
            )
            if not drained and now < item.deadline:
                return False
            if not drained:
                log.warning(
                    "%s: a request still runs in it after %g s; cleaning it up anyway",
                    item.generation.label,
                    self._drain_seconds,
                )
            left = 0.5 if self._stopped else self._drain_seconds
            item.deadline = max(item.deadline, now + left) if self._stopped else now + left
            item.traces = item.generation.traces()
            thread = threading.Thread(
                target=_dispose,
                args=(item.generation, item.done),
                name=f"benana-cleanup-{item.generation.label}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads just now: the next look tries again
                log.warning("%s: not cleaned up yet: %s", item.generation.label, error)
                return False
            item.thread = thread
            return item.done.wait(0.001)
        if item.done.is_set():
            return True
        if now >= item.deadline:
            log.warning(
                "%s: cleanup did not return within %g s; its thread %s is left behind",
                item.generation.label,
                self._drain_seconds,
                item.thread.name,
            )
            return True
        return False

    # --- looking whether memory comes back ---------------------------------------------------

    def _next_look(self) -> float | None:
        """Return the seconds until the remains are worth a look, None if there are none."""
        if not self._remains:
            return None
        now = time.monotonic()
        if any(not item.collected or now < item.report_at + LOOK_SECONDS for item in self._remains):
            return LOOK_SECONDS
        waiting = any(not item.reported for item in self._remains)
        return REPORT_SECONDS if waiting else LEAK_LOOK_SECONDS

    def _look_at_remains(self) -> None:
        self._remains = [item for item in self._remains if item.survivors()]
        if not self._remains:
            return
        # A generation is full of cycles: classes, and functions with their globals.
        now, collector = time.monotonic(), self._collector
        overdue = [item for item in self._remains if not item.reported and now >= item.report_at]
        frozen = [item for item in overdue if collector.passes_by(item.loaded_at)]
        seen = [item for item in overdue if item not in frozen]
        if frozen and collector.collect_thoroughly(len(frozen)):
            seen = overdue
        else:
            wanted = bool(seen) or not all(item.collected for item in self._remains)
            if not (wanted and collector.collect()):
                return
        for item in self._remains:
            item.collected = True
        self._report_leaks(seen)
        if self._replace is not None and self.leaked > self._max_leaked:
            log.warning(
                "%d generations stay in memory, more than %d: replacing this worker",
                self.leaked,
                self._max_leaked,
            )
            replace, self._replace = self._replace, None
            replace()

    def _report_leaks(self, overdue: list[_Remains]) -> None:
        for item in overdue:
            survivors = item.survivors()
            if survivors:
                item.reported = True
                log.warning(
                    "%s: still in memory after its cleanup; %s", item.label, holders_of(survivors)
                )
                self._collector.freeze()  # looking for who holds it has thawed everything
            del survivors


def _dispose(generation: Disposable, done: threading.Event) -> None:
    try:
        generation.dispose()
    finally:
        done.set()
