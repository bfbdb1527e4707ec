"""Which plugins to look at again: file events, a scan as their safety net, and changed rows.

Events only mark a folder; what is published is decided by its content. One process of a host
watches, elected by `flock`: the kernel frees the lock when its holder dies.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from watchdog.events import EVENT_TYPE_CLOSED, EVENT_TYPE_MODIFIED

from app.errors import (
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
    SupersededError,
)
from app.publishing.discovery import folder_stamp, list_folders
from app.publishing.look import QUIET_SECONDS, Look
from app.publishing.observer import BLIND_SCAN_SECONDS, FolderObserver
from app.publishing.publisher import Publisher
from app.threads import STOP_SECONDS, OwnThread

log = logging.getLogger(__name__)

MAX_QUIET_SECONDS = 0.5
CALM_SECONDS = 0.3
"""A folder that was left alone for so long is looked at at once: it is no storm of edits."""

SETTLE_SECONDS = 0.3
"""How long after a publish its folder is compared once more, for events that came too early."""

SCAN_SECONDS = 5.0
ELECTION_SECONDS = 0.5
RETRY_SECONDS = 1.0
PUBLISH_THREADS = 4


class SourceWatcher(OwnThread):
    """Watches the plugins' root in one process of a host, and publishes what changes.

    The thread `benana-watcher` stands for election; a publish under way at the end is let end.
    """

    def __init__(self, plugins_dir: Path, artifacts_dir: Path, publisher: Publisher) -> None:
        super().__init__("benana-watcher")
        self._marked = threading.Condition(self._lock)
        """Wakes the threads that publish: one for a mark, which takes what is due first."""
        self._root = plugins_dir
        self._lock_file = artifacts_dir / ".watch.lock"
        self._publisher = publisher
        self._pending: dict[str, _Pending] = {}
        self._busy: dict[str, Look] = {}
        self._changed_at: dict[str, float] = {}
        """When the last event of a folder came, in monotonic seconds."""
        self._locked: set[str] = set()
        """The folders whose last look somebody's lock ended."""
        self._rows_changed = False
        self._stamps: dict[str, tuple[object, ...]] = {}
        self.holds = False
        """Whether this process is the one that watches."""

    def mark(self, folders: Iterable[str]) -> None:
        """Look at folders again, once they have been quiet for 20 ms."""
        with self._lock:
            for folder in folders:
                self._mark(folder)
                self._marked.notify()

    def notice(self, folder: str, file: str, event_type: str) -> None:
        """Mark a folder for a file event; until the file is closed, half of it may be missing."""
        busy = self._busy.get(folder)
        if busy is not None and busy.stamp and folder_stamp(self._root / folder) != busy.stamp:
            busy.superseded.set()
        with self._lock:
            now = time.monotonic()
            known = self._pending.get(folder)
            if known is not None and known.eager and not event_type:
                return  # a folder is modified, too, by the file that was closed in it
            pending = self._mark(folder)
            if not pending.files:
                pending.calm = now - self._changed_at.get(folder, 0.0) > CALM_SECONDS
            pending.files.add(file)
            self._changed_at[folder] = now
            if event_type == EVENT_TYPE_MODIFIED:
                pending.written.add(file)
            else:
                pending.written.discard(file)
            if pending.written:
                pending.due = pending.first + MAX_QUIET_SECONDS
            elif event_type == EVENT_TYPE_CLOSED and pending.calm and pending.files == {file}:
                pending.due = now
                pending.eager = True
            self._marked.notify()

    def _mark(self, folder: str) -> "_Pending":
        now = time.monotonic()
        pending = self._pending.setdefault(folder, _Pending(now, now))
        pending.due = min(now + QUIET_SECONDS, pending.first + MAX_QUIET_SECONDS)
        pending.eager = False
        return pending

    def rows_changed(self) -> None:
        """Look whether a row asks for a source to be compiled, if it is this process that does."""
        if not self.holds:
            return  # the one that comes to hold scans all rows
        with self._wake:
            self._rows_changed = True
            self._wake.notify_all()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Tell the threads to end, and wait for the one that watches."""
        with self._lock:
            self._stopped = True
            self._marked.notify_all()
        super().stop(timeout)

    # --- election --------------------------------------------------------------------------

    def _run(self) -> None:
        complained = False
        while not self._stopped:
            try:
                self._lock_file.parent.mkdir(parents=True, exist_ok=True)
                with self._lock_file.open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.truncate(0)
                    file.write(f"{os.getpid()}\n")
                    file.flush()
                    self.holds = True
                    self._hold()
            except BlockingIOError:
                pass  # another process watches
            except OSError as error:
                if not complained:
                    log.warning(
                        "nothing is watched: %s: %s; make the folder writable or set "
                        "BENANA_WATCH=off",
                        self._lock_file,
                        error.strerror,
                    )
                complained = True
            finally:
                self.holds = False
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, ELECTION_SECONDS)

    def _hold(self) -> None:
        log.info("watching %s", self._root)
        self._publisher.prepare()
        workers = [
            threading.Thread(target=self._work, name=f"benana-publish-{n}", daemon=True)
            for n in range(PUBLISH_THREADS)
        ]
        for worker in workers:
            worker.start()
        complained = ""
        while not self._stopped:
            observer = FolderObserver(self._root, self.notice)
            try:
                observer.open()
                self._stamps = {n: folder_stamp(self._root / n) for n in list_folders(self._root)}
                self.mark(self._publisher.scan())
                complained = ""
                self._watch(observer)
            except DatabaseUnavailableError:
                self._pause()  # the listener reports the outage
            except (OSError, DatabaseRefusedError) as error:
                reason = str(error)
                if isinstance(error, OSError):
                    reason = f"the plugins' root {self._root}: {error.strerror or error}"
                if reason != complained:
                    log.error("nothing is published or unregistered: %s", reason)
                complained = reason
                self._pause()
            finally:
                observer.close()

    def _pause(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped, RETRY_SECONDS)

    # --- watching --------------------------------------------------------------------------

    def _watch(self, observer: FolderObserver) -> None:
        """Supervise the observer and compare the folders now and then, until something breaks."""
        interval = BLIND_SCAN_SECONDS if observer.blind else SCAN_SECONDS
        next_scan = time.monotonic() + interval
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopped or self._rows_changed, 1.0)
                if self._stopped:
                    return
                rows_changed, self._rows_changed = self._rows_changed, False
            if rows_changed:
                self._mark_unpublished()
            if not observer.alive():
                log.warning("the observer of %s ended; starting another", self._root)
                return
            if time.monotonic() >= next_scan:
                self._compare()
                next_scan = time.monotonic() + interval

    def _mark_unpublished(self) -> None:
        try:
            names = self._publisher.unpublished()
        except DatabaseUnavailableError:
            with self._lock:
                self._rows_changed = True
            self._pause()
            return
        if names:
            self.mark(names)

    def _compare(self) -> None:
        """Mark the folders whose stamp differs from the last: events can be lost."""
        folders = list_folders(self._root)
        changed = [n for n in folders if folder_stamp(self._root / n) != self._stamps.get(n)]
        changed += self._stamps.keys() - set(folders)
        if changed:
            self.mark(changed)

    # --- publishing ------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            folder = self._next()
            if folder is None:
                return
            settled = True
            try:
                self._look(folder, self._busy[folder])
                self._locked.discard(folder)
            except SupersededError:
                pass  # the folder is marked again
            except DatabaseBusyError:
                settled = False  # who holds the lock is logged; the folder stays marked
                self._locked.add(folder)
            except DatabaseUnavailableError:
                settled = False  # the listener reports the outage; the folder stays marked
            except DatabaseRefusedError as error:
                # Its stamp stays as it was, so the next comparison marks the folder again.
                log.error("%s: not published: %s", folder, error.message)
            except Exception:
                # A fault of ours: say so, and keep the thread for the other plugins.
                log.exception("%s: publishing failed", folder)
            with self._lock:
                del self._busy[folder]
                if not settled and folder not in self._pending:
                    now = time.monotonic()
                    self._pending[folder] = _Pending(now, now + RETRY_SECONDS)

    def _next(self) -> str | None:
        """Wait for a folder that is due and that no other thread looks at; None at the end."""
        with self._lock:
            while not self._stopped:
                free = [(p.due, f) for f, p in self._pending.items() if f not in self._busy]
                due, folder = min(free, default=(None, ""))
                now = time.monotonic()
                if due is not None and due <= now:
                    pending = self._pending.pop(folder)
                    self._busy[folder] = Look(
                        eager=pending.eager, patient=folder not in self._locked
                    )
                    return folder
                self._marked.wait(None if due is None else due - now)
            return None

    def _look(self, folder: str, look: Look) -> None:
        path = self._root / folder
        stamp = look.stamp = folder_stamp(path)
        known = self._stamps.get(folder)
        for name in self._publisher.names_of(folder):
            try:
                self._publisher.follow(name, look)
            except PluginError as error:
                log.warning("%s", error)
        if not path.is_dir():
            self._stamps.pop(folder, None)
            self._changed_at.pop(folder, None)
            return
        self._stamps[folder] = stamp
        if stamp != known:
            self._look_again(folder)

    def _look_again(self, folder: str) -> None:
        with self._lock:
            if folder not in self._pending:
                now = time.monotonic()
                self._pending[folder] = _Pending(now, now + SETTLE_SECONDS)


class _Pending:
    """A marked folder: when its first event came and when to look, in monotonic seconds."""

    __slots__ = ("calm", "due", "eager", "files", "first", "written")

    def __init__(self, first: float, due: float) -> None:
        self.first = first
        self.due = due
        self.files: set[str] = set()
        """The files that events told of."""
        self.written: set[str] = set()
        """The files that a writer has changed and not closed yet."""
        self.calm = False
        """Whether the folder had been left alone before."""
        self.eager = False
        """Whether it is due before its quiet period is over."""
