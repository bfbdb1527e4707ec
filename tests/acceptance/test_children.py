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

from app.descendants import look_up
from tests.support.cases import add_case
from tests.support.configuration import with_file
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
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        {FOREVER}
    os.waitpid(child, 0)
""",
    "forks_in_c": f"""
    # Without Python's own hook the child would wait for ever for a thread that is not there, once
    # one had asked for the interpreter before the fork. So none asks.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    time.sleep(0.02)
    libc = ctypes.PyDLL(None)
    if libc.fork() == 0:
        os.setsid()
        {FOREVER}
    sys.setswitchinterval(interval)
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
    found = [look_up(pid) for pid in pids]
    return [process.pid for process in found if process is not None and not process.ended]


def all_started(server: Server, file: Path) -> list[int]:
    """Wait until each worker has one of the processes; return them."""

    def look() -> list[int] | None:
        pids = {pid: {*children_of(pid)} & {*started(file)} for pid in server.workers()}
        everywhere = len(pids) == 2 and all(pids.values())
        return started(file) if everywhere else None

    return wait_until(look, f"all have started, see {server.log_file}", 30.0)


def below(server: Server) -> list[psutil.Process]:
    """Return all that a server has started, PostgreSQL and trials left aside.

    The process of the next trial is made ahead, some time after the last one.
    """
    assert server.process is not None
    found = psutil.Process(server.process.pid).children(recursive=True)
    trials = [
        process.pid for process in found if "app.publishing.trials.trial_server" in command(process)
    ]
    for pid in [*trials]:
        trials += children_of(pid)
    return [process for process in found if process.pid not in trials]


def command(process: psutil.Process) -> list[str]:
    """Return a process's command line, none of one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


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


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["2", "4"])
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
    wait_until(lambda: len(started(file)) >= expected, "all have started")
    pids = all_started(server, file)
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
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    return []


MINE = """
import subprocess, sys
from app.hooks import *

started = []

def pre_fork(server, worker):
    if not started:
        program = f"import os, time; open({file!r}, 'w').write(f'{{os.getpid()}}'); time.sleep(600)"
        started.append(subprocess.Popen([sys.executable, "-c", program]))

workers, threads = 2, 2
"""


@pytest.mark.soak
@pytest.mark.parametrize("preload", ["", "preload_app = True\n"])
def test_with_a_configuration_file_of_ones_own_what_its_hooks_start_is_spared(
    make_server: MakeServer, files: Path, preload: str
) -> None:
    server, file, own = make_server(), files / "forks_in_c", files / "own"
    with_file(server, f"file = {str(own)!r}\n{MINE}{preload}")
    (sidecar,) = wait_until(lambda: started(own), "the operator's process runs")
    server.write("forks_in_c", starting("forks_in_c", file, at="initialize"))
    pids = all_started(server, file)
    killed = min(server.workers())
    child = (set(children_of(killed)) & set(pids)).pop()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not living([child]), "what it has started ends")
    wait_until(lambda: len(server.workers()) == 2 and killed not in server.workers(), "a new one")
    assert living([sidecar])
    server.stop()
    assert not living(started(file))
    assert is_free(server.port)
    assert living([sidecar]), "its end is the operator's affair"


COMES_BACK = """
        pid = os.fork()
        if pid == 0:
            {child}
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return {{"says": ended, "pid": os.getpid()}}
"""
STREAMS_BACK = """
        yield b"one"
        pid = os.fork()
        if pid == 0:
            {child}
        yield f" {{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}}".encode()
"""
MIDDLEWARE = """
        class Middleware:
            def process_response(self, req, resp, resource, req_succeeded): pass
        server.add_middleware(Middleware())
"""
BACK = {
    "returns": (COMES_BACK, "return {'says': 'the child'}", 0),
    "exits": (COMES_BACK, "sys.exit(7)", 7),
    "raises": (COMES_BACK, "raise ValueError('the child')", 1),
    "streams": (STREAMS_BACK, "return", 0),
    "goes_on": (STREAMS_BACK, "pid = 0; yield b'to nobody'; return", 0),
}


@pytest.mark.soak
@pytest.mark.parametrize("own_app", [False, True])
def test_a_forked_child_that_comes_back_from_its_handler_ends(
    make_server: MakeServer, own_app: bool
) -> None:
    server = make_server()
    for name, (body, child, _) in BACK.items():
        text = source(name).replace("import os\n", "import os, sys\n").split("        return {")[0]
        if own_app:
            text = text.replace("routes(self, server):\n", f"routes(self, server):{MIDDLEWARE}")
        body = body.format(child=child)
        server.write(name, f"{text}{body}\ndef new_plugin():\n    return Plugin()\n")
    server.start()
    for name in BACK:
        wait_until(lambda name=name: server.get(f"/{name}").status == 200, f"{name} is served")
    before = {worker: set(children_of(worker)) for worker in server.workers()}
    for _ in range(3):
        for name, (body, _, code) in BACK.items():
            answer = server.get(f"/{name}")
            if body is COMES_BACK:
                assert answer.json["says"] == code
            else:
                assert answer.body == f"one {code}".encode()
    assert server.workers() == before.keys()
    assert "Socket error" not in server.log()
    for worker, children in before.items():
        wait_until(lambda worker=worker, known=children: set(children_of(worker)) <= known, "gone")
    server.stop()


CLEANUP = "cleanup(self, context): self.get(not context.trial)"  # it does not return either


@pytest.mark.soak
@pytest.mark.parametrize("name", ["is_a_session", "forks", "starts_others"])
def test_a_stop_that_has_to_kill_a_worker_leaves_nothing_of_what_it_started(
    make_server: MakeServer, files: Path, name: str
) -> None:
    server, file, hung = make_server(), files / name, files / "hung"
    server.arguments = ["--graceful-timeout", "1"]
    server.start()
    server.write(name, starting(name, file, at="initialize"))
    pids = all_started(server, file)
    hang = f"open({str(hung)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(1000)"
    text = source("hangs").replace("import os\n", "import os, time\n")
    text = text.replace("get(self):", f"get(self, hang: bool = False):\n        if hang: {hang}")
    text = text.replace("cleanup(self, context):\n        pass", CLEANUP)
    server.write("hangs", text)
    server.wait_says("hangs", "one")
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", "/hangs?hang=true")
        (worker,) = wait_until(lambda: started(hung), f"it hangs, see {server.log_file}")
        left = set(children_of(worker)) & set(pids)
        assert left
        server.stop()
        assert not living([worker, *pids])
    said = f"Worker (pid:{worker}) ended (SIGKILL) while it answered: hangs g1 /hangs"
    assert said in server.log()
    assert is_free(server.port)


@pytest.mark.soak
def test_a_killed_master_leaves_neither_children_nor_a_busy_port(
    make_server: MakeServer, files: Path
) -> None:
    server, file = make_server().start(), files / "is_a_daemon"
    server.write("is_a_daemon", starting("is_a_daemon", file, at="initialize"))
    pids = all_started(server, file)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not living(pids), "they end with their workers", 15.0)
    assert is_free(server.port)
    server.start()


@pytest.mark.soak
def test_a_daemons_end_leaves_nothing_in_the_process_table(
    make_server: MakeServer, files: Path
) -> None:
    server = make_server(WEB_CONCURRENCY="1").start()
    text = "import os\n" + source("short")
    short = """
        child = os.fork()
        if child == 0:
            os.setsid()
            os.fork()  # both end: one of them is nobody's then
            os._exit(0)
        os.waitpid(child, 0)
"""
    server.write("short", text.replace("        return {", f"{short}        return {{"))
    server.wait_says("short", "one")
    for _ in range(20):
        assert server.get("/short").status == 200
    (worker,) = server.workers()
    wait_until(lambda: not children_of(worker) or _only_trials(worker), "they are gone")


def _only_trials(worker: int) -> bool:
    found = psutil.Process(worker).children(recursive=True)
    try:
        return all(p.status() != psutil.STATUS_ZOMBIE for p in found)
    except psutil.NoSuchProcess:  # one has gone meanwhile: look again
        return False
