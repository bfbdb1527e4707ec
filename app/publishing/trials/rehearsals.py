"""Versions are rehearsed after their commit: an edit does not wait for what the next one needs."""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.database.repository import Repository
from app.errors import DatabaseError, RehearsalError, SupersededError
from app.publishing.trials.rehearser import Rehearser
from app.records import FRESH, Artifact, PluginRow, Reload
from app.threads import OwnThread

log = logging.getLogger(__name__)

REST_SECONDS = 0.2
"""How long no version must have been tried or saved before one is rehearsed: who does that, and who
loads it, goes first."""

MAX_REST_SECONDS = 5.0
"""How long one waits at most while others come."""


@dataclass(slots=True)
class _Job:
    """A version that is to be rehearsed, and what was found."""

    plugin: str
    digest: str
    generation: int
    artifact: Artifact | None = None
    """The version, None if it is to be fetched."""
    before: str | None = None
    """The digest of the version before it, None if there is none or it is not asked for."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: bool = False
    finding: Reload | None = None


class Rehearsals(OwnThread):
    """The thread `benana-rehearsal`: finds out, version by version, how the next edit can go live.

    What is found is kept with the version in the database. Until it is started it finds
    nothing out, and every edit is hot.
    """

    def __init__(self, rehearser: Rehearser, repository: Repository) -> None:
        super().__init__("benana-rehearsal")
        self._rehearser = rehearser
        self._repository = repository
        self._waiting: dict[str, _Job] = {}
        """The newest version of each plugin that was not rehearsed yet."""
        self._hurried: list[str] = []
        """Which of them do not rest."""
        self._known: dict[str, _Job] = {}
        """The last one of each plugin that was begun."""
        self._unknown: set[str] = set()
        """The plugins whose last rehearsal found nothing out, as for lack of time."""
        self._edited_at = self._looked_at = 0.0
        """When a version was last tried or saved, and when one was last taken, or came to an idle
        thread; in monotonic seconds."""
        self._left: dict[str, tuple[str, ...]] = {}
        """What was said last that each load of a plugin leaves behind."""

    def begin(self, artifact: Artifact, generation: int, before: str | None) -> None:
        """Rehearse a version that was just saved, soon; returns at once.

        Args:
            artifact: the version.
            generation: its number.
            before: the digest of the version before it, None if there is none.
        """
        # Where many wait, they are fetched when it is their turn.
        kept = None if self._waiting else artifact
        self._edited_at = time.monotonic()
        self._add(_Job(artifact.plugin, artifact.digest, generation, kept, before))

    def catch_up(self, rows: Iterable[PluginRow]) -> None:
        """Rehearse the versions that nobody has yet, as those from before an upgrade."""
        for row in rows:
            if row.finding is not None or row.digest is None:
                continue
            known = self._known.get(row.name)
            if known is None or known.digest != row.digest:
                self._add(_Job(row.name, row.digest, row.generation))

    def hurry(self, plugin: str) -> None:
        """Rehearse what waits of a plugin now: its next edit is about to ask for the finding.

        What waits of others rests meanwhile.
        """
        with self._wake:
            self._edited_at = time.monotonic()
            if plugin in self._waiting:
                self._hurried.append(plugin)
                self._wake.notify_all()

    def before_edit(self, row: PluginRow | None) -> Reload | None:
        """Return how the successor of a row's version goes live, if not hot; wait if need be.

        Where it cannot be found out, the successor is hot: if that fails in a worker, it is seen
        there. So it is while it cannot be found out again and again: edits do not wait for that.

        Raises:
            DatabaseError: it is not known yet.
            SupersededError: nor will it be, since this process stops; another one publishes.
        """
        if row is None or row.digest is None or self._thread is None:
            return None
        finding = row.finding
        if finding is None:
            job = self._known.get(row.name)
            if job is None or job.digest != row.digest:
                job = _Job(row.name, row.digest, row.generation)
                job.finding = self._repository.reloads.find_finding(row.name, row.digest)
                job.done = job.finding is not None
            if not job.done and row.name in self._unknown:
                return None
            self._finish(job)
            finding = job.finding
        return finding if finding is not None and finding.how == FRESH else None

    def _add(self, job: _Job) -> None:
        if self._thread is None:
            return  # who follows the folders catches up
        with self._wake:
            if not self._waiting:
                self._looked_at = time.monotonic()
            self._waiting[job.plugin] = self._known[job.plugin] = job
            self._wake.notify_all()

    def _run(self) -> None:
        while (job := self._take()) is not None:
            try:
                self._finish(job)
            except (DatabaseError, SupersededError) as error:
                # Whoever publishes the plugin's next edit finds it out, or does not publish it.
                log.debug("%s: not rehearsed, or not recorded: %s", job.plugin, error)
            except Exception:
                # A fault of ours costs this finding, and not those of the other plugins.
                log.exception("%s: its rehearsal failed", job.plugin)

    def _take(self) -> _Job | None:
        """Wait until one is to be rehearsed, and take it; None to end."""
        with self._wake:
            while not self._stopped:
                while self._hurried:
                    if (job := self._waiting.pop(self._hurried.pop(), None)) is not None:
                        return job
                due_at = min(self._edited_at + REST_SECONDS, self._looked_at + MAX_REST_SECONDS)
                now = time.monotonic()
                if self._waiting and due_at <= now:
                    self._looked_at = now
                    return self._waiting.pop(next(iter(self._waiting)))
                self._wake.wait(due_at - now if self._waiting else None)
        return None

    def _finish(self, job: _Job) -> None:
        """Rehearse a version, or wait until another thread has."""
        with job.lock:
            if not job.done:
                try:
                    self._rehearse(job)
                finally:
                    job.artifact = None

    def _rehearse(self, job: _Job) -> None:
        newer = job.artifact or self._repository.find_artifact(job.plugin, job.digest)
        older = None
        if job.before not in {None, job.digest}:
            older = self._repository.find_artifact(job.plugin, str(job.before))
        if newer is None:
            job.done = True  # it is no longer kept
            return
        try:
            found = self._rehearser.rehearse(older, newer, job.generation)
        except RehearsalError as error:
            log.info("%s; its next edit goes live as if nothing kept it", error)
            self._unknown.add(job.plugin)
            job.done = True
            return
        job.finding, job.done = found.reload, True
        self._unknown.discard(job.plugin)
        self._repository.reloads.record_finding(job.plugin, job.digest, found.reload)
        if found.reload.how == FRESH:
            log.info("%s: from its next edit on %s", job.plugin, found.reload)
        if found.left and found.left != self._left.get(job.plugin):
            log.warning("%s: each load of it leaves behind: %s", job.plugin, ", ".join(found.left))
        self._left[job.plugin] = found.left
