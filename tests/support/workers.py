"""Processes that are entered without running."""

import datetime
from uuid import uuid4

from app.database.workers import WorkerRepository
from app.presence import Presence
from app.worker_records import WorkerReport


def registered(workers: WorkerRepository, *, host: str = "here") -> str:
    """Enter a process and return its id."""
    worker = str(uuid4())
    elsewhere = Presence("elsewhere", 4711, 1)
    now = datetime.datetime.now(datetime.UTC)
    workers.register(worker, host, elsewhere, 4710, now, WorkerReport())
    return worker
