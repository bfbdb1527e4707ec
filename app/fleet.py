"""The processes of all hosts: who lives, what they run, and whether all of them follow."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.database.workers import WorkerRepository
from app.errors import DatabaseUnavailableError
from app.presence import own_presence
from app.records import ServedRow
from app.worker_records import Convergence, Crew, WorkerLoad, WorkerRow, convergence_of

LOOK_SECONDS = 0.02
AWAY_SECONDS = 0.25
"""The time between two looks while the database is away: each one connects anew."""

ADMIN_SHARE_SECONDS = 0.25
"""How long an admin call waits while none of the others gets on with the database: those that
wait hold threads that plugins need."""

_NOT_RECORDED = (
    "what this process runs is not recorded yet; its health check says whether it cannot be"
)


class Fleet:
    """Answers what an operator asks about the processes."""

    def __init__(
        self,
        workers: WorkerRepository,
        own_id: Callable[[], str | None],
        own_crew: Callable[[], int | None],
    ) -> None:
        """Make it.

        Args:
            workers: where the processes report.
            own_id: gives this process's name there, None as long as it does not serve.
            own_crew: gives how many processes like this one its master wants, None if it has none.
        """
        self._workers = workers
        self._own_id = own_id
        self._own_crew = own_crew

    def convergence(self, row: ServedRow) -> Convergence:
        """Return how many of the processes run what a row says, and which do not."""
        workers = self._workers.loads_of(row.name)
        own = self._own_id()
        if own is not None and all(worker.id != own for worker in workers):
            workers.append(self._unrecorded())
        return convergence_of(row, workers)

    def wait(self, row: ServedRow, seconds: float) -> Convergence:
        """Wait until every process runs a row's generation or a later one, or has failed to.

        The processes report to the database without notifying anybody, so this looks again and
        again; it is an operator who waits, and no request of a plugin.

        Args:
            row: what is to be served.
            seconds: how long to wait at most.

        Raises:
            DatabaseUnavailableError: what they run cannot be read, at the end of that time either.
        """
        deadline = time.monotonic() + seconds
        while True:
            pause = LOOK_SECONDS
            try:
                convergence = self.convergence(row)
            except DatabaseUnavailableError:
                if time.monotonic() + AWAY_SECONDS >= deadline:
                    raise
                pause = AWAY_SECONDS
            else:
                if not convergence.behind or convergence.failed or time.monotonic() >= deadline:
                    return convergence
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))

    def workers(self) -> list[WorkerRow]:
        """Return the live processes of all hosts."""
        return self._workers.list_workers()

    def load_errors(self, name: str | None = None) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Return what keeps live processes from serving rows, by the rows' id and generation.

        Args:
            name: the plugin to ask for, all with None.
        """
        return self._workers.load_errors(name)

    def _unrecorded(self) -> WorkerLoad:
        """Return this process for a list that lacks it."""
        machine, size = own_presence().machine, self._own_crew()
        crew = Crew(machine, os.getppid(), size) if machine and size else None
        host = socket.gethostname()
        return WorkerLoad(host, os.getpid(), None, crew=crew, absent=_NOT_RECORDED)
