"""Mappings that are never changed and share most of what they hold with the one before.

To copy a dict means to touch every object in it, which is out of the processor's caches by then.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_GONE: Any = object()
"""Stands in the recent layer for a key that the base has and the mapping has not."""

SMALL = 4096
"""A mapping that is smaller is copied at every change, and has one layer."""

MERGED_SHARE = 16
"""The recent layer is merged into the base when it holds more than one part in so many of it."""


class OverlayMap(Mapping[K, V]):
    """An immutable mapping of two dicts: what is recent hides what is below."""

    __slots__ = ("_base", "_recent")

    def __init__(self, base: dict[K, V], recent: dict[K, V] | None = None) -> None:
        self._base = base
        self._recent: dict[K, V] = recent or {}

    def __getitem__(self, key: K) -> V:
        found = self._recent[key] if key in self._recent else self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self._base if key not in self._recent)
        yield from (key for key, value in self._recent.items() if value is not _GONE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, key: K) -> V | None:
        """Return a key's value, None if there is none; `get` of a Mapping is much slower."""
        found = self._recent.get(key)
        if found is None:
            return self._base.get(key)
        return None if found is _GONE else found

    @property
    def whole(self) -> dict[K, V] | None:
        """The mapping as one dict, None while it has two layers."""
        return None if self._recent else self._base

    def changed(self, changes: Mapping[K, V]) -> "OverlayMap[K, V]":
        """Return the mapping with changes of a `Draft`; this one stays as it is."""
        recent = {**self._recent, **changes}
        size = len(self._base)
        if size >= SMALL and len(recent) <= size // MERGED_SHARE:
            return OverlayMap(self._base, recent)
        merged = self._base | recent
        return OverlayMap({key: value for key, value in merged.items() if value is not _GONE})


class Draft(Generic[K, V]):
    """Changes to a mapping, in the making."""

    def __init__(self, layers: OverlayMap[K, V]) -> None:
        self._layers = layers
        self._changes: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """Return a key's value as changed so far, None if there is none."""
        found = self._changes.get(key)
        if found is None:
            return self._layers.find(key)
        return None if found is _GONE else found

    def put(self, key: K, value: V) -> None:
        """Set a key's value."""
        self._changes[key] = value

    def drop(self, key: K) -> None:
        """Take a key away, if it is there."""
        self._changes[key] = _GONE

    def finish(self) -> OverlayMap[K, V]:
        """Return the changed mapping; the one that this began with stays as it is."""
        return self._layers.changed(self._changes)
