"""What is known of the plugins' folders: whether an event told of a change."""

import pytest

from app.publishing import known as known_module
from app.publishing.known import LATE_SECONDS, KnownFolders
from tests.support.waiting import Clock

FOLDER = "sample"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(known_module, "time", clock)
    return clock


@pytest.fixture
def known(clock, make_plugin):
    folder = make_plugin({"main.py": "x"})
    known = KnownFolders(folder.parent)
    known.read()
    assert FOLDER in known
    return known


def later(clock, seconds):
    clock.now += seconds
    return clock.now


def test_a_folder_that_is_gone_before_its_event_comes_is_not_missed(known, clock):
    # A folder that is moved away has its event half a second later: a comparison may be first.
    known.found_untold(FOLDER, later(clock, 1))
    known.forget(FOLDER)
    known.event(FOLDER, later(clock, LATE_SECONDS / 2))
    known.forget(FOLDER)  # looked at for that event
    later(clock, LATE_SECONDS)
    assert known.missed() == {}


def test_an_event_that_came_while_the_folder_was_looked_at_counts(known, clock):
    found_at = later(clock, 1)
    known.event(FOLDER, later(clock, 0.1))
    known.forget(FOLDER)
    known.found_untold(FOLDER, found_at)
    later(clock, 2 * LATE_SECONDS)
    assert known.missed() == {}


def test_a_folder_that_is_gone_without_an_event_is_missed_once(known, clock):
    found_at = later(clock, 1)
    known.forget(FOLDER)
    known.found_untold(FOLDER, found_at)
    assert known.missed() == {}
    later(clock, 2 * LATE_SECONDS)
    assert known.missed() == {FOLDER: found_at}
    assert known.missed() == {}


def test_a_folder_that_comes_back_without_an_event_is_untold(known, clock):
    known.event(FOLDER, later(clock, 1))
    later(clock, 1)
    known.forget(FOLDER)
    later(clock, 1)
    assert known.is_untold(FOLDER)


def test_events_of_folders_that_are_gone_are_not_kept_for_ever(known, clock):
    for number in range(100):
        known.event(f"gone{number}", later(clock, 0.01))
        known.forget(f"gone{number}")
    known.event(FOLDER, clock.now)
    later(clock, 1000)
    known.missed()
    assert known.last_event("gone5") == 0.0
    assert known.last_event(FOLDER) > 0
