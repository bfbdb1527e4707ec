"""What all of a process shares and a plugin may change: how it is, and what a load made of it.

::

    before = snapshot()
    ...                                  # a plugin is loaded
    for change in difference(before, snapshot()):
        print(change)                    # "umask is 0o077, it was 0o022"

Which things these are stands in `process_aspects` and `patches`.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.loading.aspect import ABSENT, Aspect
from app.loading.process_aspects import ASPECTS, WIDE_ASPECTS


@dataclass(frozen=True, slots=True)
class ProcessState:
    """How a process is at one moment; `values` are those of each of `aspects`."""

    aspects: tuple[Aspect, ...]
    values: tuple[Mapping[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is another than it was; its text says what, for a person.

    `key` tells which of several it is. `before` and `after` are `ABSENT` where there was, or is,
    none.
    """

    aspect: Aspect
    key: Any
    before: Any
    after: Any

    @property
    def harms(self) -> bool:
        """Whether it stops or silences the server or other plugins, or changes what they do."""
        return self.aspect.harms(self.key, self.before, self.after)

    @property
    def lasts(self) -> bool:
        """Whether it is as it was made still."""
        return _same(self.aspect.read().get(self.key, ABSENT), self.after)

    def undo(self) -> None:
        """Make it as it was before."""
        self.aspect.put(self.key, self.before)

    def __str__(self) -> str:
        return self.aspect.tell(self.key, self.before, self.after)


def snapshot() -> ProcessState:
    """Look at everything: also whether functions and classes of libraries are those that they were.

    It takes some milliseconds.
    """
    return _look((*ASPECTS, *WIDE_ASPECTS))


def glance() -> ProcessState:
    """Look at what can be looked at before and after each load: it takes some 60 microseconds."""
    return _look(ASPECTS)


def difference(before: ProcessState, after: ProcessState) -> tuple[Change, ...]:
    """Return what is not as it was; both have to be of the same kind of look."""
    changes: list[Change] = []
    for aspect, old, new in zip(before.aspects, before.values, after.values, strict=True):
        if old is new or (old == new if aspect.plain else _identical(old, new)):
            continue
        for key in (*old, *(key for key in new if key not in old)):
            was, is_now = old.get(key, ABSENT), new.get(key, ABSENT)
            if not _same(was, is_now) and aspect.counts(key, was, is_now):
                changes.append(Change(aspect, key, was, is_now))
    return tuple(changes)


def _look(aspects: tuple[Aspect, ...]) -> ProcessState:
    return ProcessState(aspects, tuple(aspect.read() for aspect in aspects))


def _identical(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> bool:
    return old.keys() == new.keys() and all(map(operator.is_, old.values(), new.values()))


_PLAIN = frozenset({int, float, str, bytes, bool, tuple})


def _same(one: Any, other: Any) -> bool:
    """Compare two values, and run no code of a plugin's for it."""
    return one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)
