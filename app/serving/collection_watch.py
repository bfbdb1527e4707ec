"""Sees that garbage collections end.

A collection runs the finalizers of what it finds, in the thread that happens to collect. While one
of them does not return, no other collection can run in the process, and all garbage stays.
"""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from app.conditions import Conditions
from app.package.frames import innermost_plugin_frame
from app.threads import OwnThread

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
HANG_SECONDS = 5.0
"""How long finalizers may hold up a collection before the process is replaced."""

_CONDITION = "collecting"


class CollectionWatch(OwnThread):
    """Has the process replaced whose collection does not end, and names whose finalizer it is.

    The thread `benana-finalizers` makes next to nothing that is collected, so that it is hardly
    ever the one who collects; and what it reads is written without a lock. As long as a collection
    only looks at objects it holds the GIL, so a look that sees one under way sees finalizers at
    work.
    """

    def __init__(
        self,
        conditions: Conditions,
        *,
        look_seconds: float = LOOK_SECONDS,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        """Make it.

        Args:
            conditions: where it holds that a collection does not end.
            look_seconds: the time between two looks.
            hang_seconds: how long a collection may be seen under way.
        """
        super().__init__("benana-finalizers")
        self._conditions = conditions
        self._look_seconds = look_seconds
        self._hang_seconds = hang_seconds
        self._replace: Callable[[], None] | None = None
        self._under_way: tuple[int, int] | None = None
        """The thread that collects now, and the `id` of the frame in which it came to."""
        self._told = False
        self._callback = self._note

    def replace_process(self, replace: Callable[[], None]) -> None:
        """Call `replace` once a collection does not end."""
        self._replace = replace

    @property
    def hangs(self) -> bool:
        """Whether a collection is under way that does not end."""
        return self._told and self._under_way is not None

    def start(self) -> None:
        """Start the thread."""
        gc.callbacks.append(self._callback)
        super().start()

    def end(self) -> None:
        """Tell the thread to end; do not wait for it."""
        # By identity: a plugin may have put an object there that says itself what is equal to it.
        gc.callbacks[:] = [each for each in gc.callbacks if each is not self._callback]
        super().end()

    def _note(self, phase: str, _: dict[str, int]) -> None:
        # In the thread that collects, at every collection of the process.
        if phase == "start":
            # Nobody calls where C code collects without a Python frame, as at the end of a thread.
            self._under_way = (threading.get_ident(), id(sys._getframe().f_back))
        else:
            self._under_way = None

    def _run(self) -> None:
        seen: tuple[int, int] | None = None
        since = 0.0
        while not self._stopped:
            under_way = self._under_way
            if under_way is None or under_way is not seen:
                seen, since = under_way, time.monotonic()
                if self._told:
                    self._told = False
                    self._conditions.clear(_CONDITION)
            elif not self._told and time.monotonic() - since >= self._hang_seconds:
                self._told = True
                self._tell(under_way)
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, self._look_seconds)

    def _tell(self, under_way: tuple[int, int]) -> None:
        try:
            plugin, what = _culprit(*under_way)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not keep the process
            plugin, what = None, f"a finalizer that cannot be found ({error!r})"
        what = (
            f"{what} has held up the collection of memory for {self._hang_seconds:g} s, and no "
            "other can run meanwhile: __del__ and callbacks of weak references have to return at "
            "once"
        )
        # First of all: whoever collects may hold the lock of the log, too.
        if self._replace is not None:
            self._replace()
        self._conditions.hold(_CONDITION, what, plugin)
        log.error(
            "%s%s%s",
            f"{plugin}: " if plugin else "",
            what,
            "; replacing this worker" if self._replace is not None else "",
        )


def _culprit(thread: int, within: int) -> tuple[str | None, str]:
    """Return whose finalizer runs in a collection, and where, as far as it can be told.

    Args:
        thread: the thread that collects.
        within: the `id` of the frame in which it came to.
    """
    frame: Any = sys._current_frames().get(thread)
    found = innermost_plugin_frame(frame, within)
    if found is not None:
        return found.plugin, f"a finalizer ({found.place})"
    if frame is None or id(frame) == within:
        return None, "a finalizer written in C"
    return None, f"a finalizer ({frame.f_code.co_filename}:{frame.f_lineno})"
