"""Which folders are to be looked at, and when; all times are in monotonic seconds."""

from collections.abc import Callable

from watchdog.events import EVENT_TYPE_CLOSED, EVENT_TYPE_MODIFIED

from app.publishing.attempt import QUIET_SECONDS

MAX_QUIET_SECONDS = 0.5
CALM_SECONDS = 0.3
"""A folder that was left alone for so long is looked at at once: it is no storm of edits."""


class Mark:
    """A folder that is to be looked at: when its first event came, and when to look."""

    __slots__ = ("calm", "due", "eager", "files", "first", "untold_at", "written")

    def __init__(self, first: float, due: float) -> None:
        self.first = first
        self.due = due
        self.files: set[str] = set()
        """The files that events told of."""
        self.written: set[str] = set()
        """The files that a writer has changed and not closed yet."""
        self.calm = False
        """Whether the folder had been left alone before."""
        self.eager = False
        """Whether it is due before its quiet period is over."""
        self.untold_at: float | None = None
        """When a comparison found that it has changed, if no event told of that."""


class WorkQueue(dict[str, Mark]):
    """The marked folders; all calls under one lock."""

    def quiet(self, folder: str, now: float) -> Mark:
        """Mark a folder to be looked at once it has been quiet for 20 ms."""
        mark = self.setdefault(folder, Mark(now, now))
        mark.due = min(now + QUIET_SECONDS, mark.first + MAX_QUIET_SECONDS)
        mark.eager = False
        return mark

    def later(self, folder: str, now: float, seconds: float) -> None:
        """Mark a folder to be looked at in some seconds, if it is not marked."""
        if folder not in self:
            self[folder] = Mark(now, now + seconds)

    def event(
        self, folder: str, file: str, event_type: str, now: float, last_event: Callable[[], float]
    ) -> bool:
        """Mark a folder for a file event; until the file is closed, half of it may be missing.

        Args:
            folder: the folder.
            file: the file's path.
            event_type: watchdog's; empty for a folder's modification.
            now: the time.
            last_event: tells when the folder's last event came.

        Returns:
            Whether the event says anything new.
        """
        known = self.get(folder)
        if known is not None and known.eager and not event_type:
            return False  # a folder is modified, too, by the file that was closed in it
        mark = self.quiet(folder, now)
        if not mark.files:
            mark.calm = now - last_event() > CALM_SECONDS
        mark.files.add(file)
        mark.untold_at = None
        if event_type == EVENT_TYPE_MODIFIED:
            mark.written.add(file)
        else:
            mark.written.discard(file)
        if mark.written:
            mark.due = mark.first + MAX_QUIET_SECONDS
        elif event_type == EVENT_TYPE_CLOSED and mark.calm and mark.files == {file}:
            mark.due = now
            mark.eager = True
        return True
