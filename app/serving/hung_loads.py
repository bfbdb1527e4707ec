"""Loads that nobody waits for any more, because something newer came, and that do not return."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.conditions import Conditions
from app.loading.load_process import LOAD_THREAD
from app.package.frames import innermost_plugin_frame
from app.records import ServedRow

log = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long such a load may still be at its end."""

LOOK_SECONDS = 30.0
"""How often those that hang are counted again."""


@dataclass(frozen=True, slots=True)
class _Load:
    """A load that was given up; `look_at` is in monotonic seconds."""

    plugin: str
    generation: int
    has_ended: Callable[[], bool]
    look_at: float


class HungLoads:
    """Says once of each plugin that its earlier loads hang; a condition has the number.

    It takes nothing from the process's health: each has a thread of its own. `add` may be called by
    any thread, the rest is for one: `look` after `next_look` seconds.
    """

    def __init__(self, conditions: Conditions, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Make it; the conditions are where it holds how many there are."""
        self._conditions = conditions
        self._grace_seconds = grace_seconds
        self._loads: list[_Load] = []
        self._said: set[str] = set()
        self._held: set[str] = set()
        self.count = 0
        """How many loads hang."""

    def add(self, row: ServedRow, has_ended: Callable[[], bool]) -> None:
        """Expect a load to return that was given up just now.

        Args:
            row: what it was to load.
            has_ended: tells whether it has returned.
        """
        look_at = time.monotonic() + self._grace_seconds
        self._loads.append(_Load(row.name, row.generation, has_ended, look_at))

    def next_look(self) -> float | None:
        """Return the seconds until it is worth a look, None if there is nothing to look for."""
        loads = list(self._loads)
        if not loads:
            return None
        now = time.monotonic()
        coming = [load.look_at - now for load in loads if load.look_at > now]
        return max(0.0, min(coming, default=LOOK_SECONDS))

    def look(self) -> None:
        """Count those that hang, say it where that is new, and forget those that have returned."""
        for load in [load for load in list(self._loads) if load.has_ended()]:
            self._loads.remove(load)
        now = time.monotonic()
        hung: dict[str, list[_Load]] = {}
        for load in list(self._loads):
            if load.look_at <= now:
                hung.setdefault(load.plugin, []).append(load)
        self.count = sum(map(len, hung.values()))
        for plugin, loads in hung.items():
            self._tell(plugin, loads)
        for plugin in self._held - hung.keys():
            self._conditions.clear(_key(plugin))
        self._held = set(hung)

    def _tell(self, plugin: str, loads: list[_Load]) -> None:
        numbers = ", ".join(str(load.generation) for load in loads) + places_of_loads(plugin)
        several = len(loads) > 1
        what = (
            f"{'loads' if several else 'a load'} that nobody waits for any more "
            f"{'do' if several else 'does'} not return (generation {numbers}); "
            f"{'their threads stay' if several else 'its thread stays'}: bound what it waits for"
        )
        self._conditions.hold(_key(plugin), what, plugin, degrades=False)
        if plugin not in self._said:
            self._said.add(plugin)
            log.warning("%s: %s", plugin, what)


def _key(plugin: str) -> str:
    return f"hung:{plugin}"


def places_of_loads(plugin: str) -> str:
    """Return where the loads of a plugin are, as `, at main.py:14`; empty where nobody can tell."""
    frames = sys._current_frames()
    stacks = [frames.get(t.ident or 0) for t in threading.enumerate() if t.name == LOAD_THREAD]
    found = [frame for frame in map(innermost_plugin_frame, stacks) if frame is not None]
    places = sorted({frame.place for frame in found if frame.plugin == plugin})
    return f", at {' and '.join(places)}" if places else ""
