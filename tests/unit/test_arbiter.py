"""The master ends for a server that cannot start, and for nothing that a plugin does."""

import logging
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer
from gunicorn.workers.gthread import ThreadWorker

from app.activity import Activity, Name
from app.serving.crash_notes import end_of
from app.serving.crashes import CrashedLoads
from app.serving.last_words import last_words
from app.workers import arbiter
from app.workers.arbiter import Arbiter
from app.workers.drains import LEAVE_SECONDS
from app.workers.worker import Worker


class Temporary:
    """Stands for the file by which gunicorn sees a worker live."""

    def __init__(self):
        self._tmp = SimpleNamespace(closed=False)

    def close(self):
        self._tmp.closed = True


def worker(*, serving, age=1, pid=0):
    activity = Activity(1)
    if serving:
        activity.begin_serving()
    return SimpleNamespace(activity=activity, tmp=Temporary(), age=age, pid=pid)


@pytest.fixture
def master(tmp_path, monkeypatch):
    """A master without a process: its workers are records, its clock is `master.now`."""
    made = object.__new__(GunicornArbiter)
    made.app = SimpleNamespace(reload=lambda: None)
    made.log = logging.getLogger("test")
    made.exited, made.started, made.signalled, made.now = [], [], [], 1000.0
    made._num_workers = 2
    made.cfg = SimpleNamespace(
        child_exit=lambda _master, gone: made.exited.append(gone),
        uid=os.geteuid(),
        gid=os.getegid(),
        graceful_timeout=30,
    )
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(arbiter, "end_of_child", lambda pid: end_of(3))
    monkeypatch.setattr(GunicornArbiter, "spawn_worker", lambda self: self.started.append(self.now))
    monkeypatch.setattr(
        GunicornArbiter, "kill_worker", lambda self, pid, sig: self.signalled.append((pid, sig))
    )
    made.reexec_pid = made.dirty_arbiter_pid = 0
    nothing: Any = SimpleNamespace(look=lambda _workers, _own: False, end=lambda _workers: None)
    monkeypatch.setattr(Worker, "bell", None)
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


def test_a_worker_that_cannot_boot_does_not_end_a_stop_in_its_midst(master, monkeypatch):
    master.WORKERS = {1: worker(serving=False), 2: worker(serving=False)}
    left = [1, 2]

    def reap(self):
        if left:
            self.WORKERS.pop(left.pop(0))
            raise HaltServer("Worker failed to boot.", 3)

    monkeypatch.setattr(GunicornArbiter, "reap_workers", reap)
    monkeypatch.setattr(GunicornArbiter, "stop", lambda self, graceful: self.reap_workers())
    master.stop()
    assert not master.WORKERS
    assert len(master.exited) == 2


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
            master.manage_workers()
            master.now += 0.125
        waits.append(master.started[0] - ended)
        master.now += 2.0
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    master.WORKERS = {1: worker(serving=True)}
    end_with_code_3(master, monkeypatch, 1)
    master.started.clear()
    master.manage_workers()
    assert master.started, "one that had served is replaced at once"


def test_a_worker_that_asks_drains_longer_than_usual_once_a_fresh_one_serves(master):
    master.WORKERS = {1: worker(serving=True), 2: worker(serving=True, age=2)}
    master.WORKERS[1].activity.ask_to_be_replaced()
    master.manage_workers()
    assert len(master.started) == 1
    master.WORKERS[3] = worker(serving=False, age=3)
    master.manage_workers()
    assert (len(master.started), master.signalled) == (1, [])
    master.WORKERS[3].activity.begin_serving()
    master.manage_workers()
    assert master.signalled == [(1, signal.SIGTERM)]
    assert master.WORKERS[1].activity.drain_seconds == 900
    master.manage_workers()
    assert (len(master.started), len(master.signalled)) == (1, 1), "it counts no more"


def test_when_one_has_stopped_accepting_the_next_one_boots_at_once(master):
    master.WORKERS = {n: worker(serving=True, age=n) for n in (1, 2)}
    for old in master.WORKERS.values():
        old.activity.ask_to_be_replaced()
    master.manage_workers()
    master.WORKERS[3] = worker(serving=True, age=3)
    master.manage_workers()
    assert (len(master.signalled), len(master.started)) == (1, 2)


def test_who_drains_too_long_is_cut_off_and_it_is_said_what_that_cost(master, caplog):
    master.WORKERS = {1: worker(serving=True), 2: worker(serving=True, age=2)}
    master.WORKERS[1].activity.cell()[0] = master.WORKERS[1].activity.number(Name("one g1 /one"))
    master._num_workers = 1
    master.manage_workers()
    master.now += 29.0
    master.manage_workers()
    assert not caplog.text
    master.now += 2.0
    for _ in range(2):
        master.manage_workers()
    assert caplog.text.count("is cut off: after 31 s it still answers: one g1 /one") == 1
    assert master.signalled == [(1, signal.SIGTERM)]
    master.now += LEAVE_SECONDS
    master.manage_workers()
    assert master.signalled[1:] == [(1, signal.SIGKILL)]


def test_a_worker_that_was_told_to_end_and_is_killed_counts_against_no_load(master, monkeypatch):
    for pid in (1, 2, 3):
        master.WORKERS[pid] = worker(serving=False)
    master.kill_worker(1, signal.SIGTERM)
    master.kill_worker(2, signal.SIGQUIT)
    master.kill_worker(3, signal.SIGABRT)  # it was not heard of for too long, perhaps by a load
    told = []
    monkeypatch.setattr(master._crashed, "collect", lambda *_, **known: told.extend(known["told"]))
    monkeypatch.setattr(master, "_say_crashed", master._crashed.collect)
    master._served = True
    end_with_code_3(master, monkeypatch, 1, 2, 3)
    assert sorted(told) == [1, 2]


@pytest.mark.parametrize("handler", ["handle_exit", "handle_quit"])
def test_a_worker_notes_that_it_was_told_to_end(tmp_path, monkeypatch, handler):
    noted = []
    monkeypatch.setattr(last_words, "note_told", lambda: noted.append(handler))
    monkeypatch.setattr(ThreadWorker, handler, lambda *_: None)
    made = object.__new__(Worker)
    made.alive, made.booted, made._ends_at, made.ppid = True, True, None, os.getppid()
    getattr(made, handler)(signal.SIGTERM, None)
    assert noted == [handler]


def hang_up(master, monkeypatch, *new, moved=False):
    """Follow HUP as gunicorn does: with workers that boot, by the configuration anew.

    `moved`: the plugins' root is another one.
    """

    def reload(self):
        if moved:
            self.end_former()
        self.WORKERS |= {n: worker(serving=False, age=n, pid=n) for n in new}
        self.manage_workers()

    monkeypatch.setattr(GunicornArbiter, "reload", reload)
    master.reload()


def serve(master, pid):
    master.WORKERS[pid].activity.begin_serving()
    master.manage_workers()


@pytest.mark.parametrize("amid_a_round", [True, False])
def test_at_a_hup_each_worker_serves_until_one_of_the_new_configuration_does(
    master, monkeypatch, amid_a_round
):
    master.WORKERS = {n: worker(serving=True, age=n, pid=n) for n in (1, 2)}
    if amid_a_round:
        master.WORKERS[2].activity.ask_to_be_replaced()
    hang_up(master, monkeypatch, 3, 4)
    assert master.signalled == []
    assert min(each.age for each in master.WORKERS.values()) == 3, "HUP waits for nobody"
    serve(master, 4)
    assert master.signalled == [(1, signal.SIGTERM)]
    serve(master, 3)
    assert master.signalled == [(1, signal.SIGTERM), (2, signal.SIGTERM)]
    master.manage_workers()
    assert len(master.signalled) == 2
    assert master.started == []


def test_what_boots_still_at_a_hup_ends_at_once(master, monkeypatch):
    """Else each of many HUPs would leave workers that boot."""
    master.WORKERS = {n: worker(serving=n == 1, age=n, pid=n) for n in (1, 2)}
    hang_up(master, monkeypatch, 3, 4)
    assert master.signalled == [(2, signal.SIGTERM)]
    hang_up(master, monkeypatch, 5, 6)
    assert master.signalled == [(pid, signal.SIGTERM) for pid in (2, 3, 4)]
    serve(master, 5)
    assert (1, signal.SIGTERM) not in master.signalled, "two shall accept"
    serve(master, 6)
    assert master.signalled[-1] == (1, signal.SIGTERM)


def test_where_one_of_the_new_configuration_ends_another_takes_the_last_place(master, monkeypatch):
    master.WORKERS = {n: worker(serving=True, age=n, pid=n) for n in (1, 2)}
    hang_up(master, monkeypatch, 3, 4)
    end_with_code_3(master, monkeypatch, 4)
    serve(master, 3)
    assert master.signalled == [(1, signal.SIGTERM)]
    master.WORKERS.pop(1)
    master.manage_workers()
    assert len(master.started) == 1, "a round for the one that is left"


def test_fewer_workers_at_a_hup_are_fewer_at_once(master, monkeypatch):
    master.WORKERS = {n: worker(serving=True, age=n, pid=n) for n in (1, 2, 3, 4)}
    hang_up(master, monkeypatch, 5, 6)
    assert master.signalled == [(1, signal.SIGTERM), (2, signal.SIGTERM)]


def test_where_the_plugins_root_has_moved_all_of_the_former_end_at_once(master, monkeypatch):
    master.WORKERS = {n: worker(serving=True, age=n, pid=n) for n in (1, 2)}
    hang_up(master, monkeypatch, 3, 4, moved=True)
    assert master.signalled == [(1, signal.SIGTERM), (2, signal.SIGTERM)]
    master.signalled.clear()
    serve(master, 3)
    serve(master, 4)
    hang_up(master, monkeypatch, 5, 6)
    assert master.signalled == [], "the next one is as usual"
