"""Runs the server's own statements: with timeouts, and the driver's errors turned into ours."""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions

from app.database.locks import LockReport
from app.database.pool import Database
from app.database.pool_shares import Share
from app.database.sqlstates import error_of, is_of_a_function, is_transient, reason_of
from app.database.timeouts import Pace
from app.errors import DatabaseBusyError, DatabaseError, DatabaseRefusedError

Lender = Database | Share
"""A pool, or a part of one."""

_WAITED = {psycopg2.errorcodes.LOCK_NOT_AVAILABLE, psycopg2.errorcodes.QUERY_CANCELED}


class _BoundedCursor(psycopg2.extensions.cursor):
    """A cursor whose first statement brings the transaction's settings and timeouts along."""

    bounds = ""

    def execute(self, query: Any, arguments: Any = None) -> None:
        bounds, self.bounds = self.bounds, ""
        super().execute(bounds + query, arguments)


@contextlib.contextmanager
def transaction(lender: Lender, *, pace: Pace = "normal") -> Iterator[Any]:
    """Give a cursor for one transaction of the server's own.

    Args:
        lender: who lends the connection.
        pace: how long it may take.

    Raises:
        DatabaseBusyError: somebody keeps a lock, or all connections.
        DatabaseUnavailableError: the database is away.
        DatabaseRefusedError: it refuses a statement.
    """
    with _cursor(lender, autocommit=False, pace=pace) as cursor:
        yield cursor


@contextlib.contextmanager
def statement(lender: Lender, *, pace: Pace = "normal") -> Iterator[Any]:
    """Give a cursor for one statement, a transaction of its own: one round trip and not three.

    The connection stays as it is then, because setting it back costs time and the GIL.

    Args:
        lender: who lends the connection.
        pace: how long it may take.

    Raises:
        DatabaseBusyError: somebody keeps a lock, or all connections.
        DatabaseUnavailableError: the database is away.
        DatabaseRefusedError: it refuses the statement.
    """
    with _cursor(lender, autocommit=True, pace=pace) as cursor:
        yield cursor


@contextlib.contextmanager
def _cursor(lender: Lender, *, autocommit: bool, pace: Pace) -> Iterator[Any]:
    pool = lender.pool
    try:
        with (
            lender.connection(
                autocommit=autocommit, seconds=pool.timeouts.seconds(pace)
            ) as connection,
            connection.cursor(cursor_factory=_BoundedCursor) as cursor,
        ):
            cursor.bounds = pool.sessions.beginning + pool.timeouts.bounds(pace)
            yield cursor
    except psycopg2.Error as error:
        raise refused(error, pool.locks) from error


def refused(
    error: psycopg2.Error, locks: LockReport | None, what: str = "the database refuses"
) -> DatabaseError:
    """Return what a refused statement is for us; who holds a lock is looked for.

    Args:
        error: the driver's error.
        locks: who looks for it; None for nobody.
        what: how the sentence of a refusal begins.
    """
    if error.pgcode in _WAITED and locks is not None:
        cursor = error.cursor
        # A commit has none: it waits for those that committed notifications before.
        sentence = locks.commit_sentence() if cursor is None else locks.sentence(cursor.query)
        if sentence is not None:
            return DatabaseBusyError(sentence)
    known = error_of(error, what)
    passes = error.pgcode in _WAITED or (is_transient(error) and not is_of_a_function(error))
    if isinstance(known, DatabaseRefusedError) and passes:
        return DatabaseBusyError(f"the database gave a statement up: {reason_of(error)}; try again")
    return known
