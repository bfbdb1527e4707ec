"""When changes have to be looked for, what is said of it, and when events are trusted again."""

import logging

import pytest

from app.conditions import Conditions
from app.publishing import sight
from app.publishing.sight import Sight
from tests.support.waiting import Clock


class Observer:
    """Stands for a FolderObserver; `troubles` are those of the observers to come."""

    troubles: list[str] = []  # noqa: RUF012
    made: list["Observer"] = []  # noqa: RUF012

    def __init__(self, *_):
        self.trouble = ""
        self.lost = self.closed = False
        self.at_root = self.living = True

    def open(self):
        self.trouble = Observer.troubles.pop(0) if Observer.troubles else ""
        Observer.made.append(self)

    def close(self):
        self.closed = True

    def is_at_root(self):
        return self.at_root

    def alive(self):
        return self.living


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sight, "time", clock)
    monkeypatch.setattr(sight, "FolderObserver", Observer)
    monkeypatch.setattr(Observer, "troubles", [])
    monkeypatch.setattr(Observer, "made", [])
    return clock


@pytest.fixture
def conditions():
    return Conditions()


@pytest.fixture
def eyes(clock, conditions, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    return Sight(tmp_path, print, print, conditions)


def turns(eyes, clock, seconds):
    """Do what the watcher does, for some seconds; return when it compared the folders."""
    compared = []
    end = clock.now + seconds
    while clock.now < end:
        assert eyes.look()
        if clock.now >= eyes.compare_at:
            compared.append(clock.now)
            eyes.compared(0.01)
        clock.now += 0.5
    return compared


def held(conditions):
    return [condition.what for condition in conditions.held()]


def test_with_events_it_is_compared_now_and_then(eyes, clock, conditions, caplog):
    eyes.open()
    assert len(turns(eyes, clock, 60)) in {11, 12}
    assert held(conditions) == []
    assert caplog.text == ""


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_what_the_observer_cannot_have_is_said_once_and_tried_again(
    eyes, clock, conditions, caplog, when
):
    if when == "at the start":
        Observer.troubles = ["inotify watch limit reached"] * 4
        eyes.open()
    else:
        eyes.open()
        turns(eyes, clock, 10)
        Observer.made[-1].trouble = "inotify watch limit reached"
        Observer.troubles = ["inotify watch limit reached"] * 3
    assert len(turns(eyes, clock, 10)) >= 9
    assert "inotify watch limit reached" in held(conditions)[0]
    turns(eyes, clock, 300)
    assert held(conditions) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "again" in caplog.records[1].message
    assert len(Observer.made) == 5
    assert all(observer.closed for observer in Observer.made[:-1])
    assert len(turns(eyes, clock, 60)) <= 12


def test_tries_become_rare_where_they_are_in_vain(eyes, clock):
    Observer.troubles = ["no"] * 1000
    eyes.open()
    turns(eyes, clock, 3600)
    assert 55 <= len(Observer.made) <= 70


def test_a_change_without_an_event_ends_the_trust_until_events_tell_again(
    eyes, clock, conditions, caplog
):
    eyes.open()
    turns(eyes, clock, 20)
    eyes.missed("hello", clock.now)
    assert len(turns(eyes, clock, 10)) >= 9
    assert "hello changed and no event told of it" in held(conditions)[0]
    assert len(Observer.made) > 1, "another one may see what was mounted since"
    eyes.told()
    turns(eyes, clock, 10)
    assert held(conditions), "one that was told says little: others come from elsewhere"
    turns(eyes, clock, 100)
    assert held(conditions), "nobody has changed anything since"
    eyes.told()
    turns(eyes, clock, 1)
    assert held(conditions) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    eyes.missed("hello", clock.now)
    turns(eyes, clock, 100)
    eyes.told()
    turns(eyes, clock, 1)
    assert held(conditions), "the second time it takes longer"


def test_what_was_lost_while_another_observer_was_opened_proves_nothing(eyes, clock, conditions):
    Observer.troubles = ["inotify instance limit reached"]
    eyes.open()
    turns(eyes, clock, 3)
    eyes.missed("hello", clock.now)
    clock.now += 3
    assert eyes.look()
    eyes.missed("hello", clock.now)  # by the comparison for the time in between
    eyes.compared(0.01)
    turns(eyes, clock, 10)
    assert held(conditions) == []


def test_lost_events_have_all_compared_at_once(eyes, clock, conditions):
    eyes.open()
    turns(eyes, clock, 1)
    Observer.made[-1].lost = True
    assert turns(eyes, clock, 2) == [clock.now - 2]
    assert held(conditions) == []


def test_a_root_that_was_swapped_is_no_warning_and_a_dead_observer_is_one(eyes, clock, caplog):
    eyes.open()
    Observer.made[-1].at_root = False
    assert not eyes.look()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    eyes.open()
    Observer.made[-1].living = False
    assert not eyes.look()
    assert caplog.records[-1].levelname == "WARNING"


def test_a_comparison_that_takes_long_is_made_less_often(eyes, clock):
    Observer.troubles = ["no"] * 10
    eyes.open()
    eyes.compared(2.0)
    assert eyes.compare_at == clock.now + 40


def test_a_mount_has_the_folders_observed_anew_and_is_no_condition(eyes, clock, conditions):
    eyes.open()
    turns(eyes, clock, 10)
    eyes.mounted("one")
    assert turns(eyes, clock, 1), "what changed meanwhile is looked for at once"
    assert [observer.closed for observer in Observer.made] == [True, False]
    turns(eyes, clock, 60)
    assert len(Observer.made) == 2
    assert held(conditions) == []


def test_what_a_link_was_missed_for_ends_with_the_link(eyes, clock, conditions):
    eyes.open()
    turns(eyes, clock, 10)
    eyes.missed("linked", clock.now)
    turns(eyes, clock, 1)
    assert "linked changed" in held(conditions)[0]
    eyes.link_gone("another")
    turns(eyes, clock, 1)
    assert held(conditions)
    eyes.link_gone("linked")
    turns(eyes, clock, 1)
    assert held(conditions) == []
