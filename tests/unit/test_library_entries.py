"""Libraries' registries hold what the newest generation of a plugin registered, and no other."""

import importlib.metadata
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from app.errors import LoadError
from app.libraries import calling_generation, generation_of, owner_of
from app.loading import library_entries as module
from app.loading.library_entries import LibraryEntries
from app.loading.loader import LoadedPlugin
from tests.support.plugins import plugin_text

Load = Callable[..., LoadedPlugin]


class Adapter:
    """An adapter of a library whose `entries` are lists by name."""

    def __init__(self, first: str | None) -> None:
        self.first = first
        self.taken: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []

    def take_out(self, generation: str) -> None:
        self.calls.append(("take_out", generation))
        entries = sys.modules["fake_metrics"].entries
        names = [name for name, item in entries.items() if owner_of(item) == generation]
        self.taken[generation] = {name: entries.pop(name) for name in names}

    def put_back(self, generation: str) -> None:
        self.calls.append(("put_back", generation))
        sys.modules["fake_metrics"].entries.update(self.taken.pop(generation))

    def let_go(self, generation: str) -> None:
        self.take_out(generation)
        self.calls[-1] = ("let_go", generation)
        self.taken.pop(generation, None)


class EntryPoint:
    name = "fake_metrics"

    def __init__(self) -> None:
        self.made: list[Adapter] = []

    def load(self) -> Callable[[str | None], Adapter]:
        def make(first: str | None) -> Adapter:
            self.made.append(Adapter(first))
            return self.made[-1]

        return make


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    point = EntryPoint()
    monkeypatch.setattr(module, "entry_points", lambda group: [point])
    entries = LibraryEntries()
    monkeypatch.setattr("app.loading.loader.library_entries", entries)
    return point


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A library that refuses a name twice."""
    library: Any = ModuleType("fake_metrics")
    library.__spec__ = importlib.machinery.ModuleSpec("fake_metrics", None)
    library.entries = {}

    def register(function: Callable[[], int]) -> Callable[[], int]:
        if function.__name__ in library.entries:
            raise ValueError(f"{function.__name__} is registered already")
        library.entries[function.__name__] = function
        return function

    library.register = register
    monkeypatch.setitem(sys.modules, "fake_metrics", library)
    return library


def registering(number: int, **methods: str) -> str:
    top = f"import fake_metrics\n@fake_metrics.register\ndef clicks(): return {number}\n"
    return plugin_text(top=top, **methods)


def shown(library: Any) -> list[int]:
    return [item() for item in library.entries.values()]


def test_without_an_adapter_the_second_load_fails(library, load_plugin: Load, monkeypatch) -> None:
    monkeypatch.setattr("app.loading.loader.library_entries", LibraryEntries())
    load_plugin(registering(1))
    with pytest.raises(LoadError, match="clicks is registered already"):
        load_plugin(registering(2))


def test_each_generation_takes_the_place_of_the_one_before(library, load_plugin: Load, point):
    older = load_plugin(registering(1))
    for number in (2, 3, 4):
        newer = load_plugin(registering(number))
        assert shown(library) == [number], "at the swap"
        older.dispose()
        assert shown(library) == [number], "and after the cleanup"
        older = newer
    older.dispose()
    assert shown(library) == []
    assert len(point.made) == 1


def test_a_load_that_fails_gives_the_entries_back(library, load_plugin: Load, point) -> None:
    older = load_plugin(registering(1))
    for broken in (
        registering(2) + "\n1 / 0\n",
        registering(2, initialize="1 / 0"),
        registering(2, register_routes="1 / 0"),
    ):
        with pytest.raises(LoadError, match="ZeroDivisionError"):
            load_plugin(broken)
        assert shown(library) == [1]
    newer = load_plugin(registering(3))
    older.dispose()
    assert shown(library) == [3]
    newer.dispose()


def test_a_generation_that_is_not_served_gives_the_entries_back(
    library, load_plugin: Load, point
) -> None:
    older = load_plugin(registering(1))
    load_plugin(registering(2)).dispose()  # as where its routes are another plugin's
    assert shown(library) == [1]
    older.dispose()
    assert shown(library) == []


def test_plugins_keep_apart(library, load_plugin: Load, point) -> None:
    mine = load_plugin(registering(1))
    load_plugin(registering(7).replace("clicks", "views").replace("'sample'", "'other'"), "other")
    load_plugin(registering(2))
    mine.dispose()
    assert sorted(shown(library)) == [2, 7]


def test_an_adapter_that_fails_costs_no_load(
    library, load_plugin: Load, point, monkeypatch, caplog
) -> None:
    load_plugin(plugin_text(top="import fake_metrics"))
    monkeypatch.setattr(Adapter, "take_out", lambda self, generation: 1 / 0)
    with caplog.at_level(logging.ERROR):
        load_plugin(plugin_text(top="import fake_metrics"))
    assert "the adapter for fake_metrics failed in take_out of _plugins.sample.g1" in caplog.text


def test_nothing_is_made_for_a_library_that_nobody_imported(load_plugin: Load, point) -> None:
    load_plugin(plugin_text())
    assert point.made == []


def test_an_adapter_is_told_whose_load_imported_the_library(
    load_plugin: Load, point, monkeypatch, tmp_path
) -> None:
    (tmp_path / "fake_metrics.py").write_text("entries = {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        loaded = load_plugin(plugin_text(top="import fake_metrics"))
    finally:
        sys.modules.pop("fake_metrics", None)
    assert [adapter.first for adapter in point.made] == [loaded.key]


def test_one_that_is_installed_goes_before_one_that_comes_along(monkeypatch) -> None:
    point = EntryPoint()
    point.name = "marshmallow.class_registry"
    monkeypatch.setattr(module, "entry_points", lambda group: [point])
    assert module._find_makers()["marshmallow.class_registry"] == point.load


def test_the_generation_that_runs_is_known_but_not_in_a_library_s_import(
    load_plugin: Load, monkeypatch, tmp_path
) -> None:
    (tmp_path / "asking.py").write_text(
        "from app.libraries import calling_generation\n"
        "AT_IMPORT = calling_generation()\n"
        "def ask(): return calling_generation()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_plugin(
        plugin_text(top="import asking\nasked = asking.ask()", handle="return asking.ask()")
    )
    main = sys.modules[f"{loaded.key}.main"]
    asking = sys.modules.pop("asking")
    assert (asking.AT_IMPORT, main.asked) == (None, loaded.key)
    assert loaded.instance.handle() == loaded.key
    assert calling_generation() is None


def test_whose_something_is_is_told_without_asking_it(load_plugin: Load) -> None:
    loaded = load_plugin(
        plugin_text(
            top="class Lazy:\n    @property\n    def __class__(self): raise RuntimeError('no')\n"
            "LAZY = Lazy()\ndef function(): pass\n"
        )
    )
    main = sys.modules[f"{loaded.key}.main"]
    assert [owner_of(item) for item in (main.Lazy, main.LAZY, main.function)] == [loaded.key] * 3
    assert [owner_of(item) for item in (int, 1, len, LoadedPlugin, owner_of)] == [None] * 5
    assert generation_of("_plugins.shop.g7.main") == "_plugins.shop.g7"
    assert [generation_of(name) for name in ("_plugins.shop", "_plugins", "shop", None)] == [
        None
    ] * 4
