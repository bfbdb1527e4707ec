"""Sessions that a forked child has of its parent, and must leave alone."""

import os
import weakref
from contextlib import suppress
from typing import Any

import psycopg2

_sessions: "weakref.WeakSet[Any]" = weakref.WeakSet()


def note(connection: Any) -> Any:
    """Remember a new connection of psycopg2's, as long as it is there; return it."""
    _sessions.add(connection)
    return connection


def let_go() -> None:
    """Leave all sessions to the parent, in a forked child: here nothing is behind them any more.

    Not by closing them: libpq would take leave of the server in the parent's name, and psycopg2
    waits for a lock that a thread of the parent may hold.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for connection in _sessions:
        with suppress(psycopg2.Error):  # it is closed
            os.dup2(null, connection.fileno(), inheritable=False)
    os.close(null)
