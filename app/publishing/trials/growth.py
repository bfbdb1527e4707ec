"""Which containers of libraries grow with each load of a plugin, and what else a process gains.

A registration that is made once more is another entry in a list or a dict: a job that runs twice, a
handler that writes twice. Nothing of it need refer to the plugin.
"""

import gc
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from app.descendants import own_children
from app.publishing.trials.holders import is_identity, is_of_library

_CONTAINERS = (dict, list, set, deque)


@dataclass(frozen=True, slots=True)
class Objects:
    """What is in memory and not frozen (`gc.freeze`).

    `sizes` are the lengths of all lists, dicts, sets and deques, by id; `kinds` how many objects of
    libraries there are, by class: a list may be replaced by a longer one each time.
    """

    sizes: Mapping[int, int]
    kinds: Mapping[type, int]

    @classmethod
    def now(cls) -> "Objects":
        """Count what there is now."""
        sizes = {}
        counts: Counter[type] = Counter()
        known: dict[type, Any] = {}
        for item in gc.get_objects():
            kind = type(item)
            if kind not in known:
                base = next((base for base in _CONTAINERS if issubclass(kind, base)), None)
                known[kind] = None if base is None else base.__len__
            if known[kind] is not None:
                sizes[id(item)] = known[kind](item)
            counts[kind] += 1
        return cls(sizes, {kind: n for kind, n in counts.items() if is_of_library(kind)})

    def longer_than(self, before: "Objects") -> set[int]:
        """Return which containers are longer than before, by id."""
        sizes = before.sizes
        return {key for key, size in self.sizes.items() if size > sizes.get(key, size)}

    def more_than(self, before: "Objects") -> set[type]:
        """Return the classes of which there are more objects than before, and were some."""
        kinds = before.kinds
        return {kind for kind, n in self.kinds.items() if n > kinds.get(kind, n)}


def have_new_entries(ids: Collection[int], before: Mapping[int, int]) -> set[int]:
    """Return which containers have entries that any generation may come upon, by id.

    Those of caches are for the one object that they are kept of; see `holders`.

    Args:
        ids: containers that have grown.
        before: how long they were.
    """
    return {id(o) for o in gc.get_objects() if id(o) in ids and _is_shared(o, before[id(o)])}


def _is_shared(container: Any, before: int) -> bool:
    if issubclass(type(container), dict):
        count = dict.__len__(container) - before
        newest = islice(reversed(list(dict.items(container))), count)
        return any(
            not is_identity(key) and not issubclass(type(value), weakref.ref)
            for key, value in newest
        )
    if issubclass(type(container), list):
        container = list.__getitem__(container, slice(before, None))
    return not all(is_identity(item) for item in list(container))


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a process has that outlives a plugin: its threads' names, children and descriptors."""

    threads: tuple[str, ...]
    children: int
    descriptors: int

    @classmethod
    def now(cls) -> "Belongings":
        """Return what this process has now."""
        if sys.platform != "linux":
            return cls(_thread_names(), 0, 0)
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(_thread_names(), len(own_children()), descriptors)

    def gained_since(self, before: "Belongings") -> list[str]:
        """Return a phrase for each kind of which there is more than before."""
        threads = list((Counter(self.threads) - Counter(before.threads)).elements())
        phrases = [f"the thread {name!r}" for name in threads]
        if self.children > before.children:
            phrases.append(f"child processes ({self.children - before.children})")
        if self.descriptors > before.descriptors:
            phrases.append(f"open files ({self.descriptors - before.descriptors})")
        return phrases


def _thread_names() -> tuple[str, ...]:
    return tuple(thread.name for thread in threading.enumerate())
