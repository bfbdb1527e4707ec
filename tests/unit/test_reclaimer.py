"""The reclaimer: each retired generation is cleaned up once, after its last request."""

import itertools
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from app.activity import Activity
from app.loading.routes import Route
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse, RunningRequests, Slot
from app.routing.overlay import OverlayMap
from app.routing.table import RouteTable
from app.serving.reclaimer import Reclaimer
from tests.support.memory import collected
from tests.support.waiting import wait_until
from tests.support.wsgi import call, put, resource

WAIT = 10
NOTHING = InUse(None, frozenset())


def table(number: int) -> RouteTable:
    empty: OverlayMap[Any, Any] = OverlayMap({})
    return RouteTable(number, empty, empty, empty, empty, {})


def route(generation: str) -> Route:
    return Route("one", "/one", resource(on_get=lambda req, resp: None), generation=generation)


class Nothing:
    """What nobody holds."""


class Generation:
    """A disposable that records its end."""

    def __init__(self, label="one-g1", on_dispose=lambda: None, key="none", traces=()):
        self.label = label
        self.name = label.rpartition("-g")[0]
        self.key = key
        self.loaded_at = time.monotonic()
        self.on_dispose = on_dispose
        self.remains = traces  # none: it is gone at once, memory is not what is asked
        self.disposed = 0
        self.gone = threading.Event()

    def traces(self):
        return list(self.remains)

    def dispose(self):
        self.disposed += 1
        self.on_dispose()
        self.gone.set()


@pytest.fixture
def running():
    return RunningRequests()


@pytest.fixture
def make_reclaimer(running):
    """Start reclaimers; they are stopped at the end."""
    started = []

    def start(drain_seconds=30.0):
        reclaimer = Reclaimer(running, drain_seconds)
        reclaimer.start()
        started.append(reclaimer)
        return reclaimer

    yield start
    for reclaimer in started:
        reclaimer.stop(1)


def until(condition):
    """Wait for what another thread does and tells by nothing but its effect."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        threading.Event().wait(0.002)


# --- running requests ----------------------------------------------------------------------


def test_a_thread_has_one_slot_and_no_other_thread_has_it(running):
    slots = [running.slot(), running.slot()]
    thread = threading.Thread(target=lambda: slots.append(running.slot()))
    thread.start()
    thread.join(WAIT)
    assert slots[0] is slots[1]
    assert slots[2] is not slots[0]


def test_what_slots_and_streams_run_in_is_told_together(running):
    assert running.in_use() == NOTHING
    running.slot().at = table(5)
    assert running.in_use() == InUse(5, frozenset())
    first, second = running.hold(table(3)), running.hold(route("one.g1"))
    assert running.in_use() == InUse(3, frozenset({"one.g1"}))
    running.release(first)
    running.release(first)
    assert running.in_use() == InUse(5, frozenset({"one.g1"}))
    running.release(second)
    running.slot().at = route("two.g2")
    assert running.in_use() == InUse(None, frozenset({"two.g2"}))
    running.slot().at = None
    assert running.in_use() == NOTHING


def test_the_empty_table_with_number_zero_counts(running):
    running.slot().at = RouteTable.empty()
    assert running.in_use().oldest_table == 0
    running.slot().at = None


def test_the_slot_of_a_thread_that_ended_is_forgotten(running):
    def leave():
        running.slot().at = table(1)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(WAIT)
    del thread
    until(lambda: running.in_use() == NOTHING)


def test_a_request_that_hands_its_stream_over_meanwhile_is_seen(running):
    """The interleaving is forced: the hand-over happens while the slots are looked at."""

    class HandsOver(Slot):
        def __init__(self):
            super().__init__(memoryview(b""))

        @property
        def at(self):  # looked at before the hand-over, or after it
            running.hold(route("one.g1"))
            return None

        @at.setter
        def at(self, _value):
            pass

    slot = HandsOver()
    running._slots.add(slot)
    assert running.in_use().generations == {"one.g1"}


def test_a_request_within_a_request_holds_its_own_and_leaves_the_outer_ones():
    app, seen = LiveApp(), []

    def inner(req, resp):
        seen.append(app.running.in_use().generations)

    def outer(req, resp):
        call(app, "/inner").read()
        seen.append(app.running.in_use().generations)

    one, two = put(app, "one", {"/outer": outer}), put(app, "two", {"/inner": inner})
    call(app, "/outer").read()
    assert seen == [{one, two}, {one}]
    assert app.running.in_use() == NOTHING


def test_a_request_within_a_request_takes_no_other_threads_word_and_shows_the_outer_one():
    app, activity, seen = LiveApp(), Activity(2), []
    app.running.share(activity)

    def outer(req, resp):
        for _ in range(5):
            call(app, "/inner").read()
        seen.extend(activity.names())

    put(app, "one", {"/outer": outer, "/inner": lambda req, resp: None})
    call(app, "/outer").read()
    assert seen == ["one g1 /outer"]
    thread = threading.Thread(target=lambda: call(app, "/outer").read())
    thread.start()
    thread.join(WAIT)
    assert seen == ["one g1 /outer"] * 2, "the second thread has a word of its own"
    assert activity.names() == []


def test_one_plugins_request_does_not_hold_back_the_others(make_reclaimer):
    app = LiveApp()
    reclaimer = Reclaimer(app.running)
    reclaimer.start()
    inside, go_on = threading.Event(), threading.Event()

    def slow(req, resp):
        inside.set()
        assert go_on.wait(WAIT)

    slow_key, other_key = put(app, "slow", {"/slow": slow}), put(app, "other", {"/other": slow})
    thread = threading.Thread(target=lambda: call(app, "/slow").read())
    thread.start()
    assert inside.wait(WAIT)
    ends = {}
    for name, key in (("slow", slow_key), ("other", other_key)):
        put(app, name, {})
        ends[name] = Generation(name, key=key)
        reclaimer.retire(ends[name], app.table.number)
    assert ends["other"].gone.wait(WAIT)
    assert ends["slow"].disposed == 0
    go_on.set()
    assert ends["slow"].gone.wait(WAIT)
    thread.join(WAIT)
    reclaimer.stop(1)


# --- cleaning up ---------------------------------------------------------------------------


def test_a_generation_that_nobody_runs_in_is_cleaned_up_at_once(make_reclaimer):
    generation = Generation()
    reclaimer = make_reclaimer()
    reclaimer.retire(generation, 1)
    assert generation.gone.wait(WAIT)
    until(lambda: reclaimer.waiting == 0)
    assert generation.disposed == 1


def test_a_generation_is_cleaned_up_only_after_its_last_request(running, make_reclaimer):
    reclaimer = make_reclaimer()
    held = [running.hold(table(number)) for number in (4, 4, 5)]
    generation, probe = Generation(), Generation()
    reclaimer.retire(generation, 5)
    for slot in held[:2]:
        reclaimer.retire(probe := Generation(), 0)  # this one is free: the thread has looked
        assert probe.gone.wait(WAIT)
        assert generation.disposed == 0
        running.release(slot)
    assert generation.gone.wait(WAIT)  # the request in table 5 cannot reach it
    assert generation.disposed == 1
    running.release(held[2])


def test_generations_are_cleaned_up_each_in_its_own_time(running, make_reclaimer):
    reclaimer = make_reclaimer()
    old, new = running.hold(table(1)), running.hold(table(2))
    first, second = Generation("first"), Generation("second")
    reclaimer.retire(first, 2)
    reclaimer.retire(second, 3)
    running.release(old)
    assert first.gone.wait(WAIT)
    assert second.disposed == 0
    running.release(new)
    assert second.gone.wait(WAIT)


def test_a_request_in_an_older_table_holds_younger_generations_too(running, make_reclaimer):
    # It cannot reach them; but a table's number is all that is known of a request.
    reclaimer = make_reclaimer()
    held = running.hold(table(1))
    younger = Generation()
    reclaimer.retire(younger, 9)
    reclaimer.retire(probe := Generation(), 1)
    assert probe.gone.wait(WAIT)
    assert younger.disposed == 0
    running.release(held)
    assert younger.gone.wait(WAIT)


def test_each_is_cleaned_up_once_however_often_the_thread_looks(running, make_reclaimer):
    reclaimer = make_reclaimer()
    go_on = threading.Event()
    slow = Generation("slow", lambda: go_on.wait(WAIT))
    reclaimer.retire(slow, 1)
    others = [Generation(f"other{n}") for n in range(20)]
    for other in others:
        reclaimer.retire(other, 1)
        assert other.gone.wait(WAIT)
    go_on.set()
    assert slow.gone.wait(WAIT)
    until(lambda: reclaimer.waiting == 0)
    assert {generation.disposed for generation in [slow, *others]} == {1}


def test_a_cleanup_that_blocks_delays_no_other(make_reclaimer):
    reclaimer = make_reclaimer()
    go_on = threading.Event()
    stuck = Generation("stuck", lambda: go_on.wait(WAIT))
    reclaimer.retire(stuck, 1)
    reclaimer.retire(after := Generation("after"), 1)
    assert after.gone.wait(WAIT)
    assert not stuck.gone.is_set()
    assert reclaimer.waiting >= 1
    go_on.set()
    assert stuck.gone.wait(WAIT)
    until(lambda: reclaimer.waiting == 0)


def test_a_request_that_never_ends_is_overruled_after_the_drain_timeout(
    running, make_reclaimer, caplog
):
    held = running.hold(table(0))
    reclaimer = make_reclaimer(0.05)
    reclaimer.retire(generation := Generation(), 1)
    assert generation.gone.wait(WAIT)
    assert "one-g1" in caplog.text
    assert "still runs" in caplog.text
    running.release(held)


def test_a_cleanup_that_never_returns_is_given_up_and_its_thread_named(make_reclaimer, caplog):
    reclaimer = make_reclaimer(0.05)
    go_on = threading.Event()
    reclaimer.retire(stuck := Generation("stuck-g7", lambda: go_on.wait(WAIT)), 1)
    until(lambda: reclaimer.waiting == 0)
    assert "benana-cleanup-stuck-g7" in caplog.text
    go_on.set()
    assert stuck.gone.wait(WAIT)


def test_threads_are_daemons_with_names(make_reclaimer):
    names: list[threading.Thread] = []
    make_reclaimer().retire(
        seen := Generation("one-g3", lambda: names.append(threading.current_thread())), 1
    )
    assert seen.gone.wait(WAIT)
    assert names[0].name == "benana-cleanup-one-g3"
    assert names[0].daemon
    (main,) = [thread for thread in threading.enumerate() if thread.name == "benana-cleanup"]
    assert main.daemon


def test_stop_waits_for_what_is_retired_and_ends_the_thread(running, caplog):
    reclaimer = Reclaimer(running)
    reclaimer.start()
    generations = [Generation(f"g{n}") for n in range(5)]
    for generation in generations:
        reclaimer.retire(generation, 1)
    reclaimer.stop(WAIT)
    assert [generation.disposed for generation in generations] == [1] * 5
    assert not [t for t in threading.enumerate() if t is reclaimer._thread]
    assert not caplog.records


def test_stop_overrules_a_request_that_never_ends(running):
    reclaimer = Reclaimer(running)
    reclaimer.start()
    running.hold(table(0))
    reclaimer.retire(generation := Generation(), 1)
    began = time.monotonic()
    reclaimer.stop(0.1)
    assert time.monotonic() - began < 5
    assert generation.disposed == 1


def test_stop_is_immediate_where_nothing_waits(running):
    reclaimer = Reclaimer(running)
    reclaimer.start()
    began = time.monotonic()
    reclaimer.stop(30)
    assert time.monotonic() - began < 5


def test_stop_without_start_is_no_trouble(running):
    Reclaimer(running).stop(0.1)


def test_a_dispose_that_raises_against_its_promise_stops_nothing(make_reclaimer, monkeypatch):
    def broken():
        raise ValueError("against the promise")

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    reclaimer = make_reclaimer()
    reclaimer.retire(Generation("broken", broken), 1)
    reclaimer.retire(after := Generation("after"), 1)
    assert after.gone.wait(WAIT)
    until(lambda: reclaimer.waiting == 0)
    # It is the thread itself that ends last, after its hook.
    until(lambda: "benana-cleanup-broken" not in [thread.name for thread in threading.enumerate()])


def test_a_thread_that_cannot_be_started_does_not_end_the_undertaker(make_reclaimer, monkeypatch):
    reclaimer = make_reclaimer()
    start = threading.Thread.start
    failed = threading.Event()

    def refuse(thread):
        if thread.name == "benana-cleanup-unlucky" and not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    reclaimer.retire(Generation("unlucky"), 1)
    assert failed.wait(WAIT)
    reclaimer.retire(after := Generation("after"), 1)
    assert after.gone.wait(2)


def test_a_generation_is_not_kept_by_the_undertaker_that_buried_it(make_reclaimer):
    reclaimer = make_reclaimer()
    generation = Generation()
    reclaimer.retire(generation, 1)
    assert generation.gone.wait(WAIT)
    until(lambda: reclaimer.waiting == 0)
    reference = weakref.ref(generation)
    del generation
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("benana-cleanup-")])
    # The thread waits now; what it buried last must not live on in its frame.
    deadline = time.monotonic() + 2
    while not collected(reference) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert reference() is None


def test_it_is_told_whose_generations_are_out_of_memory_and_only_then(running):
    held = Nothing()
    generation = Generation("one-g1", traces=[weakref.ref(held)])
    told = []
    reclaimer = Reclaimer(running, tidy=told.append)
    reclaimer.start()
    reclaimer.retire(generation, 1)
    assert generation.gone.wait(5)
    reclaimer.retire(Generation("two-g1"), 1)
    wait_until(lambda: told == ["two"])
    del held
    wait_until(lambda: told == ["two", "one"])
    reclaimer.stop(1)


# --- races ---------------------------------------------------------------------------------


@pytest.fixture
def frantic():
    """Switch threads as often as Python can: at the default, known races do not show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Plugin:
    """A plugin that records whether it is used before its start or after its end."""

    name = "one"

    def __init__(self, number, misuse):
        self.label = f"one-g{number}"
        self.key = ""
        self.loaded_at = time.monotonic()
        self.number = number
        self.misuse = misuse
        self.ended = False
        self.disposed = 0

    def use(self):
        if self.ended:
            self.misuse.append(self.number)

    def on_get(self, req, resp):
        resp.text = str(self.number)
        for _ in range(300):  # long enough for a cleanup to come in between, if it could
            self.use()

    def on_stream(self, req, resp):
        self.use()

        def parts():
            for _ in range(3):
                self.use()
                yield str(self.number).encode()
            self.use()

        resp.stream = parts()

    def traces(self):
        return []

    def dispose(self):
        self.disposed += 1
        self.ended = True


def test_no_generation_is_used_after_its_cleanup_and_none_goes_back(frantic, caplog):
    app = LiveApp()
    reclaimer = Reclaimer(app.running)
    reclaimer.start()
    misuse, backwards, failures = [], [], []
    plugins = [Plugin(0, misuse)]
    plugins[0].key = put(app, "one", {"/x": plugins[0].on_get, "/s": plugins[0].on_stream})
    done = threading.Event()

    def request():
        latest = 0
        for turn in itertools.count():
            if done.is_set():
                return
            answer = call(app, "/s" if turn % 3 == 0 else "/x")
            if answer.status != 200:
                failures.append(answer.status)
            text = answer.read()
            number = int(text) if turn % 3 else int(text[: len(text) // 3])
            if turn % 3 == 0 and text != str(number).encode() * 3:
                failures.append(text)  # type: ignore[arg-type]
            if number < latest:
                backwards.append((latest, number))
            latest = number

    def short_lived():
        while not done.is_set():
            thread = threading.Thread(target=lambda: call(app, "/x").read())
            thread.start()
            thread.join()

    threads = [threading.Thread(target=request, daemon=True) for _ in range(4)]
    threads += [threading.Thread(target=short_lived, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 1.5
    for number in range(1, 5_000):
        plugin = Plugin(number, misuse)
        plugin.key = put(app, "one", {"/x": plugin.on_get, "/s": plugin.on_stream})
        reclaimer.retire(plugins[-1], app.table.number)
        plugins.append(plugin)
        if time.monotonic() > deadline:
            break
    done.set()
    for thread in threads:
        thread.join(WAIT)
    reclaimer.stop(WAIT)
    assert len(plugins) > 20
    assert misuse == []
    assert backwards == []
    assert failures == []
    assert {plugin.disposed for plugin in plugins[:-1]} == {1}
    assert plugins[-1].disposed == 0
    assert not [r for r in caplog.records if r.name.startswith("app.serving.reclaimer")]


def test_slots_of_threads_that_come_and_go_never_break_the_look_at_them(running, frantic):
    done = threading.Event()
    errors = []

    def look():
        try:
            while not done.is_set():
                running.in_use()
        except BaseException as error:
            errors.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and not errors:
        visitors = [threading.Thread(target=lambda: running.slot()) for _ in range(8)]
        for thread in visitors:
            thread.start()
        for thread in visitors:
            thread.join(WAIT)
    done.set()
    for thread in lookers:
        thread.join(WAIT)
    assert errors == []
