"""The pool of connections, and the parts of it that holders may have."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import psycopg2
import psycopg2.extensions

from app.conditions import Conditions
from app.database.connection import (
    READ_COMMITTED,
    Connection,
    connection_options,
    shut_down,
)
from app.database.locks import LockReport
from app.database.pool_shares import Loan, Share, refusal
from app.database.sessions import OWN_SETTINGS, SHARED_SETTINGS, Sessions
from app.database.silence import ANSWER_SECONDS, PAUSE_SECONDS, SILENT, SilenceWatch
from app.database.sqlstates import unavailable
from app.database.supply import Supply
from app.database.timeouts import Timeouts
from app.errors import DatabaseBusyError, DatabaseUnavailableError

log = logging.getLogger(__name__)

WAIT_SECONDS = 10.0
SHARE_SECONDS = 5.0
"""How long a share waits for a connection, while none comes back."""

BULKHEAD = 3
"""How many connections are made at the same time, and may be silent where threads are short."""

COMPLAINT_SECONDS = 10.0
"""How often the log says again that one holder has all of its connections."""


class Database:
    """A pool of connections to one database.

    Use `statement` and `transaction` (statements.py) for the server's own work, `connection` for
    anything else, and `share` for a holder that must not take all of them. Connections are made
    when they are asked for, so a pool can be made while the database is away; one that the server
    has closed meanwhile is noticed before it is handed out.
    """

    def __init__(
        self,
        url: str,
        max_connections: int = 16,
        *,
        reset: bool = False,
        settings: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        wait_seconds: float = WAIT_SECONDS,
        silence_seconds: float = ANSWER_SECONDS,
        bulkhead: int = BULKHEAD,
        is_short: Callable[[], bool] = lambda: False,
        name: str = "the pool",
        conditions: Conditions | None = None,
    ) -> None:
        """Make a pool.

        Args:
            url: a libpq URI or DSN.
            max_connections: how many may be lent at once.
            reset: whether a connection that comes back is made as new: for borrowers who set what
                they like on it. It costs a round trip.
            settings: what each session has fixed; by default what the server relies on, or with
                `reset` what psycopg2 does.
            timeouts: what bounds `statement` and `transaction`.
            wait_seconds: how long to wait for a connection while all of them are lent.
            silence_seconds: after how long it is asked whether the database answers at all.
            bulkhead: how many of those who wait for a database that does not answer go on waiting
                where threads are short; as many connections, or one, are made at the same time.
            is_short: tells whether requests wait for a thread.
            name: whose pool it is, for errors.
            conditions: where it is held what connections wait for, if that lasts.

        Raises:
            SettingsError: the URL cannot be read.
        """
        self.timeouts = timeouts or Timeouts()
        self._name = name
        self._wait_seconds = wait_seconds
        self._max_connections = max_connections
        self._reset = reset
        if settings is None:
            settings = SHARED_SETTINGS if reset else OWN_SETTINGS
        self.sessions = Sessions(connection_options(url), settings, triggers=not reset)
        self.locks = LockReport(lambda: self.sessions.options)
        self._bulkhead = bulkhead
        self._is_short = is_short
        self._loans: set[Loan] = set()
        self._moved: dict[str, float] = {}
        """When a connection of each holder was last lent or came back, in monotonic seconds."""
        self._complained: dict[str, float] = {}
        # Reentrant: the collector gives back what a plugin has lost, in whatever thread it runs.
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._make_supply = partial(
            Supply,
            self.sessions,
            reset=reset,
            openers=max(1, bulkhead),
            wait_seconds=wait_seconds,
        )
        self._supply = self._make_supply(self._returned)
        self._closed = False
        self._silence_seconds = silence_seconds
        self._conditions = conditions or Conditions()
        self._silence: SilenceWatch | None = None

    @property
    def pool(self) -> "Database":
        """The pool itself, as of a `Share`."""
        return self

    def lent(self, holder: str | None = None) -> int:
        """Return how many connections are lent now, to one holder or to all."""
        if holder is None:
            return len(self._loans)
        return sum(loan.holder == holder for loan in list(self._loans))

    def share(
        self, holder: str, places: int, *, timeout: float | None = None, advice: str = ""
    ) -> Share:
        """Return the part of the pool that one holder may have at once.

        Args:
            holder: whose it is; what is lent to one name is counted together.
            places: how many connections.
            timeout: how long to wait for one, in seconds, while none of them comes back; 5 by
                default. Who comes later than that is refused at once.
            advice: what to do about it, for the error.
        """
        if timeout is None:
            timeout = SHARE_SECONDS
        return Share(self, holder, places, timeout, advice or "try again in a moment")

    def connection(
        self, *, autocommit: bool = False, seconds: float | None = None
    ) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection for one transaction: committed at the end, rolled back on an error.

        Args:
            autocommit: whether each statement is a transaction of its own instead.
            seconds: how long PostgreSQL lets a statement take, where that is set in there; one
                that goes on is ended here.

        Raises:
            DatabaseBusyError: no connection became free within 10 s.
            DatabaseUnavailableError: the database cannot be reached, or went away meanwhile.
        """
        return self.lend(Loan("the server", seconds=seconds), None, autocommit=autocommit)

    @contextlib.contextmanager
    def lend(self, loan: Loan, share: Share | None, *, autocommit: bool) -> Iterator[Connection]:
        """Lend a connection, as a part of a share or of the whole; see `connection`."""
        self._enter(loan, share)
        connection = None
        try:
            if self._silence is None:
                self._watch_for_silence()
            connection = self._supply.take(loan)
            try:
                if connection.autocommit != autocommit:
                    # Without a level psycopg2 leaves the server's alone: no statement of its own.
                    connection.isolation_level = None if autocommit else READ_COMMITTED
                    connection.autocommit = autocommit
                yield connection
                if not autocommit:
                    connection.commit()
            except BaseException as error:
                lost = connection.closed != 0
                with contextlib.suppress(psycopg2.Error):
                    connection.rollback()
                if isinstance(error, psycopg2.Error) and loan.unanswered:
                    raise DatabaseUnavailableError(loan.unanswered) from error
                if isinstance(error, psycopg2.Error) and (lost or connection.closed != 0):
                    raise unavailable(error) from error
                raise
        finally:
            loan.connection = None
            try:
                if connection is not None:
                    self._supply.give_back(connection)
            finally:
                with self._returned:
                    self._loans.discard(loan)  # in a forked child it is gone already
                    self._moved[loan.holder] = time.monotonic()
                    self._returned.notify_all()

    def _enter(self, loan: Loan, share: Share | None) -> None:
        """Wait for a place in the pool, and in the share.

        Raises:
            DatabaseBusyError: there is none.
            DatabaseUnavailableError: there is none, and those who have them hear nothing.
        """
        with self._returned:
            deadline = 0.0
            while (taken := self._taken(share)) is not None:
                self._supply.gate.check()
                now = time.monotonic()
                deadline = deadline or now + self._wait_seconds
                until = deadline
                if share is not None:
                    moved = list(self._moved.values()) if taken == "" else [self._moved[taken]]
                    until = min(until, max(moved) + share.timeout)
                if until <= now:
                    raise self._busy(share, taken)
                self._returned.wait(until - now)
            self._loans.add(loan)
            self._moved[loan.holder] = loan.since = time.monotonic()

    def _taken(self, share: Share | None) -> str | None:
        """Return who has taken what is asked for: a share's holder, "" for many, None if nobody."""
        if share is not None and self.lent(share.holder) >= share.places:
            return share.holder
        return "" if self.lent() >= self._max_connections else None

    def _busy(self, share: Share | None, taken: str) -> DatabaseBusyError:
        """Return the error that says who has the connections; the log says it now and then."""
        loans = list(self._loans)
        text = refusal(loans, share, taken, self._max_connections, self._name)
        now = time.monotonic()
        if now - self._complained.get(taken, -COMPLAINT_SECONDS) >= COMPLAINT_SECONDS:
            self._complained[taken] = now
            log.warning("%s", text)
        return DatabaseBusyError(text)

    def abort(self, keep: int = 0, pause: float = 0.0) -> None:
        """Abort connections from outside: who waits for the database gets an error.

        Args:
            keep: how many of those that were lent first are left alone.
            pause: for how long nobody tries anew, in seconds.
        """
        self._supply.gate.close(SILENT, pause)
        with self._returned:
            # Who waits for a new connection cannot be reached.
            loans = sorted(self._loans, key=lambda loan: (loan.connection is not None, loan.since))
            lent = [loan for loan in loans[keep:] if loan.connection is not None]
            self._returned.notify_all()
        for loan in lent:
            loan.unanswered = SILENT
        for connection in [*(loan.connection for loan in lent), *self._supply.take_idle()]:
            shut_down(connection)

    def _relieve(self) -> None:
        self.abort(self._bulkhead, PAUSE_SECONDS)

    def let_go(self) -> None:
        """Begin anew in a forked child: all connections are its parent's, and so is the lock."""
        self._loans, self._silence = set(), None
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._supply = self._make_supply(self._returned)

    def close(self) -> None:
        """Close the idle connections; lent ones are closed when they come back."""
        with self._lock:
            self._closed = True
            silence, self._silence = self._silence, None
        if silence is not None:
            silence.end()
        for connection in self._supply.end():
            connection.close()

    def _watch_for_silence(self) -> None:
        """Have the database watched, from the first connection of this process on."""
        with self._lock:
            if self._silence is None and not self._closed:
                self._silence = SilenceWatch(
                    *(self.sessions, self._loans, self.abort, self._silence_seconds),
                    *(self._conditions, self._is_short, self._relieve),
                    ends_commits=not self._reset,
                )
                self._silence.start()
