"""A thread of the server's own: named, a daemon, and stopped at once."""

import logging
import threading
from abc import ABC, abstractmethod

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0


class OwnThread(ABC):
    """One thread and the condition that wakes it; what it shares is changed under its `_lock`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; in the process that is to run it, because a fork has no threads."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell the thread to end; do not wait for it."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Tell the thread to end, and wait for it `timeout` seconds at most."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("%s did not end within %g s", self._name, timeout)

    @abstractmethod
    def _run(self) -> None:
        """Work until `_stopped`."""
