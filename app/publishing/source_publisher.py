"""Discover → compile → try → save, for one plugin's source."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

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
from app.publishing.host_state import HostState, Published, identity_of, is_wanted, went_back
from app.publishing.manifest import reload_of
from app.publishing.refusals import Refusals
from app.publishing.saving import Saver
from app.publishing.trials.held import accept_in_use, advise_exclusive
from app.publishing.trials.rehearsals import Rehearsals
from app.publishing.trials.trial import TrialRunner
from app.records import Artifact, PluginRow, PluginSource, Reload, TrialReport

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
        rehearsals: Rehearsals,
    ) -> None:
        self._root = plugins_dir
        self._max_module_mb = max_module_mb
        self._artifacts_dir = artifacts_dir
        self._repository = repository
        self._trial = trial
        self._seen = seen
        self._saver = Saver(artifacts_dir, repository)
        self._refusals = refusals
        self._rehearsals = rehearsals
        self.records = ErrorRecords(repository, refusals)
        """Where it is recorded what is wrong with a source."""

    def look(
        self, name: str, row: PluginRow | None, attempt: PublishAttempt | None = None
    ) -> PublishAttempt:
        """Have an attempt look at the folder that a plugin's source lies in, and return it."""
        folder = self._root / name
        with suppress(DiscoveryError):
            folder = self.folder_of(name, row)
        if folder.is_relative_to(self._root):
            folder = self._root / folder.relative_to(self._root).parts[0]
        attempt = attempt or PublishAttempt()
        attempt.look(folder)
        return attempt

    def prepare(self) -> None:
        """Start what the first publish would have to wait for."""
        self._trial.prepare()

    def is_settled(self, name: str, row: PluginRow | None) -> bool:
        """Tell whether a folder is what its row says: nothing is to be done, or refused any more.

        Args:
            name: the plugin's name.
            row: its row as it was read, None if it has none.
        """
        if row is None or row.error is not None or row.unpublished:
            return False
        try:
            source = self._read(self.folder_of(name, row), name)
        except PluginError:
            return False
        settled = self._seen.find(name) == Published(source.digest, row.id, row.generation)
        if settled:
            self._refusals.end(name)
        return settled

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
            attempt: what is known of the folder, which it has looked at.
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
        try:
            folder = self.folder_of(name, row)
            source = self._read(folder, name)
            attempt.digest = source.digest
            last = self._seen.find(name)
            if not force and not is_wanted(last, row, source, restore):
                # A row that is missing, as while a dump is restored, may come back as an older one.
                published = last or Published(source.digest)
                if row is not None:
                    published = Published(source.digest, row.id, row.generation)
                if last != published or (row is not None and row.error is not None):
                    self._settle(name, attempt)
                if row is not None and row.error is not None:
                    self._repository.record_error(row, None)
                if row is not None and last is not None and went_back(last, row, source):
                    now = self._repository.find_row(name)
                    if now is None or now.generation != row.generation:
                        # Another process of this host published it after the row was read.
                        return self.publish(name, now, attempt, force=force, restore=restore)
                    self.note_refused(name, attempt, _older_row(last, row))
                else:
                    self._remember(source, attempt, root, last, published)
                return False
            if not force and self._refusals.holds(name, source.digest, attempt.stamp):
                return False  # it was tried and refused; events come in twos and threes
            self._refusals.begin(name, source.digest)
            self._rehearsals.hurry(name)  # beside the trial
            artifact, report, reload, saved = self._try_and_save(source, row, attempt, force=force)
            self._remember(source, attempt, root, last, Published(source.digest, *saved))
        except PluginError as error:
            self._settle(name, attempt)
            if error.outside and not self._root.is_dir():
                self._refusals.give_up(name)  # that it is gone is told elsewhere, for all plugins
                raise SupersededError(f"the plugins' root {self._root} is gone") from None
            if error.phase == "get_metadata" and folder.name != name:
                error.message += (
                    f"; the row {name!r} has {folder} as its source: if the row was renamed, set "
                    f"its name back to {folder.name!r} in psql"
                )
                error.outside = True  # where that is done, nobody may be told
            advise_exclusive(self._artifacts_dir, error)
            self.records.write(name, row, folder, attempt, error)
            raise
        except DatabaseReadOnlyError:
            raise  # as what the database refuses, but that nothing can be recorded
        except (DatabaseUnavailableError, SupersededError):
            self._refusals.give_up(name)  # it was not tried to the end
            raise
        except DatabaseRefusedError as error:
            self._settle(name, attempt)
            error.plugin = name
            refused = PluginError(name, error.message, phase="save")
            self.records.write(name, row, folder, attempt, refused)
            raise
        log.info(
            "%s: published generation %d, version %s (%s), in %.0f ms",
            name,
            saved[1],
            report.metadata.version,
            source.digest[:12],
            (time.perf_counter() - began) * 1000,
        )
        for fault in report.uncompiled:
            log.warning("%s: no import can name it, so it is published as it is: %s", name, fault)
        if reload is not None:
            log.info("%s: %s", name, reload)
        if reload_of(source.manifest) is None:
            self._rehearsals.begin(artifact, saved[1], row.source_digest if row else None)
        return True

    def _try_and_save(
        self, source: PluginSource, row: PluginRow | None, attempt: PublishAttempt, *, force: bool
    ) -> tuple[Artifact, TrialReport, Reload | None, tuple[str, int]]:
        """Return what came of a source's trial, how it goes live, and its row and generation."""
        reload: Reload | None = None
        with self._saver.saving(source, attempt) as saving:

            def keep(artifact: Artifact, report: TrialReport) -> None:
                nonlocal reload
                reload = reload_of(source.manifest) or self._rehearsals.before_edit(row)
                saving.keep(artifact, report, reload)

            former = row.archive if row is not None else None
            reported = keep if saving.is_alone else None
            artifact, report = self._trial.run(source, attempt.superseded, former, reported)
            if report.in_use is not None:
                report = self._accept_in_use(source, report, row)
            if not saving.has_kept:
                keep(artifact, report)
            saved = saving.finish(report, force=force)
        return artifact, report, reload, saved

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

    def _accept_in_use(
        self, source: PluginSource, report: TrialReport, row: PluginRow | None
    ) -> TrialReport:
        """Accept a trial that came as far as what the served version of its plugin holds.

        Raises:
            LoadError: it is somebody else who holds it, or nobody runs the plugin.
        """
        accepted = accept_in_use(self._artifacts_dir, source, report, row)
        log.info(
            "%s: what it wants is in use by its served version, so it was tried up to there: %s",
            source.name,
            (report.in_use or {}).get("message"),
        )
        return accepted

    def _read(self, folder: Path, name: str) -> PluginSource:
        return read_source(self._root, folder, name, self._max_module_mb)

    def _settle(self, name: str, attempt: PublishAttempt) -> None:
        """Wait until what was found counts; SupersededError if the folder changed meanwhile."""
        if not attempt.outlast_quiet_period():
            self._refusals.give_up(name)
            raise SupersededError("the source changed while it was looked at")

    def folder_of(self, name: str, row: PluginRow | None) -> Path:
        """Return a plugin's source folder on this host.

        Raises:
            DiscoveryError: the row asks for a source outside of the plugins' root.
        """
        default = self._root / name
        if row is None or row.source_path is None:
            return default
        named = Path(os.path.abspath(row.source_path))  # noqa: PTH100 - symlinks are kept
        if named == default or (inside(self._root, named) and named != self._root):
            return named
        if row.unpublished and (row.digest is not None or not default.is_dir()):
            raise DiscoveryError(
                name,
                f"source_path is {row.source_path!r}, expected a folder inside of {self._root}",
            )
        return default  # another host's path, or one from before Benana

    def _remember(
        self,
        source: PluginSource,
        attempt: PublishAttempt,
        root: str | None,
        last: Published | None,
        published: Published,
    ) -> None:
        """Note on this host that a source is published, and that nothing is refused any more.

        Args:
            source: the source.
            attempt: the attempt that found it.
            root: which folder the plugins' root was before it was read.
            last: what is noted.
            published: what is to be noted.
        """
        name = source.name
        try:
            if last != published:
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


def _older_row(last: Published, row: PluginRow) -> PluginError:
    """Return what is to be said of it: the row counts, but must not do so in silence."""
    return PluginError(
        row.name,
        f"its folder was published as generation {last.generation}, and its row is of generation "
        f"{row.generation}, as in another database or a backup: what the row says is served; "
        "reload it to publish the folder",
        outside=True,
    )
