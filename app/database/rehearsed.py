"""A psycopg2 connection whose transaction control is played with savepoints, for trials.

There is one session for one trial, and one transaction, which is never committed. What a plugin
commits becomes a savepoint that it cannot go back behind, so `commit()`, `rollback()`, `autocommit`
and `with connection:` behave as written, and a connection that is lent later sees what an earlier
one committed. What SQL itself can do past psycopg2 (`COMMIT` as text, sequences) is not caught.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from app.database.sessions import set_local
from app.database.sqlstates import reason_of

LOCK_SECONDS = 2.0
"""How long a statement waits for a lock; whoever wants the same one queues behind it meanwhile."""

_Base = psycopg2.extensions.connection
_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
_FAILED = psycopg2.extensions.TRANSACTION_STATUS_INERROR
_READ_COMMITTED = psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED
_AUTOCOMMIT = psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT

_LEVELS = {
    "READ UNCOMMITTED": psycopg2.extensions.ISOLATION_LEVEL_READ_UNCOMMITTED,
    "READ COMMITTED": _READ_COMMITTED,
    "REPEATABLE READ": psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ,
    "SERIALIZABLE": psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE,
    "DEFAULT": None,
}

_SET_TRANSACTION = re.compile(r"\s*SET\s+TRANSACTION\b[^;]*;?\s*", re.IGNORECASE)
_CHECK_CONSTRAINTS = (
    "SAVEPOINT benana_check; SET CONSTRAINTS ALL IMMEDIATE;"
    " ROLLBACK TO SAVEPOINT benana_check; RELEASE SAVEPOINT benana_check"
)
_NOT_IN_A_TRIAL = (
    "a trial undoes everything at its end, and cannot undo this; leave it out there: "
    "'if not context.trial:'"
)


class Loan:
    """What one borrower has set on the session; its savepoint is what it committed last."""

    def __init__(self, number: int, cursor_factory: Any) -> None:
        self.savepoint = f"benana_{number}"
        self.thread = threading.get_ident()
        self.outer_cursor_factory = cursor_factory
        self.autocommit = False
        self.isolation_level: Any = _READ_COMMITTED
        self.readonly: bool | None = None
        self.deferrable: bool | None = None
        self.entered = False
        """Whether it is within `with connection:`."""
        self.dirty = False
        """Whether a statement ran since the last commit or rollback."""
        self.closed = False

    @property
    def commits_each(self) -> bool:
        return self.autocommit and not self.entered


def _kept(name: str) -> Any:
    def read(connection: "RehearsedConnection") -> Any:
        return getattr(connection._loan, name)

    def write(connection: "RehearsedConnection", value: Any) -> None:
        connection.set_session(**{name: value})

    return property(read, write)


class RehearsedConnection(_Base):
    """A psycopg2 connection whose transaction control is played with savepoints."""

    seconds = 0.0
    settings: Mapping[str, str] = {}
    """What its transaction begins with: a pooler may not take it at the session's start."""
    cursor_factory: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = threading.RLock()
        self._loans: list[Loan] = []
        self._count = 0

    # --- lending ---------------------------------------------------------------------------

    def lend(self) -> Loan:
        """Begin a loan; whoever holds the connection already sees it as one of its own."""
        with self._guard:
            self._go_on()
            if self._loans and _Base.get_transaction_status(self) == _FAILED:
                self._back_to(self._loan)
            self._count += 1
            loan = Loan(self._count, self.cursor_factory)
            self._say(f"SAVEPOINT {loan.savepoint}")
            self._loans.append(loan)
            self.cursor_factory = None
            return loan

    def take_back(self, loan: Loan) -> None:
        """End a loan; what it has not committed stays, so commit it or roll it back before."""
        with self._guard:
            self.cursor_factory = loan.outer_cursor_factory
            above = self._loans[self._loans.index(loan) + 1 :]
            self._loans.remove(loan)
            self._say(f"RELEASE SAVEPOINT {loan.savepoint}", *map(_savepoint, above))

    def commit_loan(self, loan: Loan) -> None:
        """Do what `commit()` does, for a loan."""
        if loan.closed:
            raise psycopg2.InterfaceError("connection already closed")
        with self._guard:
            self._go_on()
            if _Base.get_transaction_status(self) == _FAILED:
                self._back_to(loan)  # as the server does it with a transaction that failed
                return
            try:
                self._say(_CHECK_CONSTRAINTS)  # the deferred ones
            except psycopg2.Error:
                self._back_to(loan)
                raise
            above = self._loans[self._loans.index(loan) :]
            self._say(f"RELEASE SAVEPOINT {loan.savepoint}", *map(_savepoint, above))
            loan.dirty = False

    def roll_back_loan(self, loan: Loan) -> None:
        """Do what `rollback()` does, for a loan."""
        with self._guard:
            self._go_on()
            self._back_to(loan)

    def _back_to(self, loan: Loan) -> None:
        above = self._loans[self._loans.index(loan) + 1 :]
        self._say(f"ROLLBACK TO SAVEPOINT {loan.savepoint}", *map(_savepoint, above))
        loan.dirty = False

    def _go_on(self) -> None:
        """Begin the transaction, the first time or where SQL text has ended it."""
        if _Base.get_transaction_status(self) != _IDLE:
            return
        if _Base.status.__get__(self) == psycopg2.extensions.STATUS_BEGIN:
            self._say("BEGIN")  # psycopg2 takes the transaction for one that goes on
        self._say(
            *set_local(self.settings),
            f"SET LOCAL lock_timeout = {LOCK_SECONDS * 1000:.0f}",
            f"SET LOCAL statement_timeout = {self.seconds * 1000:.0f}",
            *map(_savepoint, self._loans),
        )

    def _say(self, *statements: str) -> None:
        with _Base.cursor(self, cursor_factory=psycopg2.extensions.cursor) as cursor:
            cursor.execute("; ".join(statements))

    @property
    def _loan(self) -> Loan:
        """The newest loan of this thread, else the newest of all."""
        if not self._loans:
            raise psycopg2.InterfaceError("the connection was given back")
        mine = [loan for loan in self._loans if loan.thread == threading.get_ident()]
        return (mine or self._loans)[-1]

    def _open_loan(self) -> Loan:
        loan = self._loan
        if loan.closed:
            raise psycopg2.InterfaceError("connection already closed")
        return loan

    def _quiet_loan(self) -> Loan:
        loan = self._open_loan()
        if loan.dirty:
            raise psycopg2.ProgrammingError("set_session cannot be used inside a transaction")
        return loan

    @property
    def lost(self) -> bool:
        """Whether the session itself has ended."""
        return bool(_Base.closed.__get__(self))

    # --- what a plugin calls ---------------------------------------------------------------

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
            _explain(error)
            if not loan.commits_each:
                loan.dirty = True
            elif not _Base.closed.__get__(self):
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
            factory = _rehearsed(factory)
        return _Base.cursor(self, name, cursor_factory=factory, **kwargs)

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
        lost: int = _Base.closed.__get__(self)
        return lost or int(bool(self._loans) and self._loan.closed)

    def __enter__(self) -> "RehearsedConnection":
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
            _Base.set_session(self, isolation_level)
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
        loan.isolation_level = _READ_COMMITTED

    @property
    def status(self) -> int:
        if self._loans and not self._loan.dirty:
            return psycopg2.extensions.STATUS_READY
        found: int = _Base.status.__get__(self)
        return found

    def get_transaction_status(self) -> int:
        found = _Base.get_transaction_status(self)
        return _IDLE if self._loans and not self._loan.dirty and found != _FAILED else found

    def tpc_begin(self, *_: Any) -> None:
        raise psycopg2.NotSupportedError(f"a transaction in two phases: {_NOT_IN_A_TRIAL}")

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        loan = self._open_loan()
        self._go_on()
        loan.dirty = True
        return _Base.lobject(self, *args, **kwargs)


class _RehearsedCursor:
    """Goes before a cursor's class: each statement is told to the connection."""

    connection: RehearsedConnection

    def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's name
        return self.connection.run(super().execute, query, vars)  # type: ignore[misc]

    def executemany(self, query: Any, vars_list: Any) -> Any:
        return self.connection.run(super().executemany, query, vars_list)  # type: ignore[misc]

    def callproc(self, procname: Any, *args: Any) -> Any:
        return self.connection.run(super().callproc, procname, *args)  # type: ignore[misc]

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_expert, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, sql, *args)

    def copy_from(self, file: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_from, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, file, *args)

    def copy_to(self, file: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_to, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, file, *args)


@functools.cache
def _rehearsed(factory: type) -> type:
    return type(factory.__name__, (_RehearsedCursor, factory), {})


def _savepoint(loan: Loan) -> str:
    return f"SAVEPOINT {loan.savepoint}"


def _explain(error: psycopg2.Error) -> None:
    """Say in a statement's error what the trial has to do with it."""
    said = reason_of(error)
    if isinstance(error, psycopg2.errors.ActiveSqlTransaction):
        error.args = (f"{said}: {_NOT_IN_A_TRIAL}",)
    elif isinstance(error, psycopg2.errors.LockNotAvailable):
        error.args = (
            f"{said}: another session holds the lock, a trial waits {LOCK_SECONDS:g} s at most; "
            "publish it again when that one has ended",
        )
