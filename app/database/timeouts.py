"""How long the server's own transactions may wait and take, and how long its listener waits."""

from dataclasses import dataclass
from typing import Literal

from app.database.connection import CONNECT_SECONDS
from app.settings import Settings

Pace = Literal["brief", "normal", "bulk"]
"""What a transaction does: change a row, read or write many, or move an archive."""

BRIEF_SECONDS = 0.5
"""How much longer than one wait for a lock a brief statement may take: for a row it waits twice,
for its turn and then for the holder."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a statement of the server's own may wait for a lock, and how long it may take.

    They are set inside of each transaction, together with its first statement: that costs no round
    trip, and a pooler neither refuses them, as in the startup packet, nor hands them to others.
    """

    lock_seconds: float = Settings.lock_seconds
    statement_seconds: float = Settings.statement_seconds
    """A transaction that is left idle for so long is ended, too."""

    def seconds(self, pace: Pace = "normal") -> float | None:
        """Return how long a statement may take, None for as long as it likes."""
        if pace == "bulk":
            return None  # PostgreSQL counts the time on a slow link, too
        if pace == "brief":
            return min(self.statement_seconds, self.lock_seconds + BRIEF_SECONDS)
        return self.statement_seconds

    def bounds(self, pace: Pace = "normal") -> str:
        """Return what sets them for a transaction."""
        statement = self.seconds(pace) or 0
        idle = 0 if pace == "bulk" else self.statement_seconds
        return (
            f"SET LOCAL lock_timeout = {int(self.lock_seconds * 1000)};"
            f" SET LOCAL statement_timeout = {int(statement * 1000)};"
            f" SET LOCAL idle_in_transaction_session_timeout = {int(idle * 1000)}; "
        )


def plugin_bounds(seconds: float) -> dict[str, str]:
    """Return what bounds the statements of a plugin's session; a transaction may lift it."""
    return {"statement_timeout": str(int(seconds * 1000))}


@dataclass(frozen=True, slots=True)
class ListenerTimes:
    """How long a listener waits; all in seconds.

    `max_backoff` is short, because everything must be right within 2 s of the database's return.
    Where LISTEN does not work, everything is compared every `poll` seconds, `poll_rounds` times,
    before LISTEN is tried again.
    """

    connect: float = CONNECT_SECONDS
    max_backoff: float = 1.5
    poll: float = 1.0
    poll_rounds: int = 60
