"""In a process that a plugin has spawned: its parent's generations are found here, too.

The parent's journal says which archive a generation is; code comes from its verified bytes, and
the folder is the one that the parent uses.
"""

import os
from pathlib import Path

from app.files import read_whole
from app.package.archive import Archive
from app.package.finder import finder
from app.package.importer import GenerationImporter
from app.package.use_journal import VARIABLE, read_journal
from app.package.version_folders import VersionFolders
from app.records import Artifact

_JOURNAL = Path(os.environ.get(VARIABLE, ""))
"""The parent's; this process's own takes its place in the environment once it has one."""


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
    try:
        raw = read_whole(Path(use.archive))
    except OSError as error:
        raise ImportError(
            f"{name} is not found: its archive {use.archive} cannot be read ({error.strerror})",
            name=name,
        ) from None
    artifact = Artifact(use.plugin, use.digest, use.sha256, raw)
    folders = VersionFolders(_JOURNAL.parents[2], archive=Path(use.archive))
    GenerationImporter(Archive.verified(artifact), name, folders)
