"""An edit that asks how it can go live is told, or is not published."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import DatabaseUnavailableError, RehearsalError, SupersededError
from app.publishing.trials import rehearsals as module
from app.publishing.trials.rehearsal import Rehearsal
from app.publishing.trials.rehearsals import Rehearsals
from app.records import FRESH, HOT, Artifact, Reload
from tests.support.waiting import wait_until

KEEPS = Reload(FRESH, "its library keeps it")
ROW: Any = SimpleNamespace(name="shop", digest="0" * 32, generation=3, finding=None)
ARTIFACT = Artifact("shop", "0" * 32, "1" * 64, b"")


class Rehearser:
    """Gives what it is told to, one after the other: a finding, or an error."""

    def __init__(self, *outcomes: Reload | Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0
        self.asked_at = 0.0

    def rehearse(self, older: Any, newer: Any, generation: int) -> Rehearsal:
        self.asked += 1
        self.asked_at = time.monotonic()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Rehearsal(outcome, ())


class Repository:
    """Keeps findings, or refuses to."""

    def __init__(self) -> None:
        self.reloads = self
        self.recorded: list[Reload] = []
        self.away: list[str] = []

    def _look(self, what: str) -> None:
        if what in self.away:
            raise DatabaseUnavailableError("the database is away")

    def find_artifact(self, plugin: str, digest: str) -> Artifact:
        self._look("artifact")
        return ARTIFACT

    def find_finding(self, plugin: str, digest: str) -> Reload | None:
        self._look("finding")
        return self.recorded[-1] if self.recorded else None

    def record_finding(self, plugin: str, digest: str, finding: Reload) -> None:
        self._look("record")
        self.recorded.append(finding)


@pytest.fixture
def make():
    made = []

    def start(*outcomes: Reload | Exception) -> tuple[Rehearsals, Rehearser, Repository]:
        rehearser, repository = Rehearser(*outcomes), Repository()
        rehearsals = Rehearsals(rehearser, repository)  # type: ignore[arg-type]
        made.append(rehearsals)
        rehearsals.start()
        return rehearsals, rehearser, repository

    yield start
    for rehearsals in made:
        rehearsals.stop()


def test_a_process_that_stops_publishes_nothing_for_want_of_a_finding(make) -> None:
    """It published such an edit hot, beside what the library keeps."""
    rehearsals, _, _ = make(
        SupersededError("the server stops"), SupersededError("the server stops")
    )
    for _ in range(2):
        with pytest.raises(SupersededError):
            rehearsals.before_edit(ROW)


@pytest.mark.parametrize("what", ["artifact", "finding", "record"])
def test_while_the_database_is_away_an_edit_is_not_published_either(make, what: str) -> None:
    rehearsals, _, repository = make(KEEPS, KEEPS)
    repository.away.append(what)
    with pytest.raises(DatabaseUnavailableError):
        rehearsals.before_edit(ROW)
    repository.away.clear()
    assert rehearsals.before_edit(ROW) == KEEPS


def test_what_fails_behind_a_commit_is_made_up_for_by_the_next_edit(make) -> None:
    rehearsals, rehearser, repository = make(SupersededError("it is busy"), KEEPS)
    rehearsals.begin(ARTIFACT, 3, None)
    wait_until(lambda: rehearser.asked == 1, "it was tried")
    assert rehearsals.before_edit(ROW) == KEEPS
    assert repository.recorded == [KEEPS]


def test_what_cannot_be_found_out_is_hot_and_is_not_waited_for_again(make) -> None:
    rehearsals, rehearser, _ = make(RehearsalError("shop", "it does not end"), KEEPS)
    assert rehearsals.before_edit(ROW) is None
    again = SimpleNamespace(**{**vars(ROW), "digest": "2" * 32})
    assert rehearsals.before_edit(again) is None
    assert rehearser.asked == 1


def test_what_is_hot_is_hot(make) -> None:
    rehearsals, _, repository = make(Reload(HOT, ""))
    assert rehearsals.before_edit(ROW) is None
    assert repository.recorded == [Reload(HOT, "")]


def test_what_waits_rests_while_other_plugins_are_tried(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_SECONDS", 0.3)
    rehearsals, rehearser, _ = make(Reload(HOT, ""))
    began = time.monotonic()
    rehearsals.begin(ARTIFACT, 3, None)
    while (tried_at := time.monotonic()) < began + 0.25:
        rehearsals.hurry("another")
        threading.Event().wait(0.02)
    wait_until(lambda: rehearser.asked, "it is rehearsed")
    assert rehearser.asked_at >= tried_at - 0.02 + 0.3
