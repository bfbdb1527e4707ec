"""A session in which nothing lasts: what a trial lends to a plugin as `context.database`."""

import contextlib
import threading
from collections.abc import Iterator

import psycopg2

from app.database.connection import Connection, connect, connection_options
from app.database.sessions import SHARED_SETTINGS, Sessions
from app.database.sqlstates import unavailable
from app.database.trial_connection import TrialConnection
from app.database.trial_savepoints import LOCK_SECONDS


class TrialSession:
    """The one session of a trial; nothing is connected before it is asked for."""

    def __init__(self, url: str, seconds: float, lock_seconds: float = LOCK_SECONDS) -> None:
        """Make it.

        Args:
            url: a libpq URI or DSN.
            seconds: how long a statement may take; the server ends it even if the trial is gone.
            lock_seconds: how long a statement may wait for a lock.

        Raises:
            SettingsError: the URL cannot be read.
        """
        self._sessions = Sessions(connection_options(url), SHARED_SETTINGS)
        self._seconds = seconds
        self._lock_seconds = lock_seconds
        self._lock = threading.Lock()
        self._session: TrialConnection | None = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend the session, as `Database.connection` lends one of its own.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, or went away meanwhile.
        """
        session = self._open()
        try:
            loan = session.lend()
        except psycopg2.OperationalError as error:
            raise unavailable(error) from None
        try:
            yield session
            session.commit_loan(loan)
        except BaseException as error:
            lost = loan.closed or session.closed != 0
            with contextlib.suppress(psycopg2.Error):
                session.roll_back_loan(loan)
            if isinstance(error, psycopg2.Error) and (lost or session.closed != 0):
                raise unavailable(error) from error
            raise
        finally:
            with contextlib.suppress(psycopg2.Error):
                session.take_back(loan)

    def close(self) -> None:
        """Undo everything, before the trial says how it ended."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(psycopg2.Error):
                Connection.rollback(session)
            Connection.close(session)

    def _open(self) -> TrialConnection:
        with self._lock:
            if self._session is None or self._session.lost:
                session = connect(self._sessions, connection_factory=TrialConnection)
                assert isinstance(session, TrialConnection)  # noqa: S101 - the factory's
                session.seconds = self._seconds
                session.lock_seconds = self._lock_seconds
                session.settings = SHARED_SETTINGS
                self._session = session
            return self._session
