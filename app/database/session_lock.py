"""A lock that one process of all hosts holds: of a session, which ends with its connection."""

import threading
import time
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.extensions

from app.database.connection import Connection, connection_options, finish
from app.database.sessions import OWN_SETTINGS, Sessions

ANSWER_SECONDS = 1.5
"""How long the database may take to answer; then the lock counts as lost."""

_CLASS = 0x62656E61
"""The first of the two numbers of all these locks ("bena"); the second is of the plugin."""


class SessionLock:
    """PostgreSQL's advisory lock of a session, on a connection of its own.

    Losing the connection is losing the lock: `is_held` asks the database, and not the memory. It
    needs a direct connection: a pooler gives the session to others.
    """

    def __init__(self, url: str, name: str) -> None:
        """Make it; nothing is connected.

        Args:
            url: where the database is.
            name: what is locked, among those of one schema.
        """
        options = connection_options(url, application_name=f"benana-lock-{name}"[:63])
        self._sessions = Sessions(options, OWN_SETTINGS)
        self._name = name
        self._guard = threading.RLock()
        self._connection: Connection | None = None
        self._held = False

    def take(self) -> bool:
        """Take the lock if it is free; return whether it is held now, False without a database."""
        with self._guard:
            return self._take()

    def _take(self) -> bool:
        if self._held:
            return self.is_held()
        try:
            if self._connection is None:
                self._connection = self._sessions.begin_to_connect()
                finish(self._connection, time.monotonic() + ANSWER_SECONDS)
            (self._held,) = self._ask(
                "SELECT pg_try_advisory_lock(%s, hashtext(current_schema() || '.' || %s))",
                (_CLASS, self._name),
            )
        except (psycopg2.Error, OSError) as error:
            if isinstance(error, psycopg2.OperationalError):
                self._sessions.learn(error)
            self.release()
        return self._held

    def is_held(self) -> bool:
        """Return whether the lock is held, as the database's answer shows."""
        with self._guard:
            if not self._held:
                return False
            try:
                self._ask("SELECT 1", ())
            except (psycopg2.Error, OSError):
                self.release()
            return self._held

    def release(self) -> None:
        """Give the lock back, with its connection."""
        with self._guard:
            connection, self._connection, self._held = self._connection, None, False
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    def _ask(self, query: str, values: tuple[Any, ...]) -> Any:
        assert self._connection is not None  # noqa: S101 - for the type checker
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            finish(self._connection, time.monotonic() + ANSWER_SECONDS)
            return cursor.fetchone()
