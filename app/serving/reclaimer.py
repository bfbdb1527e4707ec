"""Retired generations are cleaned up, each after the last request that could reach it."""

import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.conditions import Conditions
from app.loading.started_threads import started_threads
from app.package.frames import innermost_plugin_frame
from app.records import ServedRow
from app.routing.grace_periods import InUse, RunningRequests
from app.serving.collection_watch import CollectionWatch
from app.serving.leak_report import LeakReport, Remains
from app.threads import OwnThread, start_thread

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
FAULT_SECONDS = 1.0
DRAIN_SECONDS = 30.0


class Disposable(Protocol):
    """A loaded generation, as seen from its end."""

    @property
    def name(self) -> str:
        """Its plugin's name."""

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


@dataclass(slots=True, eq=False)
class _Retired:
    """A generation that waits for its last request, and then for its cleanup to return.

    `label` and `key` are the generation's. Its cleanup takes `generation` out, so that the last
    that holds it, and runs its finalizers, is the thread of the cleanup.
    """

    label: str
    key: str
    generation: Disposable | None
    remains: Remains
    successor: int
    """The number of the first table without this generation."""
    deadline: float
    drain_seconds: float
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Reclaimer(OwnThread):
    """Cleans retired generations up, each after the last request that could reach it.

    One thread, `benana-cleanup`, which runs nothing of a plugin: each `cleanup` has a thread of its
    own, so that one that blocks holds up nobody. Afterwards another looks whether memory and
    threads came back (`LeakReport`).
    """

    def __init__(
        self,
        running: RunningRequests,
        drain_seconds: float = DRAIN_SECONDS,
        conditions: Conditions | None = None,
        tidy: Callable[[str], None] = lambda _plugin: None,
    ) -> None:
        """Make it; call `start` for its threads.

        Args:
            running: the requests that run.
            drain_seconds: how long a generation waits for its last request, at most.
            conditions: where what stays is said.
            tidy: is told the plugin of each generation that has gone from memory.
        """
        super().__init__("benana-cleanup")
        conditions = conditions or Conditions()
        self._running = running
        self._drain_seconds = drain_seconds
        self._retired: list[_Retired] = []
        self._leaks = LeakReport(conditions, tidy)
        self._watch = CollectionWatch(conditions)

    def start(self) -> None:
        """Start the threads; in the process that is to run them, because a fork has none."""
        started_threads.watch(self._running.generation_here, self._leaks.add_failed)
        self._watch.start()
        self._leaks.start()
        super().start()

    def freeze(self) -> None:
        """Note that what is loaded now will stay for long."""
        self._leaks.freeze()

    def replace_process(self, replace: Callable[[], None], max_leaked: int) -> None:
        """Have the process replaced that cannot get rid of what it has loaded.

        Args:
            replace: called once more than `max_leaked` generations leave something behind, or a
                finalizer keeps all memory from being collected.
            max_leaked: how many may.
        """
        self._leaks.replace_process(replace, max_leaked)
        self._watch.replace_process(replace)

    def retire(
        self, generation: Disposable, successor: int, drain_seconds: float | None = None
    ) -> threading.Event:
        """Clean a generation up once no request runs in it or can come to.

        Args:
            generation: what no table holds from `successor` on.
            successor: the number of the first table without it.
            drain_seconds: how long its requests may hold up its cleanup, where that is not what is
                usual.

        Returns:
            What is set when its cleanup has returned.
        """
        label, key = generation.label, generation.key
        remains = Remains(generation.name, label, key, [], generation.loaded_at)
        seconds = self._drain_seconds if drain_seconds is None else drain_seconds
        deadline = time.monotonic() + seconds
        item = _Retired(label, key, generation, remains, successor, deadline, seconds)
        with self._wake:
            self._retired.append(item)
            self._wake.notify_all()
        return item.done

    def expect_load(self, row: ServedRow, has_ended: Callable[[], bool]) -> None:
        """Expect a load to return that nobody waits for any more; see `HungLoads.add`."""
        self._leaks.add_hung(row, has_ended)

    def stop(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait for what is retired, `timeout` seconds at most, and end the threads."""
        with self._wake:
            deadline = time.monotonic() + timeout
            for item in self._retired:
                item.deadline = min(item.deadline, deadline)
        super().stop(timeout + 1.0)
        if self._watch.hangs:
            self._leaks.end()  # it is known that it does not end
        else:
            self._leaks.stop()
        self._watch.stop()
        started_threads.unwatch()

    @property
    def waiting(self) -> int:
        """How many retired generations are not cleaned up yet."""
        return len(self._retired)

    @property
    def leaked(self) -> int:
        """How many generations are still there, in memory or with threads, though cleaned up."""
        return self._leaks.leaked

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._retired and self._stopped:
                    return
                if not self._retired:
                    self._wake.wait()
                if self._retired:
                    # Not at once: requests run in it still, and other processes swap.
                    self._wake.wait(POLL_SECONDS)
                items = list(self._retired)
            try:
                self._clean_up(items)
            except Exception:
                # A fault of ours must not end the thread: no plugin would be cleaned up any more.
                log.exception("cleaning up failed")
                with self._wake:
                    self._wake.wait(FAULT_SECONDS)
            del items

    def _clean_up(self, items: list[_Retired]) -> None:
        in_use = self._running.in_use()
        now = time.monotonic()
        for item in items:
            try:
                finished = self._is_finished(item, in_use, now)
            except Exception:
                # It costs this generation its cleanup, and no other one.
                log.exception("%s: cleaning it up failed, and is given up", item.label)
                finished = True
            if finished:
                with self._wake:
                    self._retired.remove(item)
                self._leaks.add(item.remains)

    def _is_finished(self, item: _Retired, in_use: InUse, now: float) -> bool:
        if item.thread is None:
            oldest = in_use.oldest_table
            drained = item.key not in in_use.generations and (
                oldest is None or oldest >= item.successor
            )
            if not drained and now < item.deadline:
                return False
            if not drained:
                log.warning(
                    "%s: a request still runs in it after %g s; cleaning it up anyway",
                    item.label,
                    item.drain_seconds,
                )
            left = 0.5 if self._stopped else self._drain_seconds
            item.deadline = max(item.deadline, now + left) if self._stopped else now + left
            try:
                name = f"benana-cleanup-{item.label}"
                item.thread = start_thread(name, _dispose, item, self._leaks.expect)
            except RuntimeError as error:  # no more threads just now: the next look tries again
                log.warning("%s: not cleaned up yet: %s", item.label, error)
                return False
            return item.done.wait(0.001)
        if item.done.is_set():
            return True
        if now >= item.deadline:
            log.warning(
                "%s: cleanup did not return within %g s; its thread %s is left behind%s",
                item.label,
                self._drain_seconds,
                item.thread.name,
                _place_of(item.thread),
            )
            return True
        return False


def _dispose(item: _Retired, expect: Callable[[], None]) -> None:
    generation, item.generation = item.generation, None
    assert generation is not None  # noqa: S101 - for the type checker: it is run once
    try:
        item.remains.traces = generation.traces()
        generation.dispose()
    except BaseException:  # a fault of ours: what is left of it is looked for all the same
        log.exception("%s: cleaning it up failed", item.label)
    finally:
        expect()
        del generation  # what nobody else holds is finalized here, and holds up nobody
        item.done.set()


def _place_of(thread: threading.Thread) -> str:
    """Return where in a plugin a thread of ours is, as ` at main.py:14`; empty if it is not."""
    found = innermost_plugin_frame(sys._current_frames().get(thread.ident or 0))
    return f" at {found.place}" if found is not None else ""
