"""What a process writes down at its end names the plugin whose thread or timer it was."""

import dataclasses
import os
import pickle
import signal
import subprocess
import threading
import time

import pytest

from app.loading.started_threads import started_threads
from app.records import ServedRow
from app.serving.crash_notes import LATE_OCCASIONS, end_of
from app.serving.crashes import CrashedLoads
from app.serving.last_known_good import LastKnownGood
from app.serving.last_words import last_words
from app.serving.load_marker import LoadMarker

DIGEST = "0" * 32
ROW = ServedRow("1", "one", 3, "active", f"/x/one-{DIGEST}.pyz", "f" * 64)
BEFORE = dataclasses.replace(ROW, generation=2, binary_path=f"/x/one-{'1' * 32}.pyz")
NEXT = dataclasses.replace(ROW, generation=4, binary_path=f"/x/one-{'2' * 32}.pyz")
OTHER = dataclasses.replace(ROW, id="2", name="two", binary_path=f"/x/two-{DIGEST}.pyz")


def code_of(row, text, file="main.py"):
    """Return a function `run` of a plugin's module, in the folder of its version."""
    names = {"__name__": f"_plugins.{row.name}.g{row.generation}.main"}
    path = f"/bin/versions/{row.name}/{row.digest}/{file}"
    exec(compile(f"def run():\n    {text}", path, "exec"), names)
    return names["run"]


@pytest.fixture
def crashed(tmp_path):
    served = LastKnownGood(tmp_path)
    for row in (BEFORE, ROW, OTHER):
        served.remember(row)
        served.write()
    return CrashedLoads(tmp_path)


def end(folder, crashed, how, *, loading=None, busy=""):
    """Have another process serve for a while and end by a function; return what is said of it.

    It ends while it loads a row (`loading`), and while it answers a plugin's request (`busy`).
    """
    pid = os.fork()
    if pid == 0:
        try:
            marker = LoadMarker(folder)
            marker.record_faults()
            started_threads.watch(str)
            with marker.loading(loading or OTHER):
                if loading:
                    how()
            marker._recent.clear()  # it is long ago
            marker._write()
            how()
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return crashed.collect({pid: end_of(code)}, busy={pid: {busy}} if busy else {})


ENDS = {
    "os._exit": "__import__('os')._exit(7)",
    "os.kill": "__import__('os').kill(__import__('os').getpid(), 9)",
    "signal.raise_signal": "__import__('signal').raise_signal(11)",
    "os.abort": "__import__('os').abort()",
    "a crash": "__import__('ctypes').string_at(0)",
}


@pytest.mark.parametrize("how", ENDS)
def test_who_ends_its_process_three_times_in_a_row_is_held_back(
    tmp_path, crashed, monkeypatch, how
):
    ends, now = code_of(ROW, ENDS[how]), time.time()
    held_back = []
    crashed.on_held_back = lambda: held_back.append(1)
    for occasion in range(LATE_OCCASIONS):
        assert crashed.find(ROW) is None
        moment = now + 60.0 * occasion
        monkeypatch.setattr("app.serving.crashes.time.time", lambda at=moment: at)
        for _ in range(2):  # workers that end together are one time
            [said] = end(tmp_path, crashed, ends)
            assert "one: a thread or a timer of generation 3 ended a worker (" in said
            assert "at main.py:2)" in said
        crashed.absolve(ROW)  # it was served all the while
    assert said.endswith("that was 3 times in a row: generation 2 is served")
    end(tmp_path, crashed, ends)  # by a worker that was told to end, and drained still
    assert held_back == [1]
    assert crashed.find(ROW) is not None
    assert crashed.find(OTHER) is crashed.find(NEXT) is None


def test_once_in_a_while_is_not_in_a_row(tmp_path, crashed, monkeypatch):
    ends, now = code_of(ROW, ENDS["os._exit"]), time.time()
    for occasion in range(2 * LATE_OCCASIONS):
        monkeypatch.setattr("app.serving.crashes.time.time", lambda n=occasion: now + n * 301.0)
        end(tmp_path, crashed, ends)
    assert crashed.find(ROW) is None


@pytest.mark.parametrize("name", ["_exit", "kill"])
def test_a_timer_without_code_of_the_plugin_is_its_own_all_the_same(tmp_path, crashed, name):
    def later():
        arguments = (5,) if name == "_exit" else (os.getpid(), signal.SIGKILL)
        with started_threads.calling("_plugins.one.g3"):
            threading.Timer(0.01, getattr(os, name), arguments).start()
        time.sleep(10.0)

    [said] = end(tmp_path, crashed, later)
    assert "one: a thread or a timer of generation 3 ended a worker (" in said


def test_a_thread_of_a_version_that_is_gone_holds_nothing_back(tmp_path, crashed):
    [said] = end(tmp_path, crashed, code_of(NEXT, ENDS["os._exit"]))
    assert "one: a worker ended (exit code 7) by a thread that a generation has left" in said
    assert crashed.find(ROW) is crashed.find(NEXT) is None


@pytest.mark.parametrize("how", ["os._exit", "a crash"])
def test_who_calls_the_one_that_ends_the_process_is_not_blamed(tmp_path, crashed, how):
    names = {"called": code_of(NEXT, ENDS[how])}
    path = f"/bin/versions/two/{OTHER.digest}/main.py"
    exec(compile("def run():\n    called()", path, "exec"), names)
    [said] = end(tmp_path, crashed, names["run"])
    assert said.startswith("one: a worker ended")
    assert crashed.is_suspect(OTHER) is crashed.is_suspect(ROW) is False


def test_what_loads_meanwhile_is_not_blamed(tmp_path, crashed):
    """Whatever was being loaded was held back for good."""
    [said] = end(tmp_path, crashed, code_of(ROW, ENDS["os._exit"]), loading=OTHER)
    assert said.startswith("one: ")
    assert crashed.find(OTHER) is None


def test_a_request_that_ends_its_worker_is_not_a_thread_of_its_plugin(tmp_path, crashed):
    ends = code_of(ROW, ENDS["os._exit"])
    assert end(tmp_path, crashed, in_request(ends), busy="one") == []
    assert crashed.is_suspect(ROW) is False
    # Another one's request ran meanwhile, which has nothing to do with it.
    [said] = end(tmp_path, crashed, ends, busy="two")
    assert said.startswith("one: a thread or a timer")


def in_request(run):
    """Return a function that runs another one where requests are answered."""
    names = {"run": run}
    file = "/lib/gunicorn/workers/gthread.py"
    exec(compile("def answer(): run()", file, "exec"), names)
    return names["answer"]


@pytest.mark.parametrize("how", ["os._exit", "os.kill", "a crash"])
@pytest.mark.parametrize("loading", [OTHER, NEXT], ids=["another plugin", "its next version"])
def test_a_request_that_ends_its_worker_is_no_load(tmp_path, crashed, loading, how):
    """One request had whatever was being loaded held back, as the mend of what it ended by."""
    ends = in_request(code_of(ROW, ENDS[how]))
    assert end(tmp_path, crashed, ends, loading=loading, busy="one") == []
    assert not any(map(crashed.is_noted, (ROW, OTHER, NEXT)))


@pytest.mark.parametrize("how", ["__import__('ctypes').CDLL(None)._exit(3)", ENDS["os.kill"]])
def test_what_ends_while_it_answers_and_says_nothing_is_no_load(tmp_path, crashed, how):
    names: dict = {}
    exec(compile(f"def run():\n    {how}", "/lib/somewhere.py", "exec"), names)
    assert end(tmp_path, crashed, names["run"], loading=OTHER, busy="one") == []
    assert not crashed.is_noted(OTHER)
    # The next worker loads it before it answers anybody.
    [said] = end(tmp_path, crashed, names["run"], loading=OTHER)
    assert said.startswith("two: loading generation 3 ended a worker")


def test_a_load_that_ends_its_worker_beside_a_request_is_held_back(tmp_path, crashed):
    [said] = end(tmp_path, crashed, code_of(OTHER, ENDS["a crash"]), loading=OTHER, busy="one")
    assert said.startswith("two: loading generation 3 ended a worker (SIGSEGV at main.py:2)")
    assert crashed.find(OTHER) is not None


def test_a_load_whose_stack_is_cut_off_is_not_taken_for_a_request(tmp_path, crashed):
    names = {"ends": code_of(OTHER, ENDS["a crash"])}
    deep = "def run(n=200):\n    return run(n - 1) if n else ends()"
    exec(compile(deep, "/lib/deep.py", "exec"), names)
    [said] = end(tmp_path, crashed, names["run"], loading=OTHER, busy="one")
    assert said.startswith("two: loading generation 3 ended a worker (SIGSEGV at main.py:2)")


@pytest.mark.parametrize("loading", [None, NEXT], ids=["nothing loads", "its next version loads"])
def test_a_thread_that_a_request_waits_for_holds_nothing_back(tmp_path, crashed, loading):
    def wait():
        thread = threading.Thread(target=code_of(ROW, ENDS["a crash"]))
        thread.start()
        thread.join(10.0)

    assert end(tmp_path, crashed, wait, loading=loading, busy="one") == []
    assert not any(map(crashed.is_noted, (ROW, NEXT)))


def test_other_processes_and_other_signals_are_no_last_words(tmp_path):
    path = tmp_path / "words"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with subprocess.Popen(["sleep", "60"]) as child:
        last_words.watch(file)
        try:
            code_of(ROW, f"__import__('os').kill({child.pid}, 9)")()
            code_of(ROW, "__import__('os').kill(__import__('os').getpid(), 0)")()
            with pytest.raises(TypeError):
                os.kill("no process")  # type: ignore[call-arg, arg-type]
            assert pickle.loads(pickle.dumps([os.kill, os._exit])) == [os.kill, os._exit]
            pid = os.fork()
            if pid == 0:
                code_of(ROW, ENDS["os._exit"])()
            os.waitpid(pid, 0)
        finally:
            last_words.unwatch()
            os.close(file)
    assert path.read_bytes() == b""
    assert os.kill.__name__ == "kill"
    assert not hasattr(os.kill, "__wrapped__")
