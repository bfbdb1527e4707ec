"""Threads of the server's own: named, daemons, and stopped at once. There is no other way here."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0


def start_thread(name: str, work: Callable[..., object], *args: object) -> threading.Thread:
    """Start a thread; it does not keep the process from ending.

    Args:
        name: its name, as a person sees it who looks at the process.
        work: what it runs.
        args: the arguments of `work`.

    Raises:
        RuntimeError: the system has no thread left.
    """
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    thread.start()
    return thread


def name_of_ended(thread: threading.Thread | None, *, told: bool) -> str | None:
    """Return the name of a thread that has ended though nobody `told` it to, else None."""
    return None if thread is None or told or thread.is_alive() else thread.name


class OwnThread(ABC):
    """A thread that lives as long as its server, and the condition that wakes it.

    A subclass says in `_run` what it does; what others change too it reads and writes under
    `_lock`, and it waits with `_wake`. Call `start` in the process that is to run it, and `stop`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; in the process that is to run it, because a fork has no threads."""
        self._thread = start_thread(self._name, self._run)

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

    @property
    def ended_thread(self) -> str | None:
        """The thread's name, if it has ended though nobody told it to."""
        return name_of_ended(self._thread, told=self._stopped)

    @abstractmethod
    def _run(self) -> None:
        """Work until `_stopped`."""
