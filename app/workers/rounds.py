"""Fresh workers in the place of those that ask for it: who is started, and who may drain, when.

A worker asks when it is to serve what it cannot load any more, because it has loaded an earlier
generation of it. A round replaces all that ask: one worker boots at a time, and only when it serves
does one of the others stop accepting. So a round that fails, or whose conductor knows nothing of
how it began, leaves as many workers as there should be: it follows from what is there alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that lives.

    `age` is a number that grows with each start; `asks` whether it is to be replaced, `in_the_way`
    even before another one serves; `drains` whether it was told to stop accepting.
    """

    pid: int
    age: float
    serving: bool
    asks: bool
    drains: bool
    in_the_way: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now: how many workers are started, and which stop accepting."""

    start: int = 0
    relief: bool = False
    """Whether what is started takes the place of one that serves."""
    retire: tuple[Member, ...] = ()


@dataclass(slots=True)
class _Round:
    """A round: what it replaces are the workers up to an age, and since when it runs."""

    age: float
    since: float
    replaced: int = 0


class Rounds:
    """Plans which workers of a master come and go; whenever something has changed, ask `plan`."""

    def __init__(self, max_draining: int | None = None) -> None:
        """Make it.

        Args:
            max_draining: how many workers may drain, all rounds together; None for as many as
                there should be workers: then a round waits for the drains of the one before.
        """
        self._max_draining = max_draining
        self._round: _Round | None = None
        self.waits_for = 0
        """How many draining workers the next round waits for; 0 if none waits."""

    def plan(
        self, workers: Sequence[Member], wanted: int, now: float, *, may_start: bool = True
    ) -> Plan:
        """Return what is to be done.

        Args:
            workers: all that live, draining or not.
            wanted: how many are to accept.
            now: the moment, in monotonic seconds.
            may_start: whether one may be started in a round now; not just after one that ended
                before it served.
        """
        active = sorted((w for w in workers if not w.drains), key=lambda w: w.age)
        asking = [worker for worker in active if worker.asks]
        serving = [worker for worker in active if worker.serving]
        in_the_way = [worker for worker in serving if worker.in_the_way]
        if in_the_way and len(in_the_way) < len(serving):
            return Plan(retire=tuple(in_the_way))
        self._end(asking, now)
        # What boots in a round takes nobody's place before it serves.
        surplus = len(serving if asking else active) - wanted
        if surplus > 0:
            leaving = tuple(sorted(active, key=lambda w: (not w.asks, w.age))[:surplus])
            if self._round is not None:
                self._round.replaced += sum(worker.asks for worker in leaving)
            return Plan(retire=leaving)
        if len(active) < wanted:
            return Plan(start=wanted - len(active))
        if not asking or not may_start or len(serving) < len(active) or len(active) > wanted:
            return Plan()
        if self._round is None and not self._begin(workers, active, now):
            return Plan()
        return Plan(start=1, relief=True)

    def _begin(self, workers: Sequence[Member], active: Sequence[Member], now: float) -> bool:
        """Begin a round, unless too many workers drain still."""
        draining = len(workers) - len(active)
        limit = max(self._max_draining or 0, len(active))
        waits_for = draining if draining + len(active) > limit else 0
        if waits_for and not self.waits_for:
            log.warning(
                "fresh workers are asked for; that round waits for the %d that drain still of the "
                "one before (BENANA_ROUND_DRAINING lets more drain at once)",
                waits_for,
            )
        self.waits_for = waits_for
        if waits_for:
            return False
        self._round = _Round(active[-1].age, now)
        log.info("Fresh workers: a round begins, %d are to be replaced", len(active))
        return True

    def _end(self, asking: Sequence[Member], now: float) -> None:
        """End the round once nobody asks that was there when it began."""
        if not asking:
            self.waits_for = 0
        if self._round is None or any(worker.age <= self._round.age for worker in asking):
            return
        log.info(
            "Fresh workers: the round is over, %d replaced in %.1f s",
            self._round.replaced,
            now - self._round.since,
        )
        self._round = None
