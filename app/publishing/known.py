"""What is known of each of the plugins' folders: how it was, and whether events told of changes."""

import os
import time
from pathlib import Path

from app.publishing.discovery import list_folders
from app.publishing.stamps import (
    FolderStamp,
    LargeStamp,
    folder_stamp,
    same_large,
)

LATE_SECONDS = 0.5
"""How much later than the change itself its event may come."""

REMEMBERED_SECONDS = 120.0
"""How long the last event of a folder that is gone is remembered, as who looked at it may still
ask: longer than a look takes."""


class KnownFolders:
    """The plugins' folders as they were when they were looked at last.

    All times are in monotonic seconds; all but `stirred` is called under one lock, or by the one
    thread that compares.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamps: dict[str, FolderStamp] = {}
        self._large: dict[str, LargeStamp] = {}
        """The folders that were refused for their size: they are not walked while they are so."""
        self.linked: frozenset[str] = frozenset()
        """The folders that change without an event of their own, because of links."""
        self._read_at = 0.0
        self._looked_at: dict[str, float] = {}
        """When the last look that was done began."""
        self._event_at: dict[str, float] = {}
        """When the last event of a folder came."""
        self._stirred_at = 0.0
        """When the last event of all came, those of hidden names included."""
        self._untold: dict[str, float] = {}
        """The folders that changed without an event, as it seems, and when that was found."""
        self._gone: set[str] = set()
        """The folders that are gone and whose last event is remembered."""
        self._mounted: str | None = None
        """A folder that became another one without an event: by a mount, or its end."""

    def __contains__(self, folder: object) -> bool:
        return folder in self._stamps

    def read(self) -> None:
        """Take the stamps of all folders, and forget what was known; OSError without the root."""
        self._read_at = time.monotonic()
        self._looked_at, self._large = {}, {}
        self._stamps = {name: folder_stamp(self._root / name) for name in list_folders(self._root)}
        self.linked = frozenset(n for n, stamp in self._stamps.items() if stamp.linked)

    # --- looks -----------------------------------------------------------------------------

    def keep(self, folder: str, stamp: FolderStamp, began: float, large: LargeStamp | None) -> bool:
        """Note a look that is done.

        Args:
            folder: the folder.
            stamp: its stamp before the look.
            began: when it was taken.
            large: its stamp if it was refused for its size, else None.

        Returns:
            Whether the folder is another one than before.
        """
        untold = self.is_untold(folder)
        self._looked_at[folder] = began
        known, self._stamps[folder] = self._stamps.get(folder), stamp
        if untold and known is not None and stamp.has_other_places(known):
            self._mounted = folder
        if stamp.linked != (folder in self.linked):
            self.linked ^= {folder}
        if large is None:
            self._large.pop(folder, None)
            return known != stamp
        before, self._large[folder] = self._large.get(folder), large
        return before != large

    def forget(self, folder: str) -> None:
        """Forget a folder that is gone, and its last event some time later."""
        for known in (self._stamps, self._large):
            known.pop(folder, None)
        self.linked -= {folder}
        self._looked_at[folder] = time.monotonic()
        self._gone.add(folder)

    def is_left_alone(self, folder: str) -> bool:
        """Tell whether events of a folder do not count: it was refused for its size, and is."""
        large = self._large.get(folder)
        return large is not None and same_large(large, root_only=True)

    # --- comparisons -----------------------------------------------------------------------

    def changed(self, *, linked: bool = False) -> list[str]:
        """Return the folders that are not what they were, those that are new or gone included.

        Args:
            linked: to compare those with links alone.

        Raises:
            OSError: the root is gone.
        """
        folders = list_folders(self._root)
        if linked:
            return [name for name in folders if name in self.linked and self._differs(name)]
        gone = self._stamps.keys() - set(folders)
        return [*filter(self._differs, folders), *sorted(gone)]

    def _differs(self, folder: str) -> bool:
        large = self._large.get(folder)
        if large is not None:
            return not same_large(large)
        known = self._stamps.get(folder)
        if known is None:
            return True
        return not known.still_holds() and folder_stamp(self._root / folder) != known

    # --- events ----------------------------------------------------------------------------

    def last_event(self, folder: str) -> float:
        """Return when the last event of a folder came."""
        return self._event_at.get(folder, 0.0)

    def led_out(self, folder: str) -> bool:
        """Tell whether a folder was a link out of the root, or held one, at the last look."""
        stamp = self._stamps.get(folder)
        return stamp is not None and stamp.leads_out

    def event(self, folder: str, now: float) -> None:
        """Note that an event of a folder came."""
        self._event_at[folder] = now

    def stirred(self) -> None:
        """Note that an event came, of whatever file below the root."""
        self._stirred_at = time.monotonic()

    def is_untold(self, folder: str) -> bool:
        """Tell whether a folder has changed and no event of it came since it was looked at."""
        return not self._was_told(folder, self._looked_at.get(folder, self._read_at))

    def found_untold(self, folder: str, found_at: float) -> None:
        """Note a change that counts, found by a comparison before any event of it came."""
        self._untold[folder] = found_at

    def take_mounted(self) -> str | None:
        """Return a folder that became another one without an event, since the last call."""
        mounted, self._mounted = self._mounted, None
        return mounted

    def missed(self) -> dict[str, float]:
        """Return the folders whose change no event told of, and when that was found.

        Each once, when no event can be on its way any more.
        """
        now = time.monotonic()
        latest = now - LATE_SECONDS
        self._forget_events(now - REMEMBERED_SECONDS)
        untold = {f: at for f, at in self._untold.items() if not self._was_told(f, at)}
        self._untold = {folder: at for folder, at in untold.items() if at >= latest}
        return {folder: at for folder, at in untold.items() if at < latest}

    def _forget_events(self, before: float) -> None:
        for folder in [f for f in self._gone if self._event_at.get(f, 0.0) < before]:
            self._gone.remove(folder)
            if folder not in self._stamps:
                self._event_at.pop(folder, None)
                self._looked_at.pop(folder, None)

    def _was_told(self, folder: str, since: float) -> bool:
        # One that is new may be a link that has come to life.
        new = folder not in self._stamps
        if folder in self.linked or (new and os.path.islink(self._root / folder)):  # noqa: PTH114
            return self._stirred_at >= since
        return folder in self._large or self._event_at.get(folder, 0.0) >= since
