"""What could not be published, what was said of it, and when it is tried again."""

import logging
import math
import re
import threading
import time
from dataclasses import dataclass, replace

from app.conditions import Conditions
from app.errors import (
    BenanaError,
    ConflictError,
    DatabaseRefusedError,
    LoadError,
    PluginError,
    TooLargeError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.stamps import NOTHING, FolderStamp

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 30.0)
"""The first wait before what was refused for a reason that passes is tried again, and the longest;
each is twice the one before."""


# What differs from one try to the next, and is no news.
_VOLATILE = re.compile(r"benana-trial-[^/'\"]+|0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A plugin's source that was tried in vain, or is being tried."""

    digest: str | None
    """The source; None where it could not be read."""
    stamp: FolderStamp = NOTHING
    """What its folder looked like."""
    attempts: int = 0
    retry_at: float | None = None
    """When to try it again, in monotonic seconds; None: when the folder changes."""
    told: bool = False
    """Whether `due` has told that the time has come."""
    said: str = ""
    """What the log says of it, without what differs from one try to the next."""
    condition: str | None = None
    """What is held of it for as long as it lasts; None for what is the plugin's own fault."""
    trying: bool = False
    """Whether somebody is at it."""
    awaited: bool = False
    """Whether a look left it to whoever is at it."""

    @property
    def next_at(self) -> float:
        """When `due` has to tell of it, in monotonic seconds; never, if it has done so."""
        return math.inf if self.told or self.retry_at is None else self.retry_at

    def is_of(self, attempt: PublishAttempt) -> bool:
        """Tell whether a look found the same folder, as far as that is known."""
        return self.digest == attempt.digest and self.stamp in (NOTHING, attempt.stamp)


class Refusals:
    """What one process tried in vain, by plugin; safe to use from several threads.

    It is tried again at once when the folder changes, and else only where that may help: what the
    database refuses, a disk, a folder's rights, whatever the plugin did not find.
    """

    def __init__(
        self, conditions: Conditions, *, retry_seconds: tuple[float, float] = RETRY_SECONDS
    ) -> None:
        """Make it, with nothing refused.

        Args:
            conditions: where it holds what is the server's own trouble.
            retry_seconds: the first and the longest wait before what may pass is tried again.
        """
        self._conditions = conditions
        self.retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._found: dict[str, _Refusal] = {}

    def holds(self, name: str, digest: str, stamp: FolderStamp) -> bool:
        """Tell whether there is no point in trying a source now.

        Args:
            name: the plugin.
            digest: its source.
            stamp: what its folder looks like; NOTHING if that is not known.
        """
        with self._lock:
            refusal = self._found.get(name)
            if refusal is None or refusal.digest != digest:
                return False
            if refusal.trying:
                self._found[name] = replace(refusal, awaited=True)
                return True
        if refusal.retry_at is None:
            return True
        return time.monotonic() < refusal.retry_at and stamp in (NOTHING, refusal.stamp)

    def begin(self, name: str, digest: str) -> None:
        """Note that a source is tried now, so that nobody else tries it at the same time."""
        with self._lock:
            refusal = self._found.get(name)
            if refusal is None or refusal.digest != digest:
                refusal = _Refusal(digest)
            self._found[name] = replace(refusal, retry_at=None, told=False, trying=True)

    def give_up(self, name: str) -> None:
        """Note that a source was not tried to the end; it is tried again as if for the first time.

        What is held of it stays so until its next look. That is due at once where a look has left
        it to this attempt: nothing else would make the row follow its folder.
        """
        with self._lock:
            refusal = self._found.pop(name, None)
            if refusal is not None and refusal.awaited:
                self._found[name] = _Refusal(None, retry_at=time.monotonic())

    def end(self, name: str) -> None:
        """Note that nothing is refused any more."""
        with self._lock:
            self._found.pop(name, None)
        self._conditions.clear(f"publish:{name}")

    def note(
        self,
        name: str,
        attempt: PublishAttempt,
        error: PluginError | DatabaseRefusedError,
        *,
        aloud: bool = True,
    ) -> None:
        """Note that a plugin was refused, and say so, once for each state of its folder.

        Args:
            name: the plugin.
            attempt: the attempt that found it.
            error: why.
            aloud: whether it is said and held here; not where somebody waits for the answer.
        """
        passes = isinstance(error, DatabaseRefusedError) or error.passes
        ours = not isinstance(error, (LoadError, ConflictError))
        text = str(error)
        if attempt.unrecorded:
            text += f"; nor can that be recorded: {attempt.unrecorded}"
            passes = ours = True
        with self._lock:
            before = self._found.get(name)
            said = before.said if before is not None and isinstance(error, TooLargeError) else ""
            if before is None or not before.is_of(attempt):
                before = _Refusal(attempt.digest, said=said)
            attempts = before.attempts + 1 if aloud else max(before.attempts, 1)
            first, longest = self.retry_seconds
            wait = min(first * 2.0 ** (attempts - 1), longest)
            refusal = replace(
                before,
                stamp=attempt.stamp,
                attempts=attempts,
                retry_at=time.monotonic() + wait if passes else None,
                told=False,
                trying=False,
                awaited=False,
            )
            if aloud:
                held = text.removeprefix(f"{name}: ") if passes and ours else None
                refusal = replace(refusal, said=_VOLATILE.sub("", text), condition=held)
            self._found[name] = refusal
        if refusal.said != before.said:
            log.warning("%s%s", text, "; it is tried again, less and less often" if passes else "")
        self.show(name)

    def show(self, name: str) -> None:
        """Hold the condition of what is refused of a plugin, or none: an attempt has ended."""
        refusal = self._found.get(name)
        if refusal is None or refusal.condition is None:
            self._conditions.clear(f"publish:{name}")
        else:
            self._conditions.hold(f"publish:{name}", refusal.condition, name)

    def wait(self, name: str, error: BenanaError) -> None:
        """Hold that a plugin waits, as for the database; the next look at it ends that."""
        self._conditions.hold(f"publish:{name}", f"not published yet: {error}", name)

    def due(self) -> list[str]:
        """Return the plugins that are to be tried again now, each once."""
        now = time.monotonic()
        with self._lock:
            names = sorted(n for n, refusal in self._found.items() if refusal.next_at <= now)
            for name in names:
                self._found[name] = replace(self._found[name], told=True)
            return names

    def next_at(self) -> float:
        """Return when the next plugin is to be tried again, in monotonic seconds; inf: none is."""
        with self._lock:
            return min((refusal.next_at for refusal in self._found.values()), default=math.inf)

    def forget(self) -> list[str]:
        """Return the plugins that are refused; the next look at each tries it again."""
        with self._lock:
            names = sorted(n for n, refusal in self._found.items() if refusal.attempts)
            for name in names:
                self._found[name] = replace(self._found[name], digest=None, retry_at=None)
            return names
