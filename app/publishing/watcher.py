"""Which plugins to look at again: file events, a scan as their safety net, and changed rows.

Events only mark a folder; what is published is decided by its content. One process of a host
watches, the one that is elected.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

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
from app.publishing.attempt import QUIET_SECONDS, PublishAttempt
from app.publishing.discovery import rules_of
from app.publishing.election import FIRST_LOOK, Election
from app.publishing.known import KnownFolders
from app.publishing.places import PLACES, Places
from app.publishing.publisher import Publisher
from app.publishing.requirements import installed
from app.publishing.sight import Sight
from app.publishing.stamps import folder_stamp, large_stamp
from app.publishing.work_queue import WorkQueue
from app.threads import STOP_SECONDS, OwnThread

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.3
"""How long after a publish its folder is compared once more, for events that came too early."""

ELECTION_SECONDS, LONGEST_ELECTION_SECONDS = 0.2, 1.0
"""How often one of the processes of a host tries to be the elected one, and each at the least: the
more there are, the more rarely each does."""

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
        crew: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Make it; nothing is looked at before the start.

        Args:
            plugins_dir: the plugins' root.
            artifacts_dir: the archives' folder, which all processes of the host share.
            publisher: publishes what changed.
            conditions: what the publishing half of this process holds.
            crew: gives how many processes of this host stand for election, None if that is not
                known.
        """
        super().__init__("benana-watcher")
        self._crew = crew
        self._conditions = conditions or Conditions()
        self.election = Election(artifacts_dir, self._conditions)
        """Whether this process is the one that watches, and what is known of the one that is."""
        self._marked = threading.Condition(self._lock)
        """Wakes the threads that publish: one for a mark, which takes what is due first."""
        self._root = plugins_dir
        self._publisher = publisher
        self._pending = WorkQueue()
        self._busy: dict[str, PublishAttempt] = {}
        self._locked: set[str] = set()
        """The folders whose last look somebody's lock ended."""
        self._rows_changed = False
        self._known = KnownFolders(plugins_dir)
        self._stirred = False
        """Whether folders with links have to be compared: any event may be of what they lead to."""
        self._stir_at = 0.0
        """When they may be compared again."""
        self._sight = Sight(plugins_dir, self.notice, self._stir, self._conditions)
        self._places = Places()
        self._publishing = 0
        """How many threads publish."""
        self.holds = False
        """Whether this process is the one that watches."""

    def mark(self, folders: Iterable[str]) -> None:
        """Look at folders again, once they have been quiet for 20 ms."""
        with self._lock:
            for folder in folders:
                self._pending.quiet(folder, time.monotonic())
                self._marked.notify()
            self._staff(time.monotonic())

    def notice(self, folder: str, file: str, event_type: str) -> None:
        """Mark a folder for a file event; until the file is closed, half of it may be missing."""
        if self._known.is_left_alone(folder) or self._is_left_out(folder, file):
            return
        busy = self._busy.get(folder)
        if busy is not None:
            busy.compare(lambda: folder_stamp(self._root / folder))
        with self._lock:
            now = time.monotonic()
            last = partial(self._known.last_event, folder)
            if self._pending.event(folder, file, event_type, now, last):
                self._known.event(folder, now)
                self._staff(now)
                self._marked.notify()

    def _is_left_out(self, folder: str, file: str) -> bool:
        _, inner, path = file.partition("/")
        rules = rules_of(self._root / folder, fresh=False)
        return bool(inner) and rules.leave_out_below(path)

    def rows_changed(self) -> None:
        """Look whether a row asks for a source to be compiled, if it is this process that does."""
        if not self.holds:
            return  # the one that comes to hold scans all rows
        with self._wake:
            self._rows_changed = True
            self._wake.notify_all()

    def end(self) -> None:
        """Tell the threads to end; another process of the host takes over."""
        super().end()
        with self._lock:
            self._marked.notify_all()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Tell the threads to end, and wait for them, and so for what they publish just now.

        An edit may have no other witness: who watches next may end as soon as this process.
        """
        deadline = time.monotonic() + timeout
        super().stop(timeout)
        with self._wake:
            self._wake.wait_for(lambda: not self._publishing, deadline - time.monotonic())

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
            others = max(1, (self._crew() or 1) - 1)
            seconds = min(ELECTION_SECONDS * others, LONGEST_ELECTION_SECONDS)
            with self._wake:
                # Not all at the same moment, so that one of them is there soon.
                spread = random.uniform(0.7, 1.3)  # noqa: S311
                self._wake.wait_for(lambda: self._stopped, seconds * spread)

    def _hold(self) -> None:
        log.info("watching %s", self._root)
        with suppress(OSError):  # the first publish says so, and tries again
            self._publisher.prepare()
        with self._lock:
            self._staff(time.monotonic())
        complained = ""
        while not self._stopped and self.election.is_held():
            self.election.go_on()
            try:
                self._sight.open()
                self._known.read()
                self.mark(self._publisher.scan())
                self._conditions.clear(FIRST_LOOK)
                complained = ""
                self._watch()
            except DatabaseUnavailableError as error:
                # The listener reports the outage in the log.
                self._conditions.hold(FIRST_LOOK, f"no edit is published: {error}")
                self._pause()
            except (OSError, DatabaseRefusedError) as error:
                reason = str(error)
                if isinstance(error, OSError):
                    reason = f"the plugins' root {self._root}: {error.strerror or error}"
                said = f"nothing is published or unregistered: {reason}"
                if reason != complained:
                    log.error("%s", said)
                complained = reason
                self._conditions.hold(FIRST_LOOK, f"no edit is seen: {reason}")
                self._pause()
            except Exception as error:
                # A fault of ours must not end the thread: nobody would watch.
                reason = f"{type(error).__name__}: {error}"
                if reason != complained:
                    log.exception("watching failed; trying again")
                complained = reason
                self._conditions.hold(FIRST_LOOK, f"no edit is seen: {reason}; see the log")
                self._pause()
            finally:
                self._sight.close()

    def _pause(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped, RETRY_SECONDS)

    # --- watching --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Supervise the observer and compare the folders now and then, until something breaks."""
        changes = handled = installed.changes
        supervise_at = 0.0
        while True:
            with self._wake:
                supervise_at = min(supervise_at, self._publisher.refusals.next_at())
                self._wait(min(supervise_at, self._sight.compare_at))
                self.election.go_on()
                if self._stopped:
                    return
                rows_changed, self._rows_changed = self._rows_changed, False
                stirred, self._stirred = self._stirred, False
                self._staff(time.monotonic())
            if rows_changed:
                self._mark_unpublished()
            self.mark(self._publisher.refusals.due())
            if not self.election.is_held():
                log.warning("the lock of who watches was removed; standing for election again")
                return
            if not self._sight.look():
                return
            if time.monotonic() >= self._sight.compare_at:
                self._sight.compared(self._compare())
            elif stirred and self._known.linked:
                pause = max(QUIET_SECONDS, 9 * self._compare(linked=True))
                self._stir_at = time.monotonic() + pause
            if time.monotonic() < supervise_at:
                continue
            supervise_at = time.monotonic() + SUPERVISE_SECONDS
            with self._lock:
                for folder, found_at in self._known.missed().items():
                    self._sight.missed(folder, found_at)
            installed.look()
            if handled != installed.changes == changes:  # and nothing more since the last look
                handled = changes
                self.mark(self._publisher.refusals.forget())
            changes = installed.changes

    def _wait(self, until: float) -> None:
        """Wait for a time in monotonic seconds, or for what cannot wait as long."""

        def called() -> bool:
            return self._stopped or self._rows_changed

        left = until - time.monotonic()
        if self._wake.wait_for(lambda: called() or self._stirred, left) and self._stirred:
            self._wake.wait_for(called, self._stir_at - time.monotonic())

    def _stir(self, urgent: bool) -> None:
        """Note an event of whatever file; if it is urgent, something is to be looked at."""
        self._known.stirred()
        if not self._stirred and (urgent or self._known.linked):
            with self._wake:
                self._stirred = True
                self._wake.notify_all()

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

    def _compare(self, *, linked: bool = False) -> float:
        """Mark the folders that have changed, of all or of those with links.

        Returns:
            How many seconds that took.
        """
        began = time.monotonic()
        changed = self._known.changed(linked=linked)
        now = time.monotonic()
        with self._lock:
            for folder in changed:
                mark = self._pending.quiet(folder, now)
                if not mark.files and folder not in self._busy and self._known.is_untold(folder):
                    mark.untold_at = now
                self._marked.notify()
            self._staff(now)
        return now - began

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
            with self._wake:
                self._publishing -= 1
                self._wake.notify_all()

    def _look_at(self, folder: str) -> None:
        look, known = self._busy[folder], folder in self._known
        settled, tried = True, False
        try:
            tried = self._look(folder, look)
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
            self._publisher.refusals.note(folder, look, error)
        except Exception:
            # A fault of ours: say so, and keep the thread for the other plugins.
            log.exception("%s: publishing failed", folder)
        with self._lock:
            now = time.monotonic()
            del self._busy[folder]
            self._places.end(folder, now, tried=tried)
            if tried or (known and folder not in self._known):
                if look.untold_at is not None:
                    self._known.found_untold(folder, look.untold_at)
                elif look.told:
                    self._sight.told()
            self._marked.notify()  # who waits for the place
            if not settled:
                self._pending.later(folder, now, RETRY_SECONDS)

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
                    (not room[hung], hung, f not in self._known, p.due, f)
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
                        self._busy[folder] = PublishAttempt(
                            eager=pending.eager,
                            patient=folder not in self._locked,
                            told=bool(pending.files),
                            untold_at=pending.untold_at,
                        )
                        self._places.begin(folder, now)
                        self._staff(now)
                        return folder
                    free_at = self._places.next_slow(now)
                    waits += [] if free_at is None else [free_at]
                self._marked.wait(min(waits) - now if waits else None)
            return None

    def _look(self, folder: str, look: PublishAttempt) -> bool:
        """Look at a folder and return whether a source was tried."""
        path = self._root / folder
        began = time.monotonic()
        stamp = look.stamp = folder_stamp(path)
        large = tried = False
        for name in self._publisher.names_of(folder):
            try:
                tried |= self._publisher.follow(name, look)
            except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
                tried = True  # it was said, and is tried again where that may help
                large = large or isinstance(error, TooLargeError)
        found = large_stamp(path) if large else None
        with self._lock:
            if not path.is_dir():
                self._known.forget(folder)
                self._places.forget(folder)
            elif self._known.keep(folder, stamp, began, found):
                # For what changed before the stamp was taken.
                self._pending.later(folder, time.monotonic(), SETTLE_SECONDS)
        return tried
