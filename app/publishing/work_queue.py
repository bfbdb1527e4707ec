"""The folders that are to be looked at: marked, due, taken, done. Times are monotonic seconds."""

from collections.abc import Callable

from watchdog.events import EVENT_TYPE_CLOSED, EVENT_TYPE_MODIFIED

from app.publishing import quiet_period
from app.publishing.attempt import PublishAttempt
from app.publishing.publish_slots import PublishSlots


class Mark:
    """A folder that is to be looked at: when its first event came, and when to look."""

    __slots__ = ("calm", "due", "files", "first", "speculative", "untold_at", "written")

    def __init__(self, first: float, due: float) -> None:
        self.first = first
        self.due = due
        self.files: set[str] = set()
        """The files that events told of."""
        self.written: set[str] = set()
        """The files that a writer has changed and not closed yet."""
        self.calm = False
        """Whether the folder had been left alone before."""
        self.speculative = False
        """Whether it is due before its quiet period is over."""
        self.untold_at: float | None = None
        """When a comparison found that it has changed, if no event told of that."""


class WorkQueue:
    """Hands folders that changed to threads, each to one at a time; all calls under one lock.

    `quiet`, `later` and `event` mark a folder; `take` gives one that is due, with an attempt at it;
    `done` gives it back.
    """

    def __init__(self, is_known: Callable[[str], bool] = lambda _: False) -> None:
        """Make an empty queue.

        Args:
            is_known: tells whether a folder was looked at before; such go first.
        """
        self._is_known = is_known
        self._marks: dict[str, Mark] = {}
        self._busy: dict[str, PublishAttempt] = {}
        self._locked: set[str] = set()
        """The folders whose last attempt somebody's lock ended."""
        self._superseded: dict[str, float] = {}
        """Since when each look at a folder was superseded."""
        self.slots = PublishSlots()
        """Which folders may be looked at at the same time."""

    @property
    def is_empty(self) -> bool:
        """Whether no folder is marked or taken."""
        return not self._marks and not self._busy

    def attempt(self, folder: str) -> PublishAttempt | None:
        """Return the attempt at a folder that is under way, None if there is none."""
        return self._busy.get(folder)

    def quiet(self, folder: str, now: float) -> Mark:
        """Mark a folder to be looked at once it has been quiet for 20 ms."""
        mark = self._marks.setdefault(folder, Mark(now, now))
        mark.due = min(
            now + quiet_period.QUIET_SECONDS, mark.first + quiet_period.MAX_QUIET_SECONDS
        )
        mark.speculative = False
        return mark

    def later(self, folder: str, now: float, seconds: float) -> None:
        """Mark a folder to be looked at in some seconds, if it is not marked."""
        if folder not in self._marks:
            self._marks[folder] = Mark(now + seconds, now + seconds)

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
        known = self._marks.get(folder)
        if known is not None and known.speculative and not event_type:
            return False  # a folder is modified, too, by the file that was closed in it
        mark = self.quiet(folder, now)
        if not mark.files:
            mark.calm = now - last_event() > quiet_period.CALM_SECONDS
        mark.files.add(file)
        mark.untold_at = None
        if event_type == EVENT_TYPE_MODIFIED:
            mark.written.add(file)
        else:
            mark.written.discard(file)
        if mark.written:
            mark.due = mark.first + quiet_period.MAX_QUIET_SECONDS
        elif event_type == EVENT_TYPE_CLOSED and mark.calm and mark.files == {file}:
            mark.due = now
            mark.speculative = True
        return True

    def changed(self, folder: str, now: float, *, untold: bool) -> None:
        """Mark a folder that a comparison found changed.

        Args:
            folder: the folder.
            now: the time.
            untold: whether events should have told of it.
        """
        mark = self.quiet(folder, now)
        if untold and not mark.files and folder not in self._busy:
            mark.untold_at = now

    def take(self, now: float) -> tuple[str, PublishAttempt] | None:
        """Take a folder that is due, that nobody has and that finds a slot; None without one."""
        room = {hung: self.slots.may_begin(hung=hung, now=now) for hung in (False, True)}
        due = [
            (not room[hung], hung, not self._is_known(folder), mark.due, folder)
            for folder, mark in self._marks.items()
            if folder not in self._busy and mark.due <= now
            for hung in (self.slots.hung(folder),)
        ]
        if not due:
            return None
        # Those that are known before the new ones, of which nothing good is known.
        full, *_, folder = min(due)
        if full:
            return None
        mark = self._marks.pop(folder)
        restless_at = self._superseded.get(folder, now) + quiet_period.RESTLESS_SECONDS
        attempt = self._busy[folder] = PublishAttempt(
            waits_for_lock=folder not in self._locked,
            told=bool(mark.files),
            untold_at=mark.untold_at,
            restless=now >= restless_at,
        )
        self.slots.begin(folder, now)
        return folder, attempt

    def next_at(self, now: float) -> float | None:
        """Return when `take` may give one that it does not give now, None if never by itself."""
        free = [mark.due for folder, mark in self._marks.items() if folder not in self._busy]
        times = [due for due in free if due > now]
        if len(times) < len(free) and (slow := self.slots.next_slow(now)) is not None:
            times.append(slow)
        return min(times, default=None)

    def done(self, folder: str, now: float, *, tried: bool, locked: bool | None) -> None:
        """Give a folder back.

        Args:
            folder: the folder.
            now: the time.
            tried: whether a source was tried.
            locked: whether somebody's lock ended the attempt, None if that is not known.
        """
        attempt = self._busy.pop(folder)
        self.slots.end(folder, now, tried=tried)
        if attempt.superseded.is_set() and not tried:
            self._superseded.setdefault(folder, attempt.began)
            self.later(folder, now, quiet_period.QUIET_SECONDS)  # no event may tell of it
        else:
            self._superseded.pop(folder, None)
        if locked is not None:
            (self._locked.add if locked else self._locked.discard)(folder)
