"""The guard decides from the sockets that really listen, however the server came by them."""

import contextlib
import os
import subprocess
import sys

import pytest

from tests.support.server import MakeServer, Server, free_port
from tests.support.waiting import wait_until

# As systemd starts a service: its sockets are there from descriptor 3 on.
ACTIVATE = """
import os, socket, sys
sockets = []
for bind in sys.argv[1].split(","):
    host, _, port = bind.rpartition(":")
    if host == "unix":
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(port)
    else:
        host = host.strip("[]")
        sockets.append(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
        sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sockets[-1].bind((host, int(port)))
    sockets[-1].listen()
kept = [os.dup(s.fileno()) for s in sockets]
kept = [os.dup2(os.dup(d), 100 + n) for n, d in enumerate(kept)]
for n, d in enumerate(kept):
    os.dup2(d, 3 + n, inheritable=True)
os.environ |= {"LISTEN_FDS": str(len(kept)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[2:]])
"""


def curl(server: Server, place: str, path: str, *options: str) -> str:
    """Call a place and return the status; `place` is `unix:PATH` or `host:port`."""
    where = (
        ["--unix-socket", place.removeprefix("unix:"), f"http://localhost{path}"]
        if place.startswith("unix:")
        else ["--globoff", f"http://{place}{path}"]
    )
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options, *where],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def check(server: Server, places: list[str], *, local: bool) -> None:
    server.start(wait=False)
    called = [place.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]") for place in places]
    for place in called:
        wait_until(lambda p=place: curl(server, p, "/whoami") == "200", f"{place}\n", 30.0)
        found = curl(server, place, "/plugins/whoami/reload", "-X", "POST")
        assert found == ("202" if local else "403"), place
    line = next(line for line in server.log().splitlines() if "Benana serves" in line)
    for place in places:
        assert place in line
    server.stop()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("binds", "local"),
    [
        (["0.0.0.0:{port}"], False),
        (["[::]:{port}"], False),
        (["unix:{home}/s"], True),
        (["127.0.0.1:{port}"], True),
        (["unix:{home}/s", "0.0.0.0:{port}"], False),
        (["127.0.0.1:{port}", "[::1]:{other}"], True),
    ],
)
@pytest.mark.parametrize("way", ["systemd", "bind"])
def test_who_may_write_follows_the_sockets(
    make_server: MakeServer, way: str, binds: list[str], local: bool
) -> None:
    server = make_server(WEB_CONCURRENCY="1")
    names = {"port": server.port, "other": free_port(), "home": server.home}
    places = [bind.format(**names) for bind in binds]
    if way == "systemd":
        server.program = [sys.executable, "-c", ACTIVATE, ",".join(places)]
    else:
        server.arguments = [part for place in places for part in ("--bind", place)]
    check(server, places, local=local)


@pytest.mark.soak
def test_an_inherited_descriptor_is_looked_at(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="1")
    place = f"0.0.0.0:{server.port}"
    program = ACTIVATE.replace('os.environ |= {"LISTEN_FDS"', 'nothing = {"LISTEN_FDS"')
    server.program = [sys.executable, "-c", program, place]
    server.arguments = ["--bind", "fd://3"]
    check(server, [place], local=False)


@pytest.mark.soak
def test_a_bind_that_hup_changes_is_looked_at_again(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="1")
    server.config = server.home / "mine.py"
    text = "from app.hooks import *\nworkers, threads = 1, 2\nwsgi_app = 'app.wsgi:application'\n"
    server.config.write_text(f"{text}bind = '127.0.0.1:{server.port}'\n")
    server.start()
    assert server.post("/plugins/whoami/reload").status == 202
    server.port = free_port()  # of the old one its workers keep the socket for a moment
    server.config.write_text(f"{text}bind = '0.0.0.0:{server.port}'\n")
    assert server.process is not None
    before = server.workers()
    os.kill(server.process.pid, 1)
    wait_until(lambda: server.workers() and not server.workers() & before, "new workers", 20.0)

    def status() -> int | None:
        with contextlib.suppress(OSError):
            return server.post("/plugins/whoami/reload").status
        return None

    wait_until(lambda: status() == 403, "it is refused")
