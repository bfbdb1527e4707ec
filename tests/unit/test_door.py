"""Requests for an exclusive plugin that moves: who waits, who is refused, and with which words."""

import threading
import time
from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon import testing

from app.isolation.answering import FORWARDED
from app.isolation.board import Board, Word
from app.isolation.forwarding import Forwarder
from app.presence import own_presence
from app.records import ServedRow
from app.routing.answers import AnswerAgain
from app.serving.exclusive.door import Door

ROW = ServedRow("1", "x", 2, "active", None)
ERROR = {"phase": "initialize", "message": "no", "file": None, "line": None}


class Asked:
    """A request, and what the door does with it."""

    def __init__(self, folder: Path, wait: float = 0.2) -> None:
        self.answered = 0
        self.looks = 0
        self.board = Board(folder / "word")
        self.door = Door("x", Forwarder("x", folder / "s"), self.board, wait, self._look)
        self.door.set(wanted=ROW)

    def _look(self) -> None:
        self.looks += 1

    def ask(self, forwarded: Any = None) -> None:
        env = testing.create_environ("/x")
        if forwarded is not None:
            env[FORWARDED] = forwarded
        try:
            self.door.answer(falcon.Request(env), falcon.Response())
        except AnswerAgain:
            self.answered += 1

    def refused(self) -> str:
        with pytest.raises(falcon.HTTPServiceUnavailable) as caught:
            self.ask()
        return str(caught.value.description)

    def tell(self, **what: Any) -> None:
        me = own_presence()
        who: dict[str, Any] = {"host": "there", "pid": me.pid, "machine": me.machine}
        self.board.write(Word(**who, started=me.started, **what))


class FromElsewhere:
    """A request that another process has passed on."""

    wait = 5.0

    def __init__(self) -> None:
        self.refused = False
        self.told: list[str] = []

    def hold(self) -> None:
        self.told.append("held")

    def begin(self) -> None:
        self.told.append("begun")


def test_it_is_answered_here_where_the_plugin_is_open(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.door.set(owner=True, is_open=True)
    asked.ask()
    assert asked.answered == 1


def test_it_waits_for_a_plugin_that_is_coming(tmp_path: Path) -> None:
    asked = Asked(tmp_path, wait=30.0)
    asked.door.set(owner=True)
    came = FromElsewhere()
    threads = [threading.Thread(target=asked.ask, args=args) for args in ((), (came,))]
    for thread in threads:
        thread.start()
    while not came.told:
        time.sleep(0.001)
    assert asked.answered == 0
    asked.door.set(is_open=True)
    for thread in threads:
        thread.join(5.0)
    assert asked.answered == 2
    assert came.told == ["held", "begun"]


def test_a_plugin_that_cannot_come_is_refused_at_once_with_the_reason(tmp_path: Path) -> None:
    asked = Asked(tmp_path, wait=30.0)
    asked.door.set(owner=True, idle_because="x: initialize failed: no")
    assert "initialize failed: no" in asked.refused()


def test_where_a_process_gives_way_its_own_requests_wait_until_it_ends(tmp_path: Path) -> None:
    asked, came = Asked(tmp_path, wait=30.0), FromElsewhere()
    asked.door.set(owner=True)
    passed_on = threading.Thread(target=asked.ask, args=(came,))
    refused: list[str] = []
    own = threading.Thread(target=lambda: refused.append(asked.refused()))
    for thread in (passed_on, own):
        thread.start()
    while not came.told:
        time.sleep(0.001)
    asked.door.set(gives_way_because="the worker itself has the port")
    passed_on.join(5.0)
    assert came.refused, "it waits in the process that took it"
    assert own.is_alive()
    asked.door.set(is_ending=True)
    own.join(5.0)
    assert "the worker itself has the port" in refused[0]


def test_what_nobody_comes_to_run_is_refused_in_time_and_looked_after(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    assert "no process has come to run its generation 2 within 0.2 s" in asked.refused()
    assert asked.looks > 0


def test_a_request_that_was_passed_on_is_not_passed_on_again(tmp_path: Path) -> None:
    asked, came = Asked(tmp_path, wait=30.0), FromElsewhere()
    asked.ask(came)
    assert came.refused
    assert asked.answered == 0


def test_another_host_is_named_at_once(tmp_path: Path) -> None:
    asked = Asked(tmp_path, wait=30.0)
    asked.tell(here=False)
    assert "that is there (pid" in asked.refused()


def test_what_failed_in_the_other_process_is_said_at_once(tmp_path: Path) -> None:
    asked = Asked(tmp_path, wait=30.0)
    asked.tell(id="1", failed=2, error=ERROR)
    assert "initialize failed: no" in asked.refused()


def test_what_goes_back_there_is_waited_for(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.tell(id="1", failed=2, error=ERROR, goes_back=True)
    assert "did not come within 0.2 s" in asked.refused()


def test_a_plugin_that_is_not_exclusive_any_more_is_looked_up_again(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.door.set(wanted=None)
    asked.ask()
    assert asked.answered == 1
