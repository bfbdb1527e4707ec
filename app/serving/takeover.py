"""When a process comes to serve; one that takes another's place must not serve less."""

import logging
import os
import time
from collections.abc import Callable, Iterable

from app.database.workers import WorkerRepository
from app.errors import DatabaseError
from app.presence import own_presence
from app.serving.fresh_processes import FreshProcesses
from app.serving.reconciler import Reconciler

log = logging.getLogger(__name__)

START_SECONDS = 5.0
"""How long a worker's start waits for generations whose load failed for a reason that passes."""

TAKEOVER_SECONDS = 60.0
"""How long it waits for all that is not loaded yet, where others serve meanwhile."""


def come_to_serve(
    reconciler: Reconciler,
    fresh: FreshProcesses,
    workers: WorkerRepository,
    still_alive: Callable[[], None],
    *,
    relieves: bool,
) -> bool:
    """Wait until what is registered is loaded; return whether this process is to serve.

    Args:
        reconciler: of this process.
        fresh: what this process leaves to others.
        workers: what all processes run.
        still_alive: called about once a second while waiting.
        relieves: whether it is to take the place of a process that serves.
    """
    while not reconciler.attempted.wait(1.0):
        still_alive()
    if relieves:
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while not reconciler.settled.wait(1.0) and time.monotonic() < deadline:
            still_alive()
    else:
        reconciler.start_is_over.wait(START_SECONDS)
    if spoiled_by := fresh.spoiled_by:
        log.error(
            "%s: this worker cannot serve the version before either, because its libraries keep "
            "what has failed; another one is started for that",
            spoiled_by,
        )
        return False
    served = _served_by_others(reconciler.missing, workers) if relieves else []
    if served:
        log.error(
            "this fresh worker takes nobody's place: others serve what it cannot load (%s)",
            ", ".join(served),
        )
    return not served


def _served_by_others(missing: Iterable[str], workers: WorkerRepository) -> list[str]:
    """Return which plugins other processes of the same master serve, in whatever generation.

    While the database is away, all that is missing is taken for served.
    """
    machine, master = own_presence().machine, os.getppid()
    served: list[str] = []
    names = sorted(missing)
    for i, name in enumerate(names):
        try:
            loads = workers.loads_of(name)
        except DatabaseError:
            return served + names[i:]
        for worker in loads:
            crew, load = worker.crew, worker.load
            ours = crew is not None and (crew.machine, crew.master) == (machine, master)
            if ours and load is not None and load.generation is not None:
                served.append(name)
                break
    return served
