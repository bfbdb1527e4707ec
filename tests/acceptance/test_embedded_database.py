"""The embedded PostgreSQL loses its processes: it comes back by itself, and edits follow."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.postgres.keeper import SUPERVISOR
from app.postgres.server import EmbeddedPostgres
from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

BACK_SECONDS = 2.0
PROGRAMS = Path(sys.executable).parent

ASKS = """
from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        self.database = context.database

    def get_metadata(self):
        return PluginMetadata(name="asks", version="1.0.0")

    def register_routes(self, server):
        server.get("/asks", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        with self.database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class, pg_sleep(0.02)")
            return {"count": cursor.fetchone()[0]}


def new_plugin():
    return Plugin()
"""


class Processes:
    """The processes of a server's embedded PostgreSQL."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data_dir = Path(server.environment["BENANA_DATA_DIR"])

    def supervisor(self) -> int:
        """The process id of the supervisor that the master has started, or 0."""
        assert self._server.process is not None
        master = self._server.process.pid
        for pid in children(master):
            if SUPERVISOR.encode() in command(pid):
                return pid
        return 0

    def postmaster(self) -> int:
        """The process id of the running PostgreSQL, or 0."""
        with contextlib.suppress(FileNotFoundError):
            text = (self._data_dir / "postgres" / "postmaster.pid").read_text()
            return int(text.partition("\n")[0] or 0)
        return 0

    def kill(self, *which: str) -> float:
        """Kill some of them; return the seconds until PostgreSQL answers again."""
        postmaster = self.postmaster()
        pids = {"supervisor": self.supervisor(), "postmaster": postmaster}
        assert all(pids.values())
        began = time.monotonic()
        for name in which:
            os.kill(pids[name], signal.SIGKILL)
        postgres = EmbeddedPostgres(self._data_dir)
        wait_until(
            lambda: self.postmaster() not in (0, postmaster) and postgres.answers(), "is back"
        )
        return time.monotonic() - began

    def all(self) -> set[int]:
        """The ids of all processes that a stop of the server must not leave behind."""
        assert self._server.process is not None
        # The master, its workers, their helpers and the supervisor have it in their environment.
        told = f"BENANA_DATA_DIR={self._data_dir}\0".encode()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                cluster = (process / "cwd").readlink() == self._data_dir / "postgres"
                if cluster or told in (process / "environ").read_bytes():
                    found.add(int(process.name))
        return found


def children(pid: int) -> list[int]:
    """Return the process ids of the children of all threads of a process."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, tasks.read_text().split())
    return found


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def asking(server: Server, threads: int = 3) -> Iterator[list[int]]:
    """Ask for `/asks` all the time; gives the statuses, oldest first."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.002):  # the server needs a core too
            statuses.append(server.get("/asks").status)

    running = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in running:
            thread.join()


def edit(server: Server, statuses: list[int], says: str) -> None:
    """Edit `home`; wait until every worker serves it, and all requests of `asks` succeed."""
    server.write("home", source("home", says))
    server.wait_says("home", says)
    seen = len(statuses)
    wait_until(lambda: statuses[-20:] == [200] * 20 and len(statuses) > seen, "plugins ask again")


@pytest.mark.soak
def test_it_needs_no_setting_and_comes_back_when_it_is_killed(make_server: MakeServer) -> None:
    server = make_server(database=False)
    server.write("asks", ASKS)
    server.start()
    # The listener connects beside the first requests.
    wait_until(lambda: server.get("/health/ready").json == {"status": "ready"}, "it is ready")
    server.write("home", source("home", "one"))
    server.wait_says("home", "one")
    found = subprocess.run(
        [str(PROGRAMS / "benana"), "psql", "-XAtc", "SELECT name FROM plugins ORDER BY name"],
        env={**os.environ, **server.environment, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["asks", "home", "whoami"]
    processes = Processes(server)
    with asking(server) as statuses:
        took = processes.kill("supervisor", "postmaster")
        edit(server, statuses, "two")
    print(f"\nback after {took:.2f} s")
    assert took < BACK_SECONDS
    assert set(statuses) <= {200, 500, 503}
    before = processes.all()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5.0
    assert not processes.all(), before
    server.start()
    server.wait_says("home", "two")


@pytest.mark.soak
@pytest.mark.parametrize("which", [("postmaster",), ("postmaster", "supervisor")], ids="+".join)
def test_whatever_is_killed_comes_back_again_and_again(
    make_server: MakeServer, which: tuple[str, ...]
) -> None:
    server = make_server(database=False)
    server.write("asks", ASKS)
    server.write("home", source("home", "one"))
    server.start()
    processes = Processes(server)
    with asking(server) as statuses:
        for turn in range(4):
            took = processes.kill(*which)
            print(f"\n{'+'.join(which)}: back after {took:.2f} s")
            assert took < BACK_SECONDS + (1.0 if turn else 0.0)  # the intervals rise to 1 s
            edit(server, statuses, f"turn {turn}")
    assert set(statuses) <= {200, 500, 503}
    assert server.log().count("supervisor is started again") <= 1
    if "supervisor" not in which:
        assert server.log().count("starting PostgreSQL again") == 1
    server.stop()
    assert not processes.all()


@pytest.mark.soak
def test_a_killed_supervisor_comes_back_after_hup_and_during_one(make_server: MakeServer) -> None:
    server = make_server(database=False)
    server.write("asks", ASKS)
    server.write("home", source("home", "one"))
    server.start()
    assert server.process is not None
    processes = Processes(server)
    with asking(server) as statuses:
        for turn in range(3):
            old = server.workers()
            server.process.send_signal(signal.SIGHUP)
            if turn:
                wait_until(lambda: server.workers() - old, "new workers are there")
            took = processes.kill("supervisor")
            print(f"\nback after {took:.2f} s")
            assert took < BACK_SECONDS
            wait_until(lambda: not server.workers() & old, "the old workers have gone", 40.0)
            edit(server, statuses, f"turn {turn}")
    server.stop()
    assert not processes.all()


@pytest.mark.soak
def test_each_of_two_masters_keeps_a_supervisor_of_its_own(make_server: MakeServer) -> None:
    """USR2: the new master's supervisor waits, and takes over from the old one's."""
    server = make_server(database=False)
    # After a start with `-m`, USR2 runs gunicorn's own folder first in sys.path.
    server.program = [str(PROGRAMS / "gunicorn")]
    server.write("asks", ASKS)
    server.write("home", source("home", "one"))
    server.start()
    old = server.process
    assert old is not None
    processes = Processes(server)
    old.send_signal(signal.SIGUSR2)

    def new_master() -> int:
        masters = [
            pid
            for pid in children(old.pid)
            if any(b"gunicorn" in command(child) for child in children(pid))
        ]
        return masters[0] if masters else 0

    new = wait_until(new_master, "the new master has workers", 20.0)
    took = processes.kill("supervisor")
    print(f"\nthe new master's took over after {took:.2f} s")
    assert took < BACK_SECONDS
    assert wait_until(processes.supervisor, "the old master's waits again")
    old.send_signal(signal.SIGTERM)
    old.wait(40.0)
    try:
        postgres = EmbeddedPostgres(Path(server.environment["BENANA_DATA_DIR"]))
        wait_until(postgres.answers, "the database runs without the old master")
        server.write("home", source("home", "two"))
        wait_until(
            lambda: all(server.get("/home").says == "two" for _ in range(10)), "the edit is served"
        )
    finally:
        os.kill(new, signal.SIGTERM)
    wait_until(lambda: not processes.all(), "nothing is left", 20.0)
