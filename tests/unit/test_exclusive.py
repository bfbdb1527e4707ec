"""What only one process can hold: the lock of a host, what is told, who has what is in use."""

import contextlib
import errno
import fcntl
import gc
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from app.errors import DiscoveryError, LoadError
from app.isolation.board import Board, Word
from app.isolation.host_lock import HostLock
from app.loading.context import make_context_factory
from app.loading.in_use import find_named_holder, is_in_use
from app.loading.loader import LoadedPlugin, load
from app.presence import own_presence
from app.publishing.manifest import parse_manifest
from app.publishing.trials.trial import TrialRunner
from app.records import CLUSTER, HOST, Endpoint, ServedRow
from app.serving.exclusive.hand_over import HandOver
from tests.support.plugins import artifact_of, no_database, plugin_text, source_of


@pytest.mark.parametrize(
    ("text", "scope"),
    [("true", HOST), ("host", HOST), ("cluster", CLUSTER), ("false", None), ("", None)],
)
def test_the_manifest_says_among_whom_one_runs_it(text: str, scope: str | None) -> None:
    assert parse_manifest("x", f"exclusive: {text}\n".encode(), "main:f").exclusive == scope


@pytest.mark.parametrize("text", ["yes please", "1", "[host]", "HOST"])
def test_another_word_is_refused(text: str) -> None:
    with pytest.raises(DiscoveryError, match="expected host, true"):
        parse_manifest("x", f"exclusive: {text}\n".encode(), "main:f")


# --- the lock -------------------------------------------------------------------------------

HOLD = """
import sys, pathlib
from app.isolation.host_lock import HostLock
lock = HostLock(pathlib.Path(sys.argv[1]))
print(lock.take(), flush=True)
sys.stdin.readline()
"""


def other_process(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_process_has_the_lock_until_it_ends(tmp_path: Path) -> None:
    lock = HostLock(tmp_path / "lock")
    with other_process(tmp_path / "lock") as other:
        assert said(other) == "True"
        assert not lock.take()
        other.kill()
        other.wait()
    assert lock.take()
    assert lock.is_held()
    with other_process(tmp_path / "lock") as another:
        assert said(another) == "False"
    lock.release()
    assert not lock.is_held()
    with other_process(tmp_path / "lock") as another:
        assert said(another) == "True"


FORK = """
import os, pathlib, signal, sys
from app.isolation.host_lock import HostLock
lock = HostLock(pathlib.Path(sys.argv[1]))
lock.take()
if os.fork() == 0:
    os.close(1)
    signal.pause()
print(os.getpid(), flush=True)
signal.pause()
"""


def test_a_child_that_is_forked_does_not_keep_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert said(process) == str(process.pid)
        lock = HostLock(tmp_path / "lock")
        assert not lock.take()
        process.kill()
        process.wait()
        try:
            assert lock.take()
            lock.release()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the child


def test_a_lock_whose_file_is_gone_is_lost(tmp_path: Path) -> None:
    lock = HostLock(tmp_path / "lock")
    assert lock.take()
    (tmp_path / "lock").unlink()
    assert not lock.is_held()
    with other_process(tmp_path / "lock") as other:
        assert said(other) == "True"
        assert not lock.take()
    assert lock.take()
    assert lock.is_held()
    lock.release()


# --- what is told ---------------------------------------------------------------------------


def test_what_is_told_is_heard_as_long_as_its_process_lives(tmp_path: Path) -> None:
    board = Board(tmp_path / "word")
    assert board.read() is None
    me = own_presence()
    word = Word("h", me.pid, me.machine, me.started, id="1", generation=3)
    word = Word(
        "h",
        me.pid,
        me.machine,
        me.started,
        id="1",
        generation=3,
        endpoints=(Endpoint("GET", "/x", "f"),),
        failed=4,
        error={"phase": "load", "message": "no", "file": None, "line": None},
    )
    board.write(word)
    assert board.read() == word
    row = ServedRow("1", "x", 3, "active", None)
    later = ServedRow("1", "x", 4, "active", None)
    assert word.serves(row)
    assert not word.serves(later)
    assert not word.serves(ServedRow("2", "x", 3, "active", None))
    assert word.failed_with(later) == word.error
    assert word.failed_with(row) is None
    board.write(Word("h", me.pid, me.machine, (me.started or 0) + 1, id="1", generation=3))
    assert (board.read() is None) == (me.machine is not None)
    (tmp_path / "word").write_text('{"other": 1}')
    assert board.read() is None


# --- one after the other --------------------------------------------------------------------


def loaded(name: str = "sample") -> LoadedPlugin:
    make = make_context_factory(Path("/nowhere"), lambda _: no_database)
    return load(artifact_of({"main.py": plugin_text()}, name), make, tried=True)


def test_a_load_waits_for_the_end_of_the_one_before(tmp_path: Path) -> None:
    hand_over = HandOver("sample", Board(tmp_path / "word"), 30.0)
    end, begun = threading.Event(), threading.Event()
    hand_over.leave([end])
    plugin = loaded()
    row = ServedRow("1", "sample", 2, "active", None)

    def begin(_: ServedRow) -> LoadedPlugin:
        assert end.is_set()
        begun.set()
        return plugin

    thread = threading.Thread(target=hand_over.load, args=(row, begin, lambda: True))
    thread.start()
    assert not begun.wait(0.1)
    end.set()
    assert begun.wait(5.0)
    thread.join()
    plugin.dispose()


def test_what_was_loaded_for_nobody_is_cleaned_up_once(tmp_path: Path) -> None:
    hand_over = HandOver("sample", Board(tmp_path / "word"), 1.0)
    row = ServedRow("1", "sample", 2, "active", None)
    plugin = hand_over.load(row, lambda _: loaded(), lambda: True)
    hand_over.claim(plugin)
    assert not hand_over.give_up(plugin)  # it was served: it is retired as any other
    plugin.dispose()
    plugin = hand_over.load(row, lambda _: loaded(), lambda: True)
    assert hand_over.give_up(plugin)
    assert plugin.context.cancelled.is_set()


def test_what_is_in_use_is_waited_for(tmp_path: Path) -> None:
    hand_over = HandOver("sample", Board(tmp_path / "word"), 30.0)
    tries = []

    def begin(_: ServedRow) -> LoadedPlugin:
        tries.append(1)
        if len(tries) < 3:
            raise LoadError("sample", "in use", in_use=True)
        return loaded()

    row = ServedRow("1", "sample", 2, "active", None)
    hand_over.load(row, begin, lambda: True).dispose()
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(LoadError):
        hand_over.load(row, begin, lambda: False)
    assert len(tries) == 1


# --- who has it -----------------------------------------------------------------------------


def test_an_error_says_in_use_by_its_number_or_its_causes() -> None:
    assert is_in_use(OSError(errno.EADDRINUSE, "x"))
    assert is_in_use(BlockingIOError(errno.EAGAIN, "x"))
    assert is_in_use(OSError(errno.EBUSY, "x"))
    assert not is_in_use(OSError(errno.ENOENT, "x"))
    wrapped = RuntimeError("x")
    wrapped.__cause__ = OSError(errno.EADDRINUSE, "x")
    assert is_in_use(wrapped)


def test_sqlite_says_in_use_by_its_code(tmp_path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "file")) as held,
        contextlib.closing(sqlite3.connect(tmp_path / "file", timeout=0)) as other,
    ):
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as locked:
            other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as wrong:
            other.execute("BEGUN")
    assert is_in_use(locked.value)
    assert not is_in_use(wrong.value)


BINDS = """
    import socket
    self.socket = socket.socket()
    self.socket.bind(("127.0.0.1", PORT))
"""


def fault_of(text: str) -> LoadError:
    make = make_context_factory(Path("/nowhere"), lambda _: no_database)
    with pytest.raises(LoadError) as caught:
        load(artifact_of({"main.py": text}), make)
    gc.collect()  # what it has opened is closed now, with a warning that is not the next test's
    return caught.value


ignores_warnings = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@ignores_warnings
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has it")
def test_the_holder_of_a_port_is_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        body = textwrap.dedent(BINDS.replace("PORT", str(port)))
        error = fault_of(plugin_text(initialize=body))
    assert error.in_use
    assert error.holder == os.getpid()
    assert f"port {port} is held by pid {os.getpid()}" in error.message


@ignores_warnings
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has it")
def test_the_holder_of_a_lock_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        body = (
            f"import fcntl\nself.file = open({str(path)!r}, 'a')\n"
            "fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        error = fault_of(plugin_text(initialize=body))
    assert error.in_use
    assert error.holder == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has it")
def test_what_an_error_names_in_its_own_words_has_its_holder(tmp_path: Path) -> None:
    lock, pid_file, opened = tmp_path / "lock", tmp_path / "one.pid", tmp_path / "opened"
    pid_file.write_text(f"{os.getpid()}\n")
    with socket.socket() as held, lock.open("w") as locked, opened.open("w"):
        held.bind(("127.0.0.1", 0))
        held.listen()
        fcntl.flock(locked, fcntl.LOCK_EX)
        for error in (
            RuntimeError(f"Failed to bind to address 127.0.0.1:{held.getsockname()[1]}; no luck"),
            TimeoutError(f"The file lock '{lock}' could not be acquired."),
            OSError(f'Could not set lock on file "{lock}": see the manual'),
            FileExistsError(errno.EEXIST, "File exists", str(pid_file)),
            FileExistsError(errno.EEXIST, "File exists", str(opened)),
        ):
            assert not is_in_use(error)
            holder = find_named_holder(error)
            assert holder is not None, error
            assert holder.pid == os.getpid()
        for other in (
            RuntimeError("Failed to bind to address 127.0.0.1:1"),
            ValueError(f"{tmp_path} is a folder"),
            ValueError(f"'{opened}' is empty"),
            KeyError("host"),
        ):
            assert find_named_holder(other) is None


def test_a_trial_goes_on_where_an_exclusive_plugin_finds_its_port_in_use() -> None:
    runner = TrialRunner(None)
    try:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            port = str(held.getsockname()[1])
            body = textwrap.dedent(BINDS.replace("PORT", port))
            files = {"main.py": plugin_text(initialize=body)}
            _, report = runner.run(source_of(files, exclusive="host"))
            assert report.in_use is not None
            assert report.endpoints
            assert not report.partial
            at_import = {"main.py": plugin_text(top=body.replace("self.socket", "SOCKET"))}
            _, report = runner.run(source_of(at_import, exclusive="host"))
            assert report.in_use is not None
            assert report.partial
            with pytest.raises(LoadError, match="exclusive: host") as caught:
                runner.run(source_of(files))
            assert caught.value.in_use
    finally:
        runner.close()
