"""Has generations loaded, one after the other, in a thread that a slow plugin may keep."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from app.loading.load_process import LOAD_THREAD
from app.records import ServedRow
from app.serving.live_plugins import Served
from app.serving.row_loader import LoadResult, RowLoader
from app.threads import start_thread

TIMEOUT_SECONDS = 0.2
"""How long one plugin's load may hold up the others'."""


class _Job(NamedTuple):
    row: ServedRow
    done: "Future[LoadResult]"


class LoadQueue:
    """Loads rows for one thread; a load that takes too long is left to a thread of its own.

    `load` waits for a while and returns None where that was not enough. `on_late` tells of the
    result when it is there: `load` the same row again to have it, or `abandon` it.
    """

    def __init__(
        self,
        loader: RowLoader,
        on_late: Callable[[str], None],
        discard: Callable[[Served], object],
        on_given_up: Callable[[ServedRow, Callable[[], bool]], None] = lambda _row, _ended: None,
    ) -> None:
        """Make it.

        Args:
            loader: loads a row.
            on_late: is told the name of a plugin whose late result is there; by another thread.
            discard: is given what was loaded and is not wanted any more; by any thread.
            on_given_up: is told of a load that goes on though nobody waits for it any more, and
                what tells whether it has ended.
        """
        self.loader = loader
        """What loads the rows."""
        self._on_given_up = on_given_up
        self._on_late = on_late
        self._discard = discard
        self._late: dict[str, _Job] = {}
        """What was not done in time, by the plugin's name."""
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._threads: set[threading.Thread] = set()
        """Those that were started, and that have not come to their end."""

    def names(self) -> set[str]:
        """Return the plugins that `load` was called for in vain until now."""
        return set(self._late)

    @property
    def ended_thread(self) -> str | None:
        """The name of a thread that has ended in its work: what it was given never comes."""
        return next((thread.name for thread in list(self._threads) if not thread.is_alive()), None)

    def is_loading(self, row: ServedRow) -> bool:
        """Tell whether a row's load takes long, and is not done yet."""
        job = self._late.get(row.name)
        return job is not None and job.row == row and not job.done.done()

    def load(self, row: ServedRow, timeout: float) -> LoadResult | None:
        """Load a row's generation.

        Args:
            row: what to load.
            timeout: how many seconds to wait.

        Returns:
            What came of it, None if it is not done yet.
        """
        job = self._late.get(row.name)
        if job is None or job.row != row:
            self.abandon(row.name)
            job = _Job(row, Future())
            self._begin(job)
        try:
            result = job.done.result(timeout)
        except TimeoutError:
            if self._late.get(row.name) is not job:
                self._late[row.name] = job
                self.close()
                job.done.add_done_callback(lambda _: self._on_late(row.name))
            return None
        self._late.pop(row.name, None)
        return result

    def abandon(self, name: str) -> None:
        """Discard what is loaded of a plugin, or will be: nobody asks for it any more."""
        job = self._late.pop(name, None)
        if job is not None:
            self.loader.give_up(job.row)
            if not job.done.done():
                self._on_given_up(job.row, job.done.done)
            job.done.add_done_callback(self._discard_result)

    def close(self) -> None:
        """Let the thread end after what it is at; the next load starts another."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _begin(self, job: _Job) -> None:
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            self._threads.add(start_thread(LOAD_THREAD, self._work, self._jobs))
        self._jobs.put(job)

    def _discard_result(self, done: "Future[LoadResult]") -> None:
        plugin = done.result().plugin
        if plugin is not None:
            self._discard(plugin)

    def _work(self, jobs: "queue.SimpleQueue[_Job | None]") -> None:
        while (job := jobs.get()) is not None:
            job.done.set_result(self.loader.load(job.row))
            del job  # a thread that waits must not keep a generation alive
        self._threads.discard(threading.current_thread())
