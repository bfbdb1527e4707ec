"""Which folders may be looked at at the same time: one that hangs must not hold up the others."""

PLACES = 4
"""How many quick looks may be under way at once."""

SLOW_PLACES = 3
"""How many of the folders that hung last time may be looked at at once."""

SLOW_SECONDS = 0.5
"""A look that takes longer gives its place to another one, and its folder counts as hanging."""


class Places:
    """Counts the looks under way; all times are in monotonic seconds, all calls under one lock.

    A look that turns slow goes on, beside the places. So a folder that did not hang last time
    finds a place at once, and one that hangs for the first time keeps one for half a second.
    """

    def __init__(self) -> None:
        self._running: dict[str, float] = {}
        self._hung: set[str] = set()

    def hung(self, folder: str) -> bool:
        """Tell whether the last look at a folder was slow."""
        return folder in self._hung

    def may_begin(self, *, hung: bool, now: float) -> bool:
        """Tell whether a look may begin, at a folder that hung last time or at another one."""
        slow = self.count_slow(now)
        if hung:
            return slow < SLOW_PLACES
        # With many that are slow one place is left, for `SLOW_SECONDS` each.
        return len(self._running) - slow < (PLACES if slow < PLACES else 1)

    def begin(self, folder: str, now: float) -> None:
        """Note that a look begins."""
        self._running[folder] = now

    def end(self, folder: str, now: float, *, tried: bool) -> None:
        """Note that a look has ended; one that tried nothing says nothing of the folder."""
        if now - self._running.pop(folder) > SLOW_SECONDS:
            self._hung.add(folder)
        elif tried:
            self._hung.discard(folder)

    def forget(self, folder: str) -> None:
        """Forget a folder that is gone."""
        self._hung.discard(folder)

    def count_slow(self, now: float) -> int:
        """Return how many of the looks under way are slow."""
        return sum(self._is_slow(*look, now) for look in self._running.items())

    def next_slow(self, now: float) -> float | None:
        """Return when the next look turns slow if it does not end, None if none can."""
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
