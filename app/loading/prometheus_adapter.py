"""The adapter for prometheus_client: a metric goes on counting over edits.

The registry refuses a name that is in use. An old generation's metrics therefore give their names
free, and are still shown; the metric that takes a name takes the values too. Both count into the
same values from then on, so that nothing is lost of requests that began before.
"""

import sys
from typing import Any

from app.libraries import calling_generation, generation_of, owner_of

_VALUES = {
    "Counter": ("_value", "_created"),
    "Gauge": ("_value",),
    "Summary": ("_count", "_sum", "_created"),
    "Histogram": ("_buckets", "_sum", "_created"),
}
"""The attributes that hold the values of a metric without labels (prometheus_client/metrics.py).

An Info or an Enum is what the new version says that it is."""

_OF_ALL_LABELS = ("_metrics", "_lock")
_SAME = ("_labelnames", "_upper_bounds", "_multiprocess_mode")
"""What two metrics must have in common for their values to mean the same."""


class PrometheusAdapter:
    """Hands metrics over between generations; see `app.libraries.LibraryAdapter`."""

    def __init__(self, first: str | None) -> None:
        module: Any = sys.modules["prometheus_client"]
        self._registry: Any = module.REGISTRY
        with self._registry._lock:
            self._collectors = _Collectors(self._registry._collector_to_names)
            self._registry._collector_to_names = self._collectors
            for collector in self._collectors:
                owner = _owner_before(collector, first)
                if owner is not None:
                    self._collectors.note(owner, collector)

    def take_out(self, generation: str) -> None:
        """Give the names of a generation's metrics free; they are shown until others have them."""
        collectors, registered = self._collectors, self._registry._names_to_collectors
        with self._registry._lock:
            for collector, names in collectors.owned.get(generation, {}).items():
                for name in names:
                    if registered.get(name) is collector:
                        del registered[name]
                        collectors.waiting[name] = collector
                collectors.show(collector, [])

    def put_back(self, generation: str) -> None:
        """Have a generation's metrics stand under their names again."""
        collectors, registered = self._collectors, self._registry._names_to_collectors
        with self._registry._lock:
            for collector, names in collectors.owned.get(generation, {}).items():
                free = [name for name in names if name not in registered]
                registered.update(dict.fromkeys(free, collector))
                collectors.stop_waiting(collector)
                collectors.show(collector, free)

    def let_go(self, generation: str) -> None:
        """Take a generation's metrics out for good."""
        collectors, registered = self._collectors, self._registry._names_to_collectors
        with self._registry._lock:
            for collector, names in collectors.owned.pop(generation, {}).items():
                for name in names:
                    if registered.get(name) is collector:
                        del registered[name]
                collectors.stop_waiting(collector)
                collectors.pop(collector, None)


class _Collectors(dict[Any, list[str]]):
    """The registry's collectors, each with its names; changed under the registry's own lock."""

    def __init__(self, known: dict[Any, list[str]]) -> None:
        super().__init__(known)
        self.owned: dict[str, dict[Any, list[str]]] = {}
        """The collectors of each generation with their names, shown or not."""
        self.waiting: dict[str, Any] = {}
        """The names that were given free, and whose values the next one to take them gets."""

    def note(self, generation: str, collector: Any) -> None:
        """Note whose a collector is."""
        self.owned.setdefault(generation, {})[collector] = self.get(collector, [])

    def show(self, collector: Any, names: list[str]) -> None:
        """Show a collector, as the one of some names."""
        super().__setitem__(collector, names)

    def stop_waiting(self, collector: Any) -> None:
        """Let a collector's values be its own."""
        for name in [name for name, other in self.waiting.items() if other is collector]:
            del self.waiting[name]

    def __setitem__(self, collector: Any, names: list[str]) -> None:
        """Register a collector: it belongs to the code that does so, and succeeds another."""
        for name in names:
            older = self.waiting.get(name)
            if older is not None:
                self.stop_waiting(older)
                self.pop(older, None)
                _hand_over(older, collector)
        self.show(collector, names)
        owner = calling_generation()
        if owner is not None:
            self.note(owner, collector)

    def __missing__(self, collector: Any) -> list[str]:
        """Return the names of what a successor stands for, so that it can be unregistered too."""
        if any(collector in owned for owned in self.owned.values()):
            return []
        raise KeyError(collector)

    def __delitem__(self, collector: Any) -> None:
        """Unregister a collector."""
        for owned in self.owned.values():
            owned.pop(collector, None)
        self.stop_waiting(collector)
        self.pop(collector, None)

    def __copy__(self) -> dict[Any, list[str]]:
        """Return what the registry collects from."""
        return dict(self)


def _hand_over(older: Any, newer: Any) -> None:
    kind = type(newer)
    if type(older) is not kind or kind.__module__ != "prometheus_client.metrics":
        return
    if any(getattr(older, name, None) != getattr(newer, name, None) for name in _SAME):
        return
    attributes = _VALUES.get(kind.__name__, ())
    if newer._labelnames and attributes:
        attributes = _OF_ALL_LABELS
    for name in attributes:
        setattr(newer, name, getattr(older, name))


def _owner_before(collector: Any, first: str | None) -> str | None:
    """Return whose a collector is that was registered before anybody looked.

    A global of a plugin's module is that generation's, one of any other module the library's. What
    is nowhere global was registered by the generation that imported the library.
    """
    # A copy is made in one step: other plugins, which are loaded meanwhile, import modules.
    found = [
        name
        for name, module in sys.modules.copy().items()
        if any(value is collector for value in list(getattr(module, "__dict__", {}).values()))
    ]
    generations = [generation_of(name) for name in found]
    if None in generations:
        return None
    return owner_of(collector) or next(iter(generations), first)
