"""Notices that the database says nothing any more: libpq alone would wait for it without end.

As behind a pooler that pauses, a postmaster that is stopped, a disk that hangs: the connection
stands, and no answer comes.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection

import psycopg2

from app.conditions import Conditions
from app.database.connection import finish
from app.database.pool_shares import Loan
from app.database.sessions import Sessions
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5

ANSWER_SECONDS = 3.0
"""How long the database may take to answer the watch's own question."""

SILENT = "the database is away: it is connected, and does not answer"

_CONDITION = "standby"
_WAITING_FOR_STANDBY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'SyncRep'
"""


class SilenceWatch(OwnThread):
    """Asks the database itself where a connection is lent for long, in `benana-silence`.

    A statement may be slow, and is left alone then. Where a new connection hears nothing either,
    nobody who waits ever will. A commit that waits for a synchronous standby, without end and
    without an error, is held as a condition.
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
                    cursor.execute(_WAITING_FOR_STANDBY)
                    finish(connection, deadline)
                    (commits,) = cursor.fetchone()
        except TimeoutError:
            self._on_silence()
        except (psycopg2.Error, OSError) as error:
            log.debug("what a connection waits for cannot be told: %s", error)
        else:
            self._tell(commits)

    def _tell(self, commits: int) -> None:
        if not commits:
            self._conditions.clear(_CONDITION)
            return
        self._conditions.hold(
            _CONDITION,
            f"{commits} commits wait for a synchronous standby, and edits and changes of rows with "
            "them: bring the standby back, or take it out of synchronous_standby_names",
        )
