"""The threads that publish folders, in the process that watches."""

import logging
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from app.errors import (
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
    SupersededError,
    TooLargeError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.known import KnownFolders
from app.publishing.publish_slots import SLOTS
from app.publishing.publisher import Publisher
from app.publishing.sight import Sight
from app.publishing.stamps import large_stamp
from app.publishing.work_queue import WorkQueue
from app.threads import start_thread

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.3
"""How long after a publish its folder is compared once more, for events that came too early."""

RETRY_SECONDS = 1.0
"""After so long a folder is looked at again that the database was away for."""


class PublishPool:
    """Takes folders from a work queue and has them published, several at a time.

    A thread for each slot, and more beside those that are at slow folders; they are started when
    something is marked, once `begin` was called, and end by themselves.
    """

    def __init__(
        self,
        plugins_dir: Path,
        publisher: Publisher,
        known: KnownFolders,
        sight: Sight,
        lock: threading.RLock,
    ) -> None:
        """Make it.

        Args:
            plugins_dir: the plugins' root.
            publisher: publishes a folder.
            known: what is known of the folders.
            sight: is told whether events told of what was found.
            lock: guards the queue and what is known.
        """
        self._root = plugins_dir
        self._publisher = publisher
        self._known = known
        self._sight = sight
        self._lock = lock
        self._marked = threading.Condition(lock)
        """Wakes the threads: one for a mark, which takes what is due first."""
        self._left = threading.Condition(lock)
        """Wakes who waits for the threads to end."""
        self._queue = WorkQueue(known.__contains__)
        self._may_start = self._ended = False
        self.threads = 0
        """How many threads there are."""

    @property
    def is_idle(self) -> bool:
        """Whether no folder is marked or being published."""
        return self._queue.is_empty

    def begin(self) -> None:
        """Publish what is marked from now on."""
        with self._lock:
            self._may_start = True
            self._staff(time.monotonic())

    def pause(self) -> None:
        """Start no more threads: another process watches."""
        self._may_start = False

    def end(self) -> None:
        """Tell the threads to end after what they are at."""
        with self._lock:
            self._ended = True
            self._marked.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the threads to end, some seconds at most."""
        with self._lock:
            self._left.wait_for(lambda: not self.threads, seconds)

    def mark(self, folders: Iterable[str]) -> None:
        """Look at folders, once they have been quiet for 20 ms."""
        with self._lock:
            now = time.monotonic()
            for folder in folders:
                self._queue.quiet(folder, now)
                self._marked.notify()
            self._staff(now)

    def mark_changed(self, folders: Iterable[str]) -> None:
        """Look at folders that a comparison found changed."""
        with self._lock:
            now = time.monotonic()
            for folder in folders:
                self._queue.changed(folder, now, untold=self._known.is_untold(folder))
                self._marked.notify()
            self._staff(now)

    def notice(self, folder: str, file: str, event_type: str) -> None:
        """Look at a folder for a file event; until the file is closed, half of it may be missing.

        Args:
            folder: the folder.
            file: the file's path.
            event_type: watchdog's.
        """
        attempt = self._queue.attempt(folder)
        if attempt is not None:
            attempt.compare()
        with self._lock:
            now = time.monotonic()
            last = partial(self._known.last_event, folder)
            if self._queue.event(folder, file, event_type, now, last):
                self._known.event(folder, now)
                self._staff(now)
                self._marked.notify()

    def _staff(self, now: float) -> None:
        while self._may_start and self.threads < self._wanted(now):
            self.threads += 1
            start_thread(f"benana-publish-{self.threads}", self._work)

    def _wanted(self, now: float) -> int:
        return SLOTS + self._queue.slots.count_slow(now)

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                self._publish(*taken)
        finally:
            with self._lock:
                self.threads -= 1
                self._left.notify_all()

    def _take(self) -> tuple[str, PublishAttempt] | None:
        """Wait for a folder that can be taken; None at the end, or if there are threads enough."""
        with self._lock:
            while not self._ended:
                now = time.monotonic()
                if self.threads > self._wanted(now):
                    return None
                taken = self._queue.take(now)
                if taken is not None:
                    self._staff(now)
                    return taken
                next_at = self._queue.next_at(now)
                self._marked.wait(None if next_at is None else next_at - now)
            return None

    def _publish(self, folder: str, attempt: PublishAttempt) -> None:
        known = folder in self._known
        again, tried, locked = False, False, None
        try:
            tried = self._follow(folder, attempt)
            locked = False
            self._publisher.refusals.show(folder)
        except SupersededError as error:
            if attempt.restless:
                self._publisher.refusals.wait(folder, error)
        except DatabaseUnavailableError as error:
            again = True  # it stays marked; who holds a lock is logged, as is an outage
            if isinstance(error, DatabaseBusyError):
                locked = True
            self._publisher.refusals.wait(folder, error)
        except DatabaseRefusedError as error:
            # Not even the row could be read, or what is wrong with the source recorded.
            error.plugin = folder
            self._publisher.refusals.note(folder, attempt, error)
        except Exception:
            # A fault of ours: say so, and keep the thread for the other plugins.
            log.exception("%s: publishing failed", folder)
        with self._lock:
            now = time.monotonic()
            self._queue.done(folder, now, tried=tried, locked=locked)
            if tried or (known and folder not in self._known):
                if attempt.untold_at is not None:
                    self._known.found_untold(folder, attempt.untold_at)
                elif attempt.told:
                    self._sight.told()
            self._marked.notify()  # who waits for the slot
            if again:
                self._queue.later(folder, now, RETRY_SECONDS)

    def _follow(self, folder: str, attempt: PublishAttempt) -> bool:
        """Have a folder's plugins follow it, and return whether a source was tried."""
        path = self._root / folder
        attempt.look(path)
        with self._lock:
            if attempt.stamp.leads_out or self._known.led_out(folder):
                attempt.untold_at = None  # what is not below the root is not observed
        large = tried = False
        for name, row in self._publisher.find_rows(folder).items():
            try:
                tried |= self._publisher.follow(name, row, attempt)
            except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
                tried = True  # it was said, and is tried again where that may help
                if isinstance(error, PluginError) and error.outside:
                    attempt.untold_at = None  # rights, say: nothing was written, so no event is due
                large = large or isinstance(error, TooLargeError)
        root_stamp = large_stamp(path) if large else None
        with self._lock:
            if not path.is_dir():
                if folder in self._known.linked:
                    self._sight.link_gone(folder)
                self._known.forget(folder)
                self._queue.slots.forget(folder)
            elif self._known.keep(folder, attempt.stamp, attempt.began, root_stamp):
                # For what changed before the stamp was taken.
                self._queue.later(folder, time.monotonic(), SETTLE_SECONDS)
        return tried
