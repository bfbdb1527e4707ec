"""The connections of a pool: those that are idle, and new ones."""

import threading
import time

import psycopg2
import psycopg2.extensions

from app.database.connection import Connection, can_be_read, connect, discard
from app.database.pool_shares import Loan
from app.database.sessions import PooledConnection, Sessions
from app.database.silence import PAUSE_SECONDS, SILENT, SilenceGate
from app.database.sqlstates import unavailable
from app.errors import DatabaseUnavailableError

LONG_SECONDS = 1.0
"""Who was refused after so long was not refused, but heard nothing."""

_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE


class Supply:
    """Gives connections that are idle, else new ones, of which few are made at the same time.

    A thread that makes one cannot be reached from outside. Who waits for its turn can, and takes
    what comes back meanwhile.
    """

    def __init__(
        self,
        sessions: Sessions,
        returned: threading.Condition,
        *,
        reset: bool,
        openers: int,
        wait_seconds: float,
    ) -> None:
        """Make it; nothing is connected.

        Args:
            sessions: opens the connections.
            returned: the pool's lock; notified where one may have become free.
            reset: whether they are for borrowers who set what they like.
            openers: how many are made at the same time.
            wait_seconds: how long to wait for a turn.
        """
        self._sessions = sessions
        self._returned = returned
        self._reset = reset
        self._openers = openers
        self._wait_seconds = wait_seconds
        self._idle: list[Connection] = []
        self._ended = False
        self._opening = 0
        """How many connections are being made."""
        self.gate = SilenceGate()
        """Whom a database that did not answer lets try."""

    def take_idle(self) -> list[Connection]:
        """Take all that are idle, to be closed."""
        with self._returned:
            idle, self._idle = self._idle, []
        return idle

    def take(self, loan: Loan) -> Connection:
        """Give a loan a connection.

        Raises:
            DatabaseUnavailableError: the server cannot be reached or refuses.
        """
        with self.gate.passing():
            while (connection := self._take_one()) is not None:
                if not can_be_read(connection):
                    loan.connection = connection
                    return connection
                connection.close()
            try:
                return self._open(loan)
            finally:
                with self._returned:
                    self._opening -= 1
                    self._returned.notify_all()

    def end(self) -> list[Connection]:
        """Keep no connection any more; return those that are idle, to be closed."""
        self._ended = True
        return self.take_idle()

    def give_back(self, connection: Connection) -> None:
        """Take a connection back, for the next one if it is fit."""
        if connection.closed == 0:
            idle = connection.get_transaction_status() == _IDLE
            fit = idle and (not self._reset or discard(connection))
            with self._returned:
                if fit and not self._ended:
                    self._idle.append(connection)
                    return
        connection.close()

    def _take_one(self) -> Connection | None:
        """Take one that is idle; None at one's turn to make one.

        Raises:
            DatabaseUnavailableError: those that are being made hear nothing.
        """
        deadline = time.monotonic() + self._wait_seconds
        with self._returned:
            while not self._idle and self._opening >= self._openers:
                self.gate.check()
                if not self._returned.wait(deadline - time.monotonic()):
                    raise DatabaseUnavailableError(SILENT)
            if self._idle:
                return self._idle.pop()
            self._opening += 1
            return None

    def _open(self, loan: Loan) -> Connection:
        began = time.monotonic()
        factory = PooledConnection if self._reset and self._sessions.pooled else None
        try:
            loan.connection = connection = connect(self._sessions, connection_factory=factory)
        except DatabaseUnavailableError as error:
            if time.monotonic() - began >= LONG_SECONDS:
                self.gate.close(str(error), PAUSE_SECONDS)
            raise
        try:
            connection.autocommit = True
            self._sessions.look(connection)
            connection.autocommit = False
        except psycopg2.Error as error:
            connection.close()
            if loan.unanswered:
                raise DatabaseUnavailableError(loan.unanswered) from None
            raise unavailable(error) from None
        if isinstance(connection, PooledConnection):
            connection.beginning = self._sessions.beginning
        elif self._reset and self._sessions.pooled:
            connection.close()
            return self._open(loan)
        return connection
