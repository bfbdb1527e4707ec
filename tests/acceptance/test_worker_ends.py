"""However a plugin ends its worker, the server goes on, and says who it was."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support.plugins import source
from tests.support.server import MakeServer, Server, ask
from tests.support.waiting import wait_until
from tests.support.worker_ends import all_up, ending_at_load, error_of, kept

ENDS = {
    "exits_3": ("import os; os._exit(3)", "exit code 3"),
    "exits_4": ("import os; os._exit(4)", "exit code 4"),
    "exits_0": ("import os; os._exit(0)", "exit code 0"),
    "exits_in_c": ("import ctypes; ctypes.CDLL(None)._exit(3)", "exit code 3"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "is_killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
}


def _long(names: Iterable[str], *default: str) -> list[Any]:
    """Leave all but a few for the long runs."""
    return [pytest.param(n, marks=[] if n in default else [pytest.mark.soak]) for n in names]


def ending(name: str, how: str, says: str = "ended") -> str:
    """Return a plugin whose handler ends its process."""
    return source(name, says).replace("    def get(self):", f"    def get(self):\n        {how}")


def status_of(server: Server, path: str) -> int | None:
    """Return the status of a GET, None where the connection is lost."""
    try:
        return server.get(path).status
    except OSError:
        return None


@pytest.mark.parametrize("name", _long(ENDS, "exits_3", "segfaults"))
def test_a_handler_that_ends_its_worker_costs_its_caller_and_is_named(
    server: Server, name: str
) -> None:
    how, said = ENDS[name]
    server.write(name, ending(name, how))
    wait_until(lambda: server.plugin(name), name)
    server.wait_everywhere("/whoami", lambda answer: answer.status == 200)
    wait_until(lambda: f"{name}: serving" in server.log(), "it is served")
    before = server.workers()
    wait_until(lambda: status_of(server, f"/{name}") is None, "a worker is ended")
    wait_until(lambda: all_up(server) and server.workers() != before, "another is started")
    assert server.process is not None
    assert server.process.poll() is None
    assert len(server.workers() & before) == 1
    line = next(line for line in server.log().splitlines() if f"{name} g1 /{name}" in line)
    assert f"ended ({said}) while it answered" in line


@pytest.mark.parametrize("name", _long(["exits_3", "exits_0", "segfaults"], "segfaults"))
def test_a_load_that_ends_its_worker_is_not_repeated_and_the_version_before_is_served(
    server: Server, name: str
) -> None:
    how, said = ENDS[name]
    plugin = f"load_{name}"
    server.write(plugin, source(plugin, "good"))
    server.wait_says(plugin, "good")
    before = server.workers()
    server.write(plugin, ending_at_load(plugin, how))
    error = wait_until(lambda: error_of(server, plugin), "the row says it", 20.0)
    assert "loading generation 2 ended the worker" in error["message"]
    assert said in error["message"]
    if name == "segfaults":
        assert (error["file"], error["line"]) == ("main.py", 10)
    wait_until(lambda: all_up(server), "all are up", 20.0)
    if name == "is_killed":  # it may have been killed by anybody: that costs one more
        assert server.workers() != before
    else:
        assert len(before - server.workers()) == 1, "one has loaded it, and the others have not"
    server.wait_says(plugin, "good")
    assert server.log().count(f"{plugin}: loading generation 2 ended a worker") <= 2
    server.write(plugin, source(plugin, "mended"))
    server.wait_says(plugin, "mended")
    assert server.plugin(plugin)["error"] is None


@pytest.mark.soak
def test_a_version_that_ends_its_workers_a_moment_after_its_load_is_not_loaded_again(
    server: Server,
) -> None:
    server.write("late", source("late", "good"))
    server.wait_says("late", "good")
    # Late enough for a heartbeat, with which it was noted as what this host serves.
    timer = "__import__('threading').Timer(2.5, os._exit, (5,)).start()"
    server.write("late", ending_at_load("late", timer))
    error = wait_until(lambda: error_of(server, "late"), "the row says it", 20.0)
    assert "(exit code 5, moments after it" in error["message"]
    wait_until(lambda: all_up(server), "all are up", 20.0)
    server.wait_says("late", "good", 10.0)
    server.write("late", source("late", "mended"))
    server.wait_says("late", "mended", 10.0)


def ends_later(name: str, seconds: float) -> str:
    timer = f"__import__('threading').Timer({seconds}, os._exit, (9,)).start()"
    return ending_at_load(name, timer)


@pytest.mark.soak
@pytest.mark.parametrize("mended_after", [0.0, 1.0])
def test_a_mend_of_what_ends_its_workers_later_is_not_blamed(
    server: Server, mended_after: float
) -> None:
    """The good version was refused, and the workers loaded the bad one again, without end."""
    name = f"mended{int(mended_after)}"
    server.write(name, source(name, "good"))
    server.wait_says(name, "good")
    wait_until(lambda: kept(server, name) == 1, "it is what counts", 15.0)
    before = server.workers()
    server.write(name, ends_later(name, 2.0))
    server.wait_says(name, "ended")
    time.sleep(mended_after)  # what is measured is this time
    server.write(name, source(name, "mended"))
    server.wait_says(name, "mended")
    wait_until(lambda: not server.workers() & before, "all are ended by it", 10.0)
    wait_until(lambda: all_up(server), "all are up", 20.0)
    after = server.workers()
    server.wait_says(name, "mended", 10.0)
    time.sleep(6.0)  # nothing happens in that time
    assert server.workers() == after
    assert server.get(f"/{name}").says == "mended"
    assert error_of(server, name) is None


@pytest.mark.soak
def test_of_two_plugins_the_one_that_ends_the_workers_is_found(server: Server) -> None:
    """The one that was loaded last was blamed, and the other ended the workers for ever."""
    for name in ("guilty", "innocent"):
        server.write(name, source(name, "good"))
        server.wait_says(name, "good")
    wait_until(lambda: kept(server, "guilty") == kept(server, "innocent") == 1, "both count", 15.0)
    server.write("guilty", ends_later("guilty", 3.0))
    server.wait_says("guilty", "ended")
    time.sleep(1.5)  # what tells them apart is how long after its load each time
    server.write("innocent", source("innocent", "edited"))
    server.wait_says("innocent", "edited")
    wait_until(lambda: "generation 2" in str(error_of(server, "guilty")), "it is found", 30.0)
    wait_until(lambda: all_up(server), "all are up", 20.0)
    server.wait_says("guilty", "good", 10.0)
    server.wait_says("innocent", "edited", 10.0)
    assert error_of(server, "innocent") is None
    server.write("guilty", source("guilty", "mended"))
    server.wait_says("guilty", "mended", 10.0)


def test_a_cleanup_that_ends_its_worker_does_not_keep_the_next_version_away(
    server: Server,
) -> None:
    """Each good edit after it was refused, and said to have ended the workers."""
    text, quiet = source("leaves", "first"), "def cleanup(self, context):\n        pass"
    assert quiet in text
    ends = quiet.replace("pass", "context.trial or __import__('os').abort()")
    server.write("leaves", text.replace(quiet, ends))
    server.wait_says("leaves", "first")
    server.write("leaves", source("leaves", "second"))
    said = "leaves: a worker ended (SIGABRT) while generation 1 was cleaned up in it"
    wait_until(lambda: server.log().count(said) == 2, "both are ended by it", 20.0)
    wait_until(lambda: all_up(server), "all are up", 20.0)
    server.wait_says("leaves", "second", 10.0)
    assert error_of(server, "leaves") is None
    server.write("leaves", source("leaves", "third"))
    server.wait_says("leaves", "third")


@pytest.mark.soak
def test_a_first_version_that_ends_each_worker_leaves_the_server_starting(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(WEB_CONCURRENCY="2")
    server.write("boom", ending_at_load("boom", "os._exit(3)"))
    server.write("good", source("good", "good"))
    server.start(wait=False)
    wait_until(lambda: all_up(server), "the server is up", 30.0)
    server.wait_says("good", "good")
    server.kill()
    server.start()
    server.wait_says("good", "good")
    server.write("boom", source("boom", "mended"))
    server.wait_says("boom", "mended")


def test_the_port_of_a_killed_master_is_free_at_once_and_the_request_ends(
    make_server: Callable[..., Server],
) -> None:
    server = make_server().start()
    gate = server.home / "gate"
    waits = f"import time\n        while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    server.write("slow", ending("slow", waits, "whole"))
    server.wait_everywhere("/plugins/slow", lambda answer: answer.status == 200)
    wait_until(lambda: server.log().count("slow: serving") == 2, "each worker serves it")
    connection = server.connect()
    connection.request("GET", "/slow")
    assert server.process is not None
    orphans = server.workers()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    killed_at = time.monotonic()
    wait_until(lambda: _is_free(server.port), "the port is free", 3.0)
    assert time.monotonic() - killed_at < 2.0
    server.start()  # the next server, on the same port, while the request of the first runs
    gate.touch()
    response = connection.getresponse()
    assert (response.status, b"whole" in response.read()) == (200, True)
    connection.close()
    wait_until(lambda: not any(_lives(pid) for pid in orphans), "the orphans end", 15.0)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("wait", "cut_short"),
    [
        ("time.sleep(0.05)", False),
        ("time.sleep(0.05)", True),
        # It keeps the interpreter: no worker can note anything, and its master has to know.
        ("__import__('ctypes').PyDLL(None).sleep(60)", False),
    ],
)
def test_stops_while_what_a_load_needs_hangs_are_counted_against_no_plugin(
    make_server: MakeServer, wait: str, cut_short: bool
) -> None:
    """After two of them its host never loaded it again, though nothing was wrong with it.

    One is cut short where a supervisor kills all after a while, the master too: then nobody who
    knows better looks at what the workers have left.
    """
    server = make_server()
    server.arguments = ["--graceful-timeout", "60" if cut_short else "1"]
    down, waiting = server.home / "down", server.home / "waiting"
    hangs = (
        f"import os, time\n        if os.path.exists({str(down)!r}):\n"
        f"            open({str(waiting)!r} + str(os.getpid()), 'w').close()\n"
        f"        while os.path.exists({str(down)!r}): {wait}"
    )
    server.write(
        "needy", source("needy", "whole").replace("        pass\n", f"        {hangs}\n", 1)
    )
    server.start()
    server.stop()
    down.touch()
    for times in (1, 2, 3):
        server.start(wait=False)
        wait_until(lambda n=2 * times: len(list(server.home.glob("waiting*"))) == n, "both load it")
        assert server.process is not None
        if cut_short:
            server.process.send_signal(signal.SIGTERM)
            words = server.artifacts / ".loading"
            wait_until(
                lambda words=words: sum(p.stat().st_size > 0 for p in words.glob("*.fault")) == 2,
                "both workers know that they are to end",
            )
            server.kill()
        else:
            server.stop()
    down.unlink()
    server.start()
    server.wait_everywhere("/needy", lambda answer: answer.says == "whole")
    assert "ended a worker" not in server.log()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


CREATES = """
from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        with context.database() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS {name}_things (id serial PRIMARY KEY)")

    def get_metadata(self):
        return PluginMetadata(name="{name}", version="1")

    def register_routes(self, server):
        server.get("/{name}", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {{"says": "made"}}


new_plugin = Plugin
"""


def test_a_table_that_all_workers_create_at_once_is_there_for_each_of_them(server: Server) -> None:
    names = [f"creates_{number}" for number in range(8)]
    for name in names:
        server.write(name, CREATES.format(name=name))
    for name in names:
        server.wait_says(name, "made", 10.0)
    with server.each_worker() as connections:
        for connection in connections.values():
            assert ask(connection, "GET", "/health/ready").status == 200


ONLY_ONCE = "if not context.trial:\n            os.close(os.open({path!r}, os.O_CREAT | os.O_EXCL))"


@pytest.mark.soak
def test_a_new_worker_without_what_others_serve_is_degraded_and_says_which(
    server: Server,
) -> None:
    taken = str(server.home / "taken")
    once = source("once", "got it").replace(
        "        pass\n", f"        {ONLY_ONCE.format(path=taken)}\n", 1
    )
    server.write("once", once)  # one worker gets the file, the other one fails
    wait_until(lambda: "FileExistsError" in server.log(), "one has failed")
    has_it = {p: a.status for p, a in server.ask_all("/once").items()}
    assert sorted(has_it.values()) == [200, 404]
    failed = next(pid for pid, status in has_it.items() if status == 404)
    os.kill(failed, signal.SIGTERM)
    wait_until(lambda: failed not in server.workers() and all_up(server), "another is there")
    new = next(pid for pid in server.workers() if pid not in has_it)
    wait_until(  # at first it says besides that it does not hear of changes yet
        lambda: server.ask_all("/health/ready")[new].json.get("reason_count") == 1, "it listens"
    )
    ready = server.ask_all("/health/ready")
    assert [answer.status for answer in ready.values()] == [200, 200]
    degraded = ready.pop(new).json
    assert [answer.json for answer in ready.values()] == [{"status": "ready"}]
    assert (degraded["status"], degraded["reason_count"]) == ("degraded", 1)
    (reason,) = degraded["reasons"]
    assert reason["plugin"] == "once"
    assert reason["what"].startswith("generation 1 cannot be loaded: initialize failed: FileExists")
    assert reason["what"].endswith("nothing of it is served")
    server.write("once", source("once", "mended"))
    server.wait_says("once", "mended")
    server.wait_everywhere("/health/ready", lambda answer: answer.status == 200)
