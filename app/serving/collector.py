"""Garbage collections whose pauses do not grow with the number of plugins.

A collection looks at every object and holds the GIL: 1 ms with 10 plugins loaded, 14 ms with 100,
190 ms with 400, 4 s with 10,000. What stays loaded is therefore frozen (`gc.freeze`), and a
collection sees only what came since. The price: a generation that was frozen and is retired later
comes back to memory only with a thorough collection, and those are rationed.
"""

import gc
import time

from app.loading import garbage
from app.package.finder import generations_alive

_PAUSE = "after a cleanup"

FREEZE_SECONDS = 0.005
"""After a collection that took longer, what it looked at is frozen."""

TAKEN_OVER_SECONDS = 1.0
"""How long Python may be kept from collecting by itself, where nothing is collected meanwhile."""

UNURGENT_SECONDS = 0.75
"""How long collections are apart that pass by what waits, because it is frozen."""

SETTLE_SECONDS = 0.1
"""How long after a cleanup its generation is told of at the latest."""

SHARE = 20
THOROUGH_SHARE = 500
"""Collections may take one part in so many of the time. Thorough ones are pauses that requests
feel: with one part in a hundred they would be their 99th percentile."""

WAITING_SHARE = 8
MANY_WAITING = 500
"""A thorough collection waits until one generation in so many waits for it, or so many of them do:
some 100 MB."""


class Collector:
    """Collects when asked to, unless it is too early for it; for one thread."""

    def __init__(self) -> None:
        self._next = 0.0
        self._next_unurgent = 0.0
        self._next_thorough = 0.0
        self._frozen_at = 0.0
        self._taken_over_at = 0.0
        self._garbage_at = 0.0

    def take_over(self) -> None:
        """Let nobody else collect for a moment: what is garbage now is to be finalized here.

        Python collects in whichever thread happens to make many objects, as the one that loads
        another plugin. By any thread.
        """
        self._garbage_at = time.monotonic()
        if not self.taken_over and garbage.is_on():
            self._taken_over_at = self._garbage_at
            garbage.pause(_PAUSE)

    @property
    def taken_over(self) -> bool:
        """Whether Python does not collect by itself now."""
        return self._taken_over_at > 0.0

    def hand_back(self, *, waiting: bool) -> None:
        """Let Python collect by itself again, once it is time.

        Args:
            waiting: whether what is known of waits for a collection; it is waited for.
        """
        now = time.monotonic()
        settled = not waiting and now >= self._garbage_at + SETTLE_SECONDS
        if self.taken_over and (settled or now >= self._taken_over_at + TAKEN_OVER_SECONDS):
            self.give_back()

    def give_back(self) -> None:
        """Let Python collect by itself again, now."""
        if self.taken_over:
            self._taken_over_at = 0.0
            garbage.resume(_PAUSE)

    def freeze(self) -> None:
        """Keep everything that is here now out of the collections to come."""
        gc.freeze()
        self._frozen_at = time.monotonic()

    def passes_by(self, since: float) -> bool:
        """Tell whether only a thorough collection sees what is in memory since a moment."""
        return since < self._frozen_at

    def put_off(self, seconds: float) -> None:
        """Let the next collection wait, at least so long."""
        self._next = max(self._next, time.monotonic() + seconds)

    def collect(self, *, urgent: bool = True) -> bool:
        """Collect what came since the last freeze; return whether it was time for it.

        Args:
            urgent: whether something waits that is not frozen.
        """
        if time.monotonic() < (self._next if urgent else max(self._next, self._next_unurgent)):
            return False
        began = time.thread_time()
        garbage.collect()
        self._end(began)
        return True

    def collect_thoroughly(self, waiting: int) -> bool:
        """Collect everything, frozen or not; return whether it was time for it.

        Args:
            waiting: how many generations wait for it.
        """
        if time.monotonic() < max(self._next, self._next_thorough):
            return False
        if waiting < min(MANY_WAITING, generations_alive() // WAITING_SHARE):
            return False
        began = time.thread_time()
        gc.unfreeze()
        garbage.collect()
        took = self._end(began)
        self._next_thorough = time.monotonic() + THOROUGH_SHARE * took
        return True

    def _end(self, began: float) -> float:
        # The processor's time: on a busy machine the clock says nothing of what was looked at.
        took = time.thread_time() - began
        if took > FREEZE_SECONDS:
            self.freeze()
        now = time.monotonic()
        self._next, self._next_unurgent = now + SHARE * took, now + UNURGENT_SECONDS
        return took
