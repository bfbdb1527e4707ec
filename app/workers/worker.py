"""The gunicorn worker: gunicorn's own with threads, which takes no request without its master."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.activity import Activity
from app.processes import PR_SET_PDEATHSIG, process_option

FORWARDED_THREADS = 128
"""How many of the threads that answer what other workers pass on show what they do."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker that shares with its master what it does, and ends with it.

    gunicorn's own keeps the listening sockets open until its last request has ended: a killed
    master's port stays taken meanwhile, and connections go to who does not accept any more.
    """

    def __init__(self, *arguments: Any) -> None:
        """Make it: in the master, before the fork."""
        super().__init__(*arguments)
        self.activity = Activity(self.cfg.threads + FORWARDED_THREADS)
        self.activity.crew = self.cfg.workers  # the master corrects it, after TTIN and TTOU
        self.on_drain: Callable[[], None] = lambda: None
        """Called when no more connections are taken, and the last requests run on."""

    def init_signals(self) -> None:
        """Handle signals as gunicorn does, and ask for SIGTERM when the master ends.

        On Linux (prctl(2)); elsewhere gunicorn's loop sees it within a second. A change of user
        clears the wish: this runs after it.
        """
        super().init_signals()
        if sys.platform == "linux":
            process_option(PR_SET_PDEATHSIG, signal.SIGTERM)()
            if self._is_orphan():
                sys.exit(0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop; at once, where there is neither a master nor a request yet."""
        super().handle_exit(sig, frame)
        if self._is_orphan() and not self.booted:
            sys.exit(0)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take connections or not; without a master, close the listening sockets."""
        super().set_accept_enabled(enabled)
        if not (enabled or self.alive):
            self.on_drain()
        if not enabled and self._is_orphan():
            for listener in self.sockets:
                listener.close()

    def _is_orphan(self) -> bool:
        return bool(os.getppid() != self.ppid)
