"""Workers that accept no more and end their last requests: how long they may take to."""

import logging
import signal
import time
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

LEAVE_SECONDS = 30.0
"""How long a worker whose time is over may still clean up, before it is killed."""


@dataclass(slots=True)
class _Drain:
    """Since when a worker drains, and until when it may."""

    began: float
    until: float
    cut: bool = False


class Drains:
    """The workers of a master that were told to end; each bears its drain with it."""

    def __init__(self, round_seconds: float) -> None:
        """Make it.

        Args:
            round_seconds: how long a worker may drain that a fresh one replaces.
        """
        self._round_seconds = round_seconds

    def lengthen(self, worker: Any) -> None:
        """Let a worker drain as long as one may that is replaced; before it is told to end."""
        worker.activity.drain_seconds = int(self._round_seconds)

    def begin(self, worker: Any, seconds: float) -> None:
        """Note that a worker is told to end.

        Args:
            worker: which one.
            seconds: how long it may take where nothing lets it take longer.
        """
        if self.began(worker):
            return
        now = time.monotonic()
        activity = getattr(worker, "activity", None)
        longer = 0 if activity is None else activity.drain_seconds
        worker.drain = _Drain(now, now + (longer or seconds))

    def began(self, worker: Any) -> bool:
        """Tell whether a worker was told to end."""
        return getattr(worker, "drain", None) is not None

    def look(self, master: Any) -> None:
        """Say of whom the time is over, and end those whom that does not end."""
        now = time.monotonic()
        for pid, worker in list(master.WORKERS.items()):
            drain: _Drain | None = getattr(worker, "drain", None)
            if drain is None or now < drain.until:
                continue
            activity = getattr(worker, "activity", None)
            doing = [] if activity is None else activity.names()
            if not drain.cut:
                drain.cut = True
                if doing:
                    log.error(
                        "Worker (pid:%s) is cut off: after %.0f s it still answers: %s",
                        pid,
                        now - drain.began,
                        "; ".join(doing),
                    )
            elif now >= drain.until + LEAVE_SECONDS:
                master.kill_worker(pid, signal.SIGKILL)
