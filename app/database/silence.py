"""Notices that the database says nothing any more: libpq alone would wait for it without end.

As behind a pooler that pauses, a postmaster that is stopped, a disk that hangs: the connection
stands, and no answer comes.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator

import psycopg2
import psycopg2.extensions

from app.conditions import Conditions
from app.database.connection import finish, shut_down
from app.database.pool_shares import Loan
from app.database.sessions import Sessions
from app.errors import DatabaseUnavailableError
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5

ANSWER_SECONDS = 3.0
"""How long the database may take to answer the watch's own question."""

SILENT = "the database is away: it is connected, and does not answer"

_CONDITION = "standby"
_SESSIONS = """
    SELECT count(*) FILTER (WHERE wait_event = 'SyncRep'),
        coalesce(array_agg(pid) FILTER (WHERE state IN ('active', 'fastpath function call')), '{}')
    FROM pg_stat_activity WHERE datname = current_database()
"""
_ACTIVE = psycopg2.extensions.TRANSACTION_STATUS_ACTIVE


class SilenceGate:
    """Lets one at a time try a database that did not answer; all others are refused at once.

    Else each of those that wait in a queue would wait anew, and hold a thread meanwhile.
    """

    def __init__(self) -> None:
        self._closed = False
        self._trying = threading.Lock()

    def close(self) -> None:
        """Note that the database did not answer."""
        self._closed = True

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Get a connection in a `with` block; where that goes well, all may again.

        Raises:
            DatabaseUnavailableError: the database was silent, and another one is trying.
        """
        if not self._closed:
            yield
        elif not self._trying.acquire(blocking=False):
            raise DatabaseUnavailableError(SILENT)
        else:
            try:
                yield
                self._closed = False
            finally:
                self._trying.release()


class SilenceWatch(OwnThread):
    """Asks the database itself where a connection is lent for long, in `benana-silence`.

    A statement may be slow, and is left alone then. Where a new connection hears nothing either,
    nobody who waits ever will; and where PostgreSQL itself does not work on what a connection waits
    for, that one alone hears nothing, as where its process is stopped. A commit that waits for a
    synchronous standby, without end and without an error, is held as a condition.
    """

    def __init__(
        self,
        sessions: Sessions,
        loans: Collection[Loan],
        on_silence: Callable[[], None],
        patience: float,
        conditions: Conditions,
    ) -> None:
        """Make it; `start` it in the process that connects.

        Args:
            sessions: opens the connection over which it asks.
            loans: what is lent now; it changes while this looks.
            on_silence: called when the database did not answer.
            patience: after how many seconds of a loan it asks, and again after as many.
            conditions: where it holds what a loan waits for.
        """
        super().__init__("benana-silence")
        self._sessions = sessions
        self._loans = loans
        self._on_silence = on_silence
        self._patience = patience
        self._conditions = conditions
        self._deaf: set[Loan] = set()
        """The loans whose session did nothing, as it seemed, when it was asked last."""

    def _run(self) -> None:
        ask_at = 0.0
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._stopped, LOOK_SECONDS):
                    return
            now = time.monotonic()
            if all(now - loan.since < self._patience for loan in list(self._loans)):
                self._conditions.clear(_CONDITION)
            elif now >= ask_at:
                self._ask()
                ask_at = time.monotonic() + self._patience

    def _ask(self) -> None:
        """Ask over a new connection; one that is refused, or lost, is an answer too."""
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            with contextlib.closing(self._sessions.begin_to_connect()) as connection:
                finish(connection, deadline)
                with connection.cursor() as cursor:
                    cursor.execute(_SESSIONS)
                    finish(connection, deadline)
                    commits, working = cursor.fetchone()
        except TimeoutError:
            self._on_silence()
        except (psycopg2.Error, OSError) as error:
            log.debug("what a connection waits for cannot be told: %s", error)
        else:
            self._tell(commits)
            if not self._sessions.pooled:  # else a pooler gives the sessions to others
                self._end_deaf(frozenset(working))

    def _end_deaf(self, working: frozenset[int]) -> None:
        """End the loans that wait for a session which does nothing, at the second look."""
        now = time.monotonic()
        deaf = set()
        for loan in list(self._loans):
            connection = loan.connection
            if connection is None or now - loan.since < self._patience or connection.closed:
                continue
            waits = connection.get_transaction_status() == _ACTIVE
            if waits and connection.info.backend_pid not in working:
                deaf.add(loan)
        for loan in deaf & self._deaf:
            log.warning("a connection to the database hears nothing any more; it is closed")
            loan.unanswered = True
            shut_down(loan.connection)
        self._deaf = deaf - self._deaf

    def _tell(self, commits: int) -> None:
        if not commits:
            self._conditions.clear(_CONDITION)
            return
        self._conditions.hold(
            _CONDITION,
            f"commits wait for a synchronous standby ({commits} now), and edits and changes of "
            "rows with them: bring the standby back, or take it out of synchronous_standby_names",
        )
