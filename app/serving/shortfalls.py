"""What this process does not serve as the rows say: why, and when to try again."""

import math
import random
import time
from dataclasses import dataclass, replace

from app.conditions import Conditions
from app.errors import PluginError
from app.records import ServedRow

FAILED_RETRY_SECONDS = 60.0
"""How long a generation that could not be loaded is left alone: its fault may pass."""

TRANSIENT_RETRY_SECONDS = (0.1, 15.0)
"""The first wait before a load whose fault passes is tried again, and the longest; each is twice
the one before, less a random part, so that processes that disturb each other part."""

OUTSIDE_RETRY_SECONDS = (1.0, 30.0)
"""The same, where the cause lies outside of the plugin: a full disk, a service that is away."""

VERSION_RETRY_SECONDS = 3.0
"""How long a row is left alone whose version is not kept: a restore may bring that later, and
nobody tells of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A generation that this process could not load."""

    row: ServedRow
    error: PluginError
    retry_at: float
    attempts: int


class Shortfalls:
    """The plugins that are not served as their rows say; a condition says so of each."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._failed: dict[str, Failure] = {}
        self._held: dict[str, str] = {}
        """What is held of plugins, by name."""

    def names(self) -> set[str]:
        """Return the plugins of which a generation could not be loaded."""
        return set(self._failed)

    def hold(self, row: ServedRow, reason: str, generation: int | None) -> bool:
        """Hold that what a row says is not served.

        Args:
            row: what is to be served.
            reason: why it is not.
            generation: what is served instead, None if nothing is.

        Returns:
            Whether that was not held before.
        """
        served = "nothing of it" if generation is None else f"generation {generation}"
        what = f"{reason}; {served} is served"
        is_new = self._held.get(row.name) != what
        self._conditions.hold(f"load:{row.name}", what, row.name)
        self._held[row.name] = what
        return is_new

    def fail(self, row: ServedRow, error: PluginError, generation: int | None) -> bool:
        """Note that a row's generation could not be loaded.

        Args:
            row: what was to be loaded.
            error: why it could not.
            generation: what is served instead, None if nothing is.

        Returns:
            Whether that is new; not if the same was said of it before.
        """
        known = self._failed.get(row.name)
        attempts = known.attempts + 1 if known is not None and known.row == row else 1
        wait = FAILED_RETRY_SECONDS
        if error.passes:
            first, longest = TRANSIENT_RETRY_SECONDS if error.transient else OUTSIDE_RETRY_SECONDS
            wait = min(first * 2.0**attempts, longest) * random.uniform(0.5, 1.0)  # noqa: S311
        elif row.archive_sha256 is None and row.digest:
            wait = VERSION_RETRY_SECONDS
        self._failed[row.name] = Failure(row, error, time.monotonic() + wait, attempts)
        self._hold_failure(row, error, generation)
        return attempts == 1 or (known is not None and known.error.message != error.message)

    def _hold_failure(self, row: ServedRow, error: PluginError, generation: int | None) -> None:
        place = f" ({error.place})" if error.place else ""
        said = f"{error.phase} failed: {error.message}{place}"
        self.hold(row, f"generation {row.generation} cannot be loaded: {said}", generation)

    def end(self, name: str) -> None:
        """Note that what a plugin's row says is served, or that there is nothing to serve."""
        self.forget(name)
        if name in self._held:
            del self._held[name]
            self._conditions.clear(f"load:{name}")

    def forget(self, name: str) -> None:
        """Forget what could not be loaded of a plugin; what is held of it stays."""
        self._failed.pop(name, None)

    def may_try(self, row: ServedRow) -> bool:
        """Tell whether a row's generation may be loaded now: it did not just fail."""
        failed = self._failed.get(row.name)
        return failed is None or failed.row != row or time.monotonic() >= failed.retry_at

    def retry_at(self) -> float | None:
        """Return when the next is to be tried again, in monotonic seconds; None for never."""
        times = [failed.retry_at for failed in self._failed.values() if failed.retry_at < math.inf]
        return min(times, default=None)

    def due(self) -> set[str]:
        """Return the plugins that are to be tried again by now."""
        now = time.monotonic()
        return {name for name, failed in self._failed.items() if failed.retry_at <= now}

    def retry_transient(self) -> None:
        """Let what failed for a reason that passes be tried again at once."""
        self._failed = {
            name: replace(failed, retry_at=0.0)
            if failed.error.transient and failed.retry_at < math.inf
            else failed
            for name, failed in self._failed.items()
        }

    def retry(self, name: str) -> None:
        """Let a plugin be tried again at once, unless it is settled."""
        failed = self._failed.get(name)
        if failed is not None and failed.retry_at < math.inf:
            self._failed[name] = replace(failed, retry_at=0.0)

    def settle(self, name: str, generation: int) -> Failure | None:
        """Note that what failed is not tried again: another generation serves in its place.

        Returns:
            What failed, None if nothing did.
        """
        failed = self._failed.get(name)
        if failed is not None:
            self._failed[name] = failed = replace(failed, retry_at=math.inf)
            self._hold_failure(failed.row, failed.error, generation)
        return failed

    def may_pass(self) -> bool:
        """Tell whether anything failed for a reason that passes."""
        return any(failed.error.transient for failed in self._failed.values())
