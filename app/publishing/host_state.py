"""What this host last looked at: one small file for each plugin, beside the artifacts.

A host publishes a folder because that folder changed since it last looked, never merely because
the row differs; so a row that was set back stays so, and two hosts with different folders do not
overwrite each other for ever. That a row is older than what this host published, as in
a backup, is said.
"""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.conditions import Conditions, listed
from app.files import read_whole, write_whole
from app.publishing.discovery import list_folders
from app.records import PluginRow, PluginSource

log = logging.getLogger(__name__)

SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class Published:
    """What this host last looked at: a source, and the row that it was published in.

    `row_id` is empty and `generation` 0 where there was no row, or where an older Benana noted it.
    """

    digest: str
    row_id: str = ""
    generation: int = 0

    def is_later(self, row_id: str, generation: int) -> bool:
        """Tell whether a row is older than it was then: of another database, or of a backup."""
        return self.row_id == row_id and self.generation > generation


class HostState:
    """What this host published last, by plugin."""

    def __init__(self, artifacts_dir: Path, conditions: Conditions | None = None) -> None:
        """Make it.

        Args:
            artifacts_dir: the archives' folder.
            conditions: where it is held that the plugins' root is not mounted.
        """
        self._conditions = conditions or Conditions()
        self._folder = artifacts_dir / ".seen"
        self._start = self._folder / ".start"
        self._root = self._folder / ".root"
        self._started_from = self._folder / ".from"
        self._moved_away = self._folder / ".lost"
        """There is one from when the root was found empty until all of its plugins are back."""
        self._lost = False

    @property
    def is_new(self) -> bool:
        """Whether this host has never looked for plugins."""
        return not self._folder.exists()

    def find(self, plugin: str) -> Published | None:
        """Return what was last published from this host's folder, None if nothing was."""
        try:
            digest, *row = read_whole(self._folder / plugin).decode("ascii").split()
            return Published(digest, row[0], int(row[1])) if row else Published(digest)
        except (OSError, ValueError, IndexError):
            return None

    def record(self, plugin: str, published: Published) -> None:
        """Note what is published; OSError if the folder cannot be written to."""
        row = f" {published.row_id} {published.generation}" if published.row_id else ""
        write_whole(self._folder / plugin, f"{published.digest}{row}".encode())

    def record_root(self, identity: str | None) -> None:
        """Note which folder the plugins' root was; where that fails, `is_unmounted` sees nothing.

        Args:
            identity: its `identity_of` before it was looked at, because another one may have come
                into its place meanwhile; None if it was not there.
        """
        with suppress(OSError):
            if identity is not None and self._noted_root() != identity:
                write_whole(self._root, identity.encode())

    def is_unmounted(self, root: Path) -> bool:
        """Tell whether the plugins' root is empty because another folder is in its place.

        For a disk that is not mounted, all plugins would be unregistered otherwise.
        """
        try:
            lost = not list_folders(root) and self._noted_root() not in {None, identity_of(root)}
        except OSError:
            return False  # that it is gone is told elsewhere
        if lost:
            what = f"the plugins' root {root} is empty and not the folder that it was"
            self._conditions.hold(
                "watching:mount",
                f"no edit is seen: {what}; mount its disk, or put the plugins there",
            )
            if not self._lost:
                log.warning(
                    "%s: is a disk not mounted? Nothing is unregistered; what is registered keeps "
                    "serving",
                    what,
                )
            with suppress(OSError):
                self._moved_away.touch()
        else:
            self._conditions.clear("watching:mount")
        self._lost = lost
        return lost

    @property
    def was_lost(self) -> bool:
        """Whether the root was found empty, and something is in it again, but maybe not all."""
        return not self._lost and self._moved_away.exists()

    def left_behind(self, root: Path) -> set[str]:
        """Return the plugins that the root had before it was found empty, and does not have now.

        Somebody may fill the mount point of a disk that is not mounted: to unregister all others
        for that would be wrong, and so would silence. A server's start ends it.
        """
        return self.plugins() - set(list_folders(root))

    def hold_left_behind(self, left: set[str], root: Path) -> None:
        """Hold which plugins are served whose folders did not come back; `left` may be empty."""
        if left:
            self._conditions.hold(
                "watching:left",
                f"{len(left)} plugins are served whose folders are gone "
                f"({listed(sorted(left), SHOWN_NAMES)}): the "
                f"plugins' root {root} was empty, and not all came back; mount its disk, put them "
                "there, or delete their rows; a restart unregisters them",
            )
        else:
            self.end_left_behind()

    def end_left_behind(self) -> None:
        """Take what is in the plugins' root for all that is to be there."""
        self._conditions.clear("watching:left")
        with suppress(OSError):
            self._moved_away.unlink(missing_ok=True)

    def found_folder(self, root: Path) -> None:
        """Note that a plugin's folder is there: a root that was empty may be so no more."""
        if self._lost:
            self.is_unmounted(root)

    def _noted_root(self) -> str | None:
        try:
            return read_whole(self._root).decode("ascii")
        except (OSError, ValueError):
            return None

    def forget(self, plugin: str) -> None:
        """Forget a plugin whose folder is gone."""
        with suppress(OSError):
            (self._folder / plugin).unlink(missing_ok=True)

    def plugins(self) -> set[str]:
        """Return the names of all plugins that were published from this host's folders."""
        try:
            with os.scandir(self._folder) as entries:
                return {entry.name for entry in entries if not entry.name.startswith(".")}
        except OSError:
            return set()

    def former_root(self, root: Path) -> Path | None:
        """Return the plugins' root of the start before, None if it is the same or not known.

        A release that is a folder of its own has another root than the one before.
        """
        try:
            former = Path(os.fsdecode(read_whole(self._started_from)))
        except OSError:
            return None
        return former if former != root else None

    def begin_start(self) -> bool:
        """Note that the scan of the server's start is to be made; always true."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._start.touch()
        return True

    def start_is_pending(self) -> bool:
        """Tell whether the scan of the server's start was never completed."""
        return self._start.exists()

    def end_start(self, root: Path) -> None:
        """Note that the scan of the server's start is complete, and of which root it was."""
        with suppress(OSError):
            if self._start.exists():
                write_whole(self._started_from, os.fsencode(root))
            self._start.unlink(missing_ok=True)


def identity_of(folder: Path) -> str | None:
    """Return what tells a folder from another one in its place, None if it is not there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return f"{status.st_dev}:{status.st_ino}"


def is_wanted(
    last: Published | None, row: PluginRow | None, source: PluginSource, restore: bool
) -> bool:
    """Tell whether a source is to be published.

    Args:
        last: what this host published last of the plugin, None if nothing.
        row: the plugin's row, None if it has none.
        source: what its folder holds now.
        restore: whether a plugin whose row was deleted is registered again.
    """
    is_new = last is None or last.digest != source.digest
    if row is None:
        return restore or is_new
    return row.unpublished or (is_new and source.digest != row.source_digest)


def went_back(last: Published, row: PluginRow, source: PluginSource) -> bool:
    """Tell whether a row is older than what was published, and another source's."""
    return last.is_later(row.id, row.generation) and source.digest != row.source_digest
