"""A version is a real folder: its archive, unpacked once on a host, for all that read files.

`<artifacts>/unpacked/<plugin>/<digest>` holds the plugin's files as they were published, and no
bytecode: code comes from the verified archive. It is made beside its final name and renamed into
place whole, so that several processes may want it at once; it is read-only.
"""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.errors import ArtifactError
from app.package import spawned
from app.package.archive import Archive
from app.package.unpacking import (
    NEW,
    OLD,
    UnfitError,
    is_recent,
    is_whole,
    newest_folder,
    put_in_place,
    remove_folder,
    set_aside,
    unique_path,
    unpack_fault,
    write_files,
)
from app.package.use_journal import VARIABLE, Use, UseJournal, pruning, used_versions, using
from app.records import artifact_name

log = logging.getLogger(__name__)

UNPACKED = "unpacked"
"""The folder of the unpacked versions, in the artifacts folder."""

MANY_FILES = 5
"""From so many on, a version shares with the one before what is the same in both."""


class VersionFolders:
    """The unpacked versions of a host, as one process uses them.

    `take` gives a generation its folder, `give_back` tells that it is gone; `prune` removes the
    folders that are not kept, unless a process uses them. Safe to use from several threads.
    """

    def __init__(
        self,
        artifacts_dir: Path,
        tell: Callable[[OSError | None], None] | None = None,
        *,
        archive: Path | None = None,
        thorough: bool = False,
        keep: int | None = None,
    ) -> None:
        """Make it; nothing is written yet.

        Args:
            artifacts_dir: this host's archives, which say what is kept.
            tell: is told why a folder cannot be made, and None when one could be, by whoever
                goes on without; without it `take` raises.
            archive: where processes that a plugin spawns find its archive, if not there; for
                the one archive of a trial.
            thorough: whether `take` looks at each file of a folder that is there, whatever its
                age; else only where a power failure may have cut some.
            keep: how many versions of a plugin `prune` leaves beside those in use: on a host that
                does not publish, nobody else removes an archive. None for all that have one.
        """
        self._artifacts_dir = artifacts_dir
        self._archive = archive
        self._thorough = thorough
        self._keep = keep
        self.root = artifacts_dir / UNPACKED
        self._tell = tell
        self._lock = threading.Lock()
        self._journal: UseJournal | None = None
        self._gone: deque[str] = deque()
        """Generations that have ended; noted with the next one, because this may be a finalizer."""

    def begin(self) -> None:
        """Enter this process among the users, which a first `take` does by itself.

        It sets a variable and an entry of `sys.path`, for the processes that a plugin spawns: who
        watches what a load changes calls it before.
        """
        if self._own_journal() is not None:
            return
        with suppress(OSError), self._lock, using(self.root):
            self._current_journal()

    def take(self, name: str, content: Archive) -> Path | None:
        """Return the folder of a generation's version, which stays until it is given back.

        Args:
            name: the generation's package.
            content: its archive.

        Returns:
            The folder; None if the generation has to do without, which was said.

        Raises:
            ArtifactError: it cannot be made, and nobody is told of it.
        """
        archive = self._archive or self._archive_of(content.plugin, content.digest)
        use = Use(name, content.plugin, content.digest, content.sha256, str(archive))
        try:
            with self._lock, using(self.root):
                journal = self._current_journal()
                journal.add(use)
                try:
                    folder = self._make(content, thorough=self._thorough)
                except (OSError, UnfitError):
                    journal.remove(name)
                    raise
        except UnfitError as error:
            log.warning("%s: it runs without a folder of its files: %s", content.plugin, error)
            return None
        except OSError as error:
            if self._tell is None:
                raise self._error(content, error) from None
            self._tell(error)
            return None
        if self._tell is not None:
            self._tell(None)
        return folder

    def give_back(self, name: str) -> None:
        """Note that a generation is gone; does nothing that could wait or fail."""
        self._gone.append(name)

    def prune(self, plugin: str) -> None:
        """Remove the folders of a plugin that are not kept, as far as nobody uses them.

        Those are the ones whose archives are gone, and those beyond the number that is kept, with
        their archives: they come from the database again, should they be set back to.

        What is in use now, or while others begin to use some, goes with a later call.

        Raises:
            OSError: one cannot be removed.
        """
        parent = self.root / plugin
        if not self._not_kept(parent):
            return
        with self._lock, using(self.root):
            self._note_gone()
        left: list[Path] = []
        with pruning(self.root) as alone:
            if not alone:
                return
            used = used_versions(self.root)
            for path in self._not_kept(parent):
                if path.name.startswith((NEW, OLD)):
                    left.append(path)  # of a process that was killed at it
                elif (plugin, path.name) not in used:
                    self._archive_of(plugin, path.name).unlink(missing_ok=True)
                    left.append(set_aside(path))
        for path in left:
            remove_folder(path)
        with suppress(OSError):
            parent.rmdir()  # unless there are others

    def tidy(self, plugin: str) -> None:
        """Do the same as `prune`, and say in the log what cannot be removed."""
        try:
            self.prune(plugin)
        except OSError as error:
            log.warning("%s: old folders cannot be removed: %s", plugin, error)

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()

    def _own_journal(self) -> UseJournal | None:
        """Return this process's journal; None without one: a fork has its parent's."""
        journal = self._journal
        return journal if journal is not None and journal.pid == os.getpid() else None

    def _current_journal(self) -> UseJournal:
        journal = self._own_journal()
        if journal is None:
            journal = UseJournal(self.root)
            self._gone.clear()
            os.environ[VARIABLE] = str(journal.path)
            if spawned.PATH not in sys.path:
                sys.path.append(spawned.PATH)
            self._journal = journal
        self._note_gone()
        return journal

    def _note_gone(self) -> None:
        while self._gone and (journal := self._own_journal()) is not None:
            journal.remove(self._gone.popleft())

    def _make(self, content: Archive, *, thorough: bool) -> Path:
        folder = self.root.joinpath(content.plugin, content.digest)
        if (not thorough and is_recent(folder)) or is_whole(folder, content):
            return folder
        fault = unpack_fault(content)
        if fault is not None:
            raise UnfitError(fault)
        new = unique_path(folder.parent, NEW)
        try:
            new.mkdir()
        except FileNotFoundError:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.mkdir()
        try:
            many = len(content.files()) >= MANY_FILES
            write_files(content, new, newest_folder(folder.parent) if many else None)
            while not put_in_place(new, folder):
                if is_whole(folder, content):  # another process was as fast
                    remove_folder(new)
                    break
                log.warning(
                    "%s: %s is not as it was published, making it anew", content.plugin, folder
                )
                remove_folder(set_aside(folder))
        except OSError:
            with suppress(OSError):
                remove_folder(new)
            raise
        return folder

    def _archive_of(self, plugin: str, digest: str) -> Path:
        return self._artifacts_dir / artifact_name(plugin, digest)

    def _not_kept(self, parent: Path) -> list[Path]:
        with suppress(FileNotFoundError):
            whole: list[Path] = []
            others: list[Path] = []
            for path in parent.iterdir():
                has_archive = self._archive_of(parent.name, path.name).exists()
                (whole if has_archive else others).append(path)
            if self._keep is not None and len(whole) > self._keep:
                whole.sort(key=lambda path: path.lstat().st_ctime, reverse=True)
                others += whole[self._keep :]
            return others
        return []

    def _error(self, content: Archive, error: OSError) -> ArtifactError:
        return ArtifactError(
            content.plugin,
            f"its files cannot be unpacked into {self.root}: {error.strerror or error}; free "
            "space, or make the folder writable",
            outside=True,
        )
