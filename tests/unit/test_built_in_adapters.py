"""The adapters that come along, on libraries of a few lines that keep what the real ones keep.

`tests/acceptance/test_library_adapters.py` runs them on the real ones.
"""

import gc
import importlib.machinery
import itertools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from app.errors import LoadError
from app.loading.library_entries import LibraryEntries
from app.loading.loader import LoadedPlugin
from app.loading.prometheus_adapter import PrometheusAdapter
from tests.support.plugins import plugin_text

Load = Callable[..., LoadedPlugin]

METRICS = """
import threading

class Registry:
    def __init__(self):
        self._lock = threading.Lock()
        self._collector_to_names = {}
        self._names_to_collectors = {}

    def register(self, collector):
        with self._lock:
            names = [collector._name, collector._name + "_total"]
            if set(names) & set(self._names_to_collectors):
                raise ValueError("Duplicated timeseries")
            for name in names:
                self._names_to_collectors[name] = collector
            self._collector_to_names[collector] = names

    def unregister(self, collector):
        with self._lock:
            for name in self._collector_to_names[collector]:
                del self._names_to_collectors[name]
            del self._collector_to_names[collector]

    def shown(self):
        return {c._name: c._value.number for c in self._collector_to_names}

class Value:
    number = 0

class Counter:
    def __init__(self, name, labelnames=()):
        self._name, self._labelnames, self._created = name, labelnames, 0.0
        self._value = Value()
        REGISTRY.register(self)

    def inc(self):
        self._value.number += 1

REGISTRY = Registry()
PLATFORM = Counter("platform")
Counter.__module__ = "prometheus_client.metrics"
"""

CLASSES = """
_registry = {}

def register(classname, cls):
    module = cls.__module__
    if classname in _registry and not any(e.__module__ == module for e in _registry[classname]):
        _registry[classname].append(cls)
    elif classname not in _registry:
        _registry[classname] = [cls]
    _registry.setdefault(f"{module}.{classname}", []).append(cls)

def get_class(classname):
    classes = _registry[classname]
    if len(classes) > 1:
        raise LookupError(f"Multiple classes with name {classname!r}")
    return _registry[classname][0]
"""


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.loading.loader.library_entries", LibraryEntries())
    for name, code in (("prometheus_client", METRICS), ("marshmallow.class_registry", CLASSES)):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        exec(code, module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "marshmallow", ModuleType("marshmallow"))


@pytest.fixture
def metrics(libraries: None) -> Any:
    return sys.modules["prometheus_client"]


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module through which plugins and their test speak."""
    module = ModuleType("notes")
    monkeypatch.setitem(sys.modules, "notes", module)
    return module


def counting(more: str = "", **methods: str) -> str:
    top = f"import prometheus_client\nCALLS = prometheus_client.Counter('calls')\n{more}\n"
    return plugin_text(top=top, handle="CALLS.inc()", **methods)


def test_a_counter_goes_on_counting_for_the_old_version_s_requests_too(
    metrics, load_plugin: Load
) -> None:
    older = load_plugin(counting())
    older.instance.handle()
    newer = load_plugin(counting())
    older.instance.handle()
    newer.instance.handle()
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 3}
    older.dispose()
    newer.instance.handle()
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 4}
    newer.dispose()
    assert metrics.REGISTRY.shown() == {"platform": 0}, "the library's own stays"


def test_a_metric_is_shown_while_its_successor_is_loaded(
    metrics, load_plugin: Load, notes: Any
) -> None:
    load_plugin(counting()).instance.handle()
    look = "import prometheus_client, notes\nnotes.seen = prometheus_client.REGISTRY.shown()\n"
    load_plugin(look + counting())
    assert notes.seen == {"platform": 0, "calls": 1}, "before it has registered its own"
    load_plugin(counting(look))
    assert notes.seen == {"platform": 0, "calls": 1}, "and after it"


def test_a_metric_of_other_labels_begins_anew(metrics, load_plugin: Load) -> None:
    load_plugin(counting()).instance.handle()
    load_plugin(counting().replace("Counter('calls')", "Counter('calls', ('kind',))"))
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 0}


def test_a_load_that_fails_leaves_the_metrics_as_they_were(metrics, load_plugin: Load) -> None:
    older = load_plugin(counting())
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load_plugin(counting("OTHER = prometheus_client.Counter('other')\n1 / 0"))
    older.instance.handle()
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 1}
    load_plugin(counting("OTHER = prometheus_client.Counter('other')"))
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 1, "other": 0}


def test_a_plugin_may_unregister_its_metrics_in_cleanup(metrics, load_plugin: Load, caplog) -> None:
    cleanup = "prometheus_client.REGISTRY.unregister(CALLS)"
    older = load_plugin(counting(cleanup=cleanup))
    newer = load_plugin(counting(cleanup=cleanup))
    older.dispose()
    newer.instance.handle()
    assert metrics.REGISTRY.shown() == {"platform": 0, "calls": 1}
    newer.dispose()
    assert metrics.REGISTRY.shown() == {"platform": 0}
    assert caplog.text == ""


def test_a_metric_that_a_request_has_made_is_its_generation_s(metrics, load_plugin: Load) -> None:
    lazy = plugin_text(
        top="import prometheus_client",
        handle="prometheus_client.Counter('late').inc()",
    )
    older = load_plugin(lazy)
    older.instance.handle()
    newer = load_plugin(lazy)
    older.dispose()
    newer.instance.handle()
    assert metrics.REGISTRY.shown() == {"platform": 0, "late": 1}


SCHEMAS = plugin_text(
    top="import sys\nregistry = sys.modules['marshmallow.class_registry']\n"
    "class Tag: pass\nregistry.register('Tag', Tag)\n",
    handle="return registry.get_class('Tag').__module__",
)


def test_the_adapter_is_made_while_other_threads_import(metrics, monkeypatch) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    imported = itertools.count()

    def import_another(_phase: str, _info: dict[str, int]) -> None:
        sys.modules[f"another{next(imported)}"] = ModuleType("another")

    thresholds = gc.get_threshold()
    gc.callbacks.append(import_another)  # a collection may let other threads run
    try:
        gc.set_threshold(1)
        PrometheusAdapter(None)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(import_another)
    assert next(imported) > 0


def test_a_schema_s_name_means_the_class_of_the_generation_that_asks(load_plugin: Load) -> None:
    generations = [load_plugin(SCHEMAS) for _ in range(3)]
    for loaded in generations:
        assert loaded.instance.handle() == f"{loaded.key}.main"
    registry: Any = sys.modules["marshmallow.class_registry"]
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(registry.get_class("Tag").__module__))
    thread.start()
    thread.join()
    assert found == [f"{generations[-1].key}.main"], "a thread of a pool, of no plugin"
    for loaded in generations:
        loaded.dispose()
    assert dict(registry._registry) == {}
    assert registry._registry.taken == {}


def test_a_schema_is_found_while_its_successor_is_loaded_and_if_that_fails(
    load_plugin: Load, notes: Any
) -> None:
    older = load_plugin(SCHEMAS)
    notes.ask = older.instance.handle
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load_plugin(f"import notes\nnotes.seen = notes.ask()\n{SCHEMAS}\n1 / 0\n")
    assert notes.seen == f"{older.key}.main"
    assert older.instance.handle() == f"{older.key}.main"
    registry: Any = sys.modules["marshmallow.class_registry"]
    assert set(registry._registry) == {"Tag", f"{older.key}.main.Tag"}
