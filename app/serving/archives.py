"""Where a row's archive comes from: this host's folder, else the database."""

import logging
from pathlib import Path

from app.database.repository import Repository
from app.errors import ArtifactError
from app.package.store import read_archive, write_archive
from app.records import Artifact, ServedRow, artifact_name
from app.serving.host_files import ARCHIVES, HostFiles

log = logging.getLogger(__name__)


def fetch_artifact(
    row: ServedRow, artifacts_dir: Path, repository: Repository, files: HostFiles
) -> Artifact:
    """Return a row's archive, intact; one that comes from the database is kept on this host.

    Args:
        row: what is to be loaded.
        artifacts_dir: this host's archives.
        repository: has the archives that this host has not.
        files: is told whether archives can be kept.

    Raises:
        ArtifactError: the row names none, or none that is kept.
        DatabaseError: it is not on this host, and cannot be read.
    """
    digest = row.digest
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
    raw = read_archive(artifacts_dir, artifact_name(row.name, digest))
    if raw is not None:
        artifact = Artifact(row.name, digest, row.archive_sha256, raw)
        if artifact.is_intact():
            return artifact
        log.warning("%s: %s is damaged, fetching it anew", row.name, artifact.file_name)
    kept = repository.find_artifact(row.name, digest)
    if kept is None:
        raise ArtifactError(row.name, f"the version {digest[:12]} is no longer kept")
    try:
        write_archive(kept, artifacts_dir)
    except OSError as error:
        files.lacks(ARCHIVES, error)  # it is served from memory all the same
    else:
        files.has(ARCHIVES)
    return kept
