"""Who has requests fail that would have failed before, too, undoes no deployment of others' use."""

import contextlib
import http.client
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from app.serving.new_failures import SPAN_SECONDS
from tests.support.server import Answer, MakeServer, Server, ask
from tests.support.waiting import wait_until

SHOP = """
import os

from app.plugin import PluginMetadata

NUMBER = {number}


def divide(x):
    return {{"pid": os.getpid(), "number": NUMBER, "result": {result}}}


class Resource:
    def on_post(self, req, resp):
        resp.media = divide(req.get_media()["x"])


def sink(req, resp):
    resp.media = divide(req.get_media()["x"])


def wsgi(environ, start_response):
    import json
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    answer = json.dumps(divide(json.loads(body)["x"])).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata(name="shop", version=str(NUMBER))

    def register_routes(self, server):
        server.get("/shop", self.get)
        {route}

    def cleanup(self, context):
        pass

    def get(self):
        return {{"pid": os.getpid(), "number": NUMBER}}

    def post(self, body: dict[str, int]):
        return divide(body["x"])


def new_plugin():
    return Plugin()
"""

ROUTES = {
    "function": 'server.post("/shop/divide", self.post)',
    "resource": 'server.add_route("/shop/divide", Resource())',
    "mount": 'server.mount("/shop/divide", wsgi)',
    "sink": 'server.add_sink(sink, "/shop/divide")',
}


def shop(number: int, kind: str = "function", result: str = "1 / x") -> str:
    """Return a plugin whose `POST /shop/divide` answers 1/x, or what `result` says."""
    return SHOP.format(number=number, route=ROUTES[kind], result=result)


class Caller:
    """A client that posts a number again and again, over a connection that it keeps."""

    def __init__(self, server: Server, x: int, *, pause: float) -> None:
        """Make it.

        Args:
            server: whom it calls.
            x: the number.
            pause: the seconds between two calls.
        """
        self._server = server
        self._x = x
        self._pause = pause
        self.avoids: Caller | None = None
        """Whose workers it wants no connection to."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call_always)
        self.pid: int | None = None
        self.answers: list[tuple[float, int | None, int]] = []
        """When, by which process, with which status it was answered."""

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()

    def _call_always(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            try:
                connection = connection or self._connect()
                answer = post(connection, self._x)
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                continue
            self.answers.append((time.monotonic(), self.pid, answer.status))
            if connection.sock is None:
                connection = None  # that worker ends: who is next is to be known
            self._stop.wait(self._pause)
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        for _ in range(50):
            connection = self._server.connect()
            pid = ask(connection, "GET", "/shop").json["pid"]
            if self.avoids is None or pid not in self.avoids.pids():
                break
            connection.close()
        self.pid = pid
        return connection

    def summary(self) -> Counter[tuple[int | None, int]]:
        """Return how often which process has answered with which status."""
        return Counter((pid, status) for _, pid, status in list(self.answers))

    def pids(self) -> set[int | None]:
        """Return who has answered it, or is to."""
        return {self.pid, *(pid for _, pid, _ in list(self.answers))}

    def statuses(self) -> set[int]:
        return {status for _, _, status in list(self.answers)}

    def lasted(self, old: set[int | None], count: int, seconds: float) -> bool:
        """Tell whether a process that is not `old` has answered often and for long."""
        times = defaultdict(list)
        for moment, pid, _ in list(self.answers):
            if pid not in old:
                times[pid].append(moment)
        return any(len(t) >= count and t[-1] - t[0] > seconds for t in times.values())


def post(connection: http.client.HTTPConnection, x: int) -> Answer:
    return ask(connection, "POST", "/shop/divide", {"x": x})


def numbers(server: Server) -> set[Any]:
    """Return what new connections get."""
    return {server.get("/shop").json["number"] for _ in range(12)}


def start(server: Server, kind: str = "function", manifest: str = "") -> None:
    """Have version 1 answer everywhere, on both routes."""
    server.start()
    if manifest:
        server.write("shop", manifest, "plugin.yaml")
    server.write("shop", shop(1, kind))
    server.wait_everywhere("/shop", lambda answer: answer.status == 200, 20.0)
    with server.each_worker() as connections:
        for connection in connections.values():
            assert post(connection, 1).status == 200


def edit(server: Server, kind: str = "function", result: str = "1 / x") -> None:
    """Have every new connection get version 2."""
    server.write("shop", shop(2, kind, result))
    wait_until(lambda: numbers(server) == {2}, f"version 2 is there\n{server.log()}", 40.0)


@contextlib.contextmanager
def attacked(server: Server, *, apart: bool) -> Iterator[tuple[Caller, Caller]]:
    """Have an honest caller and an attacker call; `apart` on different workers."""
    honest, attacker = Caller(server, 1, pause=0.5), Caller(server, 0, pause=0.02)
    if apart:
        honest.avoids, attacker.avoids = attacker, honest
    with honest:
        wait_until(lambda: honest.answers, "the honest caller is answered")
        with attacker:
            yield honest, attacker


def assert_stays(server: Server, old: set[int], *, apart: bool, rounds: int) -> None:
    """Attack until version 2 would be set back if nobody else was answered; it stays."""
    with attacked(server, apart=apart) as (honest, attacker):

        def goes_on() -> bool:
            known = {*old, *(honest.pids() if apart else ())}
            return attacker.lasted(known, 60, SPAN_SECONDS + 2.0)

        try:
            wait_until(goes_on, "the attack goes on in a fresh worker", 40.0)
        except AssertionError as error:
            summary = f"{attacker.summary()}, {honest.summary()}"
            raise AssertionError(f"{error}: {summary}\n{server.log()}") from None
        assert numbers(server) == {2}
    assert attacker.statuses() == {500}
    assert honest.statuses() == {200}
    assert server.plugin("shop")["error"] is None
    assert "is set back" not in server.log()
    assert server.log().count("a round begins") <= rounds


@pytest.mark.parametrize(
    ("count", "apart"),
    [
        pytest.param(2, True, id="two workers, apart", marks=pytest.mark.soak),
        pytest.param(4, False, id="four workers", marks=pytest.mark.soak),
    ],
)
def test_who_has_requests_fail_undoes_no_version_that_answers_others(
    make_server: MakeServer, count: int, apart: bool
) -> None:
    server = make_server(WEB_CONCURRENCY=str(count), BENANA_MAX_NEW_FAILURES="5")
    start(server)
    edit(server)
    old = server.workers()
    assert_stays(server, old, apart=apart, rounds=1)
    reload = server.get("/plugins/shop").json["reload"]
    assert "ZeroDivisionError" in reload["why"]
    wait_until(lambda: len(server.workers()) == count, "as many as before", 30.0)
    assert not server.workers() & old, "that round replaces all that serve it"


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["mount", "sink"])
def test_so_it_is_with_whatever_answers(make_server: MakeServer, kind: str) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_MAX_NEW_FAILURES="5")
    start(server, kind)
    edit(server, kind)
    assert_stays(server, server.workers(), apart=True, rounds=1)


@pytest.mark.soak
def test_so_it_is_where_each_version_needs_fresh_workers(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_MAX_NEW_FAILURES="5")
    start(server, manifest="reload: fresh\n")
    old = server.workers()
    edit(server)
    wait_until(lambda: not server.workers() & old, "all are fresh", 30.0)
    assert_stays(server, old, apart=True, rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize("count", [4])
def test_a_route_that_answers_nobody_counts_beside_one_that_answers(
    make_server: MakeServer, count: int
) -> None:
    server = make_server(WEB_CONCURRENCY=str(count), BENANA_MAX_NEW_FAILURES="5")
    start(server)
    edit(server, result="1 / 0")
    with Caller(server, 1, pause=0.05) as caller:
        wait_until(lambda: numbers(server) == {1}, f"it is set back\n{server.log()}", 80.0)
        wait_until(lambda: caller.answers[-1][2] == 200, "it answers again", 20.0)
    error = server.plugin("shop")["error"]
    assert "the last one on /shop/divide" in error["message"]
    assert server.log().count("is set back") == 1


@pytest.mark.soak
def test_with_the_setting_at_nothing_nobody_is_replaced(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_MAX_NEW_FAILURES="0")
    start(server)
    edit(server, result="1 / 0")
    old = server.workers()
    with Caller(server, 1, pause=0.0) as caller:
        wait_until(lambda: len(caller.answers) > 200, "many fail", 40.0)
    assert caller.statuses() == {500}
    assert server.workers() == old
    assert server.plugin("shop")["reload"]["how"] == "hot"
