"""Notices that the database says nothing any more: libpq alone would wait for it without end.

As behind a pooler that pauses, a postmaster that is stopped, a disk that hangs: the connection
stands, and no answer comes.
"""

import contextlib
import time
from collections.abc import Callable, Collection

import psycopg2

from app.database.connection import finish
from app.database.pool_shares import Loan
from app.database.sessions import Sessions
from app.threads import OwnThread

LOOK_SECONDS = 0.5

ANSWER_SECONDS = 3.0
"""How long the database may take to answer the watch's own question."""

SILENT = "the database is away: it is connected, and does not answer"


class SilenceWatch(OwnThread):
    """Asks the database itself where a connection is lent for long, in `benana-silence`.

    A statement may be slow, and is left alone then. Where a new connection hears nothing either,
    nobody who waits ever will.
    """

    def __init__(
        self,
        sessions: Sessions,
        loans: Collection[Loan],
        on_silence: Callable[[], None],
        patience: float,
    ) -> None:
        """Make it; `start` it in the process that connects.

        Args:
            sessions: opens the connection over which it asks.
            loans: what is lent now; it changes while this looks.
            on_silence: called when the database did not answer.
            patience: after how many seconds of a loan it asks, and again after as many.
        """
        super().__init__("benana-silence")
        self._sessions = sessions
        self._loans = loans
        self._on_silence = on_silence
        self._patience = patience

    def _run(self) -> None:
        ask_at = 0.0
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._stopped, LOOK_SECONDS):
                    return
            now = time.monotonic()
            if now < ask_at or all(now - loan.since < self._patience for loan in list(self._loans)):
                continue
            if self._is_silent():
                self._on_silence()
            ask_at = time.monotonic() + self._patience

    def _is_silent(self) -> bool:
        """Ask over a new connection; one that is refused, or lost, is an answer too."""
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            with contextlib.closing(self._sessions.begin_to_connect()) as connection:
                finish(connection, deadline)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                    finish(connection, deadline)
        except TimeoutError:
            return True
        except (psycopg2.Error, OSError):
            return False
        return False
