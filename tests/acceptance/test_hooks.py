"""Benana under gunicorn as people start it: `--preload`, and configuration files of their own."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.configuration import status, with_file
from tests.support.plugins import source
from tests.support.requester import Requester, counting
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

IMPORT = "from app.hooks import *\n"


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hup(server: Server) -> None:
    assert server.process is not None
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: server.workers() and not server.workers() & before, "there are new workers", 20.0
    )


# --- preload ---------------------------------------------------------------------------------


def assert_apart(server: Server) -> None:
    """Each worker has an id of its own, and none of them works while nothing happens."""
    pids = server.workers()
    rows = wait_until(
        lambda: (
            (found := server.get("/workers").json)
            and {row["pid"] for row in found} >= pids
            and [row for row in found if row["pid"] in pids]
        ),
        "all are on the list",
    )
    assert len({row["id"] for row in rows}) == len(pids)
    before = {pid: processor_seconds(pid) for pid in pids}
    seconds = 1.0
    time.sleep(seconds)  # what is measured is this time
    used = {pid: processor_seconds(pid) - before[pid] for pid in pids}
    assert max(used.values()) < 0.5 * seconds, f"one spins: {used}"


@pytest.mark.soak
@pytest.mark.parametrize("worker", ["", "-k gthread"])
def test_preloaded_workers_share_nothing(make_server: MakeServer, worker: str) -> None:
    server = make_server(WEB_CONCURRENCY="3")
    server.arguments = ["--preload", *worker.split()]
    server.start()
    assert_apart(server)
    ended = min(server.workers())
    os.kill(ended, signal.SIGTERM)
    wait_until(lambda: ended not in server.workers() and len(server.workers()) == 3, "a new one")
    assert_apart(server)
    hup(server)
    wait_until(lambda: len(server.workers()) == 3, "all are replaced", 20.0)
    assert_apart(server)
    server.write("whoami", source("whoami", "edited"))
    server.wait_says("whoami", "edited")


# --- a configuration file of one's own -----------------------------------------------------


@pytest.mark.soak
def test_one_line_brings_benana_into_any_configuration_file(make_server: MakeServer) -> None:
    server = with_file(make_server(), f"import os\n{IMPORT}threads = 3\nworkers = 2\n")
    assert server.get("/whoami").status == 200
    server.write("mine", source("mine"))
    server.wait_says("mine", "one")
    server.stop()
    assert server.process is not None
    assert server.process.returncode == 0
    assert "Traceback" not in server.log()


@pytest.mark.soak
def test_one_line_brings_the_embedded_database_along(make_server: MakeServer) -> None:
    server = with_file(make_server(database=False), f"{IMPORT}workers = 2\n")
    server.wait_says("whoami", "I am", 10.0)


@pytest.mark.soak
def test_missing_hooks_are_named_until_they_are_there(make_server: MakeServer) -> None:
    server = with_file(make_server(), "workers = 2\nthreads = 2\n")
    for path in ("/whoami", "/health/ready", "/health/live", "/plugins"):
        answer = server.get(path)
        assert answer.status == 503
        assert "from app.hooks import *" in answer.json["detail"]
        for name in ("on_starting", "post_worker_init", "worker_exit", "on_exit"):
            assert f"{name} (missing)" in answer.json["detail"]
    said = "hooks of Benana are not called"
    wait_until(lambda: server.log().count(said) == 2, "each worker says so, once")
    server.config.write_text(f"{IMPORT}workers = 2\nthreads = 2\n")
    hup(server)
    wait_until(lambda: status(server, "/whoami") == 200, "it serves", 20.0)
    server.write("mine", source("mine"))
    server.wait_says("mine", "one")
    server.stop()


OVERWRITTEN = {
    "on_exit": "def on_exit(server): pass\n",
    "post_worker_init": "def post_worker_init(worker): print('mine')\n",
    "on_starting": "on_starting = lambda server: None\n",
}


@pytest.mark.soak
@pytest.mark.parametrize("preload", ["", "preload_app = True\n"])
@pytest.mark.parametrize("name", OVERWRITTEN)
def test_a_hook_that_is_overwritten_is_named_until_it_is_not(
    make_server: MakeServer, name: str, preload: str
) -> None:
    mended = f"{IMPORT}{preload}workers = 1\nthreads = 2\n"
    server = with_file(make_server(WEB_CONCURRENCY="1"), mended + OVERWRITTEN[name])
    detail = server.get("/whoami").json["detail"]
    assert f"{name} (overwritten by {server.config}:" in detail
    assert detail.count("(overwritten") == 1
    assert "(missing)" not in detail
    assert f"{name} (overwritten by" in server.log()
    server.config.write_text(mended)
    hup(server)
    wait_until(lambda: status(server, "/whoami") == 200, "it serves", 20.0)


@pytest.mark.soak
def test_hooks_of_ones_own_beside_ours_are_called(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="1")
    text = f"""
import functools
from app import hooks
{IMPORT}

@functools.wraps(hooks.post_worker_init)
def post_worker_init(worker):
    hooks.post_worker_init(worker)
    worker.log.info("mine was called")

def post_fork(server, worker):
    worker.log.info("one that is none of ours")

workers, threads, wsgi_app = 1, 2, "wrapped:application"
"""
    (server.home / "wrapped.py").write_text(
        "from app.wsgi import application as served\n"
        "def application(env, start_response):\n"
        "    return served(env, lambda s, h, *e: start_response(s, [*h, ('X-Mine', '1')], *e))\n"
    )
    with_file(server, text, "--pythonpath", str(server.home))
    answer = server.get("/whoami")
    assert (answer.status, answer.headers["x-mine"]) == (200, "1"), "and a middleware is kept"
    assert "mine was called" in server.log()
    assert "one that is none of ours" in server.log()


@pytest.mark.soak
def test_the_shipped_file_is_no_other_than_that_line(make_server: MakeServer) -> None:
    text = (CHECKOUT / "gunicorn.conf.py").read_text()
    assert "from app.hooks import *" in text
    assert "def " not in text


# --- a configuration that cannot be used -----------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(
    "broken",
    [
        "def post_fork(server, worker): raise RuntimeError('no')\n",
        "def post_fork(server, worker): import os; os._exit(3)\n",
        "raw_env = ['BENANA_MAX_LEAKED_GENERATIONS=many']\n",
    ],
    ids=["raises", "exits", "setting"],
)
def test_at_a_hup_whose_workers_cannot_boot_those_before_serve_on(
    make_server: MakeServer, broken: str
) -> None:
    good = f"{IMPORT}workers = 2\n"
    server = with_file(make_server(), good)
    server.write("steady", counting("steady", 1))
    server.wait_everywhere("/steady", lambda answer: answer.status == 200)
    before = server.workers()
    server.config.write_text(f"{good}{broken}")
    assert server.process is not None
    with Requester(server, "steady", threads=2) as kept:
        server.process.send_signal(signal.SIGHUP)
        said = "times in a row; the next start in"
        wait_until(lambda: said in server.log(), "it is said")
        assert before <= server.workers()
        server.write("edited", source("edited"))
        server.wait_says("edited", "one")
        server.config.write_text(good)
        hup(server)
    kept.assert_flawless()
    wait_until(lambda: len(server.workers()) == 2, "as many as wanted")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("workers = (2\n", "SyntaxError: '(' was never closed"),
        pytest.param("workers = 1 / 0\n", "ZeroDivisionError", marks=pytest.mark.soak),
        pytest.param(
            "workers = 'many'\n",
            "Invalid value for workers: many; ValueError",
            marks=pytest.mark.soak,
        ),
        pytest.param("import nowhere\n", "ModuleNotFoundError", marks=pytest.mark.soak),
        pytest.param("raise SystemExit(3)\n", "it ends the process", marks=pytest.mark.soak),
        pytest.param("worker_class = 'nowhere.Worker'\n", "nowhere", marks=pytest.mark.soak),
        pytest.param("bind = '127.0.0.1:{busy}'\n", "is in use", marks=pytest.mark.soak),
        pytest.param("wsgi_app = 'nosuch:app'\n", "no module 'nosuch'", marks=pytest.mark.soak),
        pytest.param(
            "certfile = keyfile = '/nowhere.pem'\n", "/nowhere.pem", marks=pytest.mark.soak
        ),
        pytest.param("raise KeyboardInterrupt\n", "KeyboardInterrupt", marks=pytest.mark.soak),
        pytest.param("chdir = '/nowhere'\n", "/nowhere", marks=pytest.mark.soak),
        pytest.param(
            "def post_worker_init(worker): pass\n",
            "post_worker_init (overwritten by",
            marks=pytest.mark.soak,
        ),
        pytest.param(None, "doesn't exist", marks=pytest.mark.soak),
    ],
)
def test_a_hup_with_a_broken_configuration_changes_nothing(
    make_server: MakeServer, broken: str | None, said: str
) -> None:
    """gunicorn itself ends then, and all its workers."""
    server = make_server()
    server.config = server.home / "mine.py"
    good = (
        f"{IMPORT}workers = 2\nraw_env = ['OURS=1']\n"
        f"bind = '127.0.0.1:{server.port}'\nwsgi_app = 'app.wsgi:application'\n"
    )
    server.config.write_text(good)
    server.start()
    before = wait_until(lambda: len(found := server.workers()) == 2 and found, "both serve")
    with socket.create_server(("127.0.0.1", 0)) as other:
        if broken is None:
            server.config.unlink()
        else:
            busy = other.getsockname()[1]
            server.config.write_text(f"{good}{broken.format(busy=busy)}")
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "HUP changes nothing" in server.log(), "it is said")
        (line,) = [x for x in server.log().splitlines() if "HUP changes nothing" in x]
        assert said in line
        assert server.workers() == before
        # Who comes after it boots as before: gunicorn had forgotten which application.
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: killed not in (found := server.workers()) and len(found) == 2, "a new one"
        )
        server.write("edited", source("edited"))
        server.wait_says("edited", "one")
    server.config.write_text(good)
    hup(server)
    assert server.get("/edited").says == "one"
