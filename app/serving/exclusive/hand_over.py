"""The loads of an exclusive plugin in one process: each one after the end of the one before."""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from app.errors import LoadError
from app.isolation.board import Board
from app.loading.loader import LoadedPlugin
from app.records import ServedRow
from app.serving.exclusive.door import LOOK_SECONDS

log = logging.getLogger(__name__)

DRAIN_SHARE = 0.4
"""The part of a hand-over's time that the requests of the old generation may take."""

FREE_SHARE = 0.4
"""The part that a new generation may wait for what others have to let go of."""


class HandOver:
    """Loads generations of a plugin for the loader's thread, and knows those that still leave.

    What was loaded belongs to nobody until the reconciler has taken it (`claim`): it may want
    another one by then. Such a one is cleaned up before the next is loaded, or by `give_up`.
    """

    def __init__(self, name: str, board: Board, wait_seconds: float) -> None:
        self._name = name
        self._board = board
        self._wait_seconds = wait_seconds
        self.turn = threading.Lock()
        """Held by the thread that loads."""
        self._lock = threading.Lock()
        self._leaving: list[threading.Event] = []
        self._unclaimed: LoadedPlugin | None = None
        self.under_way: tuple[ServedRow, float] | None = None
        """What is being loaded now, and since when in monotonic seconds."""

    def leave(self, ends: Iterable[threading.Event]) -> None:
        """Note generations that ran here and are being cleaned up; each sets its event."""
        with self._lock:
            self._leaving += ends

    def has_left(self) -> bool:
        """Tell whether all that ran here has been cleaned up."""
        with self._lock:
            self._leaving = [end for end in self._leaving if not end.is_set()]
            return not self._leaving

    def claim(self, plugin: object) -> None:
        """Note that the reconciler has what was loaded: it retires it one day."""
        with self._lock:
            if self._unclaimed is plugin:
                self._unclaimed = None

    def give_up(self, plugin: object) -> bool:
        """Clean up what was loaded and is not wanted; tell whether nothing is left to do for it."""
        with self._lock:
            if self._unclaimed is not plugin:  # it is no plugin, or cleaned up by now, or served
                return not isinstance(plugin, LoadedPlugin) or plugin.context.cancelled.is_set()
        self.drop_unclaimed()
        return True

    def drop_unclaimed(self) -> None:
        """Clean up what was loaded for nobody, and no table has had."""
        with self._lock:
            plugin, self._unclaimed = self._unclaimed, None
        if plugin is not None:
            plugin.dispose()

    def load(
        self,
        row: ServedRow,
        load: Callable[[ServedRow], LoadedPlugin],
        is_wanted: Callable[[], bool],
    ) -> LoadedPlugin:
        """Load a row, once the generation before it has stopped.

        Args:
            row: what to load.
            load: loads it, as for any plugin.
            is_wanted: tells whether it is still that row which is wanted.

        Raises:
            PluginError: it cannot be loaded.
        """
        self._wait_for_former()
        deadline = time.monotonic() + FREE_SHARE * self._wait_seconds
        while True:
            self.under_way = row, time.monotonic()
            try:
                plugin = load(row)
                break
            except LoadError as error:
                gc.collect()  # what it has opened before it failed is closed with it
                # What is in use may be let go of in a moment, by a process that stops.
                if not error.is_held or time.monotonic() > deadline or not is_wanted():
                    raise
            finally:
                self.under_way = None
            time.sleep(LOOK_SECONDS)
        for route in plugin.routes:
            route.run_alone()
        with self._lock:
            self._unclaimed = plugin
        return plugin

    def _wait_for_former(self) -> None:
        """Wait until the one before has stopped, here and in another process of this host."""
        deadline = time.monotonic() + self._wait_seconds
        while (left := deadline - time.monotonic()) > 0:
            word = self._board.read()
            elsewhere = word is not None and word.here and word.pid != os.getpid()
            if not elsewhere and self.has_left():
                return
            with self._lock:
                leaving = next(iter(self._leaving), None)
            if leaving is None:
                time.sleep(LOOK_SECONDS)
            else:
                leaving.wait(min(LOOK_SECONDS, left))
        log.warning(
            "%s: the generation before did not stop within %g s; the next one is loaded anyway",
            self._name,
            self._wait_seconds,
        )
        with self._lock:
            self._leaving.clear()
