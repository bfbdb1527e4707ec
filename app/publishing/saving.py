"""The last step of a publish: an archive and its row are saved, both or none."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.database.endpoints import storable_endpoints
from app.database.publication import Publication
from app.database.repository import Repository
from app.errors import ArtifactError, DatabaseError, PluginError, SupersededError
from app.package.store import store_artifact
from app.package.version_folders import VersionFolders
from app.publishing.attempt import PublishAttempt
from app.publishing.old_versions import OldVersions, drop_archives
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

MAX_PATH_LENGTH = 500


def _outlast_quiet_period(attempt: PublishAttempt, early: float = 0.0) -> None:
    """Wait for the end of the quiet period; what passed its trial goes live in a restless folder.

    Raises:
        SupersededError: the folder changed in that time.
    """
    if not attempt.outlast_quiet_period(early) and not attempt.restless:
        raise SupersededError("the source changed while it was tried")


class Saver:
    """Saves what passed its trial; safe to use from several threads and processes."""

    def __init__(self, artifacts_dir: Path, repository: Repository) -> None:
        self._artifacts_dir = artifacts_dir
        self._folders = VersionFolders(artifacts_dir)
        self._repository = repository
        self._old = OldVersions(artifacts_dir, repository)
        self._alone = threading.Lock()

    @contextmanager
    def saving(self, source: PluginSource, attempt: PublishAttempt) -> Iterator["Saving"]:
        """Save within a `with` block: what is kept in it is committed at its end, if all of it is.

        Args:
            source: what is tried.
            attempt: tells whether the folder has changed meanwhile.

        Raises:
            DatabaseError: nothing was saved.
        """
        binary_path = self._artifacts_dir / artifact_name(source.name, source.digest)
        transaction = ExitStack()
        saving = Saving(source, binary_path, attempt, self._repository, transaction)
        try:
            with transaction:
                if self._alone.acquire(blocking=False):
                    transaction.callback(self._alone.release)  # once all is committed
                    saving.is_alone = True
                yield saving
        except (PluginError, SupersededError, DatabaseError):
            if saving.is_new_here:
                # Should it be registered after all, it is fetched from the database.
                drop_archives(self._artifacts_dir, [binary_path.name])
                self._folders.tidy(source.name)
            raise
        if saving.has_kept:
            self._old.drop_soon(source.name)


class Saving:
    """One version on its way to its row: `keep` it, and `finish`."""

    def __init__(
        self,
        source: PluginSource,
        binary_path: Path,
        attempt: PublishAttempt,
        repository: Repository,
        transaction: ExitStack,
    ) -> None:
        self._source = source
        self._binary_path = binary_path
        self._attempt = attempt
        self._repository = repository
        self._transaction = transaction
        self._publication: Publication | None = None
        self.is_new_here = False
        """Whether it was kept, and its archive was not on this host before."""
        self.is_alone = False
        """Whether nothing else is on its way in this process, or all of it came later: then it may
        be kept while its trial ends. Many at once would hold all connections meanwhile."""

    @property
    def has_kept(self) -> bool:
        """Whether anything was stored."""
        return self._publication is not None

    def keep(self, artifact: Artifact, report: TrialReport, reload: Reload | None) -> None:
        """Store an archive, on this host and in the database, before its row says so.

        Args:
            artifact: what the source compiles to.
            report: what its trial found.
            reload: how it is to go live; None where nothing says so.

        Raises:
            ArtifactError: the archive cannot be stored.
            DatabaseError: it cannot be kept.
        """
        for path in (self._binary_path, self._source.folder):
            if len(str(path)) > MAX_PATH_LENGTH:
                raise ArtifactError(
                    self._source.name,
                    f"the path {str(path)[:60]}… has {len(str(path))} characters, expected "
                    f"{MAX_PATH_LENGTH} at most",
                )
        if self._publication is None:
            publishing = self._repository.publishing()
            self._publication = self._transaction.enter_context(publishing)
            self.is_new_here = not self._binary_path.exists()
        if self._publication.keep_version(artifact, report, reload):
            store_artifact(artifact, self._binary_path.parent)

    def finish(self, report: TrialReport, *, force: bool = False) -> tuple[str, int]:
        """Make what was kept what the plugin's row serves, at the end of the `with` block.

        Args:
            report: what the trial found.
            force: whether to save it even where the row serves this source already.

        Returns:
            The row's id and its generation.

        Raises:
            ConflictError: a route belongs to another plugin.
            DatabaseError: nothing was saved.
            SupersededError: the source changed; nothing was saved.
        """
        source, publication = self._source, self._publication
        assert publication is not None  # noqa: S101 - it was kept
        _outlast_quiet_period(self._attempt, SAVE_SECONDS)
        row = publication.lock_row(source.name)
        if not force and row is not None and row.source_digest == source.digest:
            return row.id, row.generation  # another process published the same meanwhile
        if row is None or row.endpoints != storable_endpoints(report.endpoints):
            templates = list(dict.fromkeys(endpoint.path for endpoint in report.endpoints))
            others = publication.other_templates(source.name, templates)
            # By themselves they were compared in the trial.
            conflict = (
                find_conflict(source.name, templates, others, report.places) if others else None
            )
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
        _outlast_quiet_period(self._attempt)
        return saved
