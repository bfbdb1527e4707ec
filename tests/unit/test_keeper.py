"""Who starts the supervisor again; a process that waits for a byte stands for it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from app.postgres.keeper import Keeper, SupervisorProcess
from app.postgres.restarts import Restarts

WAITS = "import os; os.write(1, b'ready\\n'); os.read(0, 1)"
FAILS = "print('failed'); print('the disk is full')"


class Stand(SupervisorProcess):
    """A supervisor whose program is a line of Python, and that counts its starts."""

    def __init__(self, code: str) -> None:
        super().__init__([])
        self.become(code)
        self.starts: list[float] = []

    def become(self, code: str) -> None:
        self._command = [sys.executable, "-S", "-c", code]

    def start(self, *, again: bool = False) -> None:
        super().start(again=again)
        self.starts.append(time.monotonic())


@pytest.fixture
def kept() -> Iterator[Callable[..., Stand]]:
    with contextlib.ExitStack() as stack:

        def make(code: str, **restarts: float) -> Stand:
            supervisor = Stand(code)
            supervisor.start()
            keeper = Keeper(supervisor, Restarts(**restarts))
            keeper.start()
            stack.callback(supervisor.stop)
            stack.callback(keeper.stop)
            return supervisor

        yield make


def wait_until(look: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def test_one_that_is_killed_again_and_again_is_started_in_rising_intervals_with_one_line(
    kept, caplog
):
    supervisor = kept(WAITS, first_pause=0.02)
    pauses = []
    for turn in range(1, 6):
        wait_until(lambda: supervisor.said == b"ready\n")
        killed = time.monotonic()
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_until(lambda: len(supervisor.starts) == turn + 1)
        pauses.append(supervisor.starts[-1] - killed)
    for pause, least in zip(pauses, (0.0, 0.02, 0.04, 0.08, 0.16), strict=True):
        assert pause >= least
    assert caplog.text.count("supervisor is started again: it was killed") == 1


def test_one_that_has_lived_for_a_while_is_started_again_at_once_and_with_a_line(kept, caplog):
    supervisor = kept(WAITS, first_pause=60.0, long_life=0.0)
    for turn in range(1, 3):
        wait_until(lambda: supervisor.said == b"ready\n")
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_until(lambda: len(supervisor.starts) == turn + 1)
    assert caplog.text.count("supervisor is started again") == 2


def test_a_reason_is_said_once_and_a_new_one_again(kept, caplog):
    supervisor = kept(FAILS, first_pause=0.001, longest_pause=0.001)
    wait_until(lambda: len(supervisor.starts) >= 4)
    supervisor.become(FAILS.replace("full", "gone"))
    wait_until(lambda: "the disk is gone" in caplog.text)
    seen = len(supervisor.starts)
    wait_until(lambda: len(supervisor.starts) >= seen + 2)
    assert caplog.text.count("the disk is full") == 1
    assert caplog.text.count("the disk is gone") == 1
    supervisor.become(WAITS)
    wait_until(lambda: supervisor.said == b"ready\n")


def test_a_start_that_the_system_refuses_is_tried_again(kept, caplog, monkeypatch):
    supervisor = kept(WAITS, first_pause=0.001)
    wait_until(lambda: supervisor.said == b"ready\n")
    program, sys_executable = sys.executable, "/nowhere/python"
    monkeypatch.setattr(sys, "executable", sys_executable)
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: "/nowhere/python cannot be run: No such file" in caplog.text)
    monkeypatch.setattr(sys, "executable", program)
    wait_until(lambda: supervisor.said == b"ready\n")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_it_is_started_does_not_hide_its_end(kept, monkeypatch):
    """A child that inherits the supervisor's end of the pipe would keep it open."""
    supervisor = kept(WAITS)
    wait_until(lambda: supervisor.said == b"ready\n")
    starting, forked = threading.Event(), threading.Event()
    spawn = os.posix_spawn

    def slow_spawn(*arguments, **options):
        starting.set()
        forked.wait(0.1)  # the fork comes now, or it waits until the start is over
        return spawn(*arguments, **options)

    monkeypatch.setattr(os, "posix_spawn", slow_spawn)
    os.kill(supervisor.pid, signal.SIGKILL)
    assert starting.wait(5.0)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    forked.set()
    try:
        wait_until(lambda: supervisor.said == b"ready\n")
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_until(lambda: len(supervisor.starts) == 3)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_signals_are_left_to_the_main_thread(kept):
    """And the supervisor does not inherit that."""
    supervisor = kept(WAITS)
    wait_until(lambda: supervisor.said == b"ready\n")
    first = supervisor.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervisor.pid not in (None, first) and supervisor.said == b"ready\n")
    os.kill(supervisor.pid, signal.SIGTERM)
    wait_until(lambda: len(supervisor.starts) == 3)


def test_a_stop_leaves_no_process(kept):
    supervisor = Stand(WAITS)
    supervisor.start()
    keeper = Keeper(supervisor)
    keeper.start()
    pid = supervisor.pid
    keeper.stop()
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 2.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # type: ignore[arg-type]
    assert len(supervisor.starts) == 1


def test_what_the_supervisor_logs_is_an_event_of_the_servers_log(kept, caplog):
    caplog.set_level("INFO")
    say = "os.write(1, b'ready\\nlog WARNING it was killed: a'); time.sleep(0.05)"
    rest = r"os.write(1, b'\nlog INFO b\nwaiting\n'); os.read(0, 1)"
    supervisor = kept(f"import os, time; {say}; {rest}")
    wait_until(lambda: b"waiting" in supervisor.said)
    assert supervisor.said == b"ready\nwaiting\n"
    said = [(found.levelname, found.getMessage().partition(": ")[2]) for found in caplog.records]
    assert said == [("WARNING", "it was killed: a"), ("INFO", "b")]


@pytest.mark.parametrize("served", [True, False])
def test_the_supervisor_logs_to_its_server_and_without_one_with_a_time_stamp(served):
    code = (
        "import logging; from app.postgres.reports import ServerLog;"
        "logging.basicConfig(handlers=[ServerLog()]); logging.warning('a\\nb')"
    )
    read, write = os.pipe()
    if not served:
        os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=True
    )
    os.close(write)
    if served:
        assert os.read(read, 100) == b"log WARNING a\\nb\n"
        os.close(read)
        assert done.stderr == ""
    else:
        assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:.+\] \[\d+\] \[WARNING\] a\\nb\n", done.stderr)
