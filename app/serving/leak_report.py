"""Whether the memory of generations that were cleaned up comes back, and what keeps it if not."""

import gc
import logging
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import (
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

from app.package.importer import GenerationImporter
from app.serving.collector import Collector

log = logging.getLogger(__name__)

MAX_NAMED = 5
LOOK_SECONDS = 0.25
LEAK_LOOK_SECONDS = 30.0
REPORT_SECONDS = 2.0
"""How long after its cleanup a generation may still be in memory, before it counts as a leak."""


@dataclass(slots=True)
class Remains:
    """A generation that was cleaned up and should be gone from memory.

    `loaded_at` and `report_at` are in monotonic seconds.
    """

    label: str
    traces: "list[weakref.ref[Any]]"
    loaded_at: float
    report_at: float
    collected: bool = False
    """Whether a collection saw it, or passed it by because it was frozen."""
    reported: bool = False

    def survivors(self) -> list[object]:
        """Return what is alive of it."""
        return [item for trace in self.traces if (item := trace()) is not None]


class LeakReport:
    """Has memory collected once generations were cleaned up, and reports once what stays.

    For one thread: `add` what was cleaned up, and `look` after `next_look` seconds.
    """

    def __init__(self) -> None:
        self._remains: list[Remains] = []
        self._collector = Collector()
        self._max_leaked = 0
        self._replace: Callable[[], None] | None = None

    def freeze(self) -> None:
        """Note that what is loaded now will stay for long."""
        self._collector.freeze()

    def replace_process(self, replace: Callable[[], None], max_leaked: int) -> None:
        """Call `replace` once more than `max_leaked` generations stay in memory."""
        self._replace = replace
        self._max_leaked = max_leaked

    @property
    def leaked(self) -> int:
        """How many generations are still in memory though they were cleaned up a while ago."""
        return sum(item.reported and bool(item.survivors()) for item in list(self._remains))

    def add(self, label: str, traces: "list[weakref.ref[Any]]", loaded_at: float) -> None:
        """Expect a generation's memory back.

        Args:
            label: the generation's name in the log.
            traces: references to what is alive as long as anything of it is.
            loaded_at: when it was loaded, in monotonic seconds.
        """
        if all(other.collected for other in self._remains):
            # Not at once: a collection would hold up the first requests of the successor.
            self._collector.put_off(LOOK_SECONDS)
        report_at = time.monotonic() + REPORT_SECONDS
        self._remains.append(Remains(label, traces, loaded_at, report_at))

    def next_look(self) -> float | None:
        """Return the seconds until the remains are worth a look, None if there are none."""
        if not self._remains:
            return None
        now = time.monotonic()
        if any(not item.collected or now < item.report_at + LOOK_SECONDS for item in self._remains):
            return LOOK_SECONDS
        waiting = any(not item.reported for item in self._remains)
        return REPORT_SECONDS if waiting else LEAK_LOOK_SECONDS

    def look(self) -> list[str]:
        """Collect if it is time for it, report what stays, and forget what is gone.

        Returns:
            The labels of what is gone since the last look.
        """
        left: list[Remains] = []
        gone: list[str] = []
        for item in self._remains:
            if item.survivors():
                left.append(item)
            else:
                gone.append(item.label)
        self._remains = left
        if left:
            self._collect()
        return gone

    def _collect(self) -> None:
        # A generation is full of cycles: classes, and functions with their globals.
        now, collector = time.monotonic(), self._collector
        overdue = [item for item in self._remains if not item.reported and now >= item.report_at]
        frozen = [item for item in overdue if collector.passes_by(item.loaded_at)]
        seen = [item for item in overdue if item not in frozen]
        if frozen and collector.collect_thoroughly(len(frozen)):
            seen = overdue
        else:
            wanted = bool(seen) or not all(item.collected for item in self._remains)
            if not (wanted and collector.collect()):
                return
        for item in self._remains:
            item.collected = True
        self._report_leaks(seen)
        if self._replace is not None and self.leaked > self._max_leaked:
            log.warning(
                "%d generations stay in memory, more than %d: replacing this worker",
                self.leaked,
                self._max_leaked,
            )
            replace, self._replace = self._replace, None
            replace()

    def _report_leaks(self, overdue: list[Remains]) -> None:
        for item in overdue:
            survivors = item.survivors()
            if survivors:
                item.reported = True
                why = describe_referrers(survivors)
                log.warning("%s: still in memory after its cleanup; %s", item.label, why)
                self._collector.freeze()  # looking for who holds it has thawed everything
            del survivors


def describe_referrers(survivors: list[object]) -> str:
    """Return a phrase that names the threads and the types that refer to a generation.

    It is slow, one look at the whole heap for each of the generation's objects, and meant for
    the one log line of a leak.
    """
    gc.unfreeze()  # what is frozen is no referrer to `gc`, and that is the whole server
    packages = [item for item in survivors if isinstance(item, GenerationImporter)]
    globals_of = [
        item
        for item in gc.get_referrers(*packages)
        if isinstance(item, dict) and "__name__" in item
    ]
    inside = _inside(globals_of, [item for item in survivors if isinstance(item, type)])
    threads = _threads(globals_of)
    types = _referrers(inside, [inside, survivors, globals_of, *globals_of])
    parts = []
    if threads:
        parts.append("running in it: " + ", ".join(threads[:MAX_NAMED]))
    if types:
        named = "; ".join(f"{name} ({n})" for name, n in types.most_common(MAX_NAMED))
        parts.append("referred to by: " + named)
    return "; ".join(parts) or "what holds it cannot be told"


def _inside(globals_of: list[dict[str, Any]], classes: list[type]) -> list[object]:
    """Return the classes, functions and instances that the generation's modules define."""
    names = {module["__name__"] for module in globals_of}
    functions = [
        item
        for module in globals_of
        for item in gc.get_referrers(module)
        if isinstance(item, FunctionType)
    ]
    named = [
        value
        for module in globals_of
        for value in module.values()
        if getattr(value, "__module__", None) in names
        or getattr(type(value), "__module__", None) in names
    ]
    instances = [f for c in classes for f in gc.get_referrers(c) if type(f) is c]
    every = [*named, *functions, *classes, *instances]
    return list({id(item): item for item in every}.values())


def _threads(globals_of: list[dict[str, Any]]) -> list[str]:
    running = []
    ids = {id(module) for module in globals_of}
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame: FrameType | None = frames.get(thread.ident or 0)
        while frame is not None and id(frame.f_globals) not in ids:
            frame = frame.f_back
        if frame is not None:
            running.append(f"the thread {thread.name!r}")
    return running


def _referrers(inside: list[object], ours: list[Any]) -> "Counter[str]":
    """Count who refers to what, without what is inside itself and our own lists."""
    own = {id(item) for item in [*inside, *ours, ours]}
    counted: Counter[str] = Counter()
    for item in inside:
        for referrer in gc.get_referrers(item):
            if id(referrer) in own or isinstance(referrer, FrameType):
                continue
            if isinstance(referrer, (GetSetDescriptorType, MemberDescriptorType)):
                continue  # of the class itself
            if _is_part_of_a_class(referrer, inside):
                continue
            counted[f"{_name(referrer)}, to {_what(item)}"] += 1
    return counted


def _what(item: object) -> str:
    if isinstance(item, (type, FunctionType)):
        return item.__qualname__
    return f"a {type(item).__qualname__}"


def _is_part_of_a_class(referrer: object, inside: list[object]) -> bool:
    if isinstance(referrer, dict):
        # A class's own namespace is not `vars(class)`, which is a proxy of it.
        return any(referrer == getattr(known, "__dict__", None) for known in inside)
    return isinstance(referrer, tuple) and any(
        referrer is known.__mro__ or referrer is known.__bases__
        for known in inside
        if isinstance(known, type)
    )


def _name(referrer: object) -> str:
    if isinstance(referrer, ModuleType):
        return f"the module {referrer.__name__}"
    if isinstance(referrer, dict) and "__name__" in referrer:
        return f"the module {referrer['__name__']}"
    if isinstance(referrer, FunctionType):
        return f"the function {referrer.__module__}.{referrer.__qualname__}"
    return f"{type(referrer).__module__}.{type(referrer).__qualname__}"
