"""Retired generations are cleaned up, each after the last request that could reach it."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.routing.grace_periods import InUse, RunningRequests
from app.serving.leak_report import LeakReport
from app.threads import OwnThread, start_thread

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
DRAIN_SECONDS = 30.0


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
    drain_seconds: float
    traces: "list[weakref.ref[Any]]" = field(default_factory=list)
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Reclaimer(OwnThread):
    """Cleans retired generations up, each after the last request that could reach it.

    One thread, `benana-cleanup`; each `cleanup` runs in a thread of its own, so that one that
    blocks holds up nobody. Afterwards it looks whether the generation's memory came back.
    """

    def __init__(self, running: RunningRequests, drain_seconds: float = DRAIN_SECONDS) -> None:
        super().__init__("benana-cleanup")
        self._running = running
        self._drain_seconds = drain_seconds
        self._retired: list[_Retired] = []
        self._leaks = LeakReport()

    def freeze(self) -> None:
        """Note that what is loaded now will stay for long."""
        self._leaks.freeze()

    def replace_process(self, replace: Callable[[], None], max_leaked: int) -> None:
        """Call `replace` once more than `max_leaked` generations stay in memory."""
        self._leaks.replace_process(replace, max_leaked)

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
        seconds = self._drain_seconds if drain_seconds is None else drain_seconds
        item = _Retired(generation, successor, time.monotonic() + seconds, seconds)
        with self._wake:
            self._retired.append(item)
            self._wake.notify_all()
        return item.done

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
        return self._leaks.leaked

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._retired and self._stopped:
                    return
                if not self._retired:
                    self._wake.wait(self._leaks.next_look())
                if self._retired:
                    # Not at once: requests run in it still, and other processes swap.
                    self._wake.wait(POLL_SECONDS)
                items = list(self._retired)
            try:
                self._clean_up(items)
                del items  # or this thread would keep the generations that it has cleaned up
                self._leaks.look()
            except Exception:
                # A fault of ours must not end the thread: no plugin would be cleaned up any more.
                log.exception("cleaning up failed")

    def _clean_up(self, items: list[_Retired]) -> None:
        in_use = self._running.in_use()
        now = time.monotonic()
        for item in items:
            if self._is_finished(item, in_use, now):
                with self._wake:
                    self._retired.remove(item)
                self._leaks.add(item.generation.label, item.traces, item.generation.loaded_at)

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
                    item.drain_seconds,
                )
            left = 0.5 if self._stopped else self._drain_seconds
            item.deadline = max(item.deadline, now + left) if self._stopped else now + left
            item.traces = item.generation.traces()
            name = f"benana-cleanup-{item.generation.label}"
            try:
                item.thread = start_thread(name, _dispose, item.generation, item.done)
            except RuntimeError as error:  # no more threads just now: the next look tries again
                log.warning("%s: not cleaned up yet: %s", item.generation.label, error)
                return False
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


def _dispose(generation: Disposable, done: threading.Event) -> None:
    try:
        generation.dispose()
    finally:
        done.set()
