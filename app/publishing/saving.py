"""The last step of a publish: an archive and its row are saved, both or none."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.database.publication import Publication
from app.database.repository import Repository
from app.errors import ArtifactError, DatabaseError, PluginError, SupersededError
from app.package.store import store_artifact
from app.package.version_folders import VersionFolders
from app.publishing.attempt import PublishAttempt
from app.publishing.quiet_period import SAVE_SECONDS
from app.records import (
    ACTIVE,
    INACTIVE,
    Artifact,
    PluginSource,
    Reload,
    TrialReport,
    artifact_name,
)
from app.routing.conflicts import find_conflict

log = logging.getLogger(__name__)

MAX_PATH_LENGTH = 500


class Saver:
    """Saves what passed its trial; safe to use from several threads and processes."""

    def __init__(self, artifacts_dir: Path, repository: Repository) -> None:
        self._artifacts_dir = artifacts_dir
        self._folders = VersionFolders(artifacts_dir)
        self._repository = repository

    @contextlib.contextmanager
    def saving(self, source: PluginSource, attempt: PublishAttempt) -> Iterator["Saving"]:
        """Give what saves a source; what it has begun and not finished is undone.

        Args:
            source: what is tried.
            attempt: tells whether the folder has changed meanwhile.
        """
        with contextlib.ExitStack() as opened:
            yield Saving(self, source, attempt, opened)

    def publishing(self) -> contextlib.AbstractContextManager[Publication]:
        """Open the transaction of one publish."""
        return self._repository.publishing()

    @contextlib.contextmanager
    def stored(self, artifact: Artifact) -> Iterator[Path]:
        """Store an archive and give its path; where the block fails, it is not left behind.

        Raises:
            ArtifactError: it cannot be stored.
        """
        known = (self._artifacts_dir / artifact.file_name).exists()
        binary_path = store_artifact(artifact, self._artifacts_dir)
        try:
            yield binary_path
        except (PluginError, SupersededError, DatabaseError):
            if not known:  # should it be registered after all, it is fetched from the database
                self._drop_archives([artifact.file_name])
                self._folders.tidy(artifact.plugin)
            raise

    def prune(self, plugin: str) -> None:
        """Drop a plugin's oldest versions, once nobody waits for the publish any more."""
        try:
            with self._repository.publishing() as publication:
                pruned = publication.prune_versions(plugin)
        except DatabaseError as error:
            log.warning("%s: its oldest versions stay until its next publish: %s", plugin, error)
            return
        # Their folders go when what a worker served of them is out of its memory.
        self._drop_archives(artifact_name(plugin, digest) for digest in pruned)

    def _drop_archives(self, file_names: Iterable[str]) -> None:
        for file_name in file_names:
            try:
                (self._artifacts_dir / file_name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", file_name, error.strerror)


class Saving:
    """One source on its way into the database: `begin` while its trial ends, then `finish`.

    All methods raise ArtifactError where the archive cannot be stored, and DatabaseError; then
    nothing was saved.
    """

    def __init__(
        self,
        saver: Saver,
        source: PluginSource,
        attempt: PublishAttempt,
        opened: contextlib.ExitStack,
    ) -> None:
        """Make it; see `Saver.saving`."""
        self._saver = saver
        self._source = source
        self._attempt = attempt
        self._opened = opened
        self._begun: tuple[Artifact, TrialReport, Reload | None] | None = None
        self._binary_path = Path()
        self._publication: Publication | None = None

    def begin(self, artifact: Artifact, report: TrialReport, reload: Reload | None) -> None:
        """Store an archive and keep its version: nobody is held up, and nobody sees it yet.

        Args:
            artifact: what the source compiles to.
            report: what its trial found.
            reload: how it is to go live; None where nothing says so.
        """
        self._binary_path = self._opened.enter_context(self._saver.stored(artifact))
        for path in (self._binary_path, self._source.folder):
            if len(str(path)) > MAX_PATH_LENGTH:
                raise ArtifactError(
                    self._source.name,
                    f"the path {str(path)[:60]}… has {len(str(path))} characters, expected "
                    f"{MAX_PATH_LENGTH} at most",
                )
        self._publication = self._opened.enter_context(self._saver.publishing())
        self._publication.keep_version(artifact, report, reload)
        self._begun = artifact, report, reload

    def finish(
        self,
        artifact: Artifact,
        report: TrialReport,
        reload: Reload | None,
        *,
        force: bool = False,
    ) -> tuple[str, int]:
        """Make an archive what the plugin's row serves.

        Args:
            artifact: what the source compiles to.
            report: what its trial found.
            reload: how it is to go live; None where nothing says so.
            force: whether to save it even where the row serves this source already.

        Returns:
            The row's id and its generation.

        Raises:
            ConflictError: a route belongs to another plugin.
            SupersededError: the source changed; nothing was saved.
        """
        if self._begun != (artifact, report, reload):
            self._undo()
            self.begin(artifact, report, reload)
        saved = self._save(report, force=force)
        self._opened.close()  # here it is committed
        self._saver.prune(self._source.name)
        return saved

    def _undo(self) -> None:
        """Undo what was begun: the trial was made again, and came to something else."""
        with contextlib.suppress(SupersededError), self._opened.pop_all():
            raise SupersededError("it was tried again")

    def _save(self, report: TrialReport, *, force: bool) -> tuple[str, int]:
        source, publication = self._source, self._publication
        assert publication is not None  # noqa: S101 - for the type checker
        if not self._attempt.outlast_quiet_period(SAVE_SECONDS):
            raise SupersededError("the source changed while it was tried")
        row = publication.lock_row(source.name)
        if not force and row is not None and row.source_digest == source.digest:
            return row.id, row.generation  # another process published the same meanwhile
        templates = list(dict.fromkeys(endpoint.path for endpoint in report.endpoints))
        others = publication.other_templates(source.name, templates)
        # By themselves they were compared in the trial.
        conflict = find_conflict(source.name, templates, others, report.places) if others else None
        if conflict is not None:
            conflict.outside = True  # the other plugin may go
            raise conflict
        saved = publication.save(
            row,
            report.metadata,
            report.endpoints,
            source_path=str(source.folder),
            binary_path=str(self._binary_path),
            source_digest=source.digest,
            status=ACTIVE if source.manifest.enabled else INACTIVE,
        )
        if not self._attempt.outlast_quiet_period():
            raise SupersededError("the source changed while it was tried")
        return saved
