"""Discover → compile → try → save, for one plugin's source."""

import logging
import os
import time
from pathlib import Path

from app.conditions import Conditions
from app.database.repository import Repository
from app.errors import (
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiscoveryError,
    PluginError,
    SupersededError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.discovery import inside, read_source
from app.publishing.error_records import ErrorRecords
from app.publishing.host_state import HostState, Published, identity_of
from app.publishing.refusals import Refusals
from app.publishing.saving import Saver
from app.publishing.trial import TrialRunner
from app.records import PluginRow, PluginSource, artifact_digest

log = logging.getLogger(__name__)


class SourcePublisher:
    """Takes one source all the way to its row, and records why where that is not possible."""

    def __init__(
        self,
        plugins_dir: Path,
        artifacts_dir: Path,
        repository: Repository,
        trial: TrialRunner,
        refusals: Refusals,
        seen: HostState,
        max_module_mb: int,
        conditions: Conditions,
    ) -> None:
        self._root = plugins_dir
        self._max_module_mb = max_module_mb
        self._artifacts_dir = artifacts_dir
        self._repository = repository
        self._trial = trial
        self._seen = seen
        self._conditions = conditions
        self._saver = Saver(artifacts_dir, repository)
        self._refusals = refusals
        self._records = ErrorRecords(repository)

    def prepare(self) -> None:
        """Start what the first publish would have to wait for."""
        self._trial.prepare()

    def publish(
        self,
        name: str,
        row: PluginRow | None,
        attempt: PublishAttempt,
        *,
        force: bool = False,
        restore: bool = False,
    ) -> bool:
        """Publish a plugin's source if it is wanted.

        Args:
            name: the plugin's name.
            row: its row as it was read, None if it has none.
            attempt: what is known of the folder while it is looked at.
            force: whether to publish even what is published already.
            restore: whether a plugin whose row was deleted is registered again.

        Returns:
            Whether it was published; not if it is what was last published, or was refused.

        Raises:
            PluginError: the source cannot be published; recorded beside the row.
            SupersededError: the folder changed meanwhile; nothing was recorded.
            DatabaseUnavailableError: nothing was recorded; publish again later.
            DatabaseRefusedError: the row cannot be written; recorded, if the database takes that.
        """
        began = time.perf_counter()
        folder = self._root / name
        root = identity_of(self._root)
        source = None
        try:
            folder = self.folder_of(name, row)
            source = self._read(folder, name)
            attempt.digest = source.digest
            if not force and not self._is_wanted(row, source, restore):
                if row is not None and row.error is not None:
                    self._repository.record_error(row, None)
                if not self._went_back(row, source):
                    in_row = (row.id, row.generation) if row is not None else ()
                    self._remember(source, attempt, root, Published(source.digest, *in_row))
                return False
            if not force and self._refusals.holds(name, source.digest, attempt.stamp):
                return False  # it was tried and refused; events come in twos and threes
            self._refusals.begin(name, source.digest)
            artifact, report = self._trial.run(source, attempt.superseded)
            saved = self._saver.save(source, artifact, report, attempt, force=force)
            self._remember(source, attempt, root, Published(source.digest, *saved))
            self._conditions.clear(f"older:{name}")
        except PluginError as error:
            if not attempt.outlast_quiet_period() or self._has_changed(name, row, source):
                self._refusals.give_up(name)
                raise SupersededError("the source changed while it was looked at") from None
            if error.outside and not self._root.is_dir():
                self._refusals.give_up(name)  # that it is gone is told elsewhere, for all plugins
                raise SupersededError(f"the plugins' root {self._root} is gone") from None
            if error.phase == "get_metadata" and folder.name != name:
                error.message += (
                    f"; the row {name!r} has {folder} as its source: if the row was renamed, set "
                    f"its name back to {folder.name!r} in psql"
                )
            self.record(name, row, folder, attempt, error)
            raise
        except DatabaseReadOnlyError:
            raise  # as what the database refuses, but that nothing can be recorded
        except (DatabaseUnavailableError, SupersededError):
            self._refusals.give_up(name)  # it was not tried to the end
            raise
        except DatabaseRefusedError as error:
            error.plugin = name
            refused = PluginError(name, error.message, phase="save")
            self.record(name, row, folder, attempt, refused)
            raise
        log.info(
            "%s: published generation %d, version %s (%s), in %.0f ms",
            name,
            saved[1],
            report.metadata.version,
            source.digest[:12],
            (time.perf_counter() - began) * 1000,
        )
        return True

    def note_refused(
        self,
        name: str,
        attempt: PublishAttempt,
        error: PluginError | DatabaseRefusedError | DatabaseReadOnlyError,
        *,
        aloud: bool = True,
    ) -> None:
        """Note what could not be published, to be tried again; it is said where `aloud`."""
        if isinstance(error, DatabaseReadOnlyError):
            error = DatabaseRefusedError(f"not published: {error}", sqlstate="", plugin=name)
        elif isinstance(error, DatabaseRefusedError):
            error.plugin = name
        self._refusals.note(name, attempt, error, aloud=aloud)

    def record(
        self,
        name: str,
        row: PluginRow | None,
        folder: Path,
        attempt: PublishAttempt,
        error: PluginError,
    ) -> None:
        """Record what is wrong with a plugin's source, beside its row or among the failures."""
        try:
            self._records.write(name, row, folder, attempt, error)
        except DatabaseUnavailableError:
            self._refusals.give_up(name)  # so that it is recorded when it is tried again
            raise

    def _read(self, folder: Path, name: str) -> PluginSource:
        return read_source(self._root, folder, name, self._max_module_mb)

    def _has_changed(self, name: str, row: PluginRow | None, source: PluginSource | None) -> bool:
        """Tell whether a folder is not any more what was refused: it was read half-written."""
        try:
            now = self._read(self.folder_of(name, row), name)
        except PluginError:
            return source is not None
        return source is None or now.digest != source.digest

    def folder_of(self, name: str, row: PluginRow | None) -> Path:
        """Return a plugin's source folder on this host.

        Raises:
            DiscoveryError: the row asks for a source outside of the plugins' root.
        """
        default = self._root / name
        if row is None or row.source_path is None:
            return default
        named = Path(os.path.abspath(row.source_path))  # noqa: PTH100 - symlinks are kept
        if inside(self._root, named) and named != self._root:
            return named
        served = row.binary_path is not None and artifact_digest(name, row.binary_path) is not None
        if row.unpublished and (served or not default.is_dir()):
            raise DiscoveryError(
                name,
                f"source_path is {row.source_path!r}, expected a folder inside of {self._root}",
            )
        return default  # another host's path, or one from before Benana

    def _is_wanted(self, row: PluginRow | None, source: PluginSource, restore: bool) -> bool:
        last = self._seen.find(source.name)
        is_new = last is None or last.digest != source.digest
        if row is None:
            return restore or is_new
        if row.unpublished:
            return True
        if source.digest == row.source_digest:
            return False
        return is_new

    def _went_back(self, row: PluginRow | None, source: PluginSource) -> bool:
        """Hold that a row is older than what was published from the folder.

        As of another database, or of a backup. The row counts; but that the folder is newer must
        not stay unsaid. Returns whether it is so.
        """
        key, last = f"older:{source.name}", self._seen.find(source.name)
        if (
            row is None
            or last is None
            or last.row_id != row.id
            or last.generation <= row.generation
            or source.digest == row.source_digest
        ):
            self._conditions.clear(key)
            return False
        self._conditions.hold(
            key,
            f"its folder was published as generation {last.generation}, and its row is of "
            f"generation {row.generation}, as in another database or a backup: what the row says "
            "is served; reload it to publish the folder",
            source.name,
        )
        return True

    def _remember(
        self,
        source: PluginSource,
        attempt: PublishAttempt,
        root: str | None,
        published: Published,
    ) -> None:
        """Note on this host that a source is published, and that nothing is refused any more.

        Args:
            source: the source.
            attempt: the attempt that found it.
            root: which folder the plugins' root was before it was read.
            published: what is to be noted.
        """
        name = source.name
        try:
            if self._seen.find(name) != published:
                self._seen.record_root(root)
                self._seen.record(name, published)
        except OSError as error:
            text = (
                f"it is published, but that cannot be noted in {self._artifacts_dir}: "
                f"{error.strerror}; free space or make the folder writable, else its row stays "
                "when its folder is removed"
            )
            self.note_refused(name, attempt, PluginError(name, text, phase="save", outside=True))
        else:
            self._refusals.end(name)
