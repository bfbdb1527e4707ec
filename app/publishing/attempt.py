"""An attempt to publish a folder that may change meanwhile."""

import threading
import time
from collections.abc import Callable

from app.publishing import quiet_period
from app.publishing.stamps import NOTHING, FolderStamp


class PublishAttempt:
    """One look at a folder, and what it may come to.

    A speculative one begins with the event of a file that was written in one go, and not after the
    quiet period: compile and trial run during it, and what they found counts after it.
    """

    def __init__(
        self,
        *,
        speculative: bool = False,
        waits_for_lock: bool = True,
        told: bool = False,
        untold_at: float | None = None,
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
        self.began = time.monotonic()
        self._speculative = speculative
        self._compare_at = 0.0

    def compare(self, stamp_of: Callable[[], FolderStamp]) -> None:
        """Set `superseded` if the folder is not what it was when the attempt began.

        A stamp of a large folder takes its time, and events come in thousands: nine tenths of the
        time are kept free of it.
        """
        began = time.monotonic()
        if self.stamp is NOTHING or self.superseded.is_set() or began < self._compare_at:
            return
        if stamp_of() != self.stamp:
            self.superseded.set()
        now = time.monotonic()
        self._compare_at = now + 9 * (now - began)

    def outlast_quiet_period(self, early: float = 0.0) -> bool:
        """Wait for the end of the quiet period, where it was not waited for before.

        Args:
            early: how long before its end to come back, in seconds; call it again for the rest.

        Returns:
            Whether what was found counts; else the folder changed in that time.
        """
        if not self._speculative:
            return True
        left = self.began + quiet_period.QUIET_SECONDS - early - time.monotonic()
        return not self.superseded.wait(max(0.0, left))
