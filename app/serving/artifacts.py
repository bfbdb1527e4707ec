"""The artifacts folder: immutable archives, each under the digest of its source."""

import os
import tempfile
from pathlib import Path

from app.errors import ArtifactError
from app.records import Artifact


def store_artifact(artifact: Artifact, folder: Path) -> Path:
    """Write an archive into the artifacts folder, whole or not at all.

    Returns:
        The archive's absolute path.

    Raises:
        ArtifactError: the folder cannot be written to; an older archive is left as it was.
    """
    target = folder / artifact.file_name
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _holds(target, artifact):
            return target
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(artifact.archive)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp's 0600 would hide it from others
        os.replace(temporary, target)  # noqa: PTH105
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ArtifactError(
            artifact.plugin,
            f"{target} cannot be written: {error.strerror}; free space, make the folder writable "
            "or set BENANA_ARTIFACTS_DIR",
        ) from None
    return target


def _holds(path: Path, artifact: Artifact) -> bool:
    try:
        return path.read_bytes() == artifact.archive
    except FileNotFoundError:
        return False


def read_archive(folder: Path, file_name: str) -> bytes | None:
    """Return an archive's bytes, None if it is not there or cannot be read."""
    try:
        return (folder / file_name).read_bytes()
    except OSError:
        return None
