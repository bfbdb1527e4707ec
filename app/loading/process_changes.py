"""What the loads of plugins have changed in this process, and what becomes of it."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from app.loading.environment import hidden
from app.loading.process_aspects import ENVIRONMENT, HANDLERS, START_METHOD
from app.loading.process_state import Change, ProcessState, difference, glance

log = logging.getLogger(__name__)

_NAMED, _TOLD = 12, 2
"""How many kinds of changes a line of the log names, and of how many of each it says what they are
now."""

_NO_VALUES: Mapping[str, str] = {}


class ProcessChanges:
    """Looks at the process before and after each load; for the loads of one process.

    What would stop or silence the server or other plugins is undone at once. The rest stays as
    long as the plugin does, is said once, and goes with it. What a plugin has put into the
    environment is not there while its next generation is loaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[Change]] = {}
        """What of each plugin's changes stays, the first of them first."""
        self._stale: dict[str, list[Change]] = {}
        """Of these, what the newest generation did not make again: it goes with the one before."""
        self._alive: Counter[str] = Counter()
        """How many generations of each plugin are not cleaned up."""
        self._said: set[tuple[str, str]] = set()

    @contextmanager
    def loading(self, plugin: str) -> Iterator[None]:
        """Look at what a load changes, for the length of a `with` block.

        Where it raises, the load has failed, and nothing of what it changed stays.
        """
        with self._lock:
            mine = list(self._kept.get(plugin, ()))
        start_method = [change for change in mine if change.aspect is START_METHOD and change.lasts]
        for change in start_method:
            change.undo()  # it can be set only once
        names = [os.fsdecode(change.key) for change in mine if change.aspect is ENVIRONMENT]
        with hidden(names) as values:
            before, loaded = glance(), False
            try:
                yield
                loaded = True
            finally:
                try:
                    self._look(plugin, before, values, loaded)
                finally:
                    if not loaded:
                        for change in start_method:
                            change.aspect.put(change.key, change.after)

    def disposed(self, plugin: str) -> None:
        """Take back what goes with a generation that was cleaned up."""
        with self._lock:
            self._alive[plugin] -= 1
            going = self._stale.pop(plugin, [])
            if self._alive[plugin] <= 0:
                del self._alive[plugin]
                going += self._kept.pop(plugin, [])
            for change in reversed(going):
                self._take_back(plugin, change)

    def _look(
        self, plugin: str, before: ProcessState, values: Mapping[str, str], loaded: bool
    ) -> None:
        changes = difference(before, glance())
        with self._lock:
            own: list[Change] = []
            shared: list[Change] = []
            for change in changes:
                (shared if self._is_anothers(plugin, change) else own).append(change)
            undone = [change for change in own if change.harms]
            rest = [change for change in own if not change.harms]
            for change in undone:
                _undo(plugin, change)
            if loaded:
                # Whoever of the two was loaded faster need not be who has made it.
                self._keep(plugin, [*rest, *shared])
            else:
                for change in rest:
                    _undo(plugin, change, values)
        self._say(plugin, undone, rest if loaded else [])

    def _is_anothers(self, plugin: str, change: Change) -> bool:
        """Tell whether a change was seen at another plugin's load, which ran at the same time."""
        return any(
            kept.aspect is change.aspect and kept.key == change.key and kept.after is change.after
            for name, changes in self._kept.items()
            if name != plugin
            for kept in changes
        )

    def _keep(self, plugin: str, changes: list[Change]) -> None:
        self._alive[plugin] += 1
        kept = {(change.aspect, change.key): change for change in self._kept.get(plugin, ())}
        again = {(change.aspect, change.key) for change in changes}
        with_handlers = any(change.aspect is HANDLERS for change in changes)
        stale = self._stale.setdefault(plugin, [])
        stale[:] = [change for change in stale if (change.aspect, change.key) not in again]
        for key, change in list(kept.items()):
            replaced = change.aspect is ENVIRONMENT or (change.aspect is HANDLERS and with_handlers)
            if replaced and key not in again:
                stale.append(kept.pop(key))
        for change in changes:
            first = kept.get((change.aspect, change.key), change)
            kept[change.aspect, change.key] = replace(change, before=first.before)
        self._kept[plugin] = list(kept.values())

    def _take_back(self, plugin: str, change: Change) -> None:
        """Undo a change, unless another plugin has made it, or changed the same thing after it."""
        if self._is_anothers(plugin, change):
            return
        for changes in self._kept.values():
            for at, later in enumerate(changes):
                same = later.aspect is change.aspect and later.key == change.key
                if same and _equal(later.before, change.after):
                    changes[at] = replace(later, before=change.before)
                    return
        if change.lasts:
            _undo(plugin, change)

    def _say(self, plugin: str, undone: list[Change], rest: list[Change]) -> None:
        if text := self._new(plugin, undone, by_kind=True):
            log.warning(
                "%s: its load changed what the server and other plugins rest on, which is undone: "
                "%s; leave it to the server, or do it for the plugin alone "
                "(docs/writing-plugins.md says how)",
                plugin,
                text,
            )
        if text := self._new(plugin, rest, by_kind=False):
            log.info(
                "%s: its load, or a library that it was the first to import, changed this "
                "process: %s; that goes with the plugin",
                plugin,
                text,
            )

    def _new(self, plugin: str, changes: list[Change], *, by_kind: bool) -> str:
        """Return what was not said yet, as one text; `by_kind`: one of a kind stands for all."""
        kinds: dict[tuple[str, str], list[Change]] = {}
        for change in changes:
            what = str(id(change.aspect)) if by_kind else change.aspect.called(change.key)
            kinds.setdefault((plugin, what), []).append(change)
        new = [of_a_kind for kind, of_a_kind in kinds.items() if kind not in self._said]
        self._said.update(kinds)
        return _listed("; ", [_told(of_a_kind) for of_a_kind in new])


def _undo(plugin: str, change: Change, values: Mapping[str, str] = _NO_VALUES) -> None:
    """Undo a change; variables that were hidden from the load have the values that they had."""
    name = os.fsdecode(change.key) if change.aspect is ENVIRONMENT else ""
    try:
        if name in values:
            change.aspect.put(change.key, os.fsencode(values[name]))
        else:
            change.undo()
    except Exception:
        log.exception("%s: this change cannot be undone: %s", plugin, change)


def _told(of_a_kind: Sequence[Change]) -> str:
    """Return changes of one kind in words: the first as they are, the rest by what they are of."""
    told = [str(change) for change in of_a_kind[:_TOLD]]
    rest = dict.fromkeys(change.aspect.called(change.key) for change in of_a_kind[_TOLD:])
    return "; ".join([*told, f"so {_listed(', ', list(rest))}"] if rest else told)


def _listed(separator: str, texts: Sequence[str]) -> str:
    listed, more = separator.join(texts[:_NAMED]), len(texts) - _NAMED
    return f"{listed}{separator}and {more} more" if more > 0 else listed


def _equal(one: object, other: object) -> bool:
    return one is other or (
        (type(one) is type(other) and type(one) in {str, bytes, int}) and (one == other)
    )
