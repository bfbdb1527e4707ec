"""Looking for what generations leave behind: one look for many, and no collection in vain."""

import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from app.conditions import Conditions
from app.loading import garbage
from app.serving import collector, leak_report
from app.serving.leak_report import LeakReport, Remains
from app.serving.left_threads import LeftThreads
from tests.support.waiting import wait_until


class Kept:
    """What stays of a generation."""


class Looks:
    """Counts the looks and the collections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = self.collections = 0
        look, collect = LeftThreads.look, garbage.collect

        def counted_look(threads: LeftThreads) -> None:
            self.looks += 1
            look(threads)

        def counted_collect() -> None:
            self.collections += 1
            collect()

        monkeypatch.setattr(LeftThreads, "look", counted_look)
        monkeypatch.setattr(garbage, "collect", counted_collect)

    def wait_for_one_more(self) -> None:
        before = self.looks
        wait_until(lambda: self.looks > before, "another look")


@pytest.fixture
def gone() -> list[str]:
    """The plugins whose generations have gone, as the report tells them."""
    return []


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def report(looks: Looks, gone: list[str]) -> Iterator[LeakReport]:
    made = LeakReport(Conditions(), gone.append)
    made.start()
    yield made
    made.stop()


def remains(name: str, *kept: object) -> Remains:
    traces = [weakref.ref(item) for item in kept]
    return Remains(name, f"{name}-g1", f"_plugins.{name}.g1", traces, time.monotonic())


def test_what_is_added_meanwhile_costs_one_look_and_is_told_all_the_same(
    report: LeakReport, looks: Looks, gone: list[str]
) -> None:
    names = [f"p{n}" for n in range(200)]
    for name in names:
        report.expect()
        report.add(remains(name))
    wait_until(lambda: len(gone) == len(names), "all told")
    assert gone == names
    assert looks.looks < 20


def test_the_first_that_is_added_is_looked_at_at_once(
    report: LeakReport, gone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leak_report, "LOOK_SECONDS", 30.0)
    report.add(remains("one"))
    wait_until(lambda: gone == ["one"], "told")


def test_what_no_usual_collection_sees_asks_for_none(
    report: LeakReport, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leak_report, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(collector, "UNURGENT_SECONDS", 1000.0)
    kept = Kept()
    frozen = [remains(f"p{n}", kept) for n in range(5)]
    report.freeze()
    for item in frozen:
        report.add(item)
        looks.wait_for_one_more()
        looks.wait_for_one_more()
    assert looks.collections <= 1
    young = remains("young", kept)
    report.add(young)
    wait_until(lambda: young.collected, "collected")
    assert looks.collections >= 1
    del kept


def test_what_a_frozen_generation_has_made_since_is_finalized_in_the_collectors_thread(
    report: LeakReport,
) -> None:
    threads: list[str] = []

    class Made:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            threads.append(threading.current_thread().name)

    kept = Kept()
    for n in range(3):  # the second finds that one was collected just now
        item = remains(f"p{n}", kept)
        report.freeze()
        report.expect()
        Made()
        report.add(item)
        deadline = time.monotonic() + 30.0
        while len(threads) <= n and time.monotonic() < deadline:
            _ = [[] for _ in range(1000)]  # so many that Python would collect here
    assert threads == ["benana-collector"] * 3
    del kept


def test_an_unurgent_collection_is_put_off_an_urgent_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    clock = type("Clock", (), {"monotonic": lambda: now[0], "thread_time": lambda: 0.0})
    monkeypatch.setattr(collector, "time", clock)
    collecting = collector.Collector()
    assert collecting.collect(urgent=False)
    now[0] += collector.UNURGENT_SECONDS / 2
    assert not collecting.collect(urgent=False)
    assert collecting.collect()
    now[0] += collector.UNURGENT_SECONDS
    assert collecting.collect(urgent=False)
