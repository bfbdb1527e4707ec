"""Which plugins to look at again: file events, a scan as their safety net, and changed rows.

Events only mark a folder; what is published is decided by its content. One process of a host
watches, the one that is elected.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from app.conditions import Conditions
from app.errors import (
    DatabaseRefusedError,
    DatabaseUnavailableError,
)
from app.files import place_of
from app.publishing.discovery import rules_of
from app.publishing.election import FIRST_LOOK, Election
from app.publishing.known import KnownFolders
from app.publishing.publish_pool import PublishPool
from app.publishing.publisher import Publisher
from app.publishing.quiet_period import QUIET_SECONDS
from app.publishing.requirements import installed
from app.publishing.sight import Sight
from app.threads import STOP_SECONDS, OwnThread

log = logging.getLogger(__name__)

ELECTION_SECONDS, LONGEST_ELECTION_SECONDS = 0.2, 1.0
"""How often one of the processes of a host tries to be the elected one, and each at the least: the
more there are, the more rarely each does."""

RETRY_SECONDS = 1.0
ROWS_SECONDS = 0.05
"""How long after a row changed it is looked at whether it asks for a source: few do, and whoever
loads what it says goes first."""

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
        self._root = plugins_dir
        self._publisher = publisher
        self._changed_rows: set[str | None] = set()
        """The plugins whose rows are to be looked at; None among them for all."""
        self._known = KnownFolders(plugins_dir)
        self._stirred = False
        """Whether folders with links have to be compared: any event may be of what they lead to."""
        self._stir_at = 0.0
        """When they may be compared again."""
        self._sight = Sight(plugins_dir, self.notice, self._stir, self._conditions)
        self._pool = PublishPool(plugins_dir, publisher, self._known, self._sight, self._lock)
        self.holds = False
        """Whether this process is the one that watches."""

    @property
    def is_idle(self) -> bool:
        """Whether no folder is marked or being published."""
        return self._pool.is_idle

    @property
    def publishing_threads(self) -> int:
        """How many threads there are to publish."""
        return self._pool.threads

    def mark(self, folders: Iterable[str]) -> None:
        """Look at folders again, once they have been quiet for 20 ms."""
        self._pool.mark(folders)

    def notice(self, folder: str, file: str, event_type: str) -> None:
        """Mark a folder for a file event; until the file is closed, half of it may be missing."""
        if not self._known.is_left_alone(folder) and not self._is_left_out(folder, file):
            self._pool.notice(folder, file, event_type)

    def _is_left_out(self, folder: str, file: str) -> bool:
        _, inner, path = file.partition("/")
        rules = rules_of(self._root / folder, fresh=False)
        return bool(inner) and rules.leave_out_below(path)

    def rows_changed(self, names: Iterable[str] | None) -> None:
        """Look whether rows of some, or all with None, ask for a source or went back."""
        if not self.holds:
            return  # this process does not watch; who comes to do it looks at all rows
        with self._wake:
            self._changed_rows.update({None} if names is None else names)
            self._wake.notify_all()

    def end(self) -> None:
        """Tell the threads to end; another process of the host takes over."""
        super().end()
        self._pool.end()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Tell the threads to end, and wait for them, and so for what they publish just now.

        An edit may have no other witness: who watches next may end as soon as this process.
        """
        deadline = time.monotonic() + timeout
        super().stop(timeout)
        self._pool.join(deadline - time.monotonic())

    # --- election --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            if self.election.take():
                self.holds = True
                try:
                    self._hold()
                finally:
                    self.holds = False
                    self._pool.pause()
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
        self._pool.begin()
        complained = ""
        while not self._stopped and self.election.is_held():
            self.election.go_on()
            try:
                self._sight.open()
                self._known.read()
                if self._scan():
                    complained = ""
                    self._watch()
            except DatabaseUnavailableError as error:
                self._wait_for_database(error)
            except (OSError, DatabaseRefusedError) as error:
                reason = str(error)
                if isinstance(error, OSError):
                    place = place_of(error, self._root, "the plugins' root")
                    reason = f"{place}: {error.strerror or error}"
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

    def _scan(self) -> bool:
        """Compare all folders with the rows, once the database is there; whether that was done.

        What happens to the folders meanwhile is followed: to stand before all of them anew with
        each try would take a second of 10,000.
        """
        while not self._stopped and self.election.is_held():
            self.election.go_on()
            try:
                self.mark(self._publisher.scan())
                self.rows_changed(None)
            except DatabaseUnavailableError as error:
                self._wait_for_database(error)
            else:
                self._conditions.clear(FIRST_LOOK)
                return True
        return False

    def _wait_for_database(self, error: DatabaseUnavailableError) -> None:
        # The listener reports the outage in the log.
        self._conditions.hold(FIRST_LOOK, f"no edit is published: {error}")
        self._pause()

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
                if self._changed_rows:
                    self._wake.wait_for(lambda: self._stopped, ROWS_SECONDS)
                self.election.go_on()
                if self._stopped:
                    return
                rows, self._changed_rows = self._changed_rows, set()
                stirred, self._stirred = self._stirred, False
            if rows:
                self._look_at_rows(rows)
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
                missed = self._known.missed()
                if (mounted := self._known.take_mounted()) is not None:
                    self._sight.mounted(mounted)  # what was missed before says nothing any more
                    missed = {}
                for folder, found_at in missed.items():
                    self._sight.missed(folder, found_at)
            installed.look()
            if handled != installed.changes == changes:  # and nothing more since the last look
                handled = changes
                self.mark(self._publisher.refusals.forget())
            changes = installed.changes

    def _wait(self, until: float) -> None:
        """Wait for a time in monotonic seconds, or for what cannot wait as long."""

        def called() -> bool:
            return self._stopped or bool(self._changed_rows)

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

    def _look_at_rows(self, rows: set[str | None]) -> None:
        names = frozenset(name for name in rows if name is not None)
        try:
            marked = self._publisher.look_at_rows(None if None in rows else names)
        except DatabaseUnavailableError:
            self.rows_changed(None)
            self._pause()
            return
        if marked:
            self.mark(marked)

    def _compare(self, *, linked: bool = False) -> float:
        """Mark the folders that have changed, of all or of those with links.

        Returns:
            How many seconds that took.
        """
        began = time.monotonic()
        changed = self._known.changed(linked=linked)
        self._pool.mark_changed(changed)
        return time.monotonic() - began
