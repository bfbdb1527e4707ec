"""The trial's own process: what starts it, and that it is gone at the end."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.errors import DiscoveryError, LoadError, SupersededError, TrialError
from app.publishing.manifest import parse_manifest
from app.publishing.trials.trial import TrialRunner
from app.publishing.trials.trial_child import _FIRST_PLUGIN
from app.publishing.trials.trial_process import Answer
from app.records import Manifest, PluginSource, artifact_name
from tests.support.plugins import PLUGIN, source_of
from tests.support.waiting import wait_until


def first() -> PluginSource:
    return PluginSource("first", Path(), {"main.py": _FIRST_PLUGIN}, Manifest(), "0" * 32)


def helpers() -> list[psutil.Process]:
    """Return the trial processes of this process."""
    children = psutil.Process().children()
    return [child for child in children if "app.publishing.trials.trial_server" in child.cmdline()]


@pytest.fixture
def runner() -> Iterator[TrialRunner]:
    runner = TrialRunner(None)
    yield runner
    runner.stop()


def test_it_is_started_once_ahead_or_when_it_is_needed(runner: TrialRunner) -> None:
    assert helpers() == []
    runner.prepare()
    runner.prepare()
    (helper,) = wait_until(helpers)  # a program that begins has no command line for a moment
    _, report = runner.run(first())
    assert [endpoint.path for endpoint in report.endpoints] == ["/first", "/first/{number:int}"]
    assert helpers() == [helper]


def test_what_it_finds_is_told_while_its_process_ends(runner: TrialRunner) -> None:
    told: list[object] = []
    found = runner.run(first(), reported=lambda *found: told.append(found))
    assert told == [found]
    with pytest.raises(LoadError):
        runner.run(
            source_of({"main.py": "new_plugin = None\n"}),
            reported=lambda *_: pytest.fail("told of"),
        )


def test_how_its_process_ends_counts_whatever_it_has_said(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    ask = runner._process.ask

    def killed(*arguments: Any) -> Answer:
        report, end = ask(*arguments)
        return Answer(report, {**(end or {}), "code": -signal.SIGSEGV})

    monkeypatch.setattr(runner._process, "ask", killed)
    with pytest.raises(LoadError, match="killed its process with SIGSEGV"):
        runner.run(first(), reported=lambda *found: told.append(found))
    assert len(told) == 1


def test_without_a_temporary_folder_it_is_refused_with_what_to_do(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(TrialError, match="set TMPDIR to a folder that can be") as caught:
            runner.run(first())
        assert caught.value.outside, "the machine's fault, and not the plugin's"
    assert psutil.Process().num_fds() == before


def versioned(code: str, written: str | None) -> PluginSource:
    """A plugin whose code names a version, "" for none, and whose manifest may."""
    text = PLUGIN.replace('version="1.0"', f"version={code!r}")
    assert f"version={code!r}" in text
    if written is None:
        return source_of({"main.py": text})
    manifest = parse_manifest("sample", f"author: Ann\nversion: {written}\n".encode(), "")
    return replace(
        source_of({"main.py": text}), manifest=replace(manifest, entry="main:new_plugin")
    )


@pytest.mark.parametrize(
    ("code", "written", "version"),
    [
        ("", "2.0", "2.0"),
        ("", "1.10", "1.10"),
        ("", "1e3", "1e3"),
        ("1.0", None, "1.0"),
        ("1.0", "~", "1.0"),
        ("2.0", "2.0", "2.0"),
        ("1.10", "1.10", "1.10"),
        ("1", "'1'", "1"),
    ],
)
def test_a_version_comes_from_the_code_or_the_manifest(
    runner: TrialRunner, code: str, written: str | None, version: str
) -> None:
    _, report = runner.run(versioned(code, written))
    assert report.metadata.version == version
    assert report.metadata.author == ("" if written is None else "Ann")


@pytest.mark.parametrize(
    ("code", "written"), [("1.0", "2.0"), ("1.1", "1.10"), ("1.0", "1"), ("v1.0", "1.0")]
)
def test_two_versions_that_differ_are_refused_with_both_and_the_line(
    runner: TrialRunner, code: str, written: str
) -> None:
    with pytest.raises(DiscoveryError) as caught:
        runner.run(versioned(code, written))
    assert f"version is {written!r}, but get_metadata() returns {code!r}" in caught.value.message
    assert (caught.value.file, caught.value.line) == ("plugin.yaml", 2)


@pytest.mark.parametrize("written", [None, "~"])
def test_a_version_that_stands_nowhere_is_refused_where_it_could(
    runner: TrialRunner, written: str | None
) -> None:
    with pytest.raises(LoadError, match=r"version is '', expected .* plugin\.yaml") as caught:
        runner.run(versioned("", written))
    assert caught.value.phase == "get_metadata"
    assert caught.value.file == "main.py"


def test_after_its_end_nothing_starts_it_again(runner: TrialRunner) -> None:
    runner.run(first())
    runner.stop()
    with pytest.raises(SupersededError, match="the server stops"):
        runner.run(first())
    runner.prepare()
    assert helpers() == []


def test_a_forked_child_of_a_plugin_does_not_hold_up_the_end(runner: TrialRunner) -> None:
    """It holds a copy of every descriptor: the server's process is told, not only hung up on."""
    runner.prepare()
    (helper,) = wait_until(helpers, "it has its command line")  # a moment after its exec
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        began = time.monotonic()
        runner.stop()
        assert time.monotonic() - began < 4.0, "it waited for the end and then killed it"
        assert not helper.is_running()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_end_amid_trials_leaves_no_process() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(3):
            runner = TrialRunner(None)
            runner.prepare()
            tried = first()

            def run(runner: TrialRunner = runner, tried: PluginSource = tried) -> None:
                try:
                    while True:
                        runner.run(tried)
                except SupersededError:
                    pass

            threads = [threading.Thread(target=run) for _ in range(4)]
            for thread in threads:
                thread.start()
            runner.run(tried)
            runner.stop()
            for thread in threads:
                thread.join(10.0)
                assert not thread.is_alive()
            assert helpers() == []
    finally:
        sys.setswitchinterval(interval)


# --- what a trial starts --------------------------------------------------------------------

DAEMON = """
import os
import time

def start(file):
    # As a daemon does it: two forks and a session of its own, the parent in between ends.
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    with open(file + ".new", "w") as found:
        found.write(str(os.getpid()))
    os.rename(file + ".new", file)
    time.sleep(60)
    os._exit(0)
"""


def starting(file: Path, then: str = "") -> PluginSource:
    """A plugin whose import starts a daemon, waits for it, and goes on with `then`."""
    top = f"""
import os, time
from .daemon import start
start({str(file)!r})
while not os.path.exists({str(file)!r}):
    time.sleep(0.001)
{then}
"""
    return source_of({"main.py": top + PLUGIN, "daemon.py": DAEMON})


def ended(file: Path) -> bool:
    try:
        return psutil.Process(int(file.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def hasty() -> Iterator[TrialRunner]:
    runner = TrialRunner(None, seconds=0.5)
    yield runner
    runner.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreaper")
@pytest.mark.parametrize("then", ["", "os._exit(3)", "time.sleep(60)"])
def test_nothing_that_a_trial_starts_outlives_it(
    hasty: TrialRunner, tmp_path: Path, then: str
) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()
    with contextlib.suppress(LoadError):
        hasty.run(starting(file, then))
    assert ended(file), "a session of its own does not help"
    assert time.monotonic() - began < 5.0, "nor does holding the report open delay the verdict"


def test_a_trial_that_never_returns_is_ended_and_holds_up_no_other(hasty: TrialRunner) -> None:
    faults: list[LoadError] = []

    def run() -> None:
        try:
            hasty.run(source_of({"main.py": "while True: pass\n"}))
        except LoadError as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    hasty.run(first())
    assert not faults, "the other one ended first"
    thread.join(10.0)
    (fault,) = faults
    assert "did not return within 0.5 s" in fault.message
    assert (fault.phase, fault.file, fault.line) == ("import", "main.py", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreaper")
def test_what_another_trial_has_started_is_let_be(runner: TrialRunner, tmp_path: Path) -> None:
    slow, quick, go = tmp_path / "slow", tmp_path / "quick", tmp_path / "go"
    wait = f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.001)\n"
    thread = threading.Thread(target=runner.run, args=[starting(slow, wait)])
    thread.start()
    wait_until(slow.exists, "the first trial runs")
    runner.run(starting(quick))
    assert ended(quick)
    assert not ended(slow), "its trial still runs"
    go.touch()
    thread.join(10.0)
    assert ended(slow)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreaper")
def test_the_end_of_the_server_is_the_end_of_all(runner: TrialRunner, tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def run() -> None:
        with contextlib.suppress(SupersededError):
            runner.run(starting(file, "time.sleep(60)"))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(file.exists, "the trial runs")
    helper = psutil.Process(runner._process._process.pid)
    (tried,) = helper.children()
    runner.stop()
    thread.join(10.0)
    assert ended(file)
    assert not tried.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such signal")
def test_a_trial_whose_server_is_killed_ends(runner: TrialRunner, tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def run() -> None:
        with contextlib.suppress(SupersededError):
            runner.run(starting(file, "while True: pass"))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(file.exists, "the trial runs")
    helper = psutil.Process(runner._process._process.pid)
    (tried,) = helper.children()
    runner._process._stopped = True  # else it would be tried once more
    helper.kill()
    wait_until(lambda: not tried.is_running() or tried.status() == psutil.STATUS_ZOMBIE)
    thread.join(10.0)
    psutil.Process(int(file.read_text())).kill()  # nobody is left who would


# --- the folder of a version ---------------------------------------------------------------

READS = """
from pathlib import Path
TEXT = (Path(__file__).parent / "text.txt").read_text()
"""
SPAWNS = """
import multiprocessing
from .other import answer
with multiprocessing.get_context("spawn").Pool(1) as pool:
    assert pool.apply(answer, (7,)) == 49
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def unpacking(artifacts: Path) -> Iterator[TrialRunner]:
    """A runner as a server's, which has a place for archives."""
    runner = TrialRunner(None, artifacts_dir=artifacts)
    yield runner
    runner.stop()


def unpacked(artifacts: Path) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in artifacts.glob("unpacked/[a-z]*/*")]


def test_what_passed_its_trial_lies_unpacked_and_what_failed_does_not(
    unpacking: TrialRunner, artifacts: Path
) -> None:
    good = source_of({"main.py": READS + PLUGIN, "text.txt": "one"})
    unpacking.run(good)
    assert unpacked(artifacts) == [f"sample/{good.digest}"]
    (artifacts / artifact_name("sample", good.digest)).touch()  # it is stored
    with pytest.raises(LoadError) as caught:
        unpacking.run(source_of({"main.py": "x = 1\nopen(__file__ + 'x')", "text.txt": "two"}))
    assert (caught.value.file, caught.value.line) == ("main.py", 2)
    with pytest.raises(LoadError, match="exit code 3") as caught:
        unpacking.run(source_of({"main.py": "import os\nos._exit(3)"}))
    with pytest.raises(LoadError, match="SIGSEGV") as caught:
        unpacking.run(source_of({"main.py": "import ctypes\n\nctypes.string_at(0)"}))
    assert (caught.value.file, caught.value.line) == ("main.py", 3)
    assert unpacked(artifacts) == [f"sample/{good.digest}"]


def test_a_trial_may_spawn_processes_that_import_the_plugin(unpacking: TrialRunner) -> None:
    other = "def answer(n):\n    return n * n\n"
    unpacking.run(source_of({"main.py": SPAWNS + PLUGIN, "other.py": other}))


def test_where_versions_cannot_be_unpacked_a_trial_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "unpacked").write_text("in the way")
    runner = TrialRunner(None, artifacts_dir=tmp_path)
    try:
        runner.run(source_of({"main.py": READS + PLUGIN, "text.txt": "one"}))
    finally:
        runner.stop()


# --- a trial is like a worker --------------------------------------------------------------

LIKE = """
import argparse, sys, threading
argparse.ArgumentParser().parse_args()
assert sys.argv == ["benana"], sys.argv
assert threading.current_thread().name == "benana-loader"
assert sys.stdin.read() == ""
"""


def test_a_trial_has_the_thread_the_arguments_and_the_input_of_a_worker(
    runner: TrialRunner,
) -> None:
    runner.run(source_of({"main.py": LIKE + PLUGIN}))


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (
            "import signal\nsignal.signal(signal.SIGUSR2, print)\n",
            "interpreter; the signals are the server's",
        ),
        ("import asyncio\nasyncio.get_event_loop()\n", r"'benana-loader'; .*new_event_loop"),
    ],
)
def test_what_needs_the_main_thread_is_refused_with_what_to_write_instead(
    runner: TrialRunner, code: str, advice: str
) -> None:
    with pytest.raises(LoadError, match=advice) as caught:
        runner.run(source_of({"main.py": code + PLUGIN}))
    assert (caught.value.file, caught.value.line) == ("main.py", 2)
