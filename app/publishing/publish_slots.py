"""How many folders are published at the same time: one that hangs must not hold up the others."""

SLOTS = 4
"""How many quick attempts may be under way at once."""

SLOW_SLOTS = 3
"""How many of the folders that hung last time may be attempted at once."""

SLOW_SECONDS = 0.5
"""An attempt that takes longer gives its slot to another one."""

HUNG_SECONDS = 2.0
"""After an attempt that took longer a folder counts as hanging: less takes a large library, or a
machine that is busy, and what only takes its time is not to wait for what hangs."""


class PublishSlots:
    """Counts the attempts under way; times are monotonic seconds, all calls under one lock.

    An attempt that turns slow goes on, beside the slots. So a folder that did not hang last time
    finds a slot at once, and one that hangs for the first time keeps one for half a second.
    """

    def __init__(self) -> None:
        self._running: dict[str, float] = {}
        self._hung: set[str] = set()

    def hung(self, folder: str) -> bool:
        """Tell whether the last attempt at a folder hung."""
        return folder in self._hung

    def may_begin(self, *, hung: bool, now: float) -> bool:
        """Tell whether an attempt may begin, at a folder that hung last time or at another one."""
        slow = self.count_slow(now)
        if hung:
            return slow < SLOW_SLOTS
        # With many that are slow one slot is left, for `SLOW_SECONDS` each.
        return len(self._running) - slow < (SLOTS if slow < SLOTS else 1)

    def begin(self, folder: str, now: float) -> None:
        """Note that an attempt begins."""
        self._running[folder] = now

    def end(self, folder: str, now: float, *, tried: bool) -> None:
        """Note that an attempt has ended; one that tried nothing says nothing of the folder."""
        if now - self._running.pop(folder) > HUNG_SECONDS:
            self._hung.add(folder)
        elif tried:
            self._hung.discard(folder)

    def forget(self, folder: str) -> None:
        """Forget a folder that is gone."""
        self._hung.discard(folder)

    def count_slow(self, now: float) -> int:
        """Return how many of the attempts under way are slow."""
        return sum(self._is_slow(*attempt, now) for attempt in self._running.items())

    def next_slow(self, now: float) -> float | None:
        """Return when the next attempt turns slow if it does not end, None if none can."""
        return min(
            (
                began + SLOW_SECONDS
                for folder, began in self._running.items()
                if not self._is_slow(folder, began, now)
            ),
            default=None,
        )

    def _is_slow(self, folder: str, began: float, now: float) -> bool:
        return folder in self._hung or now - began > SLOW_SECONDS
