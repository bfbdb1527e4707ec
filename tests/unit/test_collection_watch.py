"""A collection that does not end is seen, its finalizer named, and its process replaced."""

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.conditions import Conditions
from app.serving.collection_watch import CollectionWatch
from tests.support.plugins import plugin_text
from tests.support.waiting import wait_until

SLOW = """
import sys

class Slow:
    def __del__(self):
        sys._inside.set()
        sys._go_on.wait(20)

def drop():
    kept = [Slow()]
    kept.append(kept)
"""


@pytest.fixture
def events():
    """Two events that a finalizer reaches by `sys`: it is inside, and it may go on."""
    shared: dict[str, Any] = vars(sys)
    shared["_inside"], shared["_go_on"] = inside, go_on = threading.Event(), threading.Event()
    yield inside, go_on
    go_on.set()
    del shared["_inside"], shared["_go_on"]


@pytest.fixture
def conditions():
    return Conditions()


@pytest.fixture
def watch(conditions):
    watch = CollectionWatch(conditions, look_seconds=0.02, hang_seconds=0.1)
    watch.start()
    yield watch
    watch.stop()


@pytest.fixture
def collecting(events):
    """Collect in a thread of its own once a function has made the garbage."""
    threads = []

    def collect(drop: Callable[[], None], around: Callable[[], object] = gc.collect) -> None:
        gc.collect()
        gc.disable()  # else another thread may come to it first
        drop()
        threads.append(threading.Thread(target=around))
        threads[0].start()
        assert events[0].wait(10.0), "its finalizer runs"

    yield collect
    events[1].set()
    for thread in threads:
        thread.join(10.0)
    gc.enable()


def drop_of(plugin) -> Callable[[], None]:
    drop: Callable[[], None] = vars(sys.modules[f"{plugin.importer.name}.main"])["drop"]
    return drop


def test_a_finalizer_that_does_not_return_is_named_and_the_process_replaced(
    load_plugin, watch, conditions, collecting, events, caplog
):
    replaced = threading.Event()
    watch.replace_process(replaced.set)
    collecting(drop_of(load_plugin({"main.py": plugin_text(top=SLOW)})))
    assert replaced.wait(10.0)
    (held,) = wait_until(conditions.held)
    assert held.plugin == "sample"
    assert "a finalizer (main.py:" in held.what
    line = int(held.what.partition("main.py:")[2].partition(")")[0])
    assert plugin_text(top=SLOW).splitlines()[line - 1].strip() == "sys._go_on.wait(20)"
    wait_until(lambda: "replacing this worker" in caplog.text)
    assert caplog.text.count("sample: a finalizer") == 1
    assert watch.hangs
    events[1].set()
    wait_until(lambda: not conditions.held(), "it is over")
    assert not watch.hangs


def test_who_happens_to_collect_is_not_taken_for_the_culprit(watch, conditions, collecting):
    """One plugin's request may come to collect what a library has left."""
    code = compile("def around(): gc.collect()", "innocent/main.py", "exec")
    names: dict[str, Any] = {"__name__": "_plugins.innocent.g1.main", "gc": gc}
    exec(code, names)

    class Slow:
        def __del__(self) -> None:
            vars(sys)["_inside"].set()
            vars(sys)["_go_on"].wait(20)

    def drop() -> None:
        kept: list[Any] = [Slow()]
        kept.append(kept)

    collecting(drop, names["around"])
    (held,) = wait_until(conditions.held)
    assert held.plugin is None
    assert "innocent" not in held.what


def test_a_finalizer_of_nobodys_is_named_by_its_file(watch, conditions, collecting, events):
    class Slow:
        def __del__(self) -> None:
            events[0].set()
            events[1].wait(20)

    def drop() -> None:
        kept: list[Any] = [Slow()]
        kept.append(kept)

    collecting(drop)
    (held,) = wait_until(conditions.held)
    assert held.plugin is None
    assert "a finalizer (" in held.what
    assert "threading.py:" in held.what


def test_collections_that_end_are_nobodys_trouble(watch, conditions):
    ends = time.monotonic() + 0.4  # several times as long as one may take
    while time.monotonic() < ends:
        gc.collect(0)
    assert conditions.held() == ()
    assert not watch.hangs


def test_its_end_leaves_no_callback(conditions):
    before = list(gc.callbacks)
    watch = CollectionWatch(conditions)
    watch.start()
    assert len(gc.callbacks) == len(before) + 1
    watch.stop()
    assert gc.callbacks == before
