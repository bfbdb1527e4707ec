"""How long a transaction of the server's own may wait, and how long it may take."""

from dataclasses import dataclass
from typing import Literal

from app.settings import Settings

Pace = Literal["brief", "normal", "bulk"]
"""What a transaction does: change a row, read or write many, or move an archive."""

BRIEF_SECONDS = 0.5
"""What a brief statement may take beside one wait for a lock: a row's is waited for twice, first
for a turn and then for the holder."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a statement of the server's own may wait for a lock, and how long it may take.

    They are set inside of each transaction, together with its first statement: that costs no round
    trip, and a pooler neither refuses them, as in the startup packet, nor hands them to others.
    """

    lock_seconds: float = Settings.lock_seconds
    statement_seconds: float = Settings.statement_seconds
    """A transaction that is left idle for so long is ended, too."""

    def bounds(self, pace: Pace = "normal") -> str:
        """Return what sets them for a transaction."""
        statement = idle = self.statement_seconds
        if pace == "brief":
            statement = min(statement, self.lock_seconds + BRIEF_SECONDS)
        elif pace == "bulk":
            statement = idle = 0  # PostgreSQL counts the time on a slow link, too
        return (
            f"SET LOCAL lock_timeout = {int(self.lock_seconds * 1000)};"
            f" SET LOCAL statement_timeout = {int(statement * 1000)};"
            f" SET LOCAL idle_in_transaction_session_timeout = {int(idle * 1000)}; "
        )


def plugin_bounds(seconds: float) -> dict[str, str]:
    """Return what bounds the statements of a plugin's session; a transaction may lift it."""
    return {"statement_timeout": str(int(seconds * 1000))}
