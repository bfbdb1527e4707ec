"""A psycopg2 connection whose transaction control is played with savepoints, for trials.

There is one session for one trial, and one transaction, which is never committed. What a plugin
commits becomes a savepoint that it cannot go back behind, so `commit()`, `rollback()`, `autocommit`
and `with connection:` behave as written, and a connection that is lent later sees what an earlier
one committed. What SQL itself can do past psycopg2 (`COMMIT` as text, sequences) is not caught.
"""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from app.database.connection import READ_COMMITTED
from app.database.cursors import routed
from app.database.sqlstates import reason_of
from app.database.trial_savepoints import Base, SavepointConnection

_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
_FAILED = psycopg2.extensions.TRANSACTION_STATUS_INERROR
_AUTOCOMMIT = psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT

_LEVELS = {
    "READ UNCOMMITTED": psycopg2.extensions.ISOLATION_LEVEL_READ_UNCOMMITTED,
    "READ COMMITTED": READ_COMMITTED,
    "REPEATABLE READ": psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ,
    "SERIALIZABLE": psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE,
    "DEFAULT": None,
}

_SET_TRANSACTION = re.compile(r"\s*SET\s+TRANSACTION\b[^;]*;?\s*", re.IGNORECASE)
_NOT_IN_A_TRIAL = (
    "a trial undoes everything at its end, and cannot undo this; leave it out there: "
    "'if not context.trial:'"
)


def _kept(name: str) -> Any:
    def read(connection: "TrialConnection") -> Any:
        return getattr(connection._loan, name)

    def write(connection: "TrialConnection", value: Any) -> None:
        connection.set_session(**{name: value})

    return property(read, write)


class TrialConnection(SavepointConnection):
    """A psycopg2 connection that behaves as one, while nothing that it does lasts.

    Used by `TrialSession` alone, which lends it.
    """

    def run(self, function: Callable[..., Any], query: Any, *arguments: Any) -> Any:
        """Run a statement of a cursor."""
        loan = self._open_loan()
        if isinstance(query, str) and _SET_TRANSACTION.fullmatch(query):
            return None  # it is too late for that, and what was wanted ends with the trial
        with self._guard:
            self._go_on()
        try:
            result = function(query, *arguments)
        except psycopg2.Error as error:
            _explain(error, self.lock_seconds)
            if not loan.commits_each:
                loan.dirty = True
            elif not Base.closed.__get__(self):
                self.roll_back_loan(loan)
            raise
        if loan.commits_each:
            self.commit_loan(loan)
        else:
            loan.dirty = True
        return result

    def cursor(  # type: ignore[override]
        self, name: Any = None, cursor_factory: Any = None, **kwargs: Any
    ) -> Any:
        self._open_loan()
        factory = cursor_factory or self.cursor_factory or psycopg2.extensions.cursor
        if isinstance(factory, type):
            factory = routed(factory)
        return Base.cursor(self, name, cursor_factory=factory, **kwargs)

    def commit(self) -> None:
        self.commit_loan(self._open_loan())

    def rollback(self) -> None:
        self.roll_back_loan(self._open_loan())

    def close(self) -> None:
        if self._loans and not self._loan.closed:
            with contextlib.suppress(psycopg2.Error):
                self.roll_back_loan(self._loan)
            self._loan.closed = True

    @property
    def closed(self) -> int:
        lost: int = Base.closed.__get__(self)
        return lost or int(bool(self._loans) and self._loan.closed)

    def __enter__(self) -> "TrialConnection":
        loan = self._open_loan()
        if loan.entered:
            raise psycopg2.ProgrammingError("the connection cannot be re-entered recursively")
        loan.entered = True
        return self

    def __exit__(self, kind: Any, _error: Any, _trace: Any) -> None:
        loan = self._open_loan()
        loan.entered = False
        if kind is None:
            self.commit_loan(loan)
        else:
            self.roll_back_loan(loan)

    autocommit: Any = _kept("autocommit")
    isolation_level: Any = _kept("isolation_level")
    readonly: Any = _kept("readonly")
    deferrable: Any = _kept("deferrable")

    def set_session(
        self,
        isolation_level: Any = None,
        readonly: Any = None,
        deferrable: Any = None,
        autocommit: Any = None,
    ) -> None:
        if not self._loans:  # by whoever connects
            Base.set_session(self, isolation_level)
            return
        loan = self._quiet_loan()
        for name, value in (
            ("isolation_level", isolation_level),
            ("readonly", readonly),
            ("deferrable", deferrable),
            ("autocommit", autocommit),
        ):
            if value is None:
                continue
            if name == "isolation_level" and isinstance(value, str):
                if value.upper() not in _LEVELS:
                    raise ValueError(f"bad value for isolation_level: {value!r}")
                value = _LEVELS[value.upper()]
            setattr(loan, name, None if value == "default" else value)

    def set_isolation_level(self, level: int | None) -> None:
        loan = self._open_loan()
        self.roll_back_loan(loan)
        loan.autocommit = level == _AUTOCOMMIT
        if level != _AUTOCOMMIT:
            loan.isolation_level = level

    def reset(self) -> None:
        loan = self._open_loan()
        self.roll_back_loan(loan)
        loan.autocommit = False
        loan.isolation_level = READ_COMMITTED

    @property
    def status(self) -> int:
        if self._loans and not self._loan.dirty:
            return psycopg2.extensions.STATUS_READY
        status: int = Base.status.__get__(self)
        return status

    def get_transaction_status(self) -> int:
        status = Base.get_transaction_status(self)
        return _IDLE if self._loans and not self._loan.dirty and status != _FAILED else status

    def tpc_begin(self, *_: Any) -> None:
        raise psycopg2.NotSupportedError(f"a transaction in two phases: {_NOT_IN_A_TRIAL}")

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        loan = self._open_loan()
        self._go_on()
        loan.dirty = True
        return Base.lobject(self, *args, **kwargs)


def _explain(error: psycopg2.Error, lock_seconds: float) -> None:
    """Say in a statement's error what the trial has to do with it."""
    said = reason_of(error)
    if isinstance(error, psycopg2.errors.ActiveSqlTransaction):
        error.args = (f"{said}: {_NOT_IN_A_TRIAL}",)
    elif isinstance(error, psycopg2.errors.LockNotAvailable):
        error.args = (
            f"{said}: another session holds the lock, a trial waits {lock_seconds:g} s at most; "
            "publish it again when that one has ended",
        )
