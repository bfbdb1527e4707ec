"""When rows are compared with what is loaded: at each change, after an outage, and again."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable

from app.conditions import Conditions
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.errors import DatabaseRefusedError, DatabaseUnavailableError
from app.serving.comparison import Comparison
from app.serving.load_queue import TIMEOUT_SECONDS
from app.threads import OwnThread

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
START_SECONDS, START_RETRY_SECONDS = 2.0, 0.1
"""How long a start waits for a database that refuses it, or is away, and how often it asks: a
moment's outage, or the sessions of those whose place it takes, shall not have it serve old ones."""
MANY_NAMES = 8
"""From so many dirty names on, everything is compared: the notifications of one large transaction
come in several reads, and its rows are to be served with one swap."""


class Reconciler(OwnThread):
    """Follows the rows in the thread `benana-reconciler`; the only one who swaps the table."""

    def __init__(
        self,
        repository: Repository,
        comparison: Comparison,
        upkeep: Upkeep,
        conditions: Conditions,
    ) -> None:
        super().__init__("benana-reconciler")
        self._repository = repository
        self._comparison = comparison
        self._shortfalls = comparison.shortfalls
        self._upkeep = upkeep
        self._conditions = conditions
        self._only: Callable[[], set[str]] | None = None
        """What alone is looked at; None for everything."""
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._again: set[str] = set()
        self.attempted = threading.Event()
        """Set after the first pass, whether the database could be reached or not."""
        self.complete = threading.Event()
        """Set once all rows were compared."""
        self.serves_last_known_good = False
        """Whether it started with what this host served last, for want of a database."""
        self.start_is_over = threading.Event()
        """Set once nothing is missing at the start that may still come."""
        self.settled = threading.Event()
        """Set once no load goes on and none waits to be tried again, after a pass."""

    @property
    def registered(self) -> int | None:
        """How many plugins are to be served, None if that is not known."""
        known = self.complete.is_set() or self.serves_last_known_good
        return len(self._comparison.wanted) if known else None

    @property
    def served(self) -> int:
        """How many plugins are served, in whatever generation."""
        return self._comparison.served_count

    @property
    def missing(self) -> frozenset[str]:
        """The plugins of which nothing is served, and that are to be."""
        return self._comparison.wanted - self._comparison.served

    def mark(self, names: Iterable[str] | None, *, again: bool = False) -> None:
        """Look at plugins, at all with None; `again` also where they failed; returns at once."""
        with self._wake:
            if again and names is not None:
                self._again.update(names)
            if names is None:
                self._all_dirty = True
            else:
                self._dirty.update(names)
            self._wake.notify_all()

    def narrow(self, only: Callable[[], set[str]]) -> None:
        """Look at nothing but these plugins any more; for a process that others relieve."""
        self._only = only

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        patient_until = time.monotonic() + START_SECONDS
        while True:
            with self._wake:
                versions = self._comparison.versions
                times = [self._shortfalls.retry_at(), versions.retry_at(), self._upkeep.look_at]
                retry_at = min((at for at in times if at is not None), default=None)
                timeout = None if retry_at is None else max(0.0, retry_at - time.monotonic())
                self._wake.wait_for(
                    lambda: self._stopped or self._all_dirty or self._dirty, timeout
                )
                if self._stopped:
                    return
                for name in self._again:
                    self._shortfalls.retry(name)
                self._again.clear()
                self._dirty |= self._shortfalls.due() | versions.due()
                everything = self._all_dirty or len(self._dirty) > MANY_NAMES
                everything |= self._upkeep.broken  # where it is seen whether rows can be trusted
                names = None if everything else frozenset(self._dirty)
                self._all_dirty = False
                self._dirty.clear()
            names = self._narrowed(names)
            try:
                self._comparison.follow_owners()
                if not self.complete.is_set():
                    self._repository.apply_schema()
                elif names is None:
                    self._upkeep.mend()
                if names is None or names:
                    self._comparison.follow(names)
                    self._conditions.clear("rows")
                if names is None:
                    self.complete.set()
                if not self._shortfalls.may_pass():
                    self.start_is_over.set()
                    if not self._comparison.loads_go_on:
                        self.settled.set()
                if (look_at := self._upkeep.look_at) is not None and look_at <= time.monotonic():
                    self._upkeep.look()
            except (DatabaseUnavailableError, DatabaseRefusedError) as error:
                log.debug("nothing compared: %s", error)  # once it lasts, the condition is said
                if not self.attempted.is_set() and time.monotonic() < patient_until:
                    with self._wake:
                        self._wake.wait_for(lambda: self._stopped, START_RETRY_SECONDS)
                        self._all_dirty = True
                    continue
                self._cannot_compare(str(error))
                self._try_later(names)
            except Exception as error:
                # A fault of ours must not end the thread: what is loaded keeps serving.
                log.exception("a pass of the reconciler failed")
                self._cannot_compare(f"{type(error).__name__}: {error}")
                self._try_later(None)
            self._note_attempt()

    def _narrowed(self, names: frozenset[str] | None) -> frozenset[str] | None:
        """Return what of some plugins, or of all with None, is to be looked at here."""
        if self._only is None:
            return names
        only = self._only()
        for name in self._shortfalls.names() - only:
            self._shortfalls.end(name)  # it is for others to serve, and to try again
        for name in self._comparison.versions.names() - only:
            self._comparison.versions.forget(name)
        return frozenset(only if names is None else only & names)

    def _cannot_compare(self, reason: str) -> None:
        self._conditions.hold(
            "rows", f"the rows cannot be read, what is loaded is served: {reason}"
        )

    def _try_later(self, names: Collection[str] | None) -> None:
        if not self.attempted.is_set():
            self._serve_last_known_good()
            self._note_attempt()
            self.start_is_over.set()  # it serves what it can, and does not wait for the database
        with self._wake:
            # A mark cuts the wait short: the listener makes one when the database is back.
            self._wake.wait(RETRY_SECONDS)
        self.mark(names)

    def _serve_last_known_good(self) -> None:
        if count := self._comparison.serve_last_known_good():
            log.warning("starting with what was served last: %d plugins", count)
            self.serves_last_known_good = True

    def _note_attempt(self) -> None:
        self._comparison.timeout = TIMEOUT_SECONDS
        self.attempted.set()
