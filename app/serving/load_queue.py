"""Fetches and loads generations, one after the other, in a thread that a slow plugin may keep."""

import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.database.repository import Repository
from app.errors import (
    ArtifactError,
    CrashedLoadError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    LoadError,
    PluginError,
)
from app.loading.callers import Surroundings
from app.loading.context import MakeContext
from app.loading.in_use import advise
from app.loading.loader import LoadedPlugin, load
from app.package.store import read_archive, write_archive
from app.records import Artifact, ServedRow, artifact_digest, artifact_name
from app.serving.crashes import Crash, CrashedLoads, LoadMarker
from app.serving.host_files import ARCHIVES, HostFiles
from app.serving.live_plugins import Served
from app.threads import start_thread

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.2
"""How long one plugin's load may hold up the others'."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of loading a row: a plugin or an error."""

    row: ServedRow
    milliseconds: float
    plugin: Served | None = None
    error: PluginError | None = None


LoadExclusive = Callable[[ServedRow, Callable[[ServedRow], LoadedPlugin]], Served]
"""Loads a row by the function it is given, or returns what stands for it in this process."""


class _Job(NamedTuple):
    row: ServedRow
    done: "Future[LoadResult]"


class LoadQueue:
    """Loads rows for one thread; a load that takes too long is left to a thread of its own.

    `load` waits for a while and returns None where that was not enough. `on_late` tells of the
    result when it is there: `load` the same row again to have it, or `abandon` it.
    """

    def __init__(
        self,
        repository: Repository,
        make_context: MakeContext,
        artifacts_dir: Path,
        on_late: Callable[[str], None],
        discard: Callable[[Served], object],
        marker: LoadMarker | None = None,
        surroundings: Surroundings | None = None,
        files: HostFiles | None = None,
        exclusive: LoadExclusive | None = None,
    ) -> None:
        """Make it.

        Args:
            repository: has the archives that this host has not.
            make_context: makes the plugins' contexts.
            artifacts_dir: this host's archives.
            on_late: is told the name of a plugin whose late result is there; by another thread.
            discard: is given what was loaded and is not wanted any more; by any thread.
            marker: where others see what is being loaded; None for one of its own.
            surroundings: what plugins that have their callers checked go by.
            files: is told whether archives can be kept; None for one of its own.
            exclusive: loads the rows of plugins that one process alone runs; None where each
                process runs them.
        """
        self._exclusive = exclusive
        self._files = files or HostFiles(artifacts_dir)
        self._surroundings = surroundings
        self._repository = repository
        self._marker = marker or LoadMarker(artifacts_dir)
        self._crashed = CrashedLoads(artifacts_dir)
        self._make_context = make_context
        self._artifacts_dir = artifacts_dir
        self._on_late = on_late
        self._discard = discard
        self._late: dict[str, _Job] = {}
        """What was not done in time, by the plugin's name."""
        self._jobs: queue.SimpleQueue[_Job | None] | None = None

    def names(self) -> set[str]:
        """Return the plugins that `load` was called for in vain until now."""
        return set(self._late)

    def is_loading(self, row: ServedRow) -> bool:
        """Tell whether a row's load takes long, and is not done yet."""
        job = self._late.get(row.name)
        return job is not None and job.row == row and not job.done.done()

    def load(self, row: ServedRow, timeout: float) -> LoadResult | None:
        """Load a row's generation.

        Args:
            row: what to load.
            timeout: how many seconds to wait.

        Returns:
            What came of it, None if it is not done yet.
        """
        job = self._late.get(row.name)
        if job is None or job.row != row:
            self.abandon(row.name)
            job = _Job(row, Future())
            self._begin(job)
        try:
            result = job.done.result(timeout)
        except TimeoutError:
            if self._late.get(row.name) is not job:
                self._late[row.name] = job
                self.close()
                job.done.add_done_callback(lambda _: self._on_late(row.name))
            return None
        self._late.pop(row.name, None)
        return result

    def abandon(self, name: str) -> None:
        """Discard what is loaded of a plugin, or will be: nobody asks for it any more."""
        job = self._late.pop(name, None)
        if job is not None:
            job.done.add_done_callback(self._discard_result)

    def close(self) -> None:
        """Let the thread end after what it is at; the next load starts another."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _begin(self, job: _Job) -> None:
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            start_thread("benana-loader", self._work, self._jobs)
        self._jobs.put(job)

    def _discard_result(self, done: "Future[LoadResult]") -> None:
        plugin = done.result().plugin
        if plugin is not None:
            self._discard(plugin)

    def _work(self, jobs: "queue.SimpleQueue[_Job | None]") -> None:
        while (job := jobs.get()) is not None:
            job.done.set_result(self._attempt(job.row))
            del job  # a thread that waits must not keep a generation alive

    def _attempt(self, row: ServedRow) -> LoadResult:
        began = time.perf_counter()
        plugin: Served | None = None
        error: PluginError | None = None
        try:
            if row.exclusive is None or self._exclusive is None:
                plugin = self._load(row)
            else:
                plugin = self._exclusive(row, self._load)
        except PluginError as fault:
            error = fault.with_traceback(None)
            if row.exclusive is None:
                advise(error)
        except DatabaseUnavailableError as outage:
            error = LoadError(row.name, str(outage), transient=True)
        except DatabaseRefusedError as refusal:
            error = LoadError(row.name, str(refusal), outside=True)
        except Exception as fault:
            # A fault of ours: it costs this plugin its newest generation, and the others nothing.
            log.exception("%s: loading failed", row.name)
            error = LoadError(row.name, f"{type(fault).__name__}: {fault}")
        milliseconds = (time.perf_counter() - began) * 1000
        return LoadResult(row, milliseconds, plugin, error)

    def _load(self, row: ServedRow) -> LoadedPlugin:
        crash = self._crashed.find(row)
        if crash is not None:
            raise _crashed_error(row, crash)
        artifact = self._artifact(row)
        with self._marker.loading(row):
            return load(
                artifact,
                self._make_context,
                row_id=row.id,
                generation=row.generation,
                surroundings=self._surroundings,
                tried=True,
            )

    def _artifact(self, row: ServedRow) -> Artifact:
        """Return a row's archive from this host's folder, else from the database."""
        digest = artifact_digest(row.name, row.binary_path or "")
        if digest is None:
            raise ArtifactError(
                row.name,
                f"binary_path is {row.binary_path!r}, expected the path of a published archive, "
                f"{artifact_name(row.name, '<digest>')}",
            )
        if row.archive_sha256 is None:
            raise ArtifactError(
                row.name,
                f"{artifact_name(row.name, digest)} was never published, or its version is no "
                "longer kept; reload the plugin",
            )
        raw = read_archive(self._artifacts_dir, artifact_name(row.name, digest))
        if raw is not None:
            artifact = Artifact(row.name, digest, row.archive_sha256, raw)
            if artifact.is_intact():
                return artifact
            log.warning("%s: %s is damaged, fetching it anew", row.name, artifact.file_name)
        kept = self._repository.find_artifact(row.name, digest)
        if kept is None:
            raise ArtifactError(row.name, f"the version {digest[:12]} is no longer kept")
        try:
            write_archive(kept, self._artifacts_dir)
        except OSError as error:
            self._files.lacks(ARCHIVES, error)  # it is served from memory all the same
        else:
            self._files.has(ARCHIVES)
        return kept


def _crashed_error(row: ServedRow, crash: Crash) -> CrashedLoadError:
    # Without a process id or a time: all workers say the same, and one of them writes it down.
    return CrashedLoadError(
        row.name,
        f"loading generation {row.generation} ended the worker ({crash.how}), though its trial "
        "passed: does it look at context.trial? It is not loaded again; mend it and save it, or "
        "reload it to try once more",
        file=crash.file,
        line=crash.line,
    )
