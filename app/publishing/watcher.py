"""Which plugins to look at again: file events, a scan as their safety net, and changed rows.

Events only mark a folder; what is published is decided by its content. One process of a host
watches, the one that is elected.
"""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from watchdog.events import EVENT_TYPE_CLOSED, EVENT_TYPE_MODIFIED

from app.conditions import Conditions
from app.errors import (
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
    SupersededError,
    TooLargeError,
)
from app.publishing.discovery import folder_stamp, large_stamp, list_folders, same_large
from app.publishing.election import Election
from app.publishing.look import QUIET_SECONDS, Look
from app.publishing.observer import BLIND_SCAN_SECONDS, FolderObserver
from app.publishing.places import PLACES, Places
from app.publishing.publisher import Publisher
from app.publishing.requirements import installed
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
SUPERVISE_SECONDS = 1.0
"""How often the observer and the installed packages are looked at."""


class SourceWatcher(OwnThread):
    """Watches the plugins' root in one process of a host, and publishes what changes.

    The thread `benana-watcher` stands for election; a publish under way at the end is let end.
    """

    def __init__(
        self,
        plugins_dir: Path,
        artifacts_dir: Path,
        publisher: Publisher,
        conditions: Conditions | None = None,
    ) -> None:
        """Make it; nothing is looked at before the start.

        Args:
            plugins_dir: the plugins' root.
            artifacts_dir: the archives' folder, which all processes of the host share.
            publisher: publishes what changed.
            conditions: what the publishing half of this process holds.
        """
        super().__init__("benana-watcher")
        self._conditions = conditions or Conditions()
        self.election = Election(artifacts_dir, self._conditions)
        """Whether this process is the one that watches, and what is known of the one that is."""
        self._marked = threading.Condition(self._lock)
        """Wakes the threads that publish: one for a mark, which takes what is due first."""
        self._root = plugins_dir
        self._publisher = publisher
        self._pending: dict[str, _Pending] = {}
        self._busy: dict[str, Look] = {}
        self._changed_at: dict[str, float] = {}
        """When the last event of a folder came, in monotonic seconds."""
        self._locked: set[str] = set()
        """The folders whose last look somebody's lock ended."""
        self._rows_changed = False
        self._stamps: dict[str, tuple[object, ...]] = {}
        self._large: dict[str, tuple[tuple[str, int, int], ...]] = {}
        """The folders that were refused for their size: they are not walked while they are so."""
        self._places = Places()
        self._publishing = 0
        """How many threads publish."""
        self.holds = False
        """Whether this process is the one that watches."""

    def mark(self, folders: Iterable[str]) -> None:
        """Look at folders again, once they have been quiet for 20 ms."""
        with self._lock:
            for folder in folders:
                self._mark(folder)
                self._marked.notify()
            self._staff(time.monotonic())

    def notice(self, folder: str, file: str, event_type: str) -> None:
        """Mark a folder for a file event; until the file is closed, half of it may be missing."""
        large = self._large.get(folder)
        if large is not None and same_large(large, root_only=True):
            return
        busy = self._busy.get(folder)
        if busy is not None:
            busy.compare(lambda: folder_stamp(self._root / folder))
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
            self._staff(now)
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
        while not self._stopped:
            if self.election.take():
                self.holds = True
                try:
                    self._hold()
                finally:
                    self.holds = False
                    self.election.release()
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, ELECTION_SECONDS)

    def _hold(self) -> None:
        log.info("watching %s", self._root)
        self._publisher.prepare()
        with self._lock:
            self._staff(time.monotonic())
        complained = ""
        while not self._stopped and self.election.is_held():
            observer = FolderObserver(self._root, self.notice)
            try:
                observer.open()
                self._stamps = {n: folder_stamp(self._root / n) for n in list_folders(self._root)}
                self.mark(self._publisher.scan())
                complained = ""
                self._conditions.clear("watching")
                self._watch(observer)
            except DatabaseUnavailableError as error:
                # The listener reports the outage in the log.
                self._conditions.hold("watching", f"no edit is published: {error}")
                self._pause()
            except (OSError, DatabaseRefusedError) as error:
                reason = str(error)
                if isinstance(error, OSError):
                    reason = f"the plugins' root {self._root}: {error.strerror or error}"
                said = f"nothing is published or unregistered: {reason}"
                if reason != complained:
                    log.error("%s", said)
                complained = reason
                self._conditions.hold("watching", f"no edit is seen: {reason}")
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
        changes = handled = installed.changes
        while True:
            with self._wake:
                pause = SUPERVISE_SECONDS
                retry_at = self._publisher.refusals.next_at()
                if retry_at is not None:
                    pause = min(pause, max(0.0, retry_at - time.monotonic()))
                self._wake.wait_for(lambda: self._stopped or self._rows_changed, pause)
                if self._stopped:
                    return
                rows_changed, self._rows_changed = self._rows_changed, False
                self._staff(time.monotonic())
            if rows_changed:
                self._mark_unpublished()
            self.mark(self._publisher.refusals.due())
            if not self.election.is_held():
                log.warning("the lock of who watches was removed; standing for election again")
                return
            if not observer.alive():
                log.warning("the observer of %s ended; starting another", self._root)
                return
            installed.look()
            if handled != installed.changes == changes:  # and nothing more since the last look
                handled = changes
                self.mark(self._publisher.refusals.forget())
            changes = installed.changes
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
        changed = [n for n in folders if self._differs(n)]
        changed += self._stamps.keys() - set(folders)
        if changed:
            self.mark(changed)

    def _differs(self, folder: str) -> bool:
        large = self._large.get(folder)
        if large is not None:
            return not same_large(large)
        return folder_stamp(self._root / folder) != self._stamps.get(folder)

    # --- publishing ------------------------------------------------------------------------

    def _staff(self, now: float) -> None:
        """Start threads until there is one for each place, beside those that are at slow ones."""
        while self.holds and self._publishing < PLACES + self._places.count_slow(now):
            self._publishing += 1
            name = f"benana-publish-{self._publishing}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            while (folder := self._next()) is not None:
                self._look_at(folder)
        finally:
            with self._lock:
                self._publishing -= 1

    def _look_at(self, folder: str) -> None:
        settled, tried = True, False
        try:
            tried = self._look(folder, self._busy[folder])
            self._locked.discard(folder)
            self._publisher.refusals.settle(folder)
        except SupersededError:
            pass  # the folder is marked again
        except DatabaseUnavailableError as error:
            settled = False  # it stays marked; who holds a lock is logged, as is an outage
            if isinstance(error, DatabaseBusyError):
                self._locked.add(folder)
            self._publisher.refusals.wait(folder, error)
        except DatabaseRefusedError as error:
            # Not even the row could be read, or what is wrong with the source recorded.
            error.plugin = folder
            self._publisher.refusals.note(folder, self._busy[folder], error)
        except Exception:
            # A fault of ours: say so, and keep the thread for the other plugins.
            log.exception("%s: publishing failed", folder)
        with self._lock:
            now = time.monotonic()
            del self._busy[folder]
            self._places.end(folder, now, tried=tried)
            self._marked.notify()  # who waits for the place
            if not settled and folder not in self._pending:
                self._pending[folder] = _Pending(now, now + RETRY_SECONDS)

    def _next(self) -> str | None:
        """Wait for a folder that is due, that no other thread looks at and that finds a place.

        Returns:
            The folder; None at the end, or if there are threads enough.
        """
        with self._lock:
            while not self._stopped:
                now = time.monotonic()
                if self._publishing > PLACES + self._places.count_slow(now):
                    return None
                room = {hung: self._places.may_begin(hung=hung, now=now) for hung in (False, True)}
                free = [
                    (not room[hung], hung, f not in self._stamps, p.due, f)
                    for f, p in self._pending.items()
                    if f not in self._busy
                    for hung in (self._places.hung(f),)
                ]
                waits = [due for *_, due, _ in free if due > now]
                due_now = [found for found in free if found[3] <= now]
                if due_now:
                    # Those that are known before the new ones, of which nothing good is known.
                    full, *_, folder = min(due_now)
                    if not full:
                        pending = self._pending.pop(folder)
                        self._busy[folder] = Look(
                            eager=pending.eager, patient=folder not in self._locked
                        )
                        self._places.begin(folder, now)
                        self._staff(now)
                        return folder
                    free_at = self._places.next_slow(now)
                    waits += [] if free_at is None else [free_at]
                self._marked.wait(min(waits) - now if waits else None)
            return None

    def _look(self, folder: str, look: Look) -> bool:
        """Look at a folder and return whether a source was tried."""
        path = self._root / folder
        stamp = look.stamp = folder_stamp(path)
        known = self._stamps.get(folder)
        large = tried = False
        for name in self._publisher.names_of(folder):
            try:
                tried |= self._publisher.follow(name, look)
            except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
                tried = True  # it was said, and is tried again where that may help
                large = large or isinstance(error, TooLargeError)
        if not path.is_dir():
            self._stamps.pop(folder, None)
            self._changed_at.pop(folder, None)
            self._large.pop(folder, None)
            with self._lock:
                self._places.forget(folder)
            return tried
        self._stamps[folder] = stamp
        if large:
            found = large_stamp(path)
            if found != self._large.get(folder):
                self._large[folder] = found
                self._look_again(folder)  # for what changed before the stamp was taken
            return tried
        self._large.pop(folder, None)
        if stamp != known:
            self._look_again(folder)
        return tried

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
