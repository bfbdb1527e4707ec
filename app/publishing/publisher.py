"""Discover → compile → try → save, for one plugin or for all."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.conditions import Conditions
from app.database.repository import Repository
from app.errors import (
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiscoveryError,
    PluginError,
    SupersededError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.discovery import (
    MAX_MODULE_MB,
    inside,
    list_folders,
    may_be_plugin,
    read_source,
)
from app.publishing.error_records import ErrorRecords
from app.publishing.host_state import HostState
from app.publishing.ignore import is_part
from app.publishing.refusals import Refusals
from app.publishing.requirements import installed
from app.publishing.saving import Saver
from app.publishing.trial import TrialRunner
from app.records import PluginRow, PluginSource, artifact_digest

log = logging.getLogger(__name__)

SCAN_THREADS = 4


class Publisher:
    """Makes the rows follow the folders; safe to use from several threads and processes."""

    def __init__(
        self,
        plugins_dir: Path,
        artifacts_dir: Path,
        repository: Repository,
        trial: TrialRunner,
        refusals: Refusals,
        max_module_mb: int = MAX_MODULE_MB,
        conditions: Conditions | None = None,
    ) -> None:
        self._root = plugins_dir
        self._max_module_mb = max_module_mb
        self._artifacts_dir = artifacts_dir
        self._repository = repository
        self._trial = trial
        self._seen = HostState(artifacts_dir, conditions)
        self._saver = Saver(artifacts_dir, repository)
        self.refusals = refusals
        """What was tried in vain, and when it is tried again."""
        self._records = ErrorRecords(repository)
        installed.look()  # what is imported from now on is what is installed now

    def has_folder(self, name: str) -> bool:
        """Tell whether a plugin has its source folder on this host."""
        row = self._repository.find_row(name)
        try:
            return self._folder_of(name, row).is_dir()
        except DiscoveryError:
            return False

    def prepare(self) -> None:
        """Start what the first publish would have to wait for."""
        self._trial.prepare()

    def publish(self, name: str) -> None:
        """Publish a plugin, whether its source changed or not.

        Raises:
            PluginError: the source cannot be published; the error is recorded beside the row, and
                what was served is served on.
            DatabaseUnavailableError: nothing was recorded; publish again later.
            DatabaseRefusedError: the row cannot be written; recorded, if the database takes that.
        """
        look = PublishAttempt()
        try:
            self._publish(name, self._repository.find_row(name), look, force=True)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._note(name, look, error, aloud=False)
            raise

    def follow(self, name: str, look: PublishAttempt) -> bool:
        """Make a plugin's row follow its folder: publish what changed, unregister what is gone.

        What is refused is said, and tried again where that may help (`refusals`).

        Args:
            name: the plugin's name.
            look: what is known of the folder while it is looked at.

        Returns:
            Whether it was published; not if it is what was last published, or refused.

        Raises:
            PluginError: as `publish`.
            DatabaseUnavailableError: as `publish`.
            DatabaseRefusedError: as `publish`.
            SupersededError: nothing was recorded, because the folder changed again.
        """
        try:
            published = self._follow(name, look)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._note(name, look, error)
            raise
        self.refusals.settle(name)
        return published

    def _follow(self, name: str, look: PublishAttempt) -> bool:
        row = self._repository.find_row(name)
        if row is not None and not look.patient and self._repository.is_locked(row):
            raise DatabaseBusyError(f"the row of {name} is still locked")
        if not self._folder_is_gone(name, row):
            self._seen.found_folder(self._root)
            return self._publish(name, row, look)
        if not self._seen.is_unmounted(self._root):
            self._remove(name, row, look)
        self.refusals.end(name)
        return False

    def _note(
        self,
        name: str,
        look: PublishAttempt,
        error: PluginError | DatabaseRefusedError | DatabaseReadOnlyError,
        *,
        aloud: bool = True,
    ) -> None:
        if isinstance(error, DatabaseReadOnlyError):
            error = DatabaseRefusedError(f"not published: {error}", sqlstate="", plugin=name)
        elif isinstance(error, DatabaseRefusedError):
            error.plugin = name
        self.refusals.note(name, look, error, aloud=aloud)

    def _folder_is_gone(self, name: str, row: PluginRow | None) -> bool:
        if row is not None and row.unpublished:
            return False  # the row asks for it: that it is missing is an error to show
        return self._root.is_dir() and not self._folder_of(name, row).is_dir()

    def _remove(self, name: str, row: PluginRow | None, look: PublishAttempt) -> None:
        """Unregister a plugin whose folder is gone from this host, if this host published it."""
        folder = self._root / name
        try:
            if self._seen.digest_of(name) is not None:
                if self._repository.unregister(name, str(folder)):
                    log.info("%s: its folder is gone, unregistered", name)
                self._seen.forget(name)
            self._repository.failures.forget(name)
        except DatabaseRefusedError as error:
            refused = PluginError(name, error.message, phase="unregister")
            self._record(name, row, folder, look, refused)
            raise

    def names_of(self, folder: str) -> list[str]:
        """Return the plugins whose source is a folder of the plugins' root, or lies within it."""
        return self._repository.names_of_source(str(self._root / folder)) or [folder]

    def unpublished(self) -> list[str]:
        """Return the plugins whose row asks for a source to be compiled."""
        return self._repository.unpublished_names()

    def scan(self, *, at_start: bool = False) -> list[str]:
        """Look at every folder and every row once, and publish what wants it.

        At the server's start, plugins whose row was deleted are registered again; a scan that
        could not be completed then is made up for by the next one.

        Returns:
            The plugins that somebody's lock keeps from following their folder: they are to be
            looked at again.

        Raises:
            OSError: the plugins' root is gone or unreadable; nothing was unregistered.
            DatabaseError: the scan is not complete.
        """
        restore = self._seen.begin_start() if at_start else self._seen.start_is_pending()
        if at_start or restore:
            self._repository.apply_schema()  # later, a table that is missing is being restored
        folders = list_folders(self._root)
        if restore and folders:
            self._follow_root()
        rows = {row.name: row for row in self._repository.list_rows()}
        sources = {row.source_path: name for name, row in rows.items() if row.source_path}
        names = {sources.get(str(self._root / folder), folder) for folder in folders}
        names |= {name for name, row in rows.items() if row.unpublished}
        with ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="benana-scan") as pool:
            found = dict(
                zip(
                    names,
                    pool.map(lambda name: self._scan_one(name, rows.get(name), restore), names),
                    strict=True,
                )
            )
        locked = [name for name, published in found.items() if published is None]
        if not self._seen.is_unmounted(self._root):
            locked += self._forget_missing(set(folders))
        if folders:
            self._seen.record_root(self._root)
        if not locked:
            self._seen.end_start(self._root)
        published = sum(map(bool, found.values()))
        if published:
            log.info("published %d of %d plugins", published, len(names))
        return locked

    def _follow_root(self) -> None:
        """Have the rows of a root that is another folder now name this one.

        So what is missing here is unregistered, and what differs is published.
        """
        former = self._seen.former_root(self._root)
        if former is not None:
            moved = self._repository.move_sources(str(former), str(self._root))
            log.info(
                "the plugins' root is %s, and not %s any more: %d rows follow it",
                self._root,
                former,
                moved,
            )

    def _scan_one(self, name: str, row: PluginRow | None, restore: bool) -> bool | None:
        """Publish a plugin if it wants it; return whether, or None if somebody's lock is there."""
        look = PublishAttempt()
        try:
            published = self._publish(name, row, look, restore=restore)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._note(name, look, error)
        except SupersededError:
            log.debug("%s changes while it is looked at", name)  # its event is on the way
        except DatabaseBusyError as error:
            self.refusals.wait(name, error)
            return None
        except DatabaseUnavailableError:
            raise
        except Exception:
            # A fault of ours must not keep the other folders from being looked at.
            log.exception("%s: publishing failed", name)
        else:
            self.refusals.settle(name)
            return published
        return False

    def _forget_missing(self, folders: set[str]) -> list[str]:
        """Forget the folders that are gone; return the plugins that somebody's lock keeps."""
        failures = {
            failure.name
            for failure in self._repository.failures.list_all()
            if Path(failure.source_path).parent == self._root
            and not self._is_listed(Path(failure.source_path))
        }
        locked = []
        for name in {*(self._seen.plugins() - folders), *failures}:
            look = PublishAttempt()
            try:
                row = self._repository.find_row(name)
                if self._folder_is_gone(name, row):
                    self._remove(name, row, look)
                elif name in failures:
                    self._repository.failures.forget(name)
            except DatabaseBusyError as error:
                self.refusals.wait(name, error)
                locked.append(name)
            except (DatabaseRefusedError, DatabaseReadOnlyError) as error:
                self._note(name, look, error)
        return locked

    @staticmethod
    def _is_listed(folder: Path) -> bool:
        return folder.is_dir() and is_part(folder.name) and may_be_plugin(str(folder))

    def _publish(
        self,
        name: str,
        row: PluginRow | None,
        look: PublishAttempt,
        *,
        force: bool = False,
        restore: bool = False,
    ) -> bool:
        began = time.perf_counter()
        folder = self._root / name
        source = None
        try:
            folder = self._folder_of(name, row)
            source = self._read(folder, name)
            look.digest = source.digest
            if not force and not self._is_wanted(row, source, restore):
                if row is not None and row.error is not None:
                    self._repository.record_error(row, None)
                self._remember(source, look)
                return False
            if not force and self.refusals.holds(name, source.digest, look.stamp):
                return False  # it was tried and refused; events come in twos and threes
            self.refusals.begin(name, source.digest)
            artifact, report = self._trial.run(source, look.superseded)
            generation = self._saver.save(source, artifact, report, look, force=force)
            self._remember(source, look)
        except PluginError as error:
            if not look.settle() or self._has_changed(name, row, source):
                self.refusals.give_up(name)
                raise SupersededError("the source changed while it was looked at") from None
            if error.outside and not self._root.is_dir():
                self.refusals.give_up(name)  # that it is gone is told elsewhere, for all plugins
                raise SupersededError(f"the plugins' root {self._root} is gone") from None
            if error.phase == "get_metadata" and folder.name != name:
                error.message += (
                    f"; the row {name!r} has {folder} as its source: if the row was renamed, set "
                    f"its name back to {folder.name!r} in psql"
                )
            self._record(name, row, folder, look, error)
            raise
        except DatabaseReadOnlyError:
            raise  # as what the database refuses, but that nothing can be recorded
        except (DatabaseUnavailableError, SupersededError):
            self.refusals.give_up(name)  # it was not tried to the end
            raise
        except DatabaseRefusedError as error:
            error.plugin = name
            refused = PluginError(name, error.message, phase="save")
            self._record(name, row, folder, look, refused)
            raise
        log.info(
            "%s: published generation %d, version %s (%s), in %.0f ms",
            name,
            generation,
            report.metadata.version,
            source.digest[:12],
            (time.perf_counter() - began) * 1000,
        )
        return True

    def _record(
        self,
        name: str,
        row: PluginRow | None,
        folder: Path,
        look: PublishAttempt,
        error: PluginError,
    ) -> None:
        try:
            self._records.write(name, row, folder, look, error)
        except DatabaseUnavailableError:
            self.refusals.give_up(name)  # so that it is recorded when it is tried again
            raise

    def _read(self, folder: Path, name: str) -> PluginSource:
        return read_source(self._root, folder, name, self._max_module_mb)

    def _has_changed(self, name: str, row: PluginRow | None, source: PluginSource | None) -> bool:
        """Tell whether a folder is not any more what was refused: it was read half-written."""
        try:
            now = self._read(self._folder_of(name, row), name)
        except PluginError:
            return source is not None
        return source is None or now.digest != source.digest

    def _folder_of(self, name: str, row: PluginRow | None) -> Path:
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
        return default  # another host's path, or one that an earlier system wrote

    def _is_wanted(self, row: PluginRow | None, source: PluginSource, restore: bool) -> bool:
        seen = self._seen.digest_of(source.name)
        if row is None:
            return restore or source.digest != seen
        if row.unpublished:
            return True
        return source.digest not in {seen, row.source_digest}

    def _remember(self, source: PluginSource, look: PublishAttempt) -> None:
        """Note on this host that a source is published, and that nothing is refused any more."""
        name = source.name
        try:
            if self._seen.digest_of(name) != source.digest:
                self._seen.record_root(self._root)
                self._seen.record(name, source.digest)
        except OSError as error:
            text = (
                f"it is published, but that cannot be noted in {self._artifacts_dir}: "
                f"{error.strerror}; free space or make the folder writable, else its row stays "
                "when its folder is removed"
            )
            self._note(name, look, PluginError(name, text, phase="save", outside=True))
        else:
            self.refusals.end(name)
