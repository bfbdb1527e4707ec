"""What is not as it should be, for as long as it lasts."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be."""

    key: str
    """Which one, such as "watching" or "load:hello"."""
    what: str
    """A sentence that a person can act on."""
    plugin: str | None
    """Whose trouble it is; None for the server's."""
    since: datetime
    degrades: bool = True
    """Whether it touches what is served; else it is for a person to know."""

    def as_record(self) -> dict[str, Any]:
        """Return it as the API and the database have it, without its time."""
        record = {"plugin": self.plugin, "what": self.what}
        return record if self.degrades else {**record, "degrades": False}

    def __str__(self) -> str:
        return self.what if self.plugin is None else f"{self.plugin}: {self.what}"


class Conditions:
    """The conditions of a process; each part holds its own under a key, and clears it again.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Condition] = {}
        self._expected: dict[str, tuple[float, Condition]] = {}
        """What is held from a moment on, in monotonic seconds."""
        self._changed: Callable[[], None] = lambda: None

    def watch(self, changed: Callable[[], None]) -> None:
        """Have something called, outside of all locks, whenever what is held changes.

        Args:
            changed: must return at once; it is called by whoever holds or clears.
        """
        self._changed = changed

    def hold(
        self, key: str, what: str, plugin: str | None = None, *, degrades: bool = True
    ) -> None:
        """Note a condition; one that is held already keeps its time and may change its words.

        Args:
            key: which one, such as "watching" or "load:hello".
            what: a sentence that a person can act on.
            plugin: whose trouble it is; None for the server's.
            degrades: whether it touches what is served; else it is for a person to know.
        """
        with self._lock:
            expected = self._expected.pop(key, None)
            held = self._held.get(key) or _due(expected)
            since = datetime.now(UTC) if held is None else held.since
            self._held[key] = condition = Condition(key, what, plugin, since, degrades)
        if condition != held:
            self._changed()

    def expect(self, key: str, what: str, seconds: float) -> None:
        """Have a condition held from a moment on, unless it is cleared before; as for an answer.

        What is held or expected already stays as it is. It comes without a call of what `watch` was
        given, because nobody does anything at that moment.

        Args:
            key: which one.
            what: a sentence that a person can act on, as of then.
            seconds: how long it may still be cleared.
        """
        with self._lock:
            if key not in self._held and key not in self._expected:
                condition = Condition(key, what, None, datetime.now(UTC))
                self._expected[key] = time.monotonic() + seconds, condition

    def clear(self, key: str) -> None:
        """Note that a condition has ended; one that is not held is no error."""
        with self._lock:
            expected = self._expected.pop(key, None)
            ended = self._held.pop(key, None) or _due(expected)
        if ended is not None:
            self._changed()

    def clear_all(self) -> None:
        """Forget all conditions: who holds them begins anew."""
        with self._lock:
            self._held.clear()
            self._expected.clear()
        self._changed()

    def held(self) -> tuple[Condition, ...]:
        """Return what is not as it should be now, the longest lasting first."""
        with self._lock:
            due = [condition for at in self._expected.values() if (condition := _due(at))]
            return tuple(sorted((*self._held.values(), *due), key=lambda held: held.since))


def listed(names: Sequence[str], shown: int) -> str:
    """Return names as a sentence lists them: the first ones, and how many more there are."""
    first = ", ".join(names[:shown])
    return first if len(names) <= shown else f"{first} and {len(names) - shown} more"


def _due(expected: tuple[float, Condition] | None) -> Condition | None:
    """Return what was expected if its moment has come."""
    return expected[1] if expected is not None and time.monotonic() >= expected[0] else None
