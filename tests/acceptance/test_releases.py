"""Releases: folders of their own behind a link `current`, followed by HUP and by USR2."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plugins import WHOAMI, source
from tests.support.server import Answer, MakeServer, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

FOLDERS = ("BENANA_PLUGINS_DIR", "BENANA_ARTIFACTS_DIR", "BENANA_DATA_DIR")


class Releases:
    """A server that is started in `current`, with the default folders."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.home = server.home
        self.current = server.home / "current"
        for variable in FOLDERS:
            del server.environment[variable]
        server.environment |= {"PWD": str(self.current), "PYTHONPATH": str(CHECKOUT)}
        server.folder = self.current
        # The script: what USR2 starts of `-m gunicorn` finds gunicorn's own `app` first.
        server.program = [str(Path(sys.executable).with_name("gunicorn"))]
        server.artifacts = self.home / "releases/1/bin/plugins"
        server.arguments = ["--pid", str(self.home / "pid")]
        self.older: list[int] = []

    def make(self, number: int, **plugins: str) -> None:
        """Write a release: what each plugin says."""
        folder = self.home / "releases" / str(number)
        for name, says in plugins.items():
            path = folder / "plugins" / name / "main.py"
            path.parent.mkdir(parents=True)
            path.write_text(source(name, says))
        (folder / "plugins/whoami").mkdir(parents=True)
        (folder / "plugins/whoami/main.py").write_text(WHOAMI)

    def use(self, number: int) -> None:
        """Let the link lead to a release, at once."""
        new = self.home / "new"
        new.symlink_to(self.home / "releases" / str(number))
        new.rename(self.current)
        self.server.plugins = self.home / "releases" / str(number) / "plugins"

    def start(self) -> None:
        shutil.rmtree(self.home / "plugins")
        self.use(1)
        self.server.start()

    @property
    def master(self) -> int:
        with contextlib.suppress(FileNotFoundError):  # the new one is about to take its name
            return int((self.home / "pid").read_text())
        return 0

    def hup(self) -> None:
        before = _children(self.master)
        os.kill(self.master, signal.SIGHUP)
        wait_until(
            lambda: _workers(self.master) and not _workers(self.master) & before,
            f"new workers\n{self.server.log()}",
            30.0,
        )

    def usr2(self) -> None:
        """Replace the master as gunicorn's manual says: USR2, and QUIT once the new one serves."""
        old, new = self.master, self.home / "pid.2"
        ready = self.server.log().count("Benana serves")
        os.kill(old, signal.SIGUSR2)
        wait_until(
            lambda: new.exists() and self.server.log().count("Benana serves") > ready,
            f"a new master\n{self.server.log()}",
            30.0,
        )
        master = int(new.read_text())
        wait_until(lambda: len(self._serving(master)) == 2, "its workers serve", 20.0)
        os.kill(old, signal.SIGTERM)
        wait_until(lambda: self.master == master, "it is alone", 40.0)

    def _serving(self, master: int) -> set[int]:
        with contextlib.suppress(OSError):
            answer = self.server.get("/whoami")
            if answer.status == 200 and answer.json["pid"] in _workers(master):
                self.older.append(answer.json["pid"])
        return set(self.older) & _workers(master)

    def says(self, **expected: str | None) -> None:
        """Wait until all of it is so on every connection for a while: the edits have settled."""
        for name, says in expected.items():
            status = 404 if says is None else 200

            def fits(answer: Answer, says: str | None = says, status: int = status) -> bool:
                return answer.status == status and (says is None or answer.says == says)

            wait_until(
                lambda n=name, f=fits: all(f(self.server.get(f"/{n}")) for _ in range(8)),
                f"{name} is {says}\n{self.server.log()}",
                10.0,
            )

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.master, signal.SIGTERM)
            wait_until(lambda: not (self.home / "pid").exists(), "it has ended", 40.0)


@pytest.fixture(params=["embedded", "external"])
def releases(make_server: MakeServer, request: pytest.FixtureRequest) -> Iterator[Releases]:
    made = Releases(make_server(database=request.param == "external"))
    made.make(1, kept="kept", edited="one", removed="one", rolled="one")
    made.make(2, kept="kept", edited="two", rolled="two", added="two")
    yield made
    made.stop()


@contextlib.contextmanager
def load(server: Server, path: str) -> Iterator[list[object]]:
    """Ask for a path without end, over new and over kept-alive connections; give what failed."""
    failed: list[object] = []
    over = threading.Event()
    answered: list[int] = [0]

    def ask_new() -> None:
        while not over.is_set():
            try:
                answer = server.get(path)
                answered[0] += 1
                if answer.status != 200:
                    failed.append(answer)
            except Exception as error:  # whatever a client sees
                failed.append(error)

    threads = [threading.Thread(target=ask_new) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert answered[0] > 100


@pytest.mark.parametrize("way", ["hup", "usr2"])
def test_a_release_and_its_rollback_are_followed_and_no_request_is_lost(
    releases: Releases, way: str
) -> None:
    server = releases.server
    releases.start()
    releases.says(kept="kept", edited="one", removed="one", rolled="one", added=None)
    generation = server.plugin("kept")["generation"]
    follow = getattr(releases, way)
    with load(server, "/kept") as failed:
        releases.use(2)
        follow()
        releases.says(kept="kept", edited="two", removed=None, rolled="two", added="two")
        # The embedded database goes over to the new master meanwhile.
        kept = wait_until(lambda: server.plugin("kept"), "the database answers", 30.0)
        assert kept["generation"] == generation, "what is the same is not loaded again"
        assert kept["source_path"] == str(releases.home / "releases/2/plugins/kept")
        server.write("edited", source("edited", "in place"))
        releases.says(edited="in place")
        releases.use(1)
        follow()
        releases.says(kept="kept", edited="one", removed="one", rolled="one", added=None)
    assert failed == []
    # The embedded database has just gone over to the new master.
    wait_until(lambda: server.get("/health/ready").json["status"] == "ready", "all is well", 30.0)
    assert not (releases.home / "releases/2/var").exists()
    assert not (releases.home / "releases/2/bin").exists()
    assert "Traceback" not in server.log()
    if way == "hup":
        assert "what the server keeps stays in" in server.log()


def test_usr2_after_hup_keeps_the_folders(releases: Releases) -> None:
    releases.start()
    releases.use(2)
    releases.hup()
    releases.says(edited="two", removed=None)
    releases.usr2()
    releases.says(kept="kept", edited="two", removed=None, added="two")
    assert not (releases.home / "releases/2/var").exists()


def test_a_start_with_fixed_folders_follows_the_release(make_server: MakeServer) -> None:
    """As the docs say to have it: what is kept lies outside; here the server is stopped between."""
    server = make_server()
    made = Releases(server)
    made.make(1, kept="kept", edited="one", removed="one")
    made.make(2, kept="kept", edited="two", added="two")
    server.artifacts = made.home / "archives"
    server.environment |= {
        "BENANA_ARTIFACTS_DIR": str(server.artifacts),
        "BENANA_DATA_DIR": str(made.home / "var"),
    }
    made.start()
    made.says(kept="kept", edited="one", removed="one")
    server.stop()
    made.use(2)
    server.start()
    made.says(kept="kept", edited="two", removed=None, added="two")
    server.stop()
    made.use(1)
    server.start()
    made.says(kept="kept", edited="one", removed="one", added=None)


def test_hup_follows_a_release_though_the_one_before_is_removed(make_server: MakeServer) -> None:
    """The server was started in that one, and gunicorn ended where it has no folder any more."""
    server = make_server()
    made = Releases(server)
    for number in (1, 2, 3):
        made.make(number, kept=f"release {number}")
    server.artifacts = made.home / "archives"
    server.environment |= {
        "BENANA_ARTIFACTS_DIR": str(server.artifacts),
        "BENANA_DATA_DIR": str(made.home / "var"),
    }
    made.start()
    made.says(kept="release 1")
    made.use(2)
    shutil.rmtree(made.home / "releases/1")
    made.hup()
    made.says(kept="release 2")
    shutil.rmtree(made.home / "releases/2")  # and nothing in its place yet
    os.kill(made.master, signal.SIGHUP)
    said = f"the server's folder {made.current} cannot be entered: No such file or directory"
    wait_until(lambda: said in server.log(), "the refusal", 20.0)
    made.says(kept="release 2")
    made.use(3)
    made.hup()
    made.says(kept="release 3")
    made.stop()


def test_a_release_without_any_plugin_unregisters_nothing(make_server: MakeServer) -> None:
    releases = Releases(make_server())
    releases.make(1, kept="kept")
    (releases.home / "releases/2/plugins").mkdir(parents=True)
    releases.start()
    releases.says(kept="kept")
    releases.use(2)
    releases.hup()
    releases.says(kept="kept")
    assert "is a disk not mounted" in releases.server.log()
    releases.stop()


def _children(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return {int(child) for child in tasks.split()}
    return set()


def _workers(pid: int) -> set[int]:
    return {child for child in _children(pid) if b"gunicorn" in _command(child)}


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


SLOW = source("slow", "slow").replace(
    "    def get(self):",
    """    def get(self):
        import pathlib, time
        pathlib.Path(f"GATE.{os.getpid()}").touch()
        while not pathlib.Path("GATE").exists():
            time.sleep(0.02)""",
)


def test_a_worker_that_ends_its_last_requests_watches_no_former_release(
    make_server: MakeServer,
) -> None:
    """It kept the lock of who watches, with the folders of the release before."""
    releases = Releases(make_server())
    gate = releases.home / "gate"
    for number, says in ((1, "one"), (2, "two")):
        releases.make(number, edited=says)
        path = releases.home / "releases" / str(number) / "plugins/slow/main.py"
        path.parent.mkdir(parents=True)
        path.write_text(SLOW.replace("GATE", str(gate)))
    # More threads than slow requests: until a worker hears of the HUP it accepts others.
    releases.server.arguments += ["--threads", "64"]
    releases.start()
    server = releases.server
    answers: list[Answer] = []
    asking: list[threading.Thread] = []
    before = _workers(releases.master)
    busy = [releases.home / f"gate.{pid}" for pid in before]

    def ask_one_more() -> bool:
        asking.append(threading.Thread(target=lambda: answers.append(server.get("/slow"))))
        asking[-1].start()
        return all(path.exists() for path in busy)

    try:
        wait_until(ask_one_more, "both workers are at it")
        releases.use(2)
        os.kill(releases.master, signal.SIGHUP)
        wait_until(lambda: server.get("/edited").says == "two", "the release is served")
        server.write("edited", source("edited", "three"))
        wait_until(lambda: server.get("/edited").says == "three", "its edits are, too", 5.0)
        assert before & _children(releases.master), "the former ones still end their requests"
    finally:
        gate.touch()
        for thread in asking:
            thread.join()
        releases.stop()
    assert [answer.says for answer in answers] == ["slow"] * len(asking)
