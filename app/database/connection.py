"""One connection to PostgreSQL: psycopg2's arguments, and what a refusal means."""

import fcntl
import os
import select
import socket
import sys
import termios
import time
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.extensions

from app.database.sessions import Sessions
from app.database.sqlstates import unavailable
from app.database.urls import parse_url

Connection = psycopg2.extensions.connection

CONNECT_SECONDS = 3

READ_COMMITTED = psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED

# A silently dropped TCP connection would be noticed after two hours otherwise.
_KEEPALIVE: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def connection_options(url: str, **options: Any) -> dict[str, Any]:
    """Return psycopg2's arguments for a libpq URI or DSN; what it says itself is kept.

    Raises:
        SettingsError: the text is neither; see `parse_url`.
    """
    given = parse_url(url)
    defaults = {
        "application_name": "benana",
        "client_encoding": "utf8",
        "connect_timeout": CONNECT_SECONDS,
        **_KEEPALIVE,
    }
    return {**defaults, **options, **given}


def connect(sessions: Sessions, **options: Any) -> Connection:
    """Connect once, with more of psycopg2's arguments.

    Raises:
        DatabaseUnavailableError: the server cannot be reached or refuses.
    """
    try:
        connection: Connection = sessions.connect(**options)
        connection.set_session(READ_COMMITTED)
        return connection
    except psycopg2.OperationalError as error:
        raise unavailable(error) from None


def advance(connection: Any, seconds: float) -> bool:
    """Wait for a while; return whether an asynchronous connection is done with what it does."""
    state = connection.poll()
    if state == psycopg2.extensions.POLL_OK:
        return True
    poll = select.poll()
    writing = state == psycopg2.extensions.POLL_WRITE
    poll.register(connection, select.POLLOUT if writing else select.POLLIN)
    poll.poll(max(0.0, seconds) * 1000)
    return False


def finish(connection: Any, deadline: float) -> None:
    """Wait until an asynchronous connection is done with what it does.

    Args:
        connection: psycopg2's.
        deadline: in monotonic seconds.

    Raises:
        TimeoutError: it is not done by then.
    """
    while not advance(connection, deadline - time.monotonic()):
        if time.monotonic() >= deadline:
            raise TimeoutError("no answer in time")


def can_be_read(connection: Connection) -> bool:
    """Tell whether something came from the server; from an idle connection, that it is closed."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
    except (ValueError, psycopg2.Error):
        return True
    return bool(poll.poll(0))


def is_on_its_way(connection: Connection) -> bool:
    """Tell whether the server may not have all that was sent to it, as over a slow link.

    What it has not acknowledged counts (SIOCOUTQ in tcp(7)); there is no way to a unix socket.
    """
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            if duplicate.family == socket.AF_UNIX:
                return False
            left = fcntl.ioctl(duplicate, termios.TIOCOUTQ, bytes(4))
    except (OSError, psycopg2.Error):
        return False
    return int.from_bytes(left, sys.byteorder) > 0


def shut_down(connection: Connection) -> None:
    """End a connection from outside: a thread that waits for the database's answer gets an error.

    psycopg2's own `close` would wait for that thread.
    """
    with suppress(OSError, psycopg2.Error):
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        with duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


def discard(connection: Connection) -> bool:
    """Make a connection as the next who gets it expects one; return whether that went well.

    What was set on it is undone by `DISCARD ALL`, which does not run in a transaction; what the
    startup packet says stays.
    """
    try:
        connection.cursor_factory = psycopg2.extensions.cursor
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
        connection.set_session(READ_COMMITTED, "default", "default", False)
    except psycopg2.Error:
        return False
    return True
