"""`gunicorn --user www-data` as root: the workers are another user than their master."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cases import add_case
from tests.support.checkout import CHECKOUT
from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

USER = "www-data"


def can_run() -> bool:
    """Tell whether the user can use this Python and this checkout."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    code = "import app.server, os, sys; sys.exit(not os.access(sys.executable, os.R_OK))"
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
    )
    return done.returncode == 0


pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        os.geteuid() != 0 or not can_run(),
        reason=f"it takes root, and a Python that {USER} can run",
    ),
]


@pytest.fixture
def server(make_server: MakeServer, postgres_tcp: Callable[[], str]) -> Server:
    server = make_server(database=False, DATABASE_URL=postgres_tcp())
    server.arguments = ["--user", USER, "--group", USER]
    return server


@pytest.fixture
def postgres_tcp(new_database: Callable[[], str]) -> Iterator[Callable[[], str]]:
    """A database that another user reaches, too: through a relay of ours."""
    relays: list[subprocess.Popen[bytes]] = []

    def make() -> str:
        url = new_database()
        command = [sys.executable, "-m", "tests.support.relay", url]
        relay = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT)
        relays.append(relay)
        assert relay.stdout is not None
        return relay.stdout.readline().decode().strip()

    yield make
    for relay in relays:
        relay.kill()
        relay.wait()
        assert relay.stdout is not None
        relay.stdout.close()


def owners(folder: Path) -> set[str]:
    return {path.owner() for path in (folder, *folder.rglob("*"))}


def test_it_serves_publishes_and_follows(server: Server) -> None:
    server.start()
    assert {Path(f"/proc/{pid}").owner() for pid in server.workers()} == {USER}
    server.write("mine", source("mine"))
    server.wait_says("mine", "one")
    server.write("mine", source("mine", "two"))
    server.wait_says("mine", "two")
    assert server.get("/health/ready").status == 200
    assert server.post("/plugins/mine/reload").status == 202  # root may
    assert owners(server.artifacts) == {USER}
    assert (server.home / "var").owner() == USER
    server.stop()
    assert "Traceback" not in server.log()
    server.write("mine", source("mine", "three"))
    server.start()
    assert server.get("/mine").says == "three"


def test_a_load_that_ends_its_worker_is_seen_by_the_workers(server: Server) -> None:
    server.write("ends", source("ends", "good"))
    server.start()
    server.wait_says("ends", "good")
    broken = source("ends", "bad").replace(
        "def initialize(self, context):\n        pass",
        "def initialize(self, context):\n        if not context.trial:\n            os._exit(7)",
    )
    server.write("ends", broken)
    wait_until(lambda: "it is not loaded again" in server.log(), "it is noted", 20.0)
    server.wait_says("ends", "good", 20.0)
    assert owners(server.artifacts) == {USER}


def test_folders_of_an_earlier_start_by_root_are_refused_with_what_to_do(server: Server) -> None:
    arguments, server.arguments = server.arguments, []
    server.start()
    server.stop()
    server.arguments = arguments
    said = server.refused()
    advice = f"chown -R {USER} {server.artifacts}"
    assert advice in said
    for folder in (server.artifacts, server.home / "var"):
        subprocess.run(["chown", "-R", USER, folder], check=True)
    server.start()
    server.wait_says("whoami", "I am")


def test_plugins_that_the_user_cannot_read_are_refused(server: Server) -> None:
    server.plugins.chmod(0o700)
    assert f"{USER} cannot read {server.plugins}" in server.refused()


def test_the_embedded_database_is_refused_with_what_to_do(make_server: MakeServer) -> None:
    server = make_server(database=False)
    server.arguments = ["--user", USER]
    said = server.refused()
    assert f"runuser -u {USER}" in said
    assert "DATABASE_URL" in said
    assert not (server.home / "var").exists()


def test_the_embedded_database_of_a_server_that_is_that_user_works(make_server: MakeServer) -> None:
    """What the refusal says to do."""
    server = make_server(database=False)
    server.write("mine", source("mine"))
    subprocess.run(["chown", "-R", USER, server.home], check=True)
    server.program = ["runuser", "-u", USER, "--", *server.program]
    server.start(wait=False)

    def answers() -> bool:
        try:
            return server.get("/mine").status == 200
        except OSError:
            return False

    wait_until(answers, "it serves", 30.0)


def test_what_a_plugin_starts_ends_with_its_worker_and_with_the_server(server: Server) -> None:
    server.start()
    add_case(server, "forks")
    wait_until(lambda: server.get("/forks").status == 200, "it is served")
    assert server.get("/forks").json["answer"] == "given up"
    file = server.home / "var" / "started"
    daemon = (
        f"if not context.trial and os.fork() == 0:\n            os.setsid()\n"
        f"            open({str(file)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "            import time; time.sleep(600)"
    )
    server.write("daemons", source("daemons").replace("        pass\n", f"        {daemon}\n", 1))
    pids = wait_until(lambda: file.exists() and len(p := file.read_text().split()) == 2 and p)
    killed = min(server.workers())
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: sum(map(_lives, pids)) == 1, "the killed worker's ends")
    server.stop()
    assert not any(map(_lives, file.read_text().split()))
    server.start()


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_that_may_not_signal_their_master_are_replaced(server: Server) -> None:
    server.start()
    server.write("one", "reload: fresh\n", "plugin.yaml")
    server.write("one", source("one", "first"))
    server.wait_says("one", "first", 20.0)
    before = server.workers()
    server.write("one", source("one", "second"))
    wait_until(
        lambda: {server.get("/one").says for _ in range(12)} == {"second"}, "it is served", 20.0
    )
    wait_until(lambda: not server.workers() & before and len(server.workers()) == 2, "two fresh")
