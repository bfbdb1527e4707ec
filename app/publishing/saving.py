"""The last step of a publish: an archive and its row are saved, both or none."""

from pathlib import Path

from app.database.endpoints import storable_endpoints
from app.database.repository import Repository
from app.errors import ArtifactError, DatabaseError, PluginError, SupersededError
from app.package.store import store_artifact
from app.package.version_folders import VersionFolders
from app.publishing.attempt import PublishAttempt
from app.publishing.old_versions import OldVersions, drop_archives
from app.publishing.quiet_period import SAVE_SECONDS
from app.records import ACTIVE, INACTIVE, Artifact, PluginSource, Reload, TrialReport
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

    def save(
        self,
        source: PluginSource,
        artifact: Artifact,
        report: TrialReport,
        attempt: PublishAttempt,
        reload: Reload | None = None,
        *,
        force: bool = False,
    ) -> tuple[str, int]:
        """Store an archive and make it what the plugin's row serves.

        Args:
            source: what was tried.
            artifact: what it compiles to.
            report: what its trial found.
            attempt: tells whether the folder has changed meanwhile.
            reload: how it is to go live; None where nothing says so.
            force: whether to save it even where the row serves this source already.

        Returns:
            The row's id and its generation.

        Raises:
            ArtifactError: the archive cannot be stored.
            ConflictError: a route belongs to another plugin.
            DatabaseError: nothing was saved.
            SupersededError: the source changed; nothing was saved.
        """
        binary_path = self._artifacts_dir / artifact.file_name
        known = binary_path.exists()
        try:
            return self._save(source, artifact, report, binary_path, attempt, reload, force=force)
        except (PluginError, SupersededError, DatabaseError):
            if not known:  # should it be registered after all, it is fetched from the database
                drop_archives(self._artifacts_dir, [artifact.file_name])
                self._folders.tidy(artifact.plugin)
            raise

    def _save(
        self,
        source: PluginSource,
        artifact: Artifact,
        report: TrialReport,
        binary_path: Path,
        attempt: PublishAttempt,
        reload: Reload | None,
        *,
        force: bool,
    ) -> tuple[str, int]:
        for path in (binary_path, source.folder):
            if len(str(path)) > MAX_PATH_LENGTH:
                raise ArtifactError(
                    source.name,
                    f"the path {str(path)[:60]}… has {len(str(path))} characters, expected "
                    f"{MAX_PATH_LENGTH} at most",
                )
        templates = list(dict.fromkeys(endpoint.path for endpoint in report.endpoints))
        with self._repository.publishing() as publication:
            if publication.keep_version(artifact, report, reload):
                store_artifact(artifact, self._artifacts_dir)
            _outlast_quiet_period(attempt, SAVE_SECONDS)
            row = publication.lock_row(source.name)
            if not force and row is not None and row.source_digest == source.digest:
                return row.id, row.generation  # another process published the same meanwhile
            if row is None or row.endpoints != storable_endpoints(report.endpoints):
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
                binary_path=str(binary_path),
                source_digest=source.digest,
                status=ACTIVE if source.manifest.enabled else INACTIVE,
            )
            _outlast_quiet_period(attempt)
        self._old.drop_soon(source.name)
        return saved
