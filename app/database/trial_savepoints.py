"""One session, never committed, that several borrowers share by savepoints: for trials."""

import threading
from collections.abc import Mapping
from typing import Any

import psycopg2
import psycopg2.extensions

from app.database.connection import READ_COMMITTED
from app.database.sessions import set_local

LOCK_SECONDS = 2.0
"""How long a statement waits for a lock; whoever wants the same one queues behind it meanwhile."""

Base = psycopg2.extensions.connection
_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
_FAILED = psycopg2.extensions.TRANSACTION_STATUS_INERROR

_CHECK_CONSTRAINTS = (
    "SAVEPOINT benana_check; SET CONSTRAINTS ALL IMMEDIATE;"
    " ROLLBACK TO SAVEPOINT benana_check; RELEASE SAVEPOINT benana_check"
)


class Loan:
    """What one borrower has set on the session; its savepoint is what it committed last."""

    def __init__(self, number: int, cursor_factory: Any) -> None:
        self.savepoint = f"benana_{number}"
        self.thread = threading.get_ident()
        self.outer_cursor_factory = cursor_factory
        self.autocommit = False
        self.isolation_level: Any = READ_COMMITTED
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


class SavepointConnection(Base):
    """Lends one session to several borrowers: each commits to a savepoint, nothing is committed.

    `lend` begins a loan and `take_back` ends it; `commit_loan` and `roll_back_loan` are what
    `commit()` and `rollback()` are elsewhere.
    """

    seconds = 0.0
    """How long a statement may take."""
    lock_seconds = LOCK_SECONDS
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
            if self._loans and Base.get_transaction_status(self) == _FAILED:
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
            if Base.get_transaction_status(self) == _FAILED:
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
        if Base.get_transaction_status(self) != _IDLE:
            return
        if Base.status.__get__(self) == psycopg2.extensions.STATUS_BEGIN:
            self._say("BEGIN")  # psycopg2 takes the transaction for one that goes on
        self._say(
            *set_local(self.settings),
            f"SET LOCAL lock_timeout = {self.lock_seconds * 1000:.0f}",
            f"SET LOCAL statement_timeout = {self.seconds * 1000:.0f}",
            *map(_savepoint, self._loans),
        )

    def _say(self, *statements: str) -> None:
        with Base.cursor(self, cursor_factory=psycopg2.extensions.cursor) as cursor:
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
        return bool(Base.closed.__get__(self))


def _savepoint(loan: Loan) -> str:
    return f"SAVEPOINT {loan.savepoint}"
