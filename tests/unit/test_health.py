"""What a process says of itself, and which turns the log tells of."""

import logging
import time
from types import SimpleNamespace

import pytest

from app.conditions import Condition, Conditions
from app.health import ADOPTED, Health
from tests.support.waiting import wait_until


class Host:
    """Stands for the election: what it says of the host is set."""

    def __init__(self):
        self.said = ()

    def watch(self, changed):
        self.changed = changed

    def look(self):
        return 60.0

    def conditions(self):
        return self.said


@pytest.fixture
def conditions():
    return Conditions()


@pytest.fixture
def serving():
    return SimpleNamespace(registered=2, served=2)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def made(conditions, serving, host):
    made = Health(conditions, serving, host, lambda: None)
    made.started = True
    return made


def test_what_is_as_it_should_be_is_ready(made):
    assert (made.report().status, made.report().reasons) == ("ready", ())
    assert made.report().serves


def test_what_is_not_as_it_should_be_is_a_reason(made, conditions, host):
    conditions.hold("load:one", "generation 3 cannot be loaded", "one")
    host.said = (Condition("host:artifacts", "full", None, conditions.held()[0].since),)
    found = made.report()
    assert (found.status, found.serves) == ("degraded", True)
    assert [(r.plugin, r.what) for r in found.reasons] == [
        ("one", "generation 3 cannot be loaded"),
        (None, "full"),
    ]
    conditions.clear("load:one")
    host.said = ()
    assert made.report().status == "ready"


def test_a_reason_keeps_its_time_while_its_words_change(made, conditions):
    conditions.hold("rows", "away")
    (before,) = made.report().reasons
    conditions.hold("rows", "refused")
    (after,) = made.report().reasons
    assert (after.what, after.since) == ("refused", before.since)


@pytest.mark.parametrize(
    ("registered", "served", "status"),
    [
        (0, 0, "ready"),  # nothing is registered
        (2, 1, "ready"),  # what lacks is said by its condition
        (1, 0, "unavailable"),
        (5, 0, "unavailable"),
        (None, 0, "unavailable"),  # the database was never seen
        (None, 1, "unavailable"),
    ],
)
def test_who_serves_nothing_of_what_is_registered_is_not_to_be_asked(
    made, serving, registered, served, status
):
    serving.registered, serving.served = registered, served
    assert made.report().status == status
    assert made.report().serves == (status == "ready")


def test_who_starts_is_not_to_be_asked(made):
    made.started = False
    assert (made.report().status, made.report().serves) == ("starting", False)


def test_a_host_that_publishes_nothing_has_no_say(conditions, serving):
    made = Health(conditions, serving, None, lambda: None)
    made.started = True
    assert made.report().status == "ready"


@pytest.fixture
def at(made, monkeypatch, caplog):
    """Let the thread look at a moment, and give the lines of the log that it makes."""
    caplog.set_level(logging.INFO)

    def look(moment):
        caplog.clear()
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + moment)
        made._look()
        return [record.getMessage() for record in caplog.records]

    return look


def test_a_turn_that_lasts_is_one_line_and_its_end_another(at, conditions):
    conditions.hold("load:one", "generation 3 cannot be loaded", "one")
    assert [at(0.0), at(1.9)] == [[], []]
    (line,) = at(2.0)
    assert line.startswith("degraded since 20")
    assert line.endswith(" UTC: one: generation 3 cannot be loaded")
    assert [at(2.5), at(60.0)] == [[], []], "it is said once"
    conditions.clear("load:one")
    assert at(61.0) == ["over after 61 s: this process is ready"]
    assert at(62.0) == []


@pytest.mark.parametrize("lasts", [0.1, 1.0, 1.9])
def test_a_short_turn_is_no_line(at, conditions, lasts):
    for start in (0.0, 10.0, 20.0):
        conditions.hold("listening", "away")
        assert [at(start), at(start + lasts)] == [[], []]
        conditions.clear("listening")
        assert at(start + lasts + 0.1) == []


def test_short_reasons_in_a_row_are_no_turn(at, conditions):
    """As one edit after another, each of which takes a while to load."""
    for number in range(10):
        conditions.hold(f"load:p{number}", "is still loading", f"p{number}")
        assert at(float(number)) == []
        conditions.clear(f"load:p{number - 1}")
        assert at(number + 0.5) == []


def test_one_line_names_all_that_is_held(at, conditions):
    conditions.hold("listening", "away")
    at(0.0)
    for number in range(30):
        conditions.hold(f"load:p{number}", "broken", f"p{number}")
    conditions.hold("rows", "cannot be read")
    (line,) = at(2.0)
    # Of each kind one comes first.
    assert line.endswith(
        ": 32 reasons: (1) away (2) p0: broken (3) cannot be read (4) p1: broken and 28 more"
    )
    assert "\n" not in line


def test_what_joins_a_turn_is_one_more_line_of_all_that_has_joined(at, conditions):
    conditions.hold("listening", "away")
    at(0.0)
    assert len(at(2.0)) == 1
    conditions.hold("rows", "cannot be read")
    at(2.1)
    conditions.hold("report", "not recorded")
    assert [at(4.5), at(11.9)] == [[], []], "what has one cause comes together"
    (line,) = at(12.0)
    assert line.startswith("degraded also since 20")
    assert line.endswith("2 reasons: (1) cannot be read (2) not recorded")
    conditions.hold("artifacts", "full")
    assert [at(30.0), at(31.9)] == [[], []], "it has to last, too"
    assert len(at(32.0)) == 1
    for key in ("listening", "rows", "report"):
        conditions.clear(key)
    assert at(40.0) == [], "one reason is left"
    conditions.clear("artifacts")
    assert at(41.0) == ["over after 41 s: this process is ready"]


def test_one_more_plugin_of_a_kind_is_no_line_of_the_turn(at, conditions):
    conditions.hold("load:one", "broken", "one")
    at(0.0)
    assert len(at(2.0)) == 1
    conditions.hold("load:two", "broken", "two")
    conditions.clear("load:one")
    assert [at(20.0), at(60.0)] == [[], []]
    conditions.hold("publish:two", "refused", "two")
    at(61.0)
    assert len(at(63.0)) == 1, "a reason of another kind is"


def test_a_kind_that_was_over_and_comes_back_is_said_again(at, conditions):
    conditions.hold("rows", "cannot be read")
    at(0.0)
    assert len(at(2.0)) == 1
    conditions.hold("report", "not recorded")
    at(2.1)
    assert len(at(12.0)) == 1
    conditions.clear("report")
    at(20.0)
    conditions.hold("report", "not recorded")
    at(21.0)
    assert len(at(23.0)) == 1


def test_that_nothing_is_served_is_said_at_once_and_so_is_its_end(at, conditions, serving):
    conditions.hold("load:one", "broken", "one")
    at(0.0)
    assert len(at(2.0)) == 1
    serving.served = 0
    assert [at(3.0), at(4.9)] == [[], []]
    (line,) = at(5.0)
    assert line == "unavailable also: nothing of what is registered is served"
    serving.served = 1
    (line,) = at(6.0)
    assert line == "degraded, and not unavailable any more: one: broken"
    conditions.clear("load:one")
    assert at(7.0) == ["over after 7 s: this process is ready"]


def test_what_another_process_says_is_in_its_own_log(at, host):
    host.said = (Condition(f"{ADOPTED}artifacts", "full", None, health_time()),)
    assert [at(0.0), at(5.0)] == [[], []]


def test_a_turn_that_leaves_another_process_its_own_is_over_in_words_that_say_so(
    at, conditions, host
):
    host.said = (Condition(f"{ADOPTED}artifacts", "full", None, health_time()),)
    conditions.hold("load:one", "generation 3 cannot be loaded", "one")
    assert at(0.0) == []
    assert len(at(2.0)) == 1
    conditions.clear("load:one")
    (line,) = at(6.0)
    assert line.startswith("over after 6 s: this process is degraded only for what the process ")


def health_time():
    held = Conditions()
    held.hold("x", "y")
    return held.held()[0].since


def test_a_turn_is_told_at_once_to_who_reports_it(conditions, serving, host):
    turns = []

    def note() -> None:
        turns.append(looking.report().status)

    # A change is told, and not found.
    looking = Health(conditions, serving, host, note, look_seconds=60.0)
    looking.started = True
    looking.start()
    try:
        wait_until(lambda: turns == ["ready"], "the first look", 2.0)
        conditions.hold("rows", "away")
        wait_until(lambda: turns == ["ready", "degraded"], "the turn", 2.0)
        host.said = (Condition("artifacts", "full", None, health_time()),)
        conditions.clear("rows")
        wait_until(lambda: len(turns) == 3, "another reason", 2.0)
        host.said = ()
        host.changed()
        wait_until(lambda: turns[3:] == ["ready"], "the host's", 2.0)
    finally:
        looking.stop()


def test_a_fault_of_a_look_does_not_end_the_looking(conditions, serving, host, caplog):
    looks = []

    def look():
        looks.append(1)
        raise RuntimeError("a fault of ours")

    host.look = look
    made = Health(conditions, serving, host, lambda: None, look_seconds=0.01)
    made.start()
    try:
        wait_until(lambda: len(looks) > 2, "it looks again", 2.0)
    finally:
        made.stop()
    assert "a fault of ours" in caplog.text
