"""Threads that go on though the generation that started them was cleaned up."""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from app.conditions import Conditions
from app.inspection import UNKNOWN, attribute_of

log = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long after its cleanup a generation's threads may still be at their end."""

LOOK_SECONDS = 30.0
"""How often threads that go on are counted again."""

MAX_NAMED = 5

_OWN = "benana-"
"""How the names of the server's own threads begin: one may be started in a plugin's call."""

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class _CleanedUp:
    """A generation that was cleaned up; `look_at` is in monotonic seconds."""

    plugin: str
    generation: str
    look_at: float


class LeftThreads:
    """Says once of each plugin that its generations leave threads; a condition has the number.

    The condition takes nothing from the process's health, because what it serves is not touched.
    For one thread: `add` each generation that was cleaned up, and `look` after `next_look` seconds.
    """

    def __init__(
        self,
        conditions: Conditions,
        running: Callable[[], dict[str, list[threading.Thread]]],
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Make it.

        Args:
            conditions: where it holds how many there are.
            running: returns the running threads, by the generation that has started them.
            grace_seconds: how long after a cleanup its threads count for nothing yet.
        """
        self._conditions = conditions
        self._running = running
        self._grace_seconds = grace_seconds
        self._cleaned_up: list[_CleanedUp] = []
        self._said: set[str] = set()
        self._held: set[str] = set()
        self.generations: frozenset[str] = frozenset()
        """The generations of which threads go on."""

    def add(self, plugin: str, generation: str) -> None:
        """Expect the threads of a generation to end, which was cleaned up just now.

        Args:
            plugin: its plugin's name.
            generation: the name of its package.
        """
        look_at = time.monotonic() + self._grace_seconds
        self._cleaned_up.append(_CleanedUp(plugin, generation, look_at))

    def next_look(self) -> float | None:
        """Return the seconds until it is worth a look, None if there is nothing to look for."""
        if not self._cleaned_up:
            return None
        now = time.monotonic()
        coming = [item.look_at - now for item in self._cleaned_up if item.look_at > now]
        return max(0.0, min(coming, default=LOOK_SECONDS))

    def look(self) -> None:
        """Count the threads that go on, say it where that is new, and forget who left none."""
        now = time.monotonic()
        if not any(item.look_at <= now for item in self._cleaned_up):
            return
        running = self._running()
        left: dict[str, list[tuple[_CleanedUp, list[str]]]] = {}
        kept = []
        for item in self._cleaned_up:
            names = [name for t in running.get(item.generation, ()) if (name := _name_of(t))]
            if names or item.look_at > now:
                kept.append(item)
            if names and item.look_at <= now:
                left.setdefault(item.plugin, []).append((item, names))
        self._cleaned_up = kept
        self.generations = frozenset(
            item.generation for found in left.values() for item, _ in found
        )
        for plugin, found in left.items():
            self._tell(plugin, found)
        for plugin in self._held - left.keys():
            self._conditions.clear(_key(plugin))
        self._held = set(left)

    def _tell(self, plugin: str, found: "list[tuple[_CleanedUp, list[str]]]") -> None:
        names = [name for _, some in found for name in some]
        what = (
            f"1 thread that an earlier generation started goes on after its end: {names[0]!r}; "
            "end it in cleanup, or let it wait for context.cancelled"
        )
        if len(names) > 1:
            of = "an earlier generation" if len(found) == 1 else f"{len(found)} earlier generations"
            what = (
                f"{len(names)} threads that {of} started go on after the end: {_named(names)}; "
                "end them in cleanup, or let them wait for context.cancelled"
            )
        self._conditions.hold(_key(plugin), what, plugin, degrades=False)
        if plugin not in self._said:
            self._said.add(plugin)
            log.warning(
                "%s: %s (each reload may leave more: GET /plugins/%s has the number)",
                plugin,
                what,
                plugin,
            )


def _key(plugin: str) -> str:
    return f"threads:{plugin}"


def _name_of(thread: threading.Thread) -> str:
    """Return a thread's name, empty for one of the server's own."""
    name = attribute_of(thread, "_name")  # `name` may be a property of its own class
    if type(name) is not str:
        return UNKNOWN
    return "" if name.startswith(_OWN) else name


def _named(names: list[str]) -> str:
    """Return names in one phrase, each with how often it is there: `'Thread-N (run)' (10)`."""
    alike = Counter(_NUMBER.sub("N", name) for name in names)
    alone = {_NUMBER.sub("N", name): name for name in names}
    parts = [
        repr(alone[kind]) if count == 1 else f"{kind!r} ({count})"
        for kind, count in alike.most_common(MAX_NAMED)
    ]
    return ", ".join(parts) + (" and others" if len(alike) > MAX_NAMED else "")
