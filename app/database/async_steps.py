"""The steps of an asynchronous connection, each against a deadline, and until it is told to end."""

import os
import select
import threading
import time
from typing import Any

import psycopg2
import psycopg2.extensions

from app.database.connection import Connection
from app.database.sessions import Sessions


class LostError(Exception):
    """The connection is of no use any more."""


class AsyncSteps:
    """Waits for a connection, or for the end: `begin` in the process that waits, `close` once."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._wake_read = self._wake_write = -1  # made by `begin`: a fork would share them

    def begin(self) -> None:
        """Make what wakes whoever waits."""
        self._wake_read, self._wake_write = os.pipe()

    def wake(self) -> None:
        """Wake whoever waits."""
        os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Give back what `begin` made."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def connect(self, sessions: Sessions, seconds: float) -> Connection:
        """Connect; again only where a setting was what was refused.

        Raises:
            psycopg2.OperationalError: the server refuses.
            LostError: it does not answer in time.
        """
        while True:
            try:
                connection: Connection = sessions.begin_to_connect()
                self.complete(connection, seconds)
                return connection
            except psycopg2.OperationalError as error:
                if not sessions.learn(error):
                    raise

    def execute(self, connection: Connection, statement: str, seconds: float) -> None:
        """Run a statement; LostError where its answer does not come in time."""
        with connection.cursor() as cursor:
            cursor.execute(statement)
            self.complete(connection, seconds)

    def ask(self, connection: Connection, expression: str, seconds: float) -> object:
        """Return what an expression of SQL is; LostError where that does not come in time."""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {expression}")
            self.complete(connection, seconds)
            (answer,) = cursor.fetchone() or (None,)
            return answer

    def complete(self, connection: Connection, seconds: float) -> None:
        """Wait until a connection is done with what it does; LostError where that takes longer."""
        deadline = time.monotonic() + seconds
        while True:
            state = connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise LostError(f"no answer within {seconds:g} s")
            writing = state == psycopg2.extensions.POLL_WRITE
            self.wait(connection, left, select.POLLOUT if writing else select.POLLIN)
            if self.stopped.is_set():
                raise LostError("stopping")

    def wait(self, connection: Any, seconds: float, events: int = select.POLLIN) -> None:
        """Wait for events of a connection, some seconds at most, or until somebody wakes us."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(connection, events)
        poll.poll(max(0.0, seconds) * 1000)
