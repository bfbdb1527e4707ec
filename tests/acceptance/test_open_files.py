"""A worker that has no file left for one more connection goes on, and says what to do."""

import contextlib
import http.client
import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

HOARDER = """
import os

from app.plugin import PluginInterface, PluginMetadata

HELD = []


class Hoarder(PluginInterface):
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata(name="hoarder", version="1")

    def register_routes(self, server):
        server.get("/hoarder/take", self.take)
        server.get("/hoarder/give", self.give)
        server.get("/hoarder/leave", self.leave)

    def cleanup(self, context):
        pass

    def take(self):
        try:
            while True:
                HELD.append(open(os.devnull))
        except OSError:
            return {"held": len(HELD)}

    def leave(self):
        HELD.pop().close()
        return {"held": len(HELD)}

    def give(self):
        for file in HELD:
            file.close()
        HELD.clear()
        return {"held": 0}


def new_plugin():
    return Hoarder()
"""


def limited(server: Server, soft: int, hard: int) -> Server:
    """Start a server of one worker with limits of its open files."""
    server.environment["WEB_CONCURRENCY"] = "1"
    server.program = ["prlimit", f"--nofile={soft}:{hard}", *server.program]
    return server.start()


@contextlib.contextmanager
def connections(server: Server, count: int, *, ask: bool = True) -> Iterator[None]:
    """So many connections, each of which has asked once and is kept."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            if ask:
                one.sendall(b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert one.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.get("/whoami").status == 200
    return False


def test_the_usual_limit_is_raised_as_far_as_connections_need_it(make_server: MakeServer) -> None:
    server = limited(make_server(), 1024, 4096)
    (pid,) = server.workers()
    raised, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert 1256 <= raised < 2000
    assert hard == 4096
    with connections(server, 990):
        assert server.get("/whoami").status == 200
    assert server.workers() == {pid}
    assert "files open" not in server.log()


def test_a_limit_that_cannot_be_raised_means_fewer_connections(make_server: MakeServer) -> None:
    server = limited(make_server(), 400, 400)
    (pid,) = server.workers()
    assert "may have 400 files open, so it takes 1" in server.log()
    with connections(server, 500, ask=False):
        pass
    wait_until(lambda: answers(server), "it answers", 10.0)
    assert server.workers() == {pid}
    assert "Traceback" not in server.log()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.workers() and pid not in server.workers(), "a new worker", 10.0)
    assert server.log().count("may have 400 files open") == 2


def test_a_plugin_that_opens_all_files_ends_no_worker(make_server: MakeServer) -> None:
    server = limited(make_server(), 1500, 1500)
    server.write("hoarder", HOARDER)
    server.write("steady", source("steady"))
    server.wait_says("steady", "one")
    wait_until(lambda: server.get("/hoarder/give").status == 200, "it is served")
    (pid,) = server.workers()
    with contextlib.closing(server.connect()) as kept:
        kept.request("GET", "/hoarder/take")
        assert kept.getresponse().read()
        with connections(server, 3, ask=False):
            wait_until(lambda: "no connection can be taken" in server.log(), "it is said")
            kept.request("GET", "/steady")
            assert b"one" in kept.getresponse().read(), "who is connected is answered"
            kept.request("GET", "/hoarder/give")
            assert kept.getresponse().read()
    wait_until(lambda: answers(server), "it takes connections again", 5.0)
    assert server.workers() == {pid}
    assert server.log().count("no connection can be taken") == 1
    assert "Traceback" not in server.log()


def test_the_last_file_is_enough_for_a_request(make_server: MakeServer) -> None:
    """gunicorn takes one more to wait for it: no answer, and a traceback for each."""
    server = limited(make_server(), 1500, 1500)
    server.write("hoarder", HOARDER)
    wait_until(lambda: server.get("/hoarder/give").status == 200, "it is served")
    with contextlib.closing(server.connect()) as kept:
        for call in ("take", "leave"):
            kept.request("GET", f"/hoarder/{call}")
            assert kept.getresponse().read()
        wait_until(lambda: answers(server), "it is answered", 10.0)
        kept.request("GET", "/hoarder/give")
        assert kept.getresponse().read()
    assert "Traceback" not in server.log()
    assert "Socket error" not in server.log()
