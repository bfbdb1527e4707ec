"""What is held of a process, and from when on."""

import time

import pytest

from app.conditions import Conditions


class Timed(Conditions):
    """Conditions that are looked at at a moment of the test's choice."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.calls = []

    def at(self, moment):
        self.now = 100.0 + moment
        return [condition.what for condition in self.held()]


@pytest.fixture
def held(monkeypatch):
    """Conditions at a moment that the test sets, and how often they called."""
    made = Timed()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    made.watch(lambda: made.calls.append(made.now))
    return made


def test_what_is_expected_is_held_from_its_moment_on(held):
    held.expect("report", "no answer", 1.0)
    assert [held.at(0.0), held.at(0.9), held.at(1.0)] == [[], [], ["no answer"]]
    held.clear("report")
    assert held.at(5.0) == []
    assert len(held.calls) == 1, "its end is told"


def test_what_came_in_time_is_never_held_and_never_told(held):
    held.expect("report", "no answer", 1.0)
    held.clear("report")
    assert held.at(5.0) == []
    assert held.calls == []


def test_to_expect_again_does_not_put_it_off(held):
    held.expect("report", "no answer", 1.0)
    held.at(0.9)
    held.expect("report", "no answer", 1.0)
    assert held.at(1.0) == ["no answer"]
    since = held.held()[0].since
    held.hold("report", "the database is away")
    held.expect("report", "no answer", 1.0)
    assert held.at(9.0) == ["the database is away"], "what is known is no more expected"
    assert held.held()[0].since == since


def test_all_that_is_expected_is_forgotten_with_the_rest(held):
    held.expect("report", "no answer", 1.0)
    held.clear_all()
    assert held.at(9.0) == []
