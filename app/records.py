"""Frozen records that travel between the rooms."""

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.conditions import Condition
from app.plugin import PluginMetadata

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,62}")

NOT_THERE = "a worker of this host has ended or has not come up yet; the host's log says why"

ACTIVE = "active"
INACTIVE = "inactive"


def is_plugin_name(text: str) -> bool:
    """Tell whether a text may name a plugin: 1 to 63 of a-z, 0-9 and _, a letter first."""
    return NAME_PATTERN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `plugin.yaml` says; every field may be left out there.

    `origins` are those of the pages that may call the plugin beside its own, None if all may;
    `hosts` are the names under which it may be called beside the server's; `ignore` are patterns
    of gitignore's syntax, of what in the folder is no part of the plugin; `version_line` is where
    the version stands.
    """

    entry: str = "main:new_plugin"
    name: str | None = None
    description: str | None = None
    version: str | None = None
    author: str | None = None
    enabled: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    version_line: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin's folder, read once: `files` maps relative POSIX paths to bytes.

    `digest` is 32 hexadecimal digits over all paths and bytes: the identity of the source.
    """

    name: str
    folder: Path
    files: Mapping[str, bytes]
    manifest: Manifest
    digest: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """One archive of one source: `sha256` (64 hexadecimal digits) is the hash of `archive`."""

    plugin: str
    digest: str
    sha256: str
    archive: bytes

    @property
    def file_name(self) -> str:
        """The archive's name in the artifacts folder."""
        return artifact_name(self.plugin, self.digest)

    def is_intact(self) -> bool:
        """Whether the archive's bytes match their hash."""
        return hashlib.sha256(self.archive).hexdigest() == self.sha256


def artifact_name(plugin: str, digest: str) -> str:
    """Return the file name of a plugin's archive of one source digest."""
    return f"{plugin}-{digest}.pyz"


_ARTIFACT_PATTERN = re.compile(r"([a-z][a-z0-9_]{0,62})-([0-9a-f]{32})\.pyz")


def artifact_digest(plugin: str, binary_path: str) -> str | None:
    """Return the source digest that a row's `binary_path` names, None if it names no archive.

    Only the last part counts: each host keeps its archives in a folder of its own.
    """
    match = _ARTIFACT_PATTERN.fullmatch(binary_path.rpartition("/")[2])
    return match[2] if match and match[1] == plugin else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one route, as it is recorded in `plugin_endpoints`."""

    method: str
    path: str
    handler: str


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a trial found: the plugin's own metadata and the endpoints it registers.

    `places` are the file and line where each template is registered, where that is known.
    """

    metadata: PluginMetadata
    endpoints: tuple[Endpoint, ...]
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A row of `plugins`. `source_digest` is None while the row's source was never published."""

    id: str
    name: str
    description: str | None
    version: str
    author: str | None
    type: str
    status: str
    source_path: str | None
    binary_path: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime
    generation: int
    source_digest: str | None
    error: Mapping[str, Any] | None
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def served(self) -> "ServedRow":
        """The part of the row that decides what is served."""
        return ServedRow(self.id, self.name, self.generation, self.status, self.binary_path)

    @property
    def unpublished(self) -> bool:
        """Whether the row names a source that is not published yet."""
        return self.source_digest is None and self.source_path is not None


@dataclass(frozen=True, slots=True)
class ServedRow:
    """The few columns of `plugins` that decide what a process serves.

    `archive_sha256` is the hash of the archive that `binary_path` names, None if that version is
    not known or was not asked for. What follows is said of the row, and decides nothing:
    `unpublished` whether it names a source of which there is no version at all, `load_error`
    whether its `error` says that this generation cannot be loaded.
    """

    id: str
    name: str
    generation: int
    status: str
    binary_path: str | None
    archive_sha256: str | None = None
    unpublished: bool = field(default=False, compare=False)
    load_error: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A folder that never was a valid plugin, and what is wrong with it."""

    name: str
    source_path: str
    error: Mapping[str, Any]
    updated_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What one process runs of one plugin.

    `generation` is None if it runs nothing; `reconciled` is the generation of the row that the
    process has acted on; `state` is serving, unloaded, loading or failed.
    """

    plugin: str
    plugin_id: str
    generation: int | None
    reconciled: int
    state: str
    error: Mapping[str, Any] | None = None


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
    None and empty of a process of an older version.
    """

    id: str
    host: str
    pid: int
    generations_alive: int
    started_at: datetime.datetime
    heartbeat_at: datetime.datetime
    status: str | None = None
    reasons: Sequence[Mapping[str, Any]] = ()


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

    @property
    def current(self) -> int:
        """How many processes are up to date."""
        return self.total - len(self.behind)


def convergence_of(row: ServedRow, workers: Sequence[WorkerLoad]) -> Convergence:
    """Compare what the processes run with what a row says.

    A process that its master wants and that is not there, because it has just ended or never comes
    up, is one that is behind.
    """
    behind = [worker for worker in workers if worker.absent or not _is_current(row, worker.load)]
    absent = _absent(workers)
    return Convergence(len(workers) + len(absent), (*behind, *absent))


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
    found = []
    for here in crews.values():
        wanted = max(worker.crew.size for worker in here if worker.crew is not None)
        one = WorkerLoad(here[0].host, None, None, absent=NOT_THERE)
        found += [one] * (wanted - len(here))
    return found
