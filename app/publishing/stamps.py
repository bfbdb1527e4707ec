"""Cheap fingerprints of folders: they say whether to look again, content alone decides the rest."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.publishing.discovery import MAX_ENTRIES, MAX_FILES, inside, rules_of
from app.publishing.ignore import is_environment, is_part

Row = tuple[str, int, int, int, int]
"""Path, size, mtime, ctime and inode. Only the ctime cannot be set back: a file that was replaced
may have the size and mtime of the old one, and on some file systems its inode."""


@dataclass(frozen=True, slots=True)
class FolderStamp:
    """A fingerprint of a folder's files, those behind links included.

    Not those behind links that lead out of the root: they are refused, whatever they lead to.

    Folders are no part of it: what tools leave in them for a moment changes them, too. They only
    tell, by `still_holds`, that nothing was added or taken away.
    """

    files: tuple[Row, ...]
    folders: tuple[Row, ...] = field(default=(), compare=False)
    linked: bool = field(default=False, compare=False)
    """Whether the folder is a link or holds one: what changes there has no event in the folder."""
    leads_out: bool = field(default=False, compare=False)
    """Whether the folder is a link out of the root or holds one: who changes what is out there
    changes the folder, by links on the way, and nothing that is observed."""
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    """Device and inode of the folders."""

    def has_other_places(self, before: "FolderStamp") -> bool:
        """Tell whether another folder is now where there was one: it was replaced, or a mount."""
        return any(before.places.get(path, place) != place for path, place in self.places.items())

    def still_holds(self) -> bool:
        """Tell, without a walk, whether all is as it was; if not, a new stamp says what counts."""
        return bool(self.folders) and all(map(_is_as_it_was, (*self.folders, *self.files)))


NOTHING = FolderStamp(())
"""The stamp of a folder that is gone."""


def folder_stamp(folder: Path) -> FolderStamp:
    """Return the fingerprint of a folder; what is no part of a plugin does not count."""
    files: list[Row] = []
    folders: list[Row] = []
    linked = os.path.islink(folder)  # noqa: PTH114 - that raises nothing
    leads_out = False
    left = MAX_ENTRIES
    try:
        status = folder.stat()
        if linked and not inside(folder.parent, folder):
            row = _row(str(folder), folder.lstat())
            return FolderStamp((row,), linked=True, leads_out=True)
    except OSError:
        return NOTHING
    folders.append(_row(str(folder), status))
    places = {str(folder): (status.st_dev, status.st_ino)}
    rules = rules_of(folder)
    pending, walked = [(str(folder), "")], {*places.values()}
    while pending:
        current, prefix = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0 or len(files) + len(folders) > 2 * MAX_FILES:
                        break  # it is refused for its size anyway
                    if not is_part(entry.name):
                        continue
                    linked = linked or entry.is_symlink()
                    try:
                        status = entry.stat()
                    except OSError:
                        status = entry.stat(follow_symlinks=False)  # a broken link
                    path, is_folder = prefix + entry.name, stat.S_ISDIR(status.st_mode)
                    if rules.leave_out(path, folder=is_folder):
                        continue
                    if entry.is_symlink() and not inside(folder.parent, Path(entry.path)):
                        leads_out = True
                        files.append(_row(entry.path, entry.stat(follow_symlinks=False)))
                    elif not is_folder:
                        files.append(_row(entry.path, status))
                    elif (status.st_dev, status.st_ino) not in walked:
                        walked.add((status.st_dev, status.st_ino))
                        places[entry.path] = (status.st_dev, status.st_ino)
                        folders.append(_row(entry.path, status))
                        if not is_environment(entry.path):
                            pending.append((entry.path, f"{path}/"))
        except OSError:
            continue  # it changes under our feet: the next look will tell
    # Where a link leads is not seen in its own stamp: without folders it is walked each time.
    kept = () if leads_out else tuple(folders)
    return FolderStamp(tuple(sorted(files)), kept, linked, leads_out, places)


def _row(path: str, status: os.stat_result) -> Row:
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_as_it_was(row: Row) -> bool:
    try:
        status = os.stat(row[0])  # noqa: PTH116 - thousands of them, each second
    except OSError:
        try:
            status = os.lstat(row[0])  # a broken link
        except OSError:
            return False
    return _row(row[0], status) == row


LargeStamp = tuple[tuple[str, int, int, int], ...]


def large_stamp(folder: Path) -> LargeStamp:
    """Return a fingerprint of a folder that is too large, cheap to compare with `same_large`.

    It holds path, mtime, ctime and inode of the folder and of those below it that a bounded walk
    meets: they change when something is moved into one of them or taken away.
    """
    rules = rules_of(folder)
    pending = [(str(folder), "")]
    stamps: list[tuple[str, int, int, int]] = []
    left = MAX_ENTRIES
    while pending and left > 0:
        current, prefix = pending.pop()
        with suppress(OSError), os.scandir(current) as entries:
            status = Path(current).stat()
            stamps.append((current, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
            for entry in entries:
                left -= 1
                if left < 0:
                    break
                if not entry.is_dir(follow_symlinks=False) or is_environment(entry.path):
                    continue
                path = prefix + entry.name
                if not rules.leave_out(path, folder=True):
                    pending.append((entry.path, f"{path}/"))
    return tuple(stamps)


def same_large(stamp: LargeStamp, *, root_only: bool = False) -> bool:
    """Tell whether the folders of a `large_stamp` are what they were, without a walk."""
    for path, *known in stamp[:1] if root_only else stamp:
        try:
            status = os.stat(path)  # noqa: PTH116 - for each event
        except OSError:
            return False
        if [status.st_mtime_ns, status.st_ctime_ns, status.st_ino] != known:
            return False
    return bool(stamp)
