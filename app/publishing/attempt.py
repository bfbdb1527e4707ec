"""An attempt to publish a folder that may change meanwhile."""

import threading
import time
from pathlib import Path

from app.publishing import quiet_period
from app.publishing.stamps import NOTHING, FolderStamp, folder_stamp


class PublishAttempt:
    """One look at a folder, and what it may come to.

    What it finds counts once the folder was quiet for the quiet period, whatever began the look:
    the folder's stamp before it was read is compared with the one at the end. Compile and trial run
    meanwhile.
    """

    def __init__(
        self,
        *,
        waits_for_lock: bool = True,
        told: bool = False,
        untold_at: float | None = None,
        restless: bool = False,
    ) -> None:
        self.superseded = threading.Event()
        """Set when the folder has changed again meanwhile."""
        self.stamp: FolderStamp = NOTHING
        """The folder's stamp when the attempt began."""
        self.digest: str | None = None
        """The digest of the source that it found."""
        self.unrecorded = ""
        """Why the database does not take what is wrong with the source."""
        self.waits_for_lock = waits_for_lock
        """Whether to wait for a lock on the plugin's row: not again, where that was in vain."""
        self.told = told
        """Whether an event told of a change."""
        self.untold_at = untold_at
        """When a comparison found a change that no event told of, in monotonic seconds."""
        self.restless = restless
        """Whether the folder changes all the time: what can be published is published then."""
        self.began = time.monotonic()
        self._folder: Path | None = None
        self._settled_at = 0.0
        self._compare_at = 0.0

    def look(self, folder: Path) -> None:
        """Take the stamp of the folder that is looked at; once, before anything of it is read."""
        if self._folder is not None:
            return
        self._folder = folder
        self.began = time.monotonic()
        self.stamp = folder_stamp(folder)
        # Where there are events the folder's clock is taken for ours; a file server's may differ.
        age = _age(self.stamp, folder) if self.told else 0.0
        self._settled_at = self.began + max(0.0, quiet_period.QUIET_SECONDS - age)

    def compare(self) -> None:
        """Set `superseded` if the folder is not what it was when the attempt began.

        A stamp of a large folder takes its time, and events come in thousands: nine tenths of the
        time are kept free of it.
        """
        began = time.monotonic()
        if self._folder is None or self.superseded.is_set() or began < self._compare_at:
            return
        if folder_stamp(self._folder) != self.stamp:
            self.superseded.set()
        now = time.monotonic()
        self._compare_at = now + 9 * (now - began)

    def outlast_quiet_period(self, early: float = 0.0) -> bool:
        """Wait until the folder has been quiet for the quiet period.

        Args:
            early: how long before its end to come back, in seconds; call it again for the rest.

        Returns:
            Whether what was found counts; else the folder changed in that time.
        """
        left = self._settled_at - early - time.monotonic()
        if self.superseded.wait(max(0.0, left)):
            return False
        if early or self._folder is None:
            return True
        if not self.stamp.still_holds() and folder_stamp(self._folder) != self.stamp:
            self.superseded.set()
        return not self.superseded.is_set()


def _age(stamp: FolderStamp, folder: Path) -> float:
    """Return how long ago a folder changed last, in seconds: rather too little than too much."""
    changed = [row[3] for row in (*stamp.files, *stamp.folders)]
    if not changed:
        try:
            changed = [folder.parent.stat().st_ctime_ns]
        except OSError:
            return 0.0
    return max(0.0, (time.time_ns() - max(changed)) / 1e9 - quiet_period.TICK_SECONDS)
