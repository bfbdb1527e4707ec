"""In a process that a plugin has spawned: its parent's generations are found here, too.

The parent's journal says which archive a generation is; code comes from its verified bytes, and
the folder is the one that the parent uses.
"""

import os
from pathlib import Path

from app.package.archive import Archive
from app.package.finder import finder
from app.package.importer import GenerationImporter
from app.package.store import read_archive
from app.package.use_journal import VARIABLE, read_journal
from app.package.version_folders import VersionFolders
from app.records import Artifact, artifact_name

_JOURNAL = Path(os.environ.get(VARIABLE, ""))
"""The parent's; this process's own takes its place in the environment once it has one."""

_FOLDERS = VersionFolders(_JOURNAL.parent.parent.parent)


def install() -> None:
    """Look in the parent's journal for generations that are not known."""
    finder.find_elsewhere = _find
    finder.install()


def _find(name: str) -> None:
    """Claim a generation's name for an importer of this process.

    Raises:
        ImportError: the parent has no such generation, or its archive is gone.
    """
    try:
        use = read_journal(_JOURNAL).get(name)
    except OSError as error:
        raise ImportError(
            f"{name} is not found: {_JOURNAL} cannot be read ({error.strerror}); "
            "the process that started this one has ended",
            name=name,
        ) from None
    if use is None:
        raise ImportError(
            f"{name} is not found: the process that started this one has no folder for it",
            name=name,
        )
    artifacts_dir = _FOLDERS.artifacts_dir
    file_name = artifact_name(use.plugin, use.digest)
    raw = read_archive(artifacts_dir, file_name)
    if raw is None:
        raise ImportError(f"{name} is not found: {artifacts_dir / file_name} is gone", name=name)
    artifact = Artifact(use.plugin, use.digest, use.sha256, raw)
    GenerationImporter(Archive.verified(artifact), name, _FOLDERS)
