"""Registries of libraries hold what one generation of a plugin registered: the newest one.

See `app.libraries` for what an adapter is. Registries belong to the process, so there is one
`library_entries` of it; whoever loads a plugin goes through it: workers, trials, rehearsals.
"""

import importlib
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from app.libraries import ENTRY_POINTS, LibraryAdapter, MakeAdapter

log = logging.getLogger(__name__)

BUILT_IN = {
    "prometheus_client": "app.loading.prometheus_adapter:PrometheusAdapter",
    "marshmallow.class_registry": "app.loading.marshmallow_adapter:MarshmallowAdapter",
}
"""The adapters that come along, by the module that they are for."""


@dataclass(slots=True)
class _Loaded:
    """A generation that was loaded; `is_out` while its entries make way for a successor's."""

    package: str
    is_out: bool = False


class LibraryEntries:
    """Has the adapters take entries out and put them back, as generations come and go.

    Call `begin` before a generation is loaded, `loaded` after it, and `end` once it failed or was
    cleaned up. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._makers: dict[str, Callable[[], MakeAdapter]] | None = None
        """What makes the adapters that were not needed yet, by module."""
        self._adapters: dict[str, LibraryAdapter] = {}
        self._plugins: dict[str, list[_Loaded]] = {}
        """The generations of each plugin, the newest last."""

    def begin(self, plugin: str, package: str) -> None:
        """Have a plugin's older generations make way for one that is loaded now."""
        with self._lock:
            self._make_adapters(None)
            older = self._plugins.setdefault(plugin, [])
            for generation in older:
                if not generation.is_out:
                    generation.is_out = True
                    self._tell("take_out", generation.package)
            older.append(_Loaded(package))

    def loaded(self, package: str) -> None:
        """Note that a generation is loaded: what it has imported may have an adapter."""
        with self._lock:
            self._make_adapters(package)

    def end(self, plugin: str, package: str) -> None:
        """Drop what a generation registered; where no successor stands, its predecessor is back."""
        with self._lock:
            self._make_adapters(package)
            self._tell("let_go", package)
            generations = self._plugins.get(plugin, [])
            was_newest = bool(generations) and generations[-1].package == package
            generations[:] = [other for other in generations if other.package != package]
            if not generations:
                self._plugins.pop(plugin, None)
            elif was_newest and generations[-1].is_out:
                generations[-1].is_out = False
                self._tell("put_back", generations[-1].package)

    def _tell(self, method: str, package: str) -> None:
        for module, adapter in self._adapters.items():
            try:
                getattr(adapter, method)(package)
            except Exception:
                # The library's own author may have written it: it costs this library at most.
                log.exception("the adapter for %s failed in %s of %s", module, method, package)

    def _make_adapters(self, first: str | None) -> None:
        if self._makers is None:
            self._makers = _find_makers()
        for module in [name for name in self._makers if _is_imported(name)]:
            make = self._makers.pop(module)
            try:
                self._adapters[module] = make()(first)
            except Exception:
                log.exception("the adapter for %s cannot be made; it goes without", module)


library_entries = LibraryEntries()


def _is_imported(module: str) -> bool:
    """Tell whether a module was imported to its end."""
    spec: Any = getattr(sys.modules.get(module), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def _find_makers() -> dict[str, Callable[[], MakeAdapter]]:
    """Return what imports each adapter; one that is installed goes before one that comes along."""

    def built_in(place: str) -> Callable[[], MakeAdapter]:
        module, _, name = place.partition(":")
        return lambda: getattr(importlib.import_module(module), name)

    makers = {module: built_in(place) for module, place in BUILT_IN.items()}
    return makers | {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}
