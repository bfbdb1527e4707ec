"""Processes that plugins start: they are whole ones, and none of them outlives its worker."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cases import add_case
from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

# Each is the body of a function that starts a process, which writes its id into `file` and goes on.
SAY = "open(file, 'a').write(f'{os.getpid()}\\n')"
FOREVER = f"{SAY}\n        while True: time.sleep(1)"
STARTS = {
    "forks": f"""
    if os.fork() == 0:
        {FOREVER}
""",
    "ignores_sigterm": f"""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        {FOREVER}
""",
    "is_a_daemon": f"""
    if os.fork() == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        {FOREVER}
    os.wait()
""",
    "forks_in_c": f"""
    libc = ctypes.PyDLL(None)
    if libc.fork() == 0:
        os.setsid()
        {FOREVER}
""",
    "is_a_session": """
    program = f"import os; open({file!r}, 'a').write(f'{{os.getpid()}}\\\\n'); os.read(0, 1)"
    subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdin=subprocess.PIPE
    )
""",
    "is_a_process": f"""
    def work():
        {FOREVER}
    multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
""",
    "starts_others": f"""
    def work():
        os.setsid()
        for _ in range(2):
            os.fork()
        {FOREVER}
    multiprocessing.get_context("fork").Process(target=work).start()
""",
}


def starting(name: str, file: Path, *, at: str) -> str:
    """Return a plugin that starts a process `at` its "get" or its "initialize"."""
    imports = "import ctypes, multiprocessing, os, signal, subprocess, sys, time\n"
    start = f"def start(file):{STARTS[name]}\n"
    text = imports + start + source(name)
    begin = f"start({str(file)!r})"
    if at == "get":
        return text.replace("        return {", f"        {begin}\n        return {{")
    return text.replace("        pass\n", f"        if not context.trial: {begin}\n", 1)


def started(file: Path) -> list[int]:
    """Return the processes that have written themselves down."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def living(pids: list[int]) -> list[int]:
    """Return those that live."""
    return [
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def below(server: Server) -> list[psutil.Process]:
    """Return all that a server has started, PostgreSQL left aside."""
    assert server.process is not None
    return psutil.Process(server.process.pid).children(recursive=True)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of process ids; what is left of them is ended."""
    yield tmp_path
    for file in tmp_path.iterdir():
        for pid in living(started(file)):
            os.kill(pid, signal.SIGKILL)


def is_free(port: int) -> bool:
    """Tell whether a port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


@pytest.mark.parametrize("workers", ["2", pytest.param("4", marks=pytest.mark.soak)])
def test_a_pool_that_is_given_up_ends_at_once_and_so_does_the_server(
    make_server: MakeServer, workers: str
) -> None:
    server = make_server(WEB_CONCURRENCY=workers).start()
    add_case(server, "forks")
    server.wait_everywhere("/plugins/forks", lambda answer: answer.status == 200)
    wait_until(lambda: server.get("/forks").status == 200, "it is served")
    before = {process.pid for process in below(server)}
    for pid, answer in server.ask_all("/forks").items():
        assert answer.json["answer"] == "given up"
        assert answer.json["pid"] == pid
    began = time.monotonic()
    assert server.get("/forks").json["answer"] == "given up"
    assert time.monotonic() - began < 2.0
    assert {process.pid for process in below(server)} <= before, "no child is left"
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 6.0
    server.start()
    assert server.get("/forks").json["answer"] == "given up"


@pytest.mark.soak
@pytest.mark.parametrize("at", ["get", "initialize"])
@pytest.mark.parametrize("name", STARTS)
def test_what_a_plugin_starts_ends_with_its_worker(
    make_server: MakeServer, files: Path, name: str, at: str
) -> None:
    server, file = make_server().start(), files / name
    server.write(name, starting(name, file, at=at))
    server.wait_everywhere(f"/plugins/{name}", lambda answer: answer.status == 200)
    wait_until(lambda: server.get(f"/{name}").status == 200, "it is served", 20.0)
    server.ask_all(f"/{name}")
    expected = 8 if name == "starts_others" else 2
    pids = wait_until(lambda: len(p := started(file)) >= expected and p, "all have started")
    assert living(pids) == pids
    # One worker is ended, one is killed.
    first, second = sorted(server.workers())
    children = {w: set(children_of(w)) & set(pids) for w in (first, second)}
    assert all(children.values())
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: not living([*children[first]]), "what the ended one has started ends", 15.0)
    assert living([*children[second]]), "and nothing of the other one's"
    os.kill(second, signal.SIGKILL)
    wait_until(
        lambda: not living([*children[second]]), "what the killed one has started ends", 15.0
    )
    wait_until(lambda: len(server.ask_all("/whoami")) == 2, "two others are there", 20.0)
    # And the server.
    with contextlib.suppress(OSError):
        server.ask_all(f"/{name}")
    wait_until(lambda: living(started(file)), "others are started")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 6.0
    assert not living(started(file))
    assert is_free(server.port)
    server.start()
    assert server.get("/whoami").status == 200


def children_of(pid: int) -> list[int]:
    """Return all that descends from a process."""
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]
