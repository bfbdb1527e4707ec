"""Frozen records of the processes that serve: what they run, and whether it is what rows say."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.conditions import Condition
from app.health import DEGRADED, READY
from app.records import ACTIVE, ServedRow

NOT_THERE = (
    "a worker of this host is not there: it has ended, hangs or has not come up; its host's log "
    "says why one ended"
)


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What one process runs of one plugin.

    `generation` is None if it runs nothing; `reconciled` is the generation of the row that the
    process has acted on; `state` is serving, unloaded, loading or failed; `owner` says that this
    process alone runs it, on its host or on all.
    """

    plugin: str
    plugin_id: str
    generation: int | None
    reconciled: int
    state: str
    error: Mapping[str, Any] | None = None
    owner: bool = False


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a process says of itself with each heartbeat.

    `status` and `reasons` are those of its health check; `crew` is how many processes like itself
    its master wants, None if it has no master that says so.
    """

    generations_alive: int = 0
    status: str | None = None
    reasons: tuple[Condition, ...] = ()
    crew: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A process that serves, as it last reported itself.

    `status` and `reasons`, objects with plugin, what and since, are those of its health check;
    None and empty of a process of an older version. `owns` are the plugins that it alone runs, on
    its host or on all.
    """

    id: str
    host: str
    pid: int
    generations_alive: int
    started_at: datetime.datetime
    heartbeat_at: datetime.datetime
    status: str | None = None
    reasons: Sequence[Mapping[str, Any]] = ()
    owns: Sequence[str] = ()

    def unheard(self, seconds: float) -> "WorkerRow":
        """Return what is to be believed of it after so many seconds without a heartbeat."""
        reason = {
            "plugin": None,
            "what": f"nothing was heard of it for {seconds:.1f} s: it hangs, has ended, or does "
            "not reach the database",
            "since": self.heartbeat_at.astimezone(datetime.UTC).isoformat(),
        }
        status = DEGRADED if self.status == READY else self.status
        return replace(self, status=status, reasons=[*self.reasons, reason])


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one master, and how many it wants."""

    machine: str
    master: int
    size: int


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """A live process and what it runs of a plugin.

    `load` is None if it never had to act on the plugin, `crew` if that is not known. One that is
    wanted and not there has no `pid`, and `absent` says what is known of it.
    """

    host: str
    pid: int | None
    load: LoadRecord | None
    id: str = ""
    crew: Crew | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Convergence:
    """How many processes there should be, and which of them do not run what a plugin's row says."""

    total: int
    behind: tuple[WorkerLoad, ...]
    failed: bool = False
    """Whether all that are behind live, and cannot load it for a reason that is not transient."""
    owners: tuple[WorkerLoad, ...] = ()
    """The processes that alone run it, one on a host or one of all; none of a usual plugin."""

    @property
    def current(self) -> int:
        """How many processes are up to date."""
        return self.total - len(self.behind)


PASSES = "passes"
"""In a load's error: its cause may go by itself, and the load is tried again soon."""


def convergence_of(row: ServedRow, workers: Sequence[WorkerLoad]) -> Convergence:
    """Compare what the processes run with what a row says.

    A process that its master wants and that is not there, because it has just ended or never comes
    up, is one that is behind.
    """
    behind = [worker for worker in workers if worker.absent or not _is_current(row, worker.load)]
    absent = _absent(workers)
    failed = bool(behind) and not absent and all(_has_failed(row, worker) for worker in behind)
    owners = tuple(worker for worker in workers if worker.load is not None and worker.load.owner)
    return Convergence(len(workers) + len(absent), (*behind, *absent), failed, owners)


def _has_failed(row: ServedRow, worker: WorkerLoad) -> bool:
    load = worker.load
    if load is None or worker.absent or load.error is None or load.error.get(PASSES):
        return False
    return (load.plugin_id, load.reconciled, load.state) == (row.id, row.generation, "failed")


def _is_current(row: ServedRow, load: LoadRecord | None) -> bool:
    if row.status != ACTIVE or row.binary_path is None:
        if load is None or load.plugin_id != row.id:
            return True
        return load.reconciled >= row.generation and load.generation is None
    if load is None or load.plugin_id != row.id:
        return False
    return load.generation is not None and load.generation >= row.generation


def _absent(workers: Sequence[WorkerLoad]) -> list[WorkerLoad]:
    """Return the processes that masters want and do not have."""
    crews: dict[tuple[str, int], list[WorkerLoad]] = {}
    for worker in workers:
        if worker.crew is not None:
            crews.setdefault((worker.crew.machine, worker.crew.master), []).append(worker)
    absent = []
    for here in crews.values():
        wanted = max(worker.crew.size for worker in here if worker.crew is not None)
        one = WorkerLoad(here[0].host, None, None, absent=NOT_THERE)
        absent += [one] * (wanted - len(here))
    return absent
