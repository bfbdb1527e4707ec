"""Whether events tell of changes, or changes have to be looked for; and when to look."""

import logging
import math
import time
from pathlib import Path

from app.conditions import Conditions
from app.publishing.observer import FolderObserver, Notice, Stir

log = logging.getLogger(__name__)

CONDITION = "watching"

SCAN_SECONDS = 5.0
BLIND_SCAN_SECONDS = 1.0
"""How often folders are compared where there are events, and where there are none."""

SHARE = 20
"""A comparison takes one part in so many of the time, at most."""

AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 5.0, 60.0
"""How long after events were found missing another observer is tried, at first and at last."""

PROOF_SECONDS, LONGEST_PROOF_SECONDS = 60.0, 3600.0
"""How long no change may have come without its event, until events are trusted again."""


class Sight:
    """The observer of the plugins' root, and what is done while it does not see.

    All is called by the thread that watches, `missed`, `link_gone` and `told` by others, too.
    """

    def __init__(self, root: Path, notice: Notice, stir: Stir, conditions: Conditions) -> None:
        """Make it; the arguments are a `FolderObserver`'s, and where it says what is wrong."""
        self._root = root
        self._conditions = conditions
        self._notice = notice
        self._stir = stir
        self._observer = FolderObserver(root, notice, stir)
        self._why = ""
        """Why changes have to be looked for; empty while events tell of them."""
        self._pause = AGAIN_SECONDS
        self._again_at = self._blind_at = 0.0
        self.compare_at = 0.0
        """When all folders are to be compared next, in monotonic seconds."""
        self._trusted_at = math.inf
        """From when on a change has an event, unless something is wrong."""
        self._proof = PROOF_SECONDS
        self._missed = ""
        """The folder of a change that no event told of, until events are trusted again."""
        self._missed_at = self._told_at = 0.0
        self._mounted = ""
        """A folder that the observer does not see: it is not the one that was there."""

    def open(self) -> None:
        """Start to observe; OSError if the root is gone."""
        self._observer = FolderObserver(self._root, self._notice, self._stir)
        self._observer.open()
        self._judge()
        self._trusted_at = time.monotonic()
        self.compare_at = self._trusted_at + self._interval

    def close(self) -> None:
        """Stop to observe."""
        self._observer.close()

    def missed(self, folder: str, found_at: float) -> None:
        """Note that a change of a folder was found, and when, that no event told of."""
        if found_at > self._trusted_at and not self._observer.trouble:
            self._missed_at, self._missed = found_at, folder

    def mounted(self, folder: str) -> None:
        """Note that a folder became another one without an event: by a mount, or its end."""
        self._mounted = folder

    def link_gone(self, folder: str) -> None:
        """Note that a folder with links is gone, and with it where alone it led."""
        if folder == self._missed:
            self._missed = ""

    def told(self) -> None:
        """Note that a change was found because an event told of it."""
        self._told_at = time.monotonic()

    def look(self) -> bool:
        """Return whether the folder that is the root now is observed, as far as it can be.

        Raises:
            OSError: the root is gone.
        """
        if not self._observer.is_at_root():
            log.info("the plugins' root %s is another folder now", self._root)
            return False
        if not self._observer.alive():
            log.warning("the observer of %s ended; starting another", self._root)
            return False
        if self._mounted:
            folder, self._mounted = self._mounted, ""
            self._observe_anew()
            log.info("%s: another folder is mounted there now, or none any more", folder)
        self._judge()
        if self._why and time.monotonic() >= self._again_at:
            # Another one may get what the system has not had before.
            self._observe_anew()
            self._pause = min(2 * self._pause, LONGEST_AGAIN_SECONDS)
            self._again_at = time.monotonic() + self._pause
        if self._observer.lost:
            self._observer.lost = False
            self._compare_for_lost()
        return True

    def _observe_anew(self) -> None:
        self._observer.close()
        self.open()
        self._compare_for_lost()

    def _compare_for_lost(self) -> None:
        """Have all compared for events that are known to be lost, which says nothing new."""
        self.compare_at, self._trusted_at = 0.0, math.inf

    def compared(self, seconds: float) -> None:
        """Note that all folders have been compared, and how long that took."""
        now = time.monotonic()
        self.compare_at = now + max(self._interval - seconds, SHARE * seconds)
        self._trusted_at = min(self._trusted_at, now)

    @property
    def _interval(self) -> float:
        return BLIND_SCAN_SECONDS if self._why else SCAN_SECONDS

    def _judge(self) -> None:
        """Say so once when events turn out to be missing, and when there are some again."""
        now = time.monotonic()
        if self._missed and self._told_at > self._missed_at + self._proof:
            self._missed = ""
            self._proof = min(2 * self._proof, LONGEST_PROOF_SECONDS)
        why = self._observer.trouble
        if not why and self._missed:
            why = (
                f"{self._missed} changed and no event told of it, as on a network file system or "
                "below a mount"
            )
        if why == self._why:
            return
        if not why:
            log.info("events tell of changes below %s again", self._root)
            self._conditions.clear(CONDITION)
        else:
            what = (
                f"{self._root}: not all changes have file events ({why}); its folders are "
                f"compared every {BLIND_SCAN_SECONDS:.0f} s instead, and events are tried again"
            )
            self._conditions.hold(CONDITION, what)
            if not self._why:
                log.warning("%s", what)
                if now > self._blind_at + 2 * LONGEST_AGAIN_SECONDS:
                    self._pause = AGAIN_SECONDS
                self._blind_at, self._again_at = now, now + self._pause
                self.compare_at = 0.0
        self._why = why
