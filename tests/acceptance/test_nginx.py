"""Benana behind nginx, set up by the `deploy/nginx.conf` that ships: ports and paths differ."""

import contextlib
import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.folders import open_folder
from tests.support.server import Answer, Server, ask, free_port
from tests.support.waiting import wait_until
from tests.support.web import status_of

TOKEN = {"Authorization": "Bearer behind-nginx"}
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx-light)"),
]

FRONT = """
import os

from app.plugin import PluginMetadata

NUMBER = {number}


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata(name="front", version=str(NUMBER))

    def register_routes(self, server):
        server.get("/front", self.get)
        server.post("/front", self.post)
        server.get("/front/seen", self.seen)
        server.get("/front/large", self.large)

    def cleanup(self, context):
        pass

    def get(self):
        return {{"number": NUMBER}}

    def post(self, body: dict):
        return {{"number": NUMBER, "length": len(body["text"])}}

    def seen(self, req: "falcon.Request"):
        return {{
            "host": req.host,
            "port": req.port,
            "scheme": req.forwarded_scheme,
            "route": req.access_route,
            "forwarded_host": req.forwarded_host,
            "headers": {{k.lower(): v for k, v in req.headers.items()}},
            "connection": f"{{os.getpid()}}:{{req.env['REMOTE_PORT']}}",
        }}

    def large(self, resp: "falcon.Response"):
        resp.content_type = "application/octet-stream"
        return bytes({large})


import falcon

new_plugin = Plugin
"""
LARGE = 24 * 1024 * 1024


def front(number: int) -> str:
    """Return a plugin that says a number, and what it sees of a request."""
    return FRONT.format(number=number, large=LARGE)


class Proxy:
    """An nginx in front of a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.port = free_port()
        text = (CHECKOUT / "deploy" / "nginx.conf").read_text()
        for shipped, here in (
            ("server benana:9999;", f"server 127.0.0.1:{server.port};"),
            ("listen 8080;", f"listen 127.0.0.1:{self.port};"),
            ("/run/nginx.pid", f"{folder}/nginx.pid"),
            ("/var/log/nginx/", f"{folder}/"),
            ("/tmp/nginx-", f"{folder}/nginx-"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        config = folder / "nginx.conf"
        config.write_text(text)
        self.log = folder / "error.log"
        places = ["-p", str(folder), "-c", str(config), "-e", str(self.log)]
        self.process = subprocess.Popen([NGINX or "nginx", *places, "-g", "daemon off;"])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, method, path, body, headers)

    def open(self, sent: bytes) -> socket.socket:
        """Return a connection that has sent something, and reads little."""
        link = socket.socket()
        link.settimeout(10.0)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", self.port))
        link.sendall(sent)
        return link


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    running = Server(home, new_database(), BENANA_ADMIN_TOKEN="behind-nginx")
    running.write("front", front(0))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Proxy]:
    # Nginx's workers are another user than root, and each run of pytest closes pytest's own folder.
    with open_folder() as folder:
        running = Proxy(server, folder)
        wait_until(
            lambda: status_of(f"http://127.0.0.1:{running.port}/front") == 200,
            f"nginx is up {running.log}",
        )
        yield running
        running.process.terminate()
        running.process.wait(10.0)


# --- what Benana sees ----------------------------------------------------------------------------


def test_the_plugin_sees_who_called_and_under_which_name(proxy: Proxy) -> None:
    seen = proxy.call("GET", "/front/seen", headers={"Host": "app.example.com:8443"}).json
    assert (seen["host"], seen["port"], seen["scheme"]) == ("app.example.com", 8443, "http")
    assert seen["forwarded_host"] == "app.example.com:8443"
    assert seen["route"] == ["127.0.0.1"]


def test_what_a_client_says_in_nginxs_name_is_not_passed_on(proxy: Proxy) -> None:
    lies = {
        "Host": "app.example.com",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
    }
    seen = proxy.call("GET", "/front/seen", headers=lies).json
    assert (seen["host"], seen["scheme"]) == ("app.example.com", "http")
    assert seen["forwarded_host"] == "app.example.com"
    assert seen["route"] == ["127.0.0.1"]
    assert not {"6.6.6.6", "evil.example", "https"} & {*seen["headers"].values()}
    assert "forwarded" not in seen["headers"]


def test_connections_are_kept_alive_on_both_sides(proxy: Proxy) -> None:
    with contextlib.closing(proxy.connect()) as connection:
        connection.connect()
        own = connection.sock
        used = {ask(connection, "GET", "/front/seen").json["connection"] for _ in range(200)}
        assert connection.sock is own, "nginx keeps the client's"
    assert len(used) <= 4, "and nginx its own ones to the workers"


def test_admin_writes_take_the_token(proxy: Proxy) -> None:
    assert proxy.call("POST", "/plugins/front/reload").status == 401
    assert proxy.call("GET", "/plugins").status == 401
    assert proxy.call("POST", "/plugins/front/reload", headers=TOKEN).status == 202
    assert proxy.call("GET", "/health/ready").status == 200


# --- load ----------------------------------------------------------------------------------------


class Load:
    """Clients that call without a pause, GET and POST in turn, on connections that they keep."""

    def __init__(self, proxy: Proxy, clients: int) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._proxy = proxy
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def count(self) -> int:
        return self.answers.total()

    def _run(self) -> None:
        text = "x" * 20_000
        with contextlib.closing(self._proxy.connect()) as connection:
            while not self._ended.is_set():
                for call in (("GET", "/front"), ("POST", "/front", {"text": text})):
                    try:
                        answer = ask(connection, *call)
                    except (OSError, http.client.HTTPException) as error:
                        self.failures.append(f"{call[0]}: {error!r}")
                        connection.close()
                        continue
                    if answer.status != 200:
                        self.failures.append(f"{call[0]}: {answer.status} {answer.body[:200]!r}")
                    elif call[0] == "POST" and answer.json["length"] != len(text):
                        self.failures.append(f"a body of {answer.json['length']} characters")
                    else:
                        self.answers[answer.json["number"]] += 1


def _has(json: object, answer: Answer) -> bool:
    return answer.json == json


def test_edits_and_reloads_under_load_lose_nothing(server: Server, proxy: Proxy) -> None:
    with Load(proxy, clients=8) as load:
        for number in range(1, 6):
            server.write("front", front(number))
            server.wait_everywhere("/front", functools.partial(_has, {"number": number}))
            answer = proxy.call("POST", "/plugins/front/reload?wait=5", headers=TOKEN)
            assert answer.status == 200, answer.body
            more = load.count() + 600
            wait_until(lambda n=more: load.count() > n or load.failures, "calls go on", 60.0)
    assert load.failures == [], proxy.log.read_text()
    assert load.count() >= 3_000
    assert load.answers[5] > 0
    assert load.answers.keys() <= {0, 1, 2, 3, 4, 5}
    assert proxy.log.read_text() == "", "nginx has nothing to complain about"


def test_new_workers_under_load_lose_nothing(server: Server, proxy: Proxy) -> None:
    assert server.process is not None
    with Load(proxy, clients=8) as load:
        for _ in range(3):
            before = server.workers()
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda b=before: len(server.workers() - b) == 2, "there are new workers")
            wait_until(lambda b=before: not server.workers() & b, "the old ones end", 40.0)
            more = load.count() + 300
            wait_until(lambda n=more: load.count() > n or load.failures, "calls go on", 60.0)
    assert load.failures == [], proxy.log.read_text()
    assert load.count() >= 900


# --- slow clients --------------------------------------------------------------------------------

SLOW = 18
"""More clients than Benana has threads (2 x 8)."""


def assert_quick(proxy: Proxy) -> None:
    """Others are answered as if nobody were slow."""
    for _ in range(20):
        began = time.monotonic()
        assert proxy.call("GET", "/front").status == 200
        assert time.monotonic() - began < 2.0


def test_clients_that_send_slowly_hold_nobody_up(proxy: Proxy) -> None:
    head = b"POST /front HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            stack.enter_context(proxy.open(head + b'{"text": "'))
        assert_quick(proxy)


def test_clients_that_read_slowly_hold_nobody_up(proxy: Proxy) -> None:
    call = b"GET /front/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(proxy.open(call)) for _ in range(SLOW)]
        for link in links:
            assert link.recv(15).startswith(b"HTTP/1.1 200"), "its answer has begun"
        assert_quick(proxy)
