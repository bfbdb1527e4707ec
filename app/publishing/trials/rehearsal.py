"""The rehearsal: how a version takes being loaded beside an older one, in a process of its own.

A worker loads a new generation while the old one serves, and cleans the old one up. Libraries keep
registries that nobody wrote for that. So a version is loaded beside itself, the older generation is
cleaned up, and then it is looked at what libraries keep of it, what grows with each load, and what
they say. What a library does once, as a cache that is filled, is no sign: where there is doubt the
version is loaded a third time, and only what repeats itself counts.
"""

import gc
import logging
import os
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import PluginError
from app.libraries import PACKAGES
from app.loading import garbage
from app.loading.loader import LoadedPlugin
from app.loading.process_state import ProcessState, difference, snapshot
from app.publishing.trials.growth import Belongings, Objects, have_new_entries
from app.publishing.trials.holders import describe_place, find_paths, kept_by_place, plugin_of
from app.publishing.trials.said_lines import SaidLines
from app.records import FRESH, HOT, Reload

log = logging.getLogger(__name__)

_NUMBERED = re.compile(rf"\b{PACKAGES}\.(\w+)\.g\d+(?:_\d+)?(\.(?=\w))?")
"""The package of a generation, with the dot before a module of it."""

Load = Callable[[int], LoadedPlugin]
"""Loads the version as the generation of that number; raises BenanaError."""

LOOK = "look"
"""What is reached after a load; a load itself is reached by `loader.Steps`."""

OWN_REGISTRY = (
    "Register in an object of the plugin's own instead of the library's global one, or give the "
    "library an adapter (docs/writing-plugins.md)"
)
TAKE_BACK = "Take it back in cleanup; then edits go live without new workers"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it: how the version's successor goes live, and what each load leaves behind."""

    reload: Reload
    left: tuple[str, ...] = ()


@dataclass(slots=True)
class _State:
    """What there was after a load, when the generation before it was cleaned up."""

    said: dict[str, str]
    objects: Objects
    belongings: Belongings
    changes: dict[tuple[str, Any], str] = field(default_factory=dict)
    """What is another than before, by what it is; the texts are for people."""
    traces: "list[weakref.ref[Any]]" = field(default_factory=list)
    """Of the generation that was cleaned up last."""
    reached: dict[type, int] = field(default_factory=dict)
    """How many objects libraries refer to, of the classes of which there are more each time."""


@dataclass(frozen=True, slots=True)
class _Signs:
    """What may come of loading twice: places in libraries, and phrases."""

    keepers: dict[str, str]
    """What is kept of the first generation, by place."""
    growing: dict[str, int]
    """Containers that have grown, by place; by how many."""
    names: dict[str, str]
    said: dict[str, str]
    gained: list[str]

    def __bool__(self) -> bool:
        return any((self.keepers, self.growing, self.names, self.said, self.gained))


def rehearse(
    load: Load,
    generation: int,
    reached: Callable[[str], None],
    load_older: Load | None = None,
) -> Rehearsal:
    """Load a version beside the one before it and beside itself, and tell how it takes that.

    Args:
        load: loads it.
        generation: the number of its first generation; those after it have the next ones.
        reached: is told `LOOK` after each load of it but the first.
        load_older: loads the version before, which may have registered the same otherwise; None
            where there is none.

    Raises:
        BenanaError: the first load failed, or one for a reason that passes: that says nothing.
    """
    with SaidLines() as lines:
        first = _load_first(load, generation, load_older)
        if isinstance(first, Rehearsal):
            return first
        states = [_State(lines.take(), Objects.now(), Belongings.now())]
        process = snapshot()
        package = first.key
        current = first
        del first
        for number in (generation + 1, generation + 2):
            try:
                newer = load(number)
            except PluginError as error:
                if _says_nothing(error):
                    raise
                return _raised(error)
            reached(LOOK)
            traces = current.traces()
            current.dispose()
            current = newer
            del newer
            before, process = process, snapshot()
            changes = _changes(before, process)
            del before  # it may hold what is to go
            garbage.collect()
            states.append(_State(lines.take(), Objects.now(), Belongings.now(), changes, traces))
            signs = _signs(package, current.key, states)
            if not signs:
                break
    return Rehearsal(_judge(signs), tuple(map(without_number, signs.gained)))


def _load_first(load: Load, generation: int, load_older: Load | None) -> LoadedPlugin | Rehearsal:
    """Load a version beside the one before it, which is cleaned up; return what came of it."""
    older: LoadedPlugin | None = None
    if load_older is not None:
        try:
            older = load_older(generation - 1)
        except PluginError as error:
            log.debug("the version before cannot be loaded any more: %s", error)
    try:
        first = load(generation)
    except PluginError as error:
        if older is None and error.is_held:  # by the version that is served
            return Rehearsal(Reload(HOT, ""))
        if error.in_use or (older is not None and not _says_nothing(error)):
            return _raised(error)
        raise
    if older is not None:
        older.dispose()
        del older
        garbage.collect()
    return first


def _says_nothing(error: PluginError) -> bool:
    """Tell whether a load failed for a reason that has nothing to do with the one before it."""
    return error.transient or error.of_host


def _raised(error: PluginError) -> Rehearsal:
    if error.in_use or error.holder == os.getpid():
        # What only one can hold is handed over: the two are never loaded at once.
        return Rehearsal(Reload(HOT, ""))
    place = f" ({error.place})" if error.place else ""
    why = f"loaded beside its older version, {error.phase} fails: {error.message}{place}"
    return Rehearsal(Reload(FRESH, without_number(why), OWN_REGISTRY))


def _signs(package: str, newest: str, states: list[_State]) -> _Signs:
    """Return what is as it should not be after the last load; what came before counts if again.

    Args:
        package: the first generation's, which is to be gone.
        newest: that of the generation that was loaded last.
        states: what there was after each load.
    """
    latest, before = states[-1], states[-2]
    alive = any(trace() is not None for trace in states[1].traces)
    paths = find_paths(lambda item: plugin_of(item) == package) if alive else []
    growing = _growing(states)
    said = latest.said.keys() - states[0].said.keys()
    gained = latest.belongings.gained_since(before.belongings)
    changed = set(latest.changes)
    if len(states) > 2:
        changed &= before.changes.keys()
        said &= before.said.keys()
        first = states[1].belongings.gained_since(states[0].belongings)
        gained = [phrase for phrase in gained if phrase in first]
    if not alive:
        said = {key for key in said if not _has_replaced(newest, latest.said[key])}
    return _Signs(
        dict(kept_by_place(paths)),
        growing,
        {} if alive else _find_names(package),
        {latest.said[key]: key for key in said},
        gained + [latest.changes[key] for key in sorted(changed, key=str)],
    )


def _has_replaced(package: str, line: str) -> bool:
    """Tell whether a line says of what a generation has registered that it took another's place.

    The line names it, and libraries refer to it; nothing of the other is left.
    """
    named = f"{package}." in line
    return named and bool(find_paths(lambda item: plugin_of(item) == package))


def _changes(before: ProcessState, after: ProcessState) -> dict[tuple[str, Any], str]:
    """Return what all of the process shares and is another than before."""
    return {(c.aspect.name, c.key): str(c) for c in difference(before, after)}


def _growing(states: list[_State]) -> dict[str, int]:
    """Return which places in libraries have more in them with each load, and by how many."""
    latest, before = states[-1].objects, states[-2].objects
    ids = latest.longer_than(before) - {id(states)}
    kinds = latest.more_than(before)
    if len(states) > 2:
        first = states[-3].objects
        ids &= before.longer_than(first)
        kinds &= before.more_than(first)
    ids = have_new_entries(ids, before.sizes)
    if not ids and not kinds:
        return {}
    paths = find_paths(lambda item: id(item) in ids or type(item) in kinds)
    growing = {
        describe_place(path): latest.sizes[id(path[-1])] - before.sizes[id(path[-1])]
        for path in paths
        if id(path[-1]) in ids
    }
    reached = states[-1].reached = Counter(type(path[-1]) for path in paths)
    more = {kind for kind in kinds if reached[kind] > states[-2].reached.get(kind, 0)}
    for path in paths:
        kind = type(path[-1])
        if kind in more and id(path[-1]) not in ids:
            growing.setdefault(describe_place(path), latest.kinds[kind] - before.kinds[kind])
    return growing


def _find_names(package: str) -> dict[str, str]:
    """Return which places in libraries still name a module of a generation that has gone."""
    holders = {
        id(item)
        for item in gc.get_objects()
        if not issubclass(type(item), (list, tuple, set)) and _names(item, package)
    }
    paths = find_paths(lambda item: id(item) in holders) if holders else []
    return {describe_place(path): package for path in paths if not _is_logger(path[-1])}


def _names(item: Any, package: str) -> bool:
    for value in _values(item):
        inner = _values(value) if type(value) is dict and not gc.is_tracked(value) else [value]
        if any(type(text) is str and text.startswith(f"{package}.") for text in inner):
            return True
    return False


def _values(item: Any) -> list[Any]:
    is_dict = issubclass(type(item), dict)
    return list(dict.values(item)) if is_dict else gc.get_referents(item)


def _is_logger(item: Any) -> bool:
    logging = sys.modules["logging"]
    return issubclass(type(item), (logging.Logger, logging.PlaceHolder))


def without_number(text: str) -> str:
    """Return a text that names modules as the plugin does: generations here are no row's."""
    return _NUMBERED.sub(lambda match: "" if match[2] else match[1], text)


def _judge(signs: _Signs) -> Reload:
    reasons = [
        f"{place} keeps {what} of the older version" for place, what in signs.keepers.items()
    ]
    reasons += [
        f"{place} grows by {count} with each load"
        for place, count in signs.growing.items()
        if place not in signs.keepers
    ]
    reasons += [f"{place} still names a module of the older version" for place in signs.names]
    reasons += [f"at a second load it is said: {without_number(line)}" for line in signs.said]
    if not reasons:
        return Reload(HOT, "")
    return Reload(
        FRESH, "; ".join(reasons[:3]), TAKE_BACK if signs.keepers or signs.growing else OWN_REGISTRY
    )
