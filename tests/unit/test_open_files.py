"""What a worker does that has no file left for a connection."""

import errno
import logging
import os
import socket
import threading

import pytest
from gunicorn.http.errors import NoMoreData

from app.activity import Activity
from app.workers import open_files
from app.workers.open_files import CALM_SECONDS, PAUSE_SECONDS, FullHouse, has_data


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(open_files, "time", clock)
    return clock


def test_what_lasts_is_said_less_and_less_often_with_its_count(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    house, error, began = FullHouse(), OSError(errno.EMFILE, os.strerror(errno.EMFILE)), clock.now
    said: list[float] = []
    while clock.now < began + 3 * 3600:
        house.begin(error)
        assert not house.is_over
        if len(caplog.records) > len(said):
            said.append(clock.now - began)
        clock.now += PAUSE_SECONDS
        assert house.is_over
    assert said[:5] == [0, 10, 30, 70, 150]
    assert len(said) < 13
    texts = [record.getMessage() for record in caplog.records]
    assert "(Too many open files)" in texts[0]
    assert "(Too many open files, 19 times since this was said last)" in texts[1]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_what_comes_again_after_a_while_is_said_at_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    house, error = FullHouse(), OSError(errno.ENFILE, "none left")
    for number in range(3):
        house.begin(error)
        house.begin(error)
        assert len(caplog.records) == number + 1
        clock.now += CALM_SECONDS


def test_a_client_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    activity = Activity()
    with ours, theirs:
        assert not has_data(ours, activity, 0.0)
        sender = threading.Timer(0.05, theirs.sendall, [b"x"])
        sender.start()
        assert has_data(ours, activity, 10.0)
        theirs.close()
        assert has_data(ours, activity, 10.0), "its end is to be read, too"
        activity.waiting = lambda: 1
        with pytest.raises(NoMoreData):  # which gunicorn takes for a client that has gone
            has_data(ours, activity, 10.0)
    assert not has_data(ours, activity, 10.0)
    sender.join()
