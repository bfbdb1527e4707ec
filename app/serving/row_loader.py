"""One row's generation is fetched and loaded, in the thread that asks; what fails is judged."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from app.database.publication import KEPT_VERSIONS
from app.database.repository import Repository
from app.errors import DatabaseError, PluginError
from app.loading.callers import Surroundings
from app.loading.context import MakeContext
from app.loading.in_use import advise
from app.loading.loader import Kept, LoadedPlugin, load
from app.loading.process_changes import ProcessChanges
from app.package.version_folders import VersionFolders
from app.records import FRESH, Reload, ServedRow
from app.serving.archives import fetch_artifact
from app.serving.crashes import CrashedLoads
from app.serving.failed_loads import FailedLoads
from app.serving.first_loads import FirstLoads
from app.serving.host_files import FOLDERS, HostFiles
from app.serving.live_plugins import Served
from app.serving.load_errors import crashed_error, error_of
from app.serving.load_marker import LoadMarker
from app.serving.load_once import LoadedOnce

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of loading a row: a plugin or an error."""

    row: ServedRow
    milliseconds: float
    plugin: Served | None = None
    error: PluginError | None = None


LoadExclusive = Callable[[ServedRow, Callable[[ServedRow], LoadedPlugin]], Served]
"""Loads a row by the function it is given, or returns what stands for it in this process."""


class RowLoader:
    """Loads rows, one at a time; knows what this process may load, and what has failed on its host.

    Each of its methods may be called by another thread, `load` by one at a time.
    """

    def __init__(
        self,
        repository: Repository,
        make_context: MakeContext,
        artifacts_dir: Path,
        marker: LoadMarker | None = None,
        surroundings: Surroundings | None = None,
        files: HostFiles | None = None,
        exclusive: LoadExclusive | None = None,
        first_loads: int = 1,
    ) -> None:
        """Make it.

        Args:
            repository: has the archives that this host has not.
            make_context: makes the plugins' contexts.
            artifacts_dir: this host's archives.
            marker: where others see what is being loaded; None for one of its own.
            surroundings: what plugins that have their callers checked go by.
            files: is told whether archives can be kept; None for one of its own.
            exclusive: loads the rows of plugins that one process alone runs; None where each
                process runs them.
            first_loads: how many processes of this host load a changed version at once.
        """
        self._exclusive = exclusive
        self._files = files or HostFiles(artifacts_dir)
        self._surroundings = surroundings
        self._repository = repository
        self._marker = marker or LoadMarker(artifacts_dir)
        self._crashed = CrashedLoads(artifacts_dir)
        self._make_context = make_context
        self._changes = ProcessChanges()
        self._artifacts_dir = artifacts_dir
        self._folders = VersionFolders(artifacts_dir, self._tell_of_folders, keep=KEPT_VERSIONS)
        self.replaceable = False
        """Whether fresh processes can be had for what fails beside an earlier generation."""
        self._once = LoadedOnce()
        self._failed = FailedLoads(artifacts_dir)
        self._first = FirstLoads(artifacts_dir, first_loads)
        self._kept: dict[str, tuple[ServedRow, Kept]] = {}
        """What was imported and is to be initialized again."""

    def may_load(self, row: ServedRow) -> bool:
        """Tell whether this process may load a row's generation, or fresh ones have to.

        One of which it is known that it cannot be loaded may: the load says so without importing.
        """
        return self._once.may_load(row) or self.is_known_to_fail(row)

    def is_known_to_fail(self, row: ServedRow) -> bool:
        """Tell whether a row's generation has failed in a process of this host that was fresh."""
        return self._failed.find(row) is not None or self._crashed.find(row) is not None

    def why_fresh(self, row: ServedRow) -> str:
        """Return why a row's generation is to be loaded by fresh processes."""
        return self._once.why(row)

    def tidy(self, plugin: str) -> None:
        """Remove the folders of a plugin's versions that are not kept, and that nobody uses."""
        self._folders.tidy(plugin)

    def give_up(self, row: ServedRow) -> None:
        """Note that nobody waits any more for a row that is being loaded."""
        self._marker.forget(row)

    def load(self, row: ServedRow) -> LoadResult:
        """Load a row's generation, and return what came of it; never raises."""
        began = time.perf_counter()
        plugin: Served | None = None
        error: PluginError | None = None
        try:
            if row.exclusive is None or self._exclusive is None:
                with self._first.turn(
                    row, self._once.knows(row.name), self._crashed.is_noted
                ) as done:
                    plugin = self._load(row, done)
            else:
                plugin = self._exclusive(row, self._load)
        except BaseException as fault:  # noqa: BLE001 - see error_of
            error = error_of(row, fault)
            if row.exclusive is None:
                advise(error)
        return LoadResult(row, (time.perf_counter() - began) * 1000, plugin, error)

    def _load(self, row: ServedRow, done: Callable[[], None] = lambda: None) -> LoadedPlugin:
        """Load a row's generation; `done` is called as soon as no code of it runs any more.

        Raises:
            PluginError: it cannot be loaded.
        """
        crash = self._crashed.find(row)
        if crash is not None:
            raise crashed_error(row, crash)
        if (known := self._failed.find(row)) is not None:
            raise known
        artifact = fetch_artifact(row, self._artifacts_dir, self._repository, self._files)
        kept = self._kept_of(row)
        self._folders.begin()
        try:
            with self._marker.loading(row), self._changes.loading(row.name):
                self._once.begin(row)
                plugin = load(
                    artifact,
                    self._make_context,
                    row_id=row.id,
                    generation=row.generation,
                    surroundings=self._surroundings,
                    tried=True,
                    folders=self._folders,
                    kept=kept,
                )
                done()
        except BaseException as fault:  # noqa: BLE001 - see error_of
            error = error_of(row, fault)
            if row.exclusive is None:  # else the one before is loaded again, in this process
                self._judge(row, error, kept)
            raise error from None
        return replace(
            plugin,
            on_disposed=partial(self._changes.disposed, row.name),
            while_cleaning=partial(self._marker.cleaning, row),
        )

    def _tell_of_folders(self, error: OSError | None) -> None:
        if error is None:
            self._files.has(FOLDERS)
        else:
            self._files.lacks(FOLDERS, error)

    def _kept_of(self, row: ServedRow) -> Kept | None:
        """Return what is kept of a row's load for its retry; None where each load imports anew."""
        before, kept = self._kept.pop(row.name, (row, Kept()))
        if before != row:
            kept.forget()
            kept = Kept()
        if row.reload != FRESH:
            return None
        self._kept[row.name] = (row, kept)
        return kept

    def _judge(self, row: ServedRow, error: PluginError, kept: Kept | None) -> None:
        """Note what follows from a load that failed after its import had begun."""
        retried = kept is not None and kept.importer is not None
        if error.passes and (retried or row.reload != FRESH):
            return
        failure = self._once.fail(row, str(error), may_blame=self.replaceable)
        if failure.blames_earlier:
            self._record_reload(row, Reload(FRESH, failure.blames_earlier))
        elif row.reload == FRESH and failure.alone and not error.passes:
            self._failed.note(row, error)

    def _record_reload(self, row: ServedRow, found: Reload) -> None:
        log.warning("%s: %s", row.name, found)
        if row.digest is None:
            return
        try:
            self._repository.reloads.record(row.name, row.digest, found)
        except DatabaseError as error:
            log.warning("%s: that is not kept with the version: %s", row.name, error)
