"""Immutable mappings that share most of their content with the mapping before.

Copying a large dict is slow, because it touches every object in it, and most of these are no
longer in the processor's caches.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_GONE: Any = object()
"""Marks, in the recent layer, a key of the base that the mapping no longer has."""

SMALL = 4096
"""A base with fewer keys is copied at every change: the mapping has one layer."""

MERGED_SHARE = 16
"""The recent layer is merged into the base when it is larger than this part (1/16) of it."""


class OverlayMap(Mapping[K, V]):
    """An immutable mapping of two dicts, a large base and the recent changes to it.

    Change it through a `Draft`, whose `finish` returns the next mapping.
    """

    __slots__ = ("_base", "_merged_share", "_recent", "_small")

    def __init__(
        self,
        base: dict[K, V],
        recent: dict[K, V] | None = None,
        small: int = SMALL,
        merged_share: float = MERGED_SHARE,
    ) -> None:
        self._base = base
        self._recent: dict[K, V] = recent or {}
        self._small = small
        self._merged_share = merged_share

    def __getitem__(self, key: K) -> V:
        value = self._recent[key] if key in self._recent else self._base[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self._base if key not in self._recent)
        yield from (key for key, value in self._recent.items() if value is not _GONE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, key: K) -> V | None:
        """Return a key's value, None if there is none; `get` of a Mapping is much slower."""
        value = self._recent.get(key)
        if value is None:
            return self._base.get(key)
        return None if value is _GONE else value

    @property
    def whole(self) -> dict[K, V] | None:
        """The mapping as one dict, None while it has two layers."""
        return None if self._recent else self._base

    def changed(self, changes: Mapping[K, V]) -> "OverlayMap[K, V]":
        """Return a mapping with the changes of a `Draft`; this one stays as it is."""
        recent = {**self._recent, **changes}
        size = len(self._base)
        if size >= self._small and len(recent) <= size // self._merged_share:
            return OverlayMap(self._base, recent, self._small, self._merged_share)
        whole = self._base.copy()  # as a block; to look at each key takes 50 times as long
        for key, value in recent.items():
            if value is _GONE:
                whole.pop(key, None)
            else:
                whole[key] = value
        return OverlayMap(whole, None, self._small, self._merged_share)


class Draft(Generic[K, V]):
    """Changes to a mapping, collected one by one."""

    def __init__(self, before: OverlayMap[K, V]) -> None:
        self._before = before
        self._changes: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """Return a key's value as changed so far, None if there is none."""
        value = self._changes.get(key)
        if value is None:
            return self._before.find(key)
        return None if value is _GONE else value

    def put(self, key: K, value: V) -> None:
        """Set a key's value."""
        self._changes[key] = value

    def drop(self, key: K) -> None:
        """Remove a key, if it is there."""
        self._changes[key] = _GONE

    def finish(self) -> OverlayMap[K, V]:
        """Return the changed mapping; the one before stays as it is."""
        return self._before.changed(self._changes)
