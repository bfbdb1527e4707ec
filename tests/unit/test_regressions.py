"""A version whose requests fail, where those of the version before were answered, is replaced."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from app.loading.routes import Route
from app.records import FRESH, HOT, ServedRow
from app.serving import regressions
from app.serving.regressions import Regressions
from tests.support.waiting import wait_until

PATHS = [f"/b/one-{number:032x}.pyz" for number in range(9)]


def row(generation, reload="auto"):
    return ServedRow("id", "one", generation, "active", PATHS[generation], reload=reload)


def plugin(generation, *called):
    """Return a loaded generation with two routes; `called` are those that were asked for."""
    key = f"_plugins.one.g{generation}"
    routes = tuple(
        Route("one", path, object(), generation=key, responders={"GET": print})
        for path in ("/a", "/b")
    )
    for route in routes:
        route.name.number = int(route.template in called)
    return SimpleNamespace(key=key, name="one", routes=routes)


class Rows:
    """What is written, in the order in which it is."""

    def __init__(self):
        self.said = []
        self.known = None
        self.regressions = self
        self.reloads = SimpleNamespace(record=self.record_reload)
        self.done = threading.Event()

    def record_reload(self, name, digest, found):
        self.said.append(("reload", digest[-1], found.how))

    def record(self, name, digest, templates, before):
        self.said.append(("answered", digest[-1], sorted(templates), before))

    def find(self, name, digest):
        self.done.set()
        return self.known

    def set_back(self, row, before, why):
        self.said.append(("set back", row.generation, before))
        self.why = why
        return True


@pytest.fixture
def world():
    rows, good, asked = Rows(), {}, []
    repository: Any = rows
    last_known_good: Any = SimpleNamespace(find=good.get)
    counting = Regressions(repository, last_known_good, 3)
    counting.replace = lambda: asked.append(1)

    def serve(generation, *called, reload="auto"):
        loaded = plugin(generation, *called)
        counting.served(loaded, row(generation, reload))
        good["one"] = row(generation, reload)
        return loaded

    def fail(loaded, template, times):
        route = next(route for route in loaded.routes if route.template == template)
        for _ in range(times):
            counting.count(route, "raised RegistryError")

    return SimpleNamespace(rows=rows, serve=serve, fail=fail, asked=asked, counting=counting)


def test_failures_that_begin_with_a_version_ask_for_fresh_workers(world):
    world.serve(1, "/a")
    second = world.serve(2)
    world.fail(second, "/a", 2)
    assert not world.rows.said
    world.fail(second, "/a", 5)
    wait_until(lambda: world.asked == [1], "it is asked once")
    assert world.rows.said == [("reload", "2", FRESH), ("answered", "2", ["/a"], PATHS[1])]


@pytest.mark.parametrize("template", ["/a", "/b"])
def test_what_failed_before_or_was_never_called_counts_for_nothing(world, template):
    first = world.serve(1, "/a")
    world.fail(first, "/a", 1)
    second = world.serve(2)
    world.fail(second, template, 9)
    assert not world.counting._watched
    assert not world.asked


def test_where_the_author_says_hot_nothing_is_counted(world):
    world.serve(1, "/a")
    world.fail(world.serve(2, reload=HOT), "/a", 9)
    assert not world.counting._watched
    assert not world.asked


def test_what_begins_later_does_not_begin_with_the_version(world, monkeypatch):
    world.serve(1, "/a")
    monkeypatch.setattr(regressions, "WATCHED_SECONDS", -1.0)
    world.fail(world.serve(2), "/a", 9)
    assert not world.asked


def test_if_it_goes_on_in_fresh_workers_the_row_is_set_back(world):
    world.rows.known = (["/a"], PATHS[1])
    second = world.serve(2, reload=FRESH)
    wait_until(lambda: world.counting._watched, "it knows what answered")
    world.fail(second, "/a", 9)
    wait_until(lambda: world.rows.said == [("set back", 2, PATHS[1])], "it is set back once")
    assert "3 requests failed that were answered in the version before" in world.rows.why
    assert not world.asked, "the changed row asks for fresh workers by itself"


def test_who_waits_for_fresh_workers_tells_them_what_answered(world):
    world.serve(1, "/a", reload=FRESH)
    world.counting.leaves(row(2, FRESH))
    assert world.rows.said == [("answered", "2", ["/a"], PATHS[1])]


def test_without_a_master_that_can_be_asked_nothing_is_counted(world):
    world.counting.replace = None
    world.serve(1, "/a")
    world.fail(world.serve(2), "/a", 9)
    assert not world.counting._watched
