"""The rows follow the folders: one plugin at a time, or all of them in a scan."""

import logging
from collections.abc import Set as AbstractSet
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
from app.publishing.discovery import MAX_MODULE_MB, list_folders, may_be_plugin
from app.publishing.host_state import HostState, identity_of
from app.publishing.ignore import is_part
from app.publishing.refusals import Refusals
from app.publishing.requirements import installed
from app.publishing.set_back import SetBack
from app.publishing.source_publisher import SourcePublisher
from app.publishing.trials.rehearsals import Rehearsals
from app.publishing.trials.trial import TrialRunner
from app.records import PluginRow

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
        self._repository = repository
        conditions = conditions or Conditions()
        self._seen = HostState(artifacts_dir, conditions)
        self._set_back = SetBack(plugins_dir, repository, self._seen, conditions)
        self.refusals = refusals
        """What was tried in vain, and when it is tried again."""
        self.rehearsals = Rehearsals(trial.rehearser(plugins_dir, artifacts_dir), repository)
        """Finds out how the next edits can go live; to be started where edits are followed."""
        self._sources = SourcePublisher(
            plugins_dir,
            artifacts_dir,
            repository,
            trial,
            refusals,
            self._seen,
            max_module_mb,
            self.rehearsals,
        )
        installed.look()  # what is imported from now on is what is installed now

    def has_folder(self, name: str) -> bool:
        """Tell whether a plugin has its source folder on this host."""
        row = self._repository.find_row(name)
        try:
            return self._sources.folder_of(name, row).is_dir()
        except DiscoveryError:
            return False

    def prepare(self) -> None:
        """Start what the first publish would have to wait for."""
        self._sources.prepare()

    def publish(self, name: str) -> None:
        """Publish a plugin, whether its source changed or not.

        Raises:
            PluginError: the source cannot be published; the error is recorded beside the row, and
                what was served keeps serving.
            DatabaseUnavailableError: nothing was recorded; publish again later.
            DatabaseRefusedError: the row cannot be written; recorded, if the database takes that.
            SupersededError: nothing was recorded, because the folder changed meanwhile.
        """
        attempt = PublishAttempt()
        try:
            row = self._repository.find_row(name)
            self._sources.publish(name, row, self._sources.look(name, row, attempt), force=True)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._sources.note_refused(name, attempt, error, aloud=False)
            raise

    def follow(self, name: str, row: PluginRow | None, attempt: PublishAttempt) -> bool:
        """Make a plugin's row follow its folder: publish what changed, unregister what is gone.

        What is refused is said, and tried again where that may help (`refusals`).

        Args:
            name: the plugin's name.
            row: its row as it was read, None if it has none.
            attempt: what is known of the folder while it is looked at.

        Returns:
            Whether it was published; not if it is what was last published, or refused.

        Raises:
            PluginError: as `publish`.
            DatabaseUnavailableError: as `publish`.
            DatabaseRefusedError: as `publish`.
            SupersededError: nothing was recorded, because the folder changed again.
        """
        try:
            published = self._follow(name, row, attempt)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._sources.note_refused(name, attempt, error)
            raise
        self.refusals.show(name)
        self._set_back.followed(name)
        return published

    def _follow(self, name: str, row: PluginRow | None, attempt: PublishAttempt) -> bool:
        self._sources.look(name, row, attempt)
        if row is not None and not attempt.waits_for_lock and self._repository.is_locked(row):
            raise DatabaseBusyError(f"the row of {name} is still locked")
        if not self._folder_is_gone(name, row):
            self._seen.found_folder(self._root)
            self._left_behind()
            return self._sources.publish(name, row, attempt)
        if not self._seen.is_unmounted(self._root):
            self._remove(name, row, attempt)
        self.refusals.end(name)
        return False

    def _folder_is_gone(self, name: str, row: PluginRow | None) -> bool:
        if row is not None and row.unpublished:
            return False  # the row asks for it: that it is missing is an error to show
        return self._root.is_dir() and not self._sources.folder_of(name, row).is_dir()

    def _remove(self, name: str, row: PluginRow | None, attempt: PublishAttempt) -> None:
        """Unregister a plugin whose folder is gone from this host, if this host published it."""
        if not attempt.outlast_quiet_period():
            raise SupersededError("its folder is there again, as one that was put in its place")
        folder = self._root / name
        try:
            if self._seen.find(name) is not None:
                if self._repository.unregister(name, str(folder)):
                    log.info("%s: its folder is gone, unregistered", name)
                self._seen.forget(name)
            self._repository.failures.forget(name)
        except DatabaseRefusedError as error:
            refused = PluginError(name, error.message, phase="unregister")
            self._sources.records.write(name, row, folder, attempt, refused)
            raise

    def find_rows(self, folder: str) -> dict[str, PluginRow | None]:
        """Return the rows of the plugins whose source is a folder of the root, or lies within it.

        Where no row says so, it is the plugin of the folder's name, which may have none.
        """
        rows = self._repository.find_by_source(str(self._root / folder), folder)
        return {row.name: row for row in rows} or {folder: None}

    def look_at_rows(self, names: AbstractSet[str] | None) -> list[str]:
        """Return what is to be looked at again of some, or all: a row asks for it, or went back."""
        self._left_behind()  # a row that is deleted is none of them any more
        return self._set_back.look(names)

    def scan(self, *, at_start: bool = False) -> list[str]:
        """Look at every folder and every row once, and publish what wants it.

        At the server's start, plugins whose row was deleted are registered again; a scan that
        could not be completed then is made up for by the next one.

        Returns:
            The plugins that somebody's lock keeps from following their folder, or whose folder
            changed meanwhile: they are to be looked at again.

        Raises:
            OSError: the plugins' root is gone or unreadable; nothing was unregistered.
            DatabaseError: the scan is not complete.
        """
        restore = self._seen.begin_start() if at_start else self._seen.start_is_pending()
        if at_start or restore:
            self._repository.apply_schema()  # later, a table that is missing is being restored
        root = identity_of(self._root)
        folders = list_folders(self._root)
        if restore and folders:
            self._follow_root()
        rows = {row.name: row for row in self._repository.list_rows()}
        sources = {row.source_path: name for name, row in rows.items() if row.source_path}
        names = {sources.get(str(self._root / folder), folder) for folder in folders}
        names |= {name for name, row in rows.items() if row.unpublished}
        self.rehearsals.catch_up(rows.values())
        # One after the other: several threads that read small files wait for the GIL, not the disk.
        unsettled = [name for name in names if not self._sources.is_settled(name, rows.get(name))]
        # All before the first is read, so that one quiet period is waited for.
        attempts = {name: self._sources.look(name, rows.get(name)) for name in unsettled}

        def follow(name: str) -> bool | None:
            return self._scan_one(name, rows.get(name), attempts[name], restore)

        with ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="benana-scan") as pool:
            published = list(pool.map(follow, unsettled))
        again = [name for name, done in zip(unsettled, published, strict=True) if done is None]
        if not self._seen.is_unmounted(self._root):
            if restore:
                self._seen.end_left_behind()
            again += self._forget_missing({*folders, *self._left_behind()})
        if folders:
            self._seen.record_root(root)
        if not again:
            self._seen.end_start(self._root)
        if any(published):
            log.info("published %d of %d plugins", published.count(True), len(names))
        return again

    def _left_behind(self) -> set[str]:
        """Return, and hold, what is served though its folder did not come back with the root."""
        if not self._seen.was_lost:
            return set()
        left = self._seen.left_behind(self._root)
        if left:
            left &= {row.name for row in self._repository.list_rows()}
        self._seen.hold_left_behind(left, self._root)
        return left

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

    def _scan_one(
        self, name: str, row: PluginRow | None, attempt: PublishAttempt, restore: bool
    ) -> bool | None:
        """Publish a plugin if it wants it; return whether, or None if that cannot be told now."""
        try:
            published = self._sources.publish(name, row, attempt, restore=restore)
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            self._sources.note_refused(name, attempt, error)
        except SupersededError:
            return None  # no event may tell of it
        except DatabaseBusyError as error:
            self.refusals.wait(name, error)
            return None
        except DatabaseUnavailableError:
            raise
        except Exception:
            # A fault of ours must not keep the other folders from being looked at.
            log.exception("%s: publishing failed", name)
        else:
            self.refusals.show(name)
            return published
        return False

    def _forget_missing(self, folders: set[str]) -> list[str]:
        """Forget the folders that are gone; return the plugins that are to be looked at again."""
        failures = {
            failure.name
            for failure in self._repository.failures.list_all()
            if Path(failure.source_path).parent == self._root
            and not _is_listed(Path(failure.source_path))
        }
        again = []
        missing = {*(self._seen.plugins() - folders), *failures}
        for name, attempt in {name: self._sources.look(name, None) for name in missing}.items():
            try:
                row = self._repository.find_row(name)
                if self._folder_is_gone(name, row):
                    self._remove(name, row, attempt)
                elif name in failures:
                    self._repository.failures.forget(name)
            except DatabaseBusyError as error:
                self.refusals.wait(name, error)
                again.append(name)
            except SupersededError:
                again.append(name)
            except (DatabaseRefusedError, DatabaseReadOnlyError) as error:
                self._sources.note_refused(name, attempt, error)
        return again


def _is_listed(folder: Path) -> bool:
    return folder.is_dir() and is_part(folder.name) and may_be_plugin(str(folder))
