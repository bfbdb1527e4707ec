"""How many threads streamed answers may hold, and what becomes of the next one."""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import falcon
import pytest

from app.admin import problems
from app.loading import event_streams, stream_places
from app.loading.registration import HandlerResource
from app.loading.stream_places import (
    NoPlaceError,
    Place,
    StreamPlaces,
    StreamTooLongError,
    has_hung_up,
)
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from tests.support.handlers import make_responder
from tests.support.wsgi import call, json_of, put

SECONDS = 30.0


@pytest.fixture
def count() -> Iterator[Callable[[int], None]]:
    """Count this thread's streams among so many threads."""
    yield lambda threads: StreamPlaces(threads).count_here()
    stream_places._here.set(None)


def numbers() -> Iterator[str]:
    yield from map(str, itertools.count())


class Endless:
    """A Falcon resource whose stream has no end."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = iter(lambda: b"a", b"")


class Finite:
    """A Falcon resource that says how long its stream is."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_stream(iter([b"a"]), 1)


@pytest.fixture
def app() -> LiveApp:
    app = LiveApp()
    problems.install(app)
    events, yields = HandlerResource(), HandlerResource()
    events.set_responder("GET", make_responder(numbers, "/events", events=True))
    yields.set_responder("GET", make_responder(numbers, "/yields"))
    routes = {"/events": events, "/yields": yields, "/falcon": Endless(), "/finite": Finite()}
    put(app, "sample", {**routes, "/plain": lambda _req, resp: setattr(resp, "text", "a")})
    return app


@pytest.mark.parametrize("path", ["/events", "/yields", "/falcon"])
def test_streams_that_last_hold_half_of_the_threads_and_the_next_is_a_503(
    app: LiveApp,
    count: Callable[[int], None],
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stream_places, "SHORT_SECONDS", 0.0)
    count(4)
    streams = [call(app, path) for _ in range(2)]
    assert [stream.status for stream in streams] == [200, 200]
    assert all(next(stream.body) for stream in streams)
    for other in ("/events", "/yields", "/falcon"):
        refused = call(app, other)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert "Streams hold 2 of the 4 threads" in json_of(refused.read())["detail"]
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 1, "it is not said of each"
    assert call(app, "/plain").read() == b"a"
    assert call(app, "/finite").read() == b"a"
    streams.pop().close()
    streams.append(call(app, path))
    assert streams[-1].status == 200
    for stream in streams:
        stream.close()
    assert app.running.in_use() == InUse(None, frozenset())


def test_short_streams_may_hold_all_threads_but_one_and_the_next_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_places, "SHORT_SECONDS", SECONDS)
    places = StreamPlaces(4)
    held = [places.take(lasts=False) for _ in range(3)]
    found: list[Place] = []
    waiting = threading.Thread(target=lambda: found.append(places.take(lasts=False)))
    waiting.start()
    held.pop().release()
    waiting.join(SECONDS)
    assert found
    monkeypatch.setattr(stream_places, "SHORT_SECONDS", 0.0)
    with pytest.raises(NoPlaceError):
        places.take(lasts=False)


def test_one_thread_sends_what_is_yielded_and_no_events(
    app: LiveApp, count: Callable[[int], None]
) -> None:
    count(1)
    refused = call(app, "/events")
    assert refused.status == 503
    assert "BENANA_THREADS of 2 or more" in json_of(refused.read())["detail"]
    for path in ("/yields", "/falcon"):
        stream = call(app, path)
        assert next(stream.body)
        stream.close()


@pytest.mark.parametrize("path", ["/yields", "/falcon"])
def test_one_thread_is_not_held_for_ever(
    app: LiveApp,
    count: Callable[[int], None],
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for threads in (2, 1):
        monkeypatch.setattr(stream_places, "ALONE_SECONDS", 0.0)
        count(threads)
        stream = call(app, path)
        if threads == 2:
            assert len([next(stream.body) for _ in range(100)]) == 100
        else:
            with pytest.raises(StreamTooLongError, match="BENANA_THREADS has to be 2 or more"):
                for _ in range(100):
                    next(stream.body)
            assert f"sample: GET {path} raised StreamTooLongError after its answer" in caplog.text
        stream.close()
    monkeypatch.setattr(stream_places, "ALONE_SECONDS", SECONDS)
    stream = call(app, path)
    assert len([next(stream.body) for _ in range(100)]) == 100
    stream.close()


def test_a_place_comes_back_however_its_stream_ends(
    app: LiveApp, count: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_places, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(event_streams, "OPEN_SECONDS", SECONDS)
    count(2)

    def fails() -> Iterator[str]:
        raise LookupError
        yield

    resource = HandlerResource()
    resource.set_responder("GET", make_responder(fails, "/fails"))
    events = HandlerResource()
    events.set_responder("GET", make_responder(fails, "/fails/events", events=True))

    def dropped(_req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = iter([b"a"])
        resp.set_header("X-A", "a\nb")

    put(app, "failing", {"/fails": resource, "/fails/events": events, "/dropped": dropped})
    for path in ("/fails", "/fails/events", "/dropped"):
        assert [call(app, path).status for _ in range(2)] == [500, 500]
    for path in ("/yields", "/events", "/falcon"):
        for _ in range(2):
            head = call(app, path, "HEAD")
            assert (head.status, head.read()) == (200, b"")
            stream = call(app, path)
            assert stream.status == 200
            stream.close()


def test_a_client_that_has_gone_ends_its_events() -> None:
    client, server = socket.socketpair()
    gate = threading.Event()

    def quiet() -> Iterator[Any]:
        yield "a"
        gate.wait(SECONDS)

    with server:
        stream = event_streams.EventStream(quiet(), lambda: False, lambda: has_hung_up(server))
        assert next(stream) == b"data: a\n\n"
        client.sendall(b"more, which nobody reads")
        assert not has_hung_up(server)
        client.close()
        assert list(stream) == [], "long before the beat"
        gate.set()
        stream.close()
    assert has_hung_up(server)
    assert not has_hung_up(None)


def test_a_thread_that_answers_for_no_worker_has_a_place_always() -> None:
    held = [stream_places.take_place(lasts=True) for _ in range(100)]
    assert len(held) == 100
