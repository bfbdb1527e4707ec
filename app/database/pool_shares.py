"""Who holds how many connections of a pool, since when, and where they were taken."""

import sys
import threading
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.records import file_in_version

if TYPE_CHECKING:
    from app.database.connection import Connection
    from app.database.pool import Database


@dataclass(eq=False, slots=True)
class Loan:
    """One connection that is lent; `place` is the file and line that asked for it."""

    holder: str
    place: tuple[str, int] | None = None
    since: float = field(default_factory=time.monotonic)
    thread: int = field(default_factory=threading.get_ident)
    connection: Any = None
    seconds: float | None = None
    """How long PostgreSQL may work on one of its statements; None where that is not known."""
    unanswered: str = ""
    """Why it was ended, in a sentence, where the database said nothing any more."""


class Share:
    """The part of a pool that one holder may have at once. Made by `Database.share`.

    `connection` lends one as the pool itself does. Calling the share does the same and notes where
    the call stands: that is a plugin's `context.database()`.
    """

    def __init__(
        self, pool: "Database", holder: str, places: int, timeout: float, advice: str
    ) -> None:
        """Make a share; `Database.share` does."""
        self.pool = pool
        self.holder = holder
        self.places = places
        self.timeout = timeout
        self.advice = advice

    def connection(
        self, *, autocommit: bool = False, seconds: float | None = None
    ) -> "AbstractContextManager[Connection]":
        """Lend a connection as `Database.connection` does.

        Raises:
            DatabaseBusyError: the holder has all its places, or the pool is lent out.
            DatabaseUnavailableError: as `Database.connection`.
        """
        return self.pool.lend(Loan(self.holder, seconds=seconds), self, autocommit=autocommit)

    def __call__(self) -> "AbstractContextManager[Connection]":
        """Lend a connection as `connection` does, and remember who asked for it."""
        frame = sys._getframe(1)
        place = (frame.f_code.co_filename, frame.f_lineno)
        return self.pool.lend(Loan(self.holder, place), self, autocommit=False)


def describe(holder: str, loans: Collection[Loan]) -> str:
    """Say how many connections a holder has, since when, and where the oldest was taken."""
    mine = [loan for loan in loans if loan.holder == holder]
    if not mine:
        return f"{holder} has just given back"
    oldest = min(mine, key=lambda loan: loan.since)
    text = f"{holder} holds {len(mine)}, the oldest for {time.monotonic() - oldest.since:.1f} s"
    if oldest.place is not None:
        text += f" (taken at {file_in_version(oldest.place[0])}:{oldest.place[1]})"
    own = sum(loan.thread == threading.get_ident() for loan in mine)
    if own:
        text += (
            f"; {own} of them in the very thread that asks for one more: inside of a with block, "
            "use its connection"
        )
    return text


def refusal(
    loans: Collection[Loan], share: Share | None, taken: str, places: int, pool: str
) -> str:
    """Return the sentence for whoever finds no connection free.

    Args:
        loans: what is lent.
        share: of whom it was asked, None for the whole pool.
        taken: who has all that the share may have; "" where the pool itself is lent out.
        places: how many connections the pool has.
        pool: its name.
    """
    if share is not None and taken:
        return (
            f"{describe(taken, loans)}; that is all of the {share.places} database "
            f"connections that it may hold at once: {share.advice}"
        )
    holders = sorted({loan.holder for loan in loans})
    shown = ", and ".join(describe(holder, loans) for holder in holders)
    return f"all {places} connections of {pool} are lent: {shown}; try again in a moment"
