"""Looks which process runs the exclusive plugins, and takes over what nobody runs any more."""

import logging
import time
from collections.abc import Callable

from app.conditions import Conditions
from app.errors import PluginError
from app.serving.exclusive.seat import Seat
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often it is looked whether a lock is free, or lost; a request that finds nobody looks too."""

PAUSE_SECONDS = 0.02
"""The least time between two looks."""


class LockWatch(OwnThread):
    """The thread `benana-exclusive`; there is none as long as no plugin is exclusive."""

    def __init__(
        self,
        seats: Callable[[], list[Seat]],
        conditions: Conditions,
        again: Callable[[str], None],
        look_for_hung: Callable[[Seat], None],
    ) -> None:
        """Make it.

        Args:
            seats: returns what is to be looked at.
            conditions: where it is held that a plugin runs on another host.
            again: has the reconciler look at a plugin anew, also if it failed; returns at once.
            look_for_hung: looks whether the load of a plugin hangs here.
        """
        super().__init__("benana-exclusive")
        self._seats = seats
        self._conditions = conditions
        self._again = again
        self._look_for_hung = look_for_hung
        self._look_now = False

    def start_once(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self.start()

    def look_soon(self) -> None:
        """Have the thread look; returns at once."""
        if not self._look_now:
            with self._wake:
                self._look_now = True
                self._wake.notify_all()

    def _run(self) -> None:
        while not self._stopped:
            self._look_now = False
            for seat in self._seats():
                self._look(seat)
            until = time.monotonic() + LOOK_SECONDS
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, PAUSE_SECONDS)
                self._wake.wait_for(
                    lambda: self._stopped or self._look_now, max(0.0, until - time.monotonic())
                )

    def _look(self, seat: Seat) -> None:
        key = f"exclusive:{seat.name}"
        try:
            if seat.look():
                self._again(seat.name)
            self._look_for_hung(seat)
            word = seat.elsewhere
        except PluginError as error:
            self._conditions.hold(key, error.message, seat.name)
        except Exception:
            # A fault of ours must not end the thread: nothing would be taken over.
            log.exception("%s: looking who runs it failed", seat.name)
        else:
            if word is None:
                self._conditions.clear(key)
            else:
                self._conditions.hold(
                    key,
                    f"it runs on the host {word.host} (pid {word.pid}), and on no other: requests "
                    "for it that come to this host are answered with 503",
                    seat.name,
                )
