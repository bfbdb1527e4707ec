"""A worker looks at itself, about once a second, in its main thread, where no plugin runs."""

import logging
import os
import signal

from app.manager import PluginManager
from app.workers.children import Foundlings

log = logging.getLogger(__name__)


class SelfWatch:
    """Ends a worker that lacks a thread of its own, and reaps what the kernel has given it.

    Without its reconciler a worker serves old versions and says that they are current, and so on
    with each of its threads. None of them ends because the database is away. `look` is for one
    thread, which is none of those.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._foundlings = Foundlings()
        self._ends = False

    def look(self) -> None:
        """Look once."""
        self._foundlings.look()
        ended = self._manager.ended_threads()
        if ended and not self._ends:
            self._ends = True
            log.error(
                "of this worker's own threads %s ended; it takes no more connections, ends its "
                "requests, and another worker takes its place",
                ", ".join(ended),
            )
            os.kill(os.getpid(), signal.SIGTERM)  # gunicorn's graceful end
