"""Notices that the database says nothing any more: libpq alone would wait for it without end.

As behind a pooler that pauses, a postmaster that is stopped, a disk that hangs: the connection
stands, and no answer comes.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psycopg2
import psycopg2.extensions

from app.conditions import Conditions
from app.database.connection import can_be_read, finish, is_on_its_way, shut_down
from app.database.pool_shares import Loan
from app.database.sessions import Sessions
from app.errors import DatabaseUnavailableError
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5

ANSWER_SECONDS = 3.0
"""How long the database may take to answer the watch's own question."""

HEED_SECONDS = 2.0
"""How long after its limit a statement may go on: PostgreSQL ends it itself, where it can."""

SHORT_SECONDS = 0.5
"""After so long it is asked where requests wait for the threads that wait for the database."""

SHORT_ANSWER_SECONDS = 1.0
"""How long the database may take to answer then."""

SILENT = "the database is away: it is connected, and does not answer"

_UNCONFIRMED = (
    "the commit waits for a synchronous standby, and counts once that has answered: bring the "
    "standby back, or take it out of synchronous_standby_names"
)
_GONE = (None, False)
PAUSE_SECONDS = 0.5
"""For how long nobody tries after threads were short: what waits for them is refused meanwhile."""

_CONDITION = "standby"
_SESSIONS = """
    SELECT pid, state IN ('active', 'fastpath function call'), state_change,
        wait_event IS NOT DISTINCT FROM 'SyncRep',
        extract(epoch FROM clock_timestamp() - query_start)::float8
    FROM pg_stat_activity
    WHERE datname = current_database() AND (pid = ANY(%s) OR wait_event = 'SyncRep')
"""
_ACTIVE = psycopg2.extensions.TRANSACTION_STATUS_ACTIVE


class SilenceGate:
    """Lets one at a time try a database that did not answer; all others are refused at once.

    Else each of those that wait in a queue would wait anew, and hold a thread meanwhile.
    """

    def __init__(self) -> None:
        self._why = ""
        """Why all but one are refused; empty where nobody is."""
        self._try_at = 0.0
        self._trying = threading.Lock()

    def close(self, why: str, pause: float = 0.0) -> None:
        """Note that the database did not answer.

        Args:
            why: the sentence for those who are refused.
            pause: for how long nobody tries, in seconds: where there are few threads, the next one
                who tries would hold up all that wait behind it.
        """
        self._try_at = time.monotonic() + pause
        self._why = why

    def check(self) -> None:
        """Refuse who would wait for others that hear nothing.

        Raises:
            DatabaseUnavailableError: the database was silent.
        """
        why = self._why
        if why:
            raise DatabaseUnavailableError(why)

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Get a connection in a `with` block; where that goes well, all may again.

        Raises:
            DatabaseUnavailableError: the database was silent, and another one is trying.
        """
        if not self._why:
            yield
        elif time.monotonic() < self._try_at or not self._trying.acquire(blocking=False):
            self.check()
            yield  # it was opened meanwhile
        else:
            try:
                yield
                self._why = ""
            finally:
                self._trying.release()


class SilenceWatch(OwnThread):
    """Asks the database itself where a connection is lent for long, in `benana-silence`.

    A statement may be slow, and is left alone then. Where a new connection hears nothing either,
    nobody who waits ever will; and where PostgreSQL itself does not work on what a connection waits
    for, that one alone hears nothing, as where its process is stopped, or where it works on after
    the limit that the statement was given. A commit that waits for a
    synchronous standby, without end and without an error, is held as a condition.

    A thread that waits is lost to all requests. Where these wait for one, it asks early, and where
    no answer comes all but a few of those who wait are given up.
    """

    def __init__(
        self,
        sessions: Sessions,
        loans: Collection[Loan],
        on_silence: Callable[[], None],
        patience: float,
        conditions: Conditions,
        is_short: Callable[[], bool] = lambda: False,
        on_shortage: Callable[[], None] = lambda: None,
        *,
        ends_commits: bool = False,
    ) -> None:
        """Make it; `start` it in the process that connects.

        Args:
            sessions: opens the connection over which it asks.
            loans: what is lent now; it changes while this looks.
            on_silence: called when the database did not answer.
            patience: after how many seconds of a loan it asks, and again after as many.
            conditions: where it holds what a loan waits for.
            is_short: tells whether requests wait for a thread.
            on_shortage: called when they do, and the database did not answer.
            ends_commits: whether who waits for a standby is told so, and waits no longer; where
                threads are short that is always so.
        """
        super().__init__("benana-silence")
        self._sessions = sessions
        self._loans = loans
        self._on_silence = on_silence
        self._patience = patience
        self._conditions = conditions
        self._is_short = is_short
        self._on_shortage = on_shortage
        self._ends_commits = ends_commits
        self._commits = 0
        """How many commits waited for a standby when it was asked last."""
        self._deaf: dict[Loan, tuple[Any, bool]] = {}
        """The loans whose session did nothing, as it seemed, when it was asked last."""

    def _run(self) -> None:
        ask_at, wait = 0.0, LOOK_SECONDS
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._stopped, wait):
                    return
            now, wait = time.monotonic(), LOOK_SECONDS
            ages = [now - loan.since for loan in list(self._loans)]
            if now >= ask_at and (self._commits or max(ages, default=0.0) >= self._patience):
                self._ask(ANSWER_SECONDS, self._patience, self._on_silence)
                ask_at = time.monotonic() + self._patience
                continue
            newest = min(ages, default=0.0)
            if newest < SHORT_SECONDS:
                wait = min(wait, SHORT_SECONDS - newest)
            elif self._is_short():
                self._ask(SHORT_ANSWER_SECONDS, SHORT_SECONDS, self._give_up_most)

    def _ask(self, seconds: float, patience: float, on_silence: Callable[[], None]) -> None:
        """Ask over a new connection; one that is refused, or lost, is an answer too.

        Args:
            seconds: how long the answer may take.
            patience: of which loans it asks: those that are as old, in seconds.
            on_silence: called when there is none.
        """
        now = time.monotonic()
        loans = self._waiting(now - patience)
        try:
            with contextlib.closing(self._sessions.begin_to_connect()) as connection:
                finish(connection, now + seconds)
                with connection.cursor() as cursor:
                    cursor.execute(_SESSIONS, [list(loans.values())])
                    finish(connection, now + seconds)
                    found = cursor.fetchall()
        except TimeoutError:
            on_silence()
        except (psycopg2.Error, OSError) as error:
            log.debug("what a connection waits for cannot be told: %s", error)
        else:
            self._tell(sum(commits for *_, commits, _ in found))
            if not self._sessions.pooled:  # else a pooler gives the sessions to others
                ends = self._ends_commits or on_silence == self._give_up_most
                sessions = {
                    pid: None if works and not (commits and ends) else (since, commits)
                    for pid, works, since, commits, _ in found
                }
                states = {loan: sessions.get(pid, _GONE) for loan, pid in loans.items()}
                works_for = {
                    pid: seconds
                    for pid, works, _, commits, seconds in found
                    if works and not commits  # what waits for a standby has no limit
                }
                self._end_endless({loan: works_for.get(pid, 0.0) for loan, pid in loans.items()})
                self._end_deaf({loan: state for loan, state in states.items() if state})

    def _give_up_most(self) -> None:
        log.warning(
            "requests wait for threads, and the database does not answer those that have "
            "them: most of what waits for it is given up"
        )
        self._on_shortage()

    def _waiting(self, before: float) -> dict[Loan, int]:
        """Return the loans that were lent before a time and wait for an answer, with their pids."""
        waiting = {}
        for loan in list(self._loans):
            connection = loan.connection
            if connection is None or loan.since > before or connection.closed:
                continue
            # What has come, and was not read yet, is an answer.
            waits = connection.get_transaction_status() == _ACTIVE and not can_be_read(connection)
            if waits and not is_on_its_way(connection):
                waiting[loan] = connection.info.backend_pid
        return waiting

    def _end_deaf(self, states: dict[Loan, tuple[Any, bool]]) -> None:
        """End the loans that wait for a session which does nothing, at the second look.

        Args:
            states: of each, since when its session does nothing, and whether it is a commit that
                waits for a standby.
        """
        before, self._deaf = self._deaf, {}
        waiting = self._waiting(time.monotonic())
        for loan, state in states.items():
            if loan not in waiting:
                continue
            if before.get(loan) != state:
                self._deaf[loan] = state
                continue
            if not state[1]:
                log.warning("a connection to the database hears nothing any more; it is closed")
            loan.unanswered = _UNCONFIRMED if state[1] else SILENT
            shut_down(loan.connection)

    def _end_endless(self, seconds: dict[Loan, float]) -> None:
        """End the loans whose session does not heed the limit of its statement."""
        for loan, works_for in seconds.items():
            if loan.seconds is not None and works_for > loan.seconds + HEED_SECONDS:
                loan.unanswered = (
                    f"a statement goes on after {works_for:.0f} s, though its limit is "
                    f"{loan.seconds:g} s, as where the process of its session is stopped"
                )
                log.warning("%s; its connection is closed", loan.unanswered)
                shut_down(loan.connection)

    def _tell(self, commits: int) -> None:
        self._commits = commits
        if not commits:
            self._conditions.clear(_CONDITION)
            return
        self._conditions.hold(
            _CONDITION,
            f"commits wait for a synchronous standby ({commits} now), and edits and changes of "
            "rows with them: bring the standby back, or take it out of synchronous_standby_names",
        )
