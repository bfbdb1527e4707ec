"""What the log says of a process that is not as it should be: turns, and not each reason."""

import logging
import math
from collections.abc import Sequence

from app.conditions import Condition

log = logging.getLogger(__name__)

TURN_SECONDS = 2.0
"""What lasts so long is said in the log: less is an edit under way, or a round of workers."""

JOIN_SECONDS = 10.0
"""How long after a line of a turn its next one comes at the earliest: what has one cause does not
come all at once."""

NAMED = 4
"""How many reasons a line names."""

_NOTHING_SERVED = "nothing of what is registered is served"


class Turns:
    """Tells of the turns of one process; `look` is called whenever something may have changed.

    A turn is said once a reason has lasted for TURN_SECONDS: in one line, with all reasons that are
    held then. What joins later is said once it has lasted as long, and in one more line for all of
    it, but only where it is of another kind than what is held already (that one more plugin cannot
    be loaded is the load's own line), and JOIN_SECONDS after the line before. That nothing is
    served any more is said as soon as it has lasted, and so is its end. One line says that all is
    over.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        """Since when each reason is held, by key, in monotonic seconds."""
        self._named: set[str] = set()
        """The kinds of reasons that are held and that a line has named; empty without a turn."""
        self._began = 0.0
        self._said_at = -math.inf

    def look(self, status: str, serves: bool, reasons: Sequence[Condition], now: float) -> float:
        """Say what has come to be said.

        Args:
            status: what the process is by all that is known.
            serves: whether it is to be asked at all.
            reasons: what this process is to say, the oldest first.
            now: the moment, in monotonic seconds.

        Returns:
            When to look again at the latest, in monotonic seconds; inf: when something changes.
        """
        kinds = {reason.key: _kind(reason) for reason in reasons}
        if not serves:
            kinds[_NOTHING_SERVED] = _NOTHING_SERVED
        self._since = {key: self._since.get(key, now) for key in kinds}
        if not kinds:
            self._end(status, now)
            return math.inf
        if serves and _NOTHING_SERVED in self._named:
            log.warning("%s, and not unavailable any more: %s", status, _listed(reasons))
        self._named &= set(kinds.values())
        due = dict.fromkeys({*kinds.values()} - self._named, math.inf)
        for key, kind in kinds.items():
            if kind in due:
                due[kind] = min(due[kind], self._since[key] + TURN_SECONDS)
        join_at = self._said_at + JOIN_SECONDS if self._began else -math.inf
        due = {k: at if k == _NOTHING_SERVED else max(at, join_at) for k, at in due.items()}
        if not any(at <= now for at in due.values()):
            return min(due.values(), default=math.inf)
        self._say(status, serves, [r for r in reasons if _kind(r) not in self._named])
        self._named = set(kinds.values())
        self._began = self._began or min(self._since.values())
        self._said_at = now
        return math.inf

    def _say(self, status: str, serves: bool, reasons: Sequence[Condition]) -> None:
        what = [] if serves else [_NOTHING_SERVED]
        what += [_listed(reasons)] if reasons else []
        since = f" since {reasons[0].since:%Y-%m-%d %H:%M:%S %Z}" if reasons else ""
        log.warning("%s%s%s: %s", status, " also" if self._began else "", since, ": ".join(what))

    def _end(self, status: str, now: float) -> None:
        if self._began:
            log.info("over after %.0f s: this process is %s", now - self._began, status)
        self._named, self._began = set(), 0.0


def _kind(reason: Condition) -> str:
    """Return what a reason has in common with those of other plugins."""
    return reason.key if reason.plugin is None else reason.key.removesuffix(reason.plugin)


def _listed(reasons: Sequence[Condition]) -> str:
    """Return reasons in one line: of each kind one, and then others, as far as there is room."""
    if len(reasons) == 1:
        return str(reasons[0])
    firsts = {_kind(reason): reason for reason in reversed(reasons)}
    chosen = {reason.key for reason in firsts.values()}
    ordered = sorted(reasons, key=lambda reason: reason.key not in chosen)
    named = " ".join(f"({n}) {reason}" for n, reason in enumerate(ordered[:NAMED], 1))
    more = len(reasons) - NAMED
    return f"{len(reasons)} reasons: {named}" + (f" and {more} more" if more > 0 else "")
