"""Loads that nobody waits for any more: counted, named once, and forgotten when they return."""

import logging
import threading

import pytest

from app.conditions import Conditions
from app.records import ServedRow
from app.serving.hung_loads import HungLoads


def row(generation: int, name: str = "stuck") -> ServedRow:
    return ServedRow("id", name, generation, "active", None)


def test_a_load_that_hangs_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions()
    hung = HungLoads(conditions, grace_seconds=0.0)
    assert hung.next_look() is None
    ended = threading.Event()
    for generation in (2, 3):
        hung.add(row(generation), ended.is_set)
        with caplog.at_level(logging.WARNING):
            hung.look()
    assert hung.count == 2
    (held,) = conditions.held()
    assert held.plugin == "stuck"
    assert not held.degrades
    assert "loads that nobody waits for any more do not return (generation 2, 3)" in held.what
    assert len(caplog.records) == 1, "its number is in the condition, and not a line each"
    ended.set()
    hung.look()
    assert hung.count == 0
    assert conditions.held() == ()
    assert hung.next_look() is None


def test_a_load_that_returns_in_time_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions()
    hung = HungLoads(conditions, grace_seconds=60.0)
    ended = threading.Event()
    hung.add(row(2), ended.is_set)
    hung.look()
    assert hung.count == 0
    assert 0 < (hung.next_look() or 0) <= 60.0
    ended.set()
    hung.look()
    assert hung.next_look() is None
    assert not caplog.records
