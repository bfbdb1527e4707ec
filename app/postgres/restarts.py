"""When something that has ended is started again: PostgreSQL, or its supervisor."""

import time

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between two starts of a series
LONG_LIFE = 10.0  # seconds after which an end is the first of a new series


class Restarts:
    """How long to wait before something is started again, and whether to say so.

    Not at all at first, then longer and longer, until something has lived for a while.
    """

    def __init__(
        self,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        long_life: float = LONG_LIFE,
    ) -> None:
        """Begin; all in seconds.

        Args:
            first_pause: what is waited before the second start of a series.
            longest_pause: what is waited at most.
            long_life: after how long an end is the first of a new series.
        """
        self.pause = 0.0  # seconds to wait before the next start
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._long_life = long_life
        self._first = True
        self._started = time.monotonic()

    def started(self) -> None:
        """Note a start."""
        self._started = time.monotonic()

    def ended(self) -> bool:
        """Note an end; return whether it is the first of a series, which deserves a line."""
        first = self._first or time.monotonic() - self._started > self._long_life
        self._first = False
        self.pause = (
            0.0 if first else min(max(self.pause * 2, self._first_pause), self._longest_pause)
        )
        return first
