"""A process that is in the way of an exclusive plugin: a fresh one takes its place."""

import logging
import os
import time
from pathlib import Path

from app.errors import LoadError, PluginError
from app.records import ServedRow
from app.serving.exclusive.seat import Seat
from app.serving.failed_loads import FailedLoads
from app.serving.fresh_processes import Replace
from app.serving.hung_loads import places_of_loads

log = logging.getLogger(__name__)

HANG_SECONDS = 30.0
"""How long a load may take: a trial has 20 s for it."""


_HELD_HERE = (
    "; that is the worker itself, in which an earlier generation has not let go of it: let its "
    "cleanup do so; a fresh worker takes this one's place, and another one runs it then"
)


class GivingWay:
    """Asks for a fresh process where this one holds what the next generation of a plugin needs.

    As a port that an earlier generation has left bound; or where a load hangs, which cannot be
    ended: what was to be loaded is noted as failed then, and the version before is loaded, unless
    something newer is wanted by then. Nothing is done where nobody can be asked for a process.
    """

    def __init__(self, artifacts_dir: Path, wait_seconds: float) -> None:
        """Make it.

        Args:
            artifacts_dir: what the processes of a host have in common.
            wait_seconds: how long requests wait for such a plugin.
        """
        self._failed = FailedLoads(artifacts_dir)
        self._wait_seconds = wait_seconds
        self._told: set[ServedRow] = set()
        self._replace: Replace | None = None
        self.began = False
        """Whether a fresh process was asked for."""

    def ask_by(self, replace: Replace) -> None:
        """Ask by this for another process in the place of this one, which is to end at once."""
        self._replace = replace

    def failed(self, seat: Seat, row: ServedRow, error: PluginError) -> bool:
        """Tell whether this process is why a row could not be loaded, and gives way."""
        if self._replace is None or not seat.has_run or error.holder != os.getpid():
            return False
        error.message += _HELD_HERE
        self._begin(seat, row, error)
        return True

    def _begin(self, seat: Seat, row: ServedRow, error: PluginError) -> None:
        assert self._replace is not None  # noqa: S101 - for the type checker
        self.began = True
        seat.failed(row, error, comes=True, here=False)
        self._replace(at_once=True)

    def look(self, seat: Seat) -> None:
        """Look whether the load of a plugin hangs here, and give it away; for one thread."""
        under_way = seat.hand_over.under_way
        if under_way is None or self._replace is None or not seat.owns:
            return
        row, since = under_way
        seconds, is_wanted = time.monotonic() - since, seat.wanted == row
        if row in self._told or seconds < (HANG_SECONDS if is_wanted else self._wait_seconds):
            return
        self._told.add(row)
        error = LoadError(
            row.name,
            f"loading generation {row.generation} has not returned for {seconds:.0f} s"
            f"{places_of_loads(row.name)}: bound what it waits for; a fresh worker takes this "
            "one's place",
        )
        log.error("%s", error)
        if is_wanted:
            self._failed.note(row, error)
        self._begin(seat, row, error)
