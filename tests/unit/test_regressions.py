"""A version whose requests fail, where those of the version before were answered, is replaced."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import DatabaseUnavailableError
from app.loading.routes import Route
from app.records import FRESH, HOT, ServedRow
from app.routing.application import LiveApp
from app.serving import new_failures, regressions
from app.serving.regressions import Regressions
from tests.support.waiting import Clock, wait_until
from tests.support.wsgi import call

PATHS = [f"/b/one-{number:032x}.pyz" for number in range(9)]


def row(generation, reload="auto"):
    return ServedRow("id", "one", generation, "active", PATHS[generation], reload=reload)


def answers(req, resp):
    resp.media = {}


def plugin(generation, *called):
    """Return a loaded generation with two routes; `called` are those that were asked for."""
    key = f"_plugins.one.g{generation}"
    routes = tuple(
        Route("one", path, object(), generation=key, responders={"GET": answers})
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
        self.acquitted = set()
        self.away = False
        self.regressions = self
        self.reloads = SimpleNamespace(record=self.record_reload)
        self.asked = 0

    def record_reload(self, name, digest, found):
        self.said.append(("reload", digest[-1], found.how))

    def record(self, row, templates, before):
        self.said.append(("answered", row.digest[-1], sorted(templates), before))
        self.known = (sorted(templates), before)

    def announce(self, name):
        self.said.append(("announced", name))

    def find(self, row):
        self.asked += 1
        if self.known is None:
            return None
        return [t for t in self.known[0] if t not in self.acquitted], self.known[1]

    def acquit(self, row, template):
        if self.away:
            raise DatabaseUnavailableError("away")
        self.acquitted.add(template)

    def set_back(self, row, before, why, templates):
        if self.acquitted.intersection(templates):
            self.said.append(("stays", row.generation, sorted(templates)))
            return False
        self.said.append(("set back", row.generation, before))
        self.why = why
        return True


def make_world(monkeypatch, max_failed=3):
    rows, good, asked, clock = Rows(), {}, [], Clock()
    repository: Any = rows
    last_known_good: Any = SimpleNamespace(find=good.get)
    counting = Regressions(repository, last_known_good, max_failed)
    counting.replace = lambda: asked.append(1)
    monkeypatch.setattr(
        regressions, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=lambda _: None)
    )

    def serve(generation, *called, reload="auto"):
        loaded = plugin(generation, *called)
        counting.served(loaded, row(generation, reload))
        good["one"] = row(generation, reload)
        return loaded

    def fail(loaded, template, times, seconds=0.0):
        """Have requests fail, the last one some seconds after the others."""
        route = next(route for route in loaded.routes if route.template == template)
        for number in range(times):
            clock.now += seconds if number == times - 1 else 0.0
            counting.count(route, "raised RegistryError")

    def answer(loaded, template):
        app = LiveApp()
        builder = app.table.builder()
        builder.add("one", loaded.routes)
        app.swap(builder.build())
        assert call(app, template).status == 200

    def fresh(generation=2, templates=("/a", "/b")):
        """Serve a generation in a fresh process, of which the database has what answered."""
        rows.known = (list(templates), PATHS[1])
        loaded = serve(generation, reload=FRESH)
        wait_until(lambda: counting._served["one"].is_recalled, "it knows what answered")
        wait_until(lambda: loaded.key in counting._watched, "it counts")
        wait_until(lambda: all(route.around for route in loaded.routes), "it is told of answers")
        return loaded

    return SimpleNamespace(
        rows=rows,
        serve=serve,
        fail=fail,
        answer=answer,
        fresh=fresh,
        asked=asked,
        counting=counting,
        clock=clock,
    )


@pytest.fixture
def world(monkeypatch):
    return make_world(monkeypatch)


LONG = new_failures.SPAN_SECONDS


def test_failures_that_begin_with_a_version_ask_for_fresh_workers(world):
    world.serve(1, "/a")
    second = world.serve(2)
    world.fail(second, "/a", 2)
    assert not world.rows.said
    world.fail(second, "/a", 5)
    wait_until(lambda: world.asked == [1], "it is asked once")
    assert world.rows.said == [
        ("answered", "2", ["/a"], PATHS[1]),
        ("reload", "2", FRESH),
        ("announced", "one"),
    ]
    world.fail(second, "/a", 9)
    assert len(world.rows.said) == 3, "one round for a version"


def test_whoever_serves_it_too_asks_for_fresh_workers_and_judges_no_more(world):
    world.serve(1, "/a")
    second = world.serve(2)
    world.rows.known = (["/a"], PATHS[1])
    for _ in range(3):
        world.counting.watched(replace(row(2, FRESH), watched=True))
    wait_until(lambda: world.asked, "it is asked")
    world.fail(second, "/a", 9)
    assert world.asked == [1]
    assert not world.rows.said


def test_a_note_of_another_generation_is_not_followed(world):
    world.serve(1, "/a")
    world.serve(2)
    world.rows.known = (["/a"], PATHS[1])
    world.counting.watched(replace(row(3, FRESH), watched=True))
    assert not world.rows.asked


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
    second = world.fresh()
    world.fail(second, "/a", 3, LONG)
    wait_until(lambda: world.rows.said == [("set back", 2, PATHS[1])], "it is set back once")
    assert "3 requests failed that were answered in the version before" in world.rows.why
    assert not world.asked, "the changed row asks for fresh workers by itself"


def test_a_burst_is_no_proof(world):
    second = world.fresh()
    world.fail(second, "/a", 99, LONG - 1.0)
    assert not world.counting._watched[second.key].is_judged
    world.fail(second, "/a", 1, 1.0)
    wait_until(lambda: world.rows.said == [("set back", 2, PATHS[1])], "it goes on")


def test_a_version_that_answers_here_is_not_set_back(world):
    second = world.fresh()
    world.fail(second, "/a", 2)
    world.answer(second, "/a")
    wait_until(lambda: world.rows.acquitted == {"/a"}, "the database is told")
    world.fail(second, "/a", 9, LONG)
    assert not world.rows.said
    assert all(route.around is None for route in second.routes if route.template == "/a")
    world.fail(second, "/b", 9, LONG)
    wait_until(lambda: world.rows.said == [("set back", 2, PATHS[1])], "the other counts still")


def test_a_version_that_answers_elsewhere_is_not_set_back(world):
    second = world.fresh()
    world.rows.acquitted.add("/a")
    world.fail(second, "/a", 2)
    world.fail(second, "/b", 1, LONG)
    wait_until(lambda: world.rows.said == [("stays", 2, ["/a", "/b"])], "it is asked")
    wait_until(lambda: not world.counting._watched[second.key].is_judged, "it counts again")
    world.fail(second, "/a", 9, LONG)
    world.fail(second, "/b", 2, LONG)
    assert len(world.rows.said) == 1, "what failed beside it is counted from the beginning"
    world.fail(second, "/b", 1, LONG)
    wait_until(lambda: world.rows.said[1:] == [("set back", 2, PATHS[1])], "it fails by itself")


def test_an_answer_is_told_after_an_outage_too(world):
    second = world.fresh()
    world.rows.away = True
    world.answer(second, "/a")
    world.rows.away = False
    wait_until(lambda: world.rows.acquitted == {"/a"}, "the database is told")


def test_who_waits_for_fresh_workers_tells_of_its_answers_too(world):
    """It may be the one that an honest caller is connected to."""
    world.serve(1, "/a")
    second = world.serve(2)
    world.fail(second, "/a", 3)
    wait_until(lambda: world.asked, "it is asked")
    world.answer(second, "/a")
    wait_until(lambda: world.rows.acquitted == {"/a"}, "the database is told")


def test_who_waits_for_fresh_workers_tells_them_what_answered(world):
    world.serve(1, "/a", reload=FRESH)
    world.counting.leaves(row(2, FRESH))
    assert world.rows.said == [("answered", "2", ["/a"], PATHS[1])]


def test_another_generation_of_the_same_version_has_none_before_it(world):
    world.serve(1, "/a", reload=FRESH)
    world.counting.leaves(replace(row(2, FRESH), binary_path=PATHS[1]))
    assert not world.rows.said


def test_without_a_master_that_can_be_asked_nothing_is_counted(world):
    world.counting.replace = None
    world.serve(1, "/a")
    world.fail(world.serve(2), "/a", 9)
    assert not world.counting._watched


def test_with_a_threshold_of_nothing_nothing_is_counted(monkeypatch):
    world = make_world(monkeypatch, max_failed=0)
    world.serve(1, "/a")
    world.fail(world.serve(2), "/a", 9)
    world.rows.known = (["/a"], PATHS[1])
    third = world.serve(3, reload=FRESH)
    world.counting.watched(replace(row(3, FRESH), watched=True))
    world.fail(third, "/a", 9, LONG)
    assert not world.counting._watched
    assert not world.rows.asked
    assert not world.asked
