"""Requests that one process passes on to another: the frames, and what comes of broken ones."""

import contextlib
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import falcon
import pytest
import webtest

from app.admin import problems
from app.isolation.answering import FORWARDED, ForwardServer
from app.isolation.forwarding import Forwarder
from app.isolation.frames import (
    MAX_BYTES,
    Channel,
    ChannelClosedError,
    Kind,
    MalformedFrameError,
    pack_json,
)
from app.isolation.runtime_folder import RuntimeFolder, is_ours
from app.isolation.stand_in import stand_in_for
from app.loading.routes import Route
from app.records import Endpoint
from app.routing.application import LiveApp
from tests.support.waiting import wait_until


class Echo:
    """Runs in the process that is passed on to."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.calls = 0
        self.go_on = threading.Event()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self.calls += 1
        resp.media = {
            "query": req.get_param("q"),
            "header": req.get_header("X-One"),
            "remote": req.remote_addr,
            "scheme": req.scheme,
            "host": req.host,
            "path": req.path,
        }
        resp.set_header("X-Two", "two")
        resp.append_header("Set-Cookie", "a=1")
        resp.append_header("Set-Cookie", "b=2")

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        raw = req.bounded_stream.read()
        resp.status = falcon.HTTP_201
        resp.data = raw[::-1]
        resp.content_type = "application/octet-stream"

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers each line as it comes: streams both ways."""

        def lines() -> Iterator[bytes]:
            while line := req.bounded_stream.readline():
                yield line.upper()

        resp.stream = lines()
        resp.content_type = "text/plain"

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = falcon.HTTP_204

    def on_patch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A stream without an end, that tells when it is closed."""
        closed = self.closed

        class Endless:
            def __iter__(self) -> Iterator[bytes]:
                return self

            def __next__(self) -> bytes:
                return b"x" * 1000

            def close(self) -> None:
                closed.set()

        resp.stream = Endless()
        resp.content_type = req.get_header("Accept", default="text/plain")


class Broken:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise RuntimeError("inside")

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        def parts() -> Iterator[bytes]:
            yield b"begun"
            raise RuntimeError("inside")

        resp.stream = parts()
        resp.content_type = "text/plain"


def app_with(*routes: Route) -> LiveApp:
    app = LiveApp()
    problems.install(app)
    builder = app.table.builder()
    for owner in dict.fromkeys(route.owner for route in routes):
        builder.add(owner, tuple(route for route in routes if route.owner == owner))
    app.swap(builder.build())
    return app


def passing_on(forwarder: Forwarder) -> Callable[[Any, Any], None]:
    def answer(req: falcon.Request, resp: falcon.Response) -> None:
        if not forwarder.forward(req, resp, 1.0):
            raise falcon.HTTPServiceUnavailable(description="nobody")

    return answer


ENDPOINTS = [
    *(Endpoint(method, "/echo", "") for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    *(Endpoint(method, "/broken", "") for method in ("GET", "POST")),
]


@pytest.fixture
def path(open_path: Path) -> Path:
    return open_path / "s"


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(path: Path, echo: Echo) -> Iterator[ForwardServer]:
    app = app_with(Route("echo", "/echo", echo), Route("echo", "/broken", Broken()))
    server = ForwardServer("echo", path, app)
    server.start()
    yield server
    server.close()


@pytest.fixture
def forwarder(path: Path) -> Iterator[Forwarder]:
    forwarder = Forwarder("echo", path)
    yield forwarder
    forwarder.close()


@pytest.fixture
def client(forwarder: Forwarder) -> Any:
    standing = stand_in_for("id", "echo", 1, ENDPOINTS, passing_on(forwarder))
    return webtest.TestApp(app_with(*standing.routes))


def test_a_request_arrives_as_it_came_and_its_answer_too(
    server: ForwardServer, client: Any
) -> None:
    answer = client.get(
        "/echo?q=%C3%BC&r", headers={"X-One": "1"}, extra_environ={"REMOTE_ADDR": "192.0.2.7"}
    )
    assert answer.json == {
        "query": "ü",
        "header": "1",
        "remote": "192.0.2.7",
        "scheme": "http",
        "host": "localhost",
        "path": "/echo",
    }
    assert answer.headers["X-Two"] == "two"
    assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_a_body_of_any_size_goes_there_and_back(
    server: ForwardServer, client: Any, size: int
) -> None:
    raw = os.urandom(size)
    answer = client.post("/echo", raw)
    assert (answer.status_int, answer.body) == (201, raw[::-1])
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_answers_without_a_body_stay_so(server: ForwardServer, client: Any) -> None:
    assert client.delete("/echo").status_int == 204
    whole = client.get("/echo").headers["Content-Length"]
    head = client.head("/echo")
    assert head.body == b""
    assert head.headers["Content-Length"] == whole
    assert client.options("/echo").headers["Allow"]


def test_a_body_and_an_answer_stream_at_the_same_time(server: ForwardServer, client: Any) -> None:
    answer = client.put("/echo", b"one\ntwo\n" * 1000)
    assert answer.body == b"ONE\nTWO\n" * 1000


def test_a_body_that_is_shorter_than_announced_is_the_clients_fault(
    server: ForwardServer, forwarder: Forwarder
) -> None:
    standing = stand_in_for("id", "echo", 1, ENDPOINTS, passing_on(forwarder))
    request = webtest.TestRequest.blank("/echo", method="POST")
    env = {**request.environ, "CONTENT_LENGTH": "10", "wsgi.input": io.BytesIO(b"abc")}
    told: list[str] = []
    body = app_with(*standing.routes)(env, lambda status, _: told.append(status))
    assert told[0].startswith("400")
    assert b"expected the 10 of Content-Length" in b"".join(body)


def test_an_error_there_is_the_answer_here(server: ForwardServer, client: Any) -> None:
    answer = client.get("/broken", expect_errors=True)
    assert answer.status_int == 500
    assert answer.json["error_id"]


def test_a_stream_that_breaks_there_breaks_here(server: ForwardServer, client: Any) -> None:
    with pytest.raises(RuntimeError, match="broke off"):
        client.post("/broken")


def test_connections_are_used_again(server: ForwardServer, client: Any) -> None:
    for _ in range(5):
        client.get("/echo")
    # It is idle a moment after its answer has come.
    wait_until(lambda: len(server._idle) == 1, f"one connection is idle: {server._idle}")


def test_a_client_that_goes_away_ends_the_stream_there(
    server: ForwardServer, forwarder: Forwarder, echo: Echo
) -> None:
    standing = stand_in_for("id", "echo", 1, ENDPOINTS, passing_on(forwarder))
    app = app_with(*standing.routes)
    env = webtest.TestRequest.blank("/echo", method="PATCH").environ
    body: Any = app(env, lambda *_: None)
    assert next(iter(body)) == b"x" * 1000
    body.close()
    assert echo.closed.wait(5.0)


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream; charset=utf-8"])
def test_events_that_are_passed_on_end_cleanly_here_and_there_and_no_other_stream(
    server: ForwardServer, forwarder: Forwarder, echo: Echo, kind: str
) -> None:
    standing = stand_in_for("id", "echo", 1, ENDPOINTS, passing_on(forwarder))
    app = app_with(*standing.routes)
    env = webtest.TestRequest.blank("/echo", method="PATCH", headers={"Accept": kind}).environ
    body: Any = app(env, lambda *_: None)
    parts = iter(body)
    assert next(parts) == b"x" * 1000
    app.running.finish_streams()
    if kind == "text/plain":
        assert next(parts) == b"x" * 1000
    else:
        assert set(parts) <= {b"x" * 1000}
    body.close()
    assert echo.closed.wait(5.0)


def test_nobody_there_is_no_answer_and_no_error(client: Any) -> None:
    assert client.get("/echo", expect_errors=True).json["detail"] == "nobody"


def test_a_server_that_has_closed_refuses_and_nothing_has_begun(
    server: ForwardServer, client: Any, echo: Echo
) -> None:
    client.get("/echo")
    server.close()
    assert client.get("/echo", expect_errors=True).json["detail"] == "nobody"
    assert echo.calls == 1


def test_a_kept_connection_to_an_earlier_process_is_replaced(
    server: ForwardServer, client: Any, path: Path, echo: Echo
) -> None:
    client.get("/echo")
    server.close()
    later = ForwardServer("echo", path, app_with(Route("echo", "/echo", echo)))
    later.start()
    try:
        assert client.get("/echo").status_int == 200
    finally:
        later.close()


def test_closing_does_not_take_another_processs_socket_away(
    server: ForwardServer, client: Any, path: Path, echo: Echo
) -> None:
    later = ForwardServer("echo", path, app_with(Route("echo", "/echo", echo)))
    later.start()
    try:
        server.close()
        assert client.get("/echo").status_int == 200
    finally:
        later.close()


def test_who_does_not_run_the_plugin_refuses(path: Path, forwarder: Forwarder) -> None:
    def refuse(req: falcon.Request, resp: falcon.Response) -> None:
        req.env[FORWARDED].refused = True

    standing = stand_in_for("id", "echo", 1, ENDPOINTS, refuse)
    server = ForwardServer("echo", path, app_with(*standing.routes))
    server.start()
    try:
        here = stand_in_for("id", "echo", 1, ENDPOINTS, passing_on(forwarder))
        answer = webtest.TestApp(app_with(*here.routes)).get("/echo", expect_errors=True)
        assert answer.json["detail"] == "nobody"
    finally:
        server.close()


def test_the_socket_is_for_its_own_user_alone(server: ForwardServer, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_turned_away(
    server: ForwardServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(0o666)
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5.0)
                link.connect(str(path))
                code = 0 if link.recv(1) == b"" else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "another user" in caplog.text


def test_the_other_end_of_a_pair_is_ours() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert is_ours(one)


# --- what is no frame -----------------------------------------------------------------------


@contextlib.contextmanager
def fake_server(path: Path, answer: bytes) -> Iterator[None]:
    """Somebody who takes a request and sends some bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    Channel(connection).receive()
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def frame(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return bytes([kind]) + size.to_bytes(4, "big") + payload


BEGUN = frame(Kind.BEGUN)
HEAD = pack_json({"status": "200 OK", "headers": [["x-a", "1"]], "length": 4})


@pytest.mark.parametrize(
    "sent",
    [
        BEGUN,
        BEGUN[:-1] + b"\0" + b"\r\n",
        BEGUN + frame(99),
        BEGUN + frame(Kind.ANSWER, b"[]"),
        BEGUN + frame(Kind.ANSWER, b"{"),
        BEGUN + frame(Kind.ANSWER, b"{}"),
        BEGUN + frame(Kind.ANSWER, HEAD, length=MAX_BYTES + 1),
        BEGUN + frame(Kind.ANSWER, HEAD),
        BEGUN + frame(Kind.ANSWER, HEAD) + frame(Kind.PART, b"ab"),
        BEGUN + frame(Kind.ANSWER, HEAD) + frame(Kind.PART, b"ab") + frame(Kind.END),
        BEGUN + frame(Kind.ANSWER, HEAD) + frame(Kind.BEGUN),
        BEGUN + frame(Kind.WANT, b"?"),
        BEGUN + frame(Kind.PART, b"ab"),
        frame(Kind.ANSWER, HEAD),
        BEGUN + frame(Kind.HELD) + frame(Kind.ANSWER, HEAD),
        BEGUN + frame(Kind.HELD) + BEGUN,
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_half_an_answer_is_a_bad_gateway(path: Path, client: Any, sent: bytes) -> None:
    with fake_server(path, sent):
        answer = client.get("/echo", expect_errors=True)
    assert answer.status_int == 502
    assert "the request may have had its effect" in answer.json["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        BEGUN[:3],
        frame(Kind.REFUSED),
        BEGUN + frame(Kind.REFUSED),
        BEGUN + frame(Kind.HELD),
        BEGUN + frame(Kind.HELD) + frame(Kind.REFUSED),
    ],
)
def test_what_has_not_begun_may_be_asked_again(path: Path, client: Any, sent: bytes) -> None:
    with fake_server(path, sent):
        assert client.get("/echo", expect_errors=True).json["detail"] == "nobody"


def test_a_stream_that_ends_without_its_end_raises(path: Path, client: Any) -> None:
    head = pack_json({"status": "200 OK", "headers": [], "length": None})
    sent = BEGUN + frame(Kind.ANSWER, head) + frame(Kind.PART, b"ab")
    with fake_server(path, sent), pytest.raises(RuntimeError, match="ended within its answer"):
        client.get("/echo")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frame(Kind.REQUEST, b"{"),
        frame(Kind.REQUEST, b"{}"),
        frame(Kind.REQUEST, b'{"env": {}, "wait": 1}'),
        frame(Kind.REQUEST, b'{"env": {"PATH_INFO": "/echo"}, "wait": "x"}'),
        frame(Kind.BODY, b"abc"),
        frame(Kind.REQUEST, b"x", length=MAX_BYTES + 1),
        frame(200, b"x"),
    ],
)
def test_a_malformed_request_closes_its_connection_and_no_other(
    server: ForwardServer, client: Any, path: Path, echo: Echo, sent: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5.0)
        link.connect(str(path))
        link.sendall(sent)
        assert link.recv(100) == b""
    assert echo.calls == 0
    assert client.get("/echo").status_int == 200


def test_a_body_that_stops_coming_ends_its_request_alone(
    server: ForwardServer, client: Any, path: Path
) -> None:
    request = webtest.TestRequest.blank("/echo", method="POST").environ
    texts = {key: value for key, value in request.items() if type(value) is str}
    head = {"env": {**texts, "CONTENT_LENGTH": "100"}, "terminated": False, "wait": 1.0}
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    channel = Channel(connection)
    channel.send(Kind.REQUEST, pack_json(head))
    assert channel.receive()[0] is Kind.BEGUN
    assert channel.receive()[0] is Kind.WANT
    channel.close()
    assert client.get("/echo").status_int == 200
    wait_until(lambda: len(server._idle) == 1, "its thread has ended")


def test_a_channel_tells_what_it_cannot_read() -> None:
    one, other = socket.socketpair()
    channel = Channel(one)
    other.sendall(frame(Kind.BODY, b"ab", length=3))
    other.close()
    with pytest.raises(ChannelClosedError):
        channel.receive()
    channel.close()
    with pytest.raises((ChannelClosedError, ValueError)):
        channel.send(Kind.END)
    assert issubclass(MalformedFrameError, Exception)


def test_the_folder_is_private_and_refuses_what_is_somebody_elses(open_path: Path) -> None:
    folder = RuntimeFolder(open_path / "bin")
    folder.make()
    try:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(folder.socket("a" * 63))) < 100
        assert folder.socket("a") != folder.socket("b")
    finally:
        folder.path.rmdir()
    folder.path.symlink_to(open_path)
    try:
        with pytest.raises(Exception, match="not a folder of this user"):
            folder.make()
    finally:
        folder.path.unlink()
