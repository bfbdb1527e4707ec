"""The lock of a plugin that one process of all hosts runs, and who has it."""

import logging
import os
import socket
import time

from app.database.session_lock import SessionLock
from app.database.workers import WorkerRepository
from app.errors import DatabaseError
from app.isolation.board import Word
from app.worker_records import WorkerLoad

log = logging.getLogger(__name__)

SETTLE_SECONDS = 4.0
"""How long a process that has lost the lock is waited for: by then it has noticed, and stopped."""


TRY_SECONDS = 0.5
"""How often the database is asked at most: requests that wait would have it asked all the time."""


class ClusterLock:
    """Held by one process of all hosts; for the process that has the lock of its host.

    The database frees the lock as soon as it takes its holder's connection for dead, and the
    holder may not know that yet. So whoever gets it waits until the one before is gone from the
    list of processes, or says that it does not run the plugin any more, `SETTLE_SECONDS` at most.
    """

    def __init__(self, plugin: str, url: str, workers: WorkerRepository) -> None:
        """Make it; nothing is connected.

        Args:
            plugin: what one process runs.
            url: the database, directly: a pooler gives sessions to others.
            workers: knows which process runs it.
        """
        self._plugin = plugin
        self._lock = SessionLock(url, plugin)
        self._workers = workers
        self._taken_at: float | None = None
        self._next_try_at = 0.0
        self._owner: Word | None = None

    def take(self) -> bool:
        """Take the lock if it is free; return whether this process may run the plugin now."""
        now = time.monotonic()
        if now < self._next_try_at:
            return False
        self._next_try_at = now + TRY_SECONDS
        if not self._lock.take():
            self._taken_at = None
            self._owner = self._find_owner()
            return False
        if self._taken_at is None:
            self._taken_at = now
        if now - self._taken_at < SETTLE_SECONDS:
            try:
                if self._former() is not None:
                    return False
            except DatabaseError:
                return False
        return True

    def is_held(self) -> bool:
        """Return whether this process holds the lock still, as the database's answer shows."""
        return self._lock.is_held()

    def release(self) -> None:
        """Give the lock back."""
        self._taken_at = None
        self._lock.release()

    def owner(self) -> Word | None:
        """Return what the last try has found of the other process that runs the plugin, if any."""
        return self._owner

    def _find_owner(self) -> Word | None:
        try:
            former = self._former()
        except DatabaseError as error:
            log.debug("%s: it is not known who runs it: %s", self._plugin, error)
            return None
        load = None if former is None else former.load
        if former is None or load is None:
            return None
        return Word(
            host=former.host,
            pid=former.pid or 0,
            machine=None,
            started=None,
            here=False,
            id=load.plugin_id,
            generation=load.generation,
            failed=load.reconciled if load.state == "failed" else None,
            error={key: load.error.get(key) for key in _ERROR_KEYS} if load.error else None,
        )

    def _former(self) -> WorkerLoad | None:
        own = (socket.gethostname(), os.getpid())
        for worker in self._workers.loads_of(self._plugin):
            if worker.load is not None and worker.load.owner and (worker.host, worker.pid) != own:
                return worker
        return None


_ERROR_KEYS = ("phase", "message", "file", "line")
