"""The master ends for a server that cannot start, and for nothing that a plugin does."""

import logging
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

from app.activity import Activity, Name
from app.serving.crashes import CrashedLoads, end_of
from app.workers import arbiter
from app.workers.arbiter import Arbiter


class Temporary:
    """Stands for the file by which gunicorn sees a worker live."""

    def __init__(self):
        self._tmp = SimpleNamespace(closed=False)

    def close(self):
        self._tmp.closed = True


def worker(*, serving):
    activity = Activity(1)
    if serving:
        activity.begin_serving()
    return SimpleNamespace(activity=activity, tmp=Temporary())


@pytest.fixture
def master(tmp_path, monkeypatch):
    """A master without a process: its workers are records, its clock is `master.now`."""
    made = object.__new__(GunicornArbiter)
    made.log = logging.getLogger("test")
    made.exited, made.started, made.now = [], [], 1000.0
    made.cfg = SimpleNamespace(
        child_exit=lambda _master, gone: made.exited.append(gone),
        uid=os.geteuid(),
        gid=os.getegid(),
    )
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(arbiter, "_end_of_child", lambda pid: end_of(3))
    monkeypatch.setattr(
        GunicornArbiter, "spawn_workers", lambda self: self.started.append(self.now)
    )
    made.reexec_pid = made.dirty_arbiter_pid = 0
    nothing: Any = SimpleNamespace(look=lambda _workers, _own: False)
    Arbiter.look_after(made, CrashedLoads(tmp_path), nothing)
    made.WORKERS = {}
    return made


def end_with_code_3(master, monkeypatch, *pids):
    """Let workers end as gunicorn sees it: it halts at each."""
    left = list(pids)

    def reap(self):
        if left:
            self.WORKERS.pop(left.pop(0))
            raise HaltServer("Worker failed to boot.", 3)

    monkeypatch.setattr(GunicornArbiter, "reap_workers", reap)
    master.reap_workers()


def test_a_server_whose_first_worker_cannot_boot_ends(master, monkeypatch):
    master.WORKERS = {1: worker(serving=False)}
    with pytest.raises(HaltServer):
        end_with_code_3(master, monkeypatch, 1)


@pytest.mark.parametrize("served", ["the one that ends", "another"])
def test_once_a_worker_served_no_exit_code_ends_the_master(master, monkeypatch, served):
    ending = worker(serving=served == "the one that ends")
    master.WORKERS = {1: ending, 2: worker(serving=served == "another"), 3: worker(serving=False)}
    end_with_code_3(master, monkeypatch, 1, 3)
    assert master.WORKERS.keys() == {2}
    assert len(master.exited) == 2
    assert ending.tmp._tmp.closed


def test_what_a_worker_was_doing_is_said_when_it_has_ended(master, monkeypatch, caplog):
    ending = worker(serving=True)
    ending.activity.cell()[0] = ending.activity.number(Name("one /"))
    master.WORKERS = {7: ending}
    end_with_code_3(master, monkeypatch, 7)
    assert "Worker (pid:7) ended (exit code 3) while it answered: one /" in caplog.text


def test_workers_that_never_serve_are_started_in_rising_intervals(master, monkeypatch):
    master._served = True
    waits = []
    for _ in range(8):
        master.WORKERS = {1: worker(serving=False), 2: worker(serving=False)}
        end_with_code_3(master, monkeypatch, 1, 2)  # together: that counts once
        ended = master.now
        master.started.clear()
        while not master.started:
            master.spawn_workers()
            master.now += 0.125
        waits.append(master.started[0] - ended)
        master.now += 2.0
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    master.WORKERS = {1: worker(serving=True)}
    end_with_code_3(master, monkeypatch, 1)
    master.started.clear()
    master.spawn_workers()
    assert master.started, "one that had served is replaced at once"
