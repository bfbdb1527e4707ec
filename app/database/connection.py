"""The psycopg2 pool; driver errors become ours here, once."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions

from app.errors import DatabaseUnavailableError, SettingsError

Connection = psycopg2.extensions.connection

CONNECT_SECONDS = 3
WAIT_SECONDS = 10.0

_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
_READ_COMMITTED = psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED

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
        SettingsError: the text is neither.
    """
    try:
        given = psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError as error:
        raise SettingsError(
            f"DATABASE_URL cannot be read: {str(error).strip()}; expected a libpq URI such as "
            "postgresql://user@host:5432/name"
        ) from None
    defaults = {
        "application_name": "benana",
        "client_encoding": "utf8",
        "connect_timeout": CONNECT_SECONDS,
        **_KEEPALIVE,
    }
    return {**defaults, **options, **given}


class Database:
    """A pool of connections to one database.

    Connections are made when they are asked for, so a pool can be made while the database is
    away; one that the server has closed meanwhile is noticed before it is handed out.
    """

    def __init__(self, url: str, max_connections: int = 16, *, reset: bool = False) -> None:
        """Make a pool.

        Args:
            url: a libpq URI or DSN.
            max_connections: how many may be lent at once.
            reset: whether a connection that comes back is made as new: for borrowers who set what
                they like on it. It costs a round trip.

        Raises:
            SettingsError: the URL cannot be read.
        """
        self.url = url
        self._reset = reset
        self._options = connection_options(url)
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(max_connections)
        self._closed = False

    @contextlib.contextmanager
    def connection(self, *, autocommit: bool = False) -> Iterator[Connection]:
        """Lend a connection for one transaction: committed at the end, rolled back on an error.

        Args:
            autocommit: whether each statement is a transaction of its own instead.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, or went away meanwhile, or
                no connection became free within 10 s.
        """
        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise DatabaseUnavailableError(
                f"no database connection became free within {WAIT_SECONDS:.0f} s"
            )
        connection = None
        try:
            connection = self._take()
            with self._lock:
                self._lent.add(connection)
            try:
                if connection.autocommit != autocommit:
                    # Without a level psycopg2 leaves the server's alone: no statement of its own.
                    connection.isolation_level = None if autocommit else _READ_COMMITTED
                    connection.autocommit = autocommit
                yield connection
                if not autocommit:
                    connection.commit()
            except BaseException as error:
                lost = connection.closed != 0
                with contextlib.suppress(psycopg2.Error):
                    connection.rollback()
                if isinstance(error, psycopg2.Error) and (lost or connection.closed != 0):
                    raise unavailable(error) from error
                raise
        finally:
            if connection is not None:
                with self._lock:
                    self._lent.discard(connection)
                self._give_back(connection)
            self._places.release()

    def cut(self) -> None:
        """End every lent connection from outside: who waits for the database gets an error.

        For a database that does not answer: libpq would wait for it without end.
        """
        with self._lock:
            lent = list(self._lent)
            idle, self._idle = self._idle, []
        for connection in [*lent, *idle]:
            with contextlib.suppress(OSError, psycopg2.Error):
                duplicate = socket.socket(fileno=os.dup(connection.fileno()))
                with duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the idle connections; lent ones are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if not _has_hung_up(connection):
                return connection
            connection.close()
        return connect(self._options)

    def _give_back(self, connection: Connection) -> None:
        if connection.closed == 0:
            idle = connection.get_transaction_status() == _IDLE
            fit = idle and (not self._reset or _reset(connection))
            with self._lock:
                if fit and not self._closed:
                    self._idle.append(connection)
                    return
        connection.close()


@contextlib.contextmanager
def transaction(database: Database) -> Iterator[Any]:
    """Give a cursor for one transaction of the server's own.

    Raises:
        DatabaseUnavailableError: the database is away, or refuses a statement.
    """
    with _cursor(database, autocommit=False) as cursor:
        yield cursor


@contextlib.contextmanager
def statement(database: Database) -> Iterator[Any]:
    """Give a cursor for one statement, a transaction of its own: one round trip and not three.

    The connection stays as it is then, because setting it back costs time and the GIL.

    Raises:
        DatabaseUnavailableError: the database is away, or refuses the statement.
    """
    with _cursor(database, autocommit=True) as cursor:
        yield cursor


@contextlib.contextmanager
def _cursor(database: Database, *, autocommit: bool) -> Iterator[Any]:
    try:
        with (
            database.connection(autocommit=autocommit) as connection,
            connection.cursor() as cursor,
        ):
            yield cursor
    except psycopg2.Error as error:
        reason = " ".join(str(error).split())
        raise DatabaseUnavailableError(f"the database refuses: {reason}") from error


def _reset(connection: Connection) -> bool:
    """Undo what was set on a connection: the next who gets it expects one as it was made."""
    try:
        connection.cursor_factory = psycopg2.extensions.cursor
        connection.autocommit = True  # DISCARD ALL does not run in a transaction
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
        connection.set_session(_READ_COMMITTED, "default", "default", False)
    except psycopg2.Error:
        return False
    return True


def connect(options: dict[str, Any]) -> Connection:
    """Connect once.

    Raises:
        DatabaseUnavailableError: the server cannot be reached or refuses.
    """
    try:
        connection: Connection = psycopg2.connect(**options)
        connection.set_session(_READ_COMMITTED)
        return connection
    except psycopg2.OperationalError as error:
        raise unavailable(error) from None


def unavailable(error: psycopg2.Error) -> DatabaseUnavailableError:
    """Return a driver's error as ours."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DatabaseUnavailableError(f"the database is away: {reason}")


def _has_hung_up(connection: Connection) -> bool:
    # An idle connection has nothing to say: if it can be read, the server has closed it.
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
    except (ValueError, psycopg2.Error):
        return True
    return bool(poll.poll(0))
