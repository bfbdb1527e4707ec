"""What wakes the master: a pipe, because workers of another user may not signal it."""

import os
import select
from contextlib import suppress


class Bell:
    """Wakes a process that waits for it; made before the fork, so that its children can ring it.

    It carries nothing: whoever is woken looks at what there is to do.
    """

    def __init__(self) -> None:
        self._ear, self._rope = os.pipe()
        for end in (self._ear, self._rope):
            os.set_blocking(end, False)

    def ring(self) -> None:
        """Wake whoever waits; in a signal handler, too."""
        with suppress(OSError):  # full of rings that nobody has heard yet, or closed at the end
            os.write(self._rope, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until somebody rings, `seconds` at most."""
        if select.select([self._ear], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._ear, 65536)
