"""How many threads streamed answers may hold, and what becomes of the next one."""

import io
import itertools
import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
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
from app.loading.streamed_answers import EndableStream, StreamedAnswer
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
        resp.set_header("X-Own", "of the stream")
        resp.stream = iter(lambda: b"a", b"")


class Lasting(EndableStream):
    """A stream that is made to last, and no event stream of a handler's, as one passed on."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: b"a", b"")

    def finish(self) -> None: ...


class OfFile:
    """A Falcon resource that sends a file, or what is like one."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = io.BytesIO(b"a")


class Closable:
    """Yields without end, and notes that it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> "Closable":
        return self

    def __next__(self) -> str:
        return "a"

    def close(self) -> None:
        self.closed += 1


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
    more = {
        "/file": OfFile(),
        "/lasting": lambda _req, resp: setattr(resp, "stream", Lasting()),
        "/plain": lambda _req, resp: setattr(resp, "text", "a"),
    }
    put(app, "sample", {**routes, **more})
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
        assert "x-own" not in refused.headers
        assert "Streams hold 2 of the 4 threads" in json_of(refused.read())["detail"]
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 1, "it is not said of each"
    assert call(app, "/plain").read() == b"a"
    assert call(app, "/finite").read() == b"a"
    assert call(app, "/file").read() == b"a"
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
    # None of them lasts yet, as long as the clock stands.
    monkeypatch.setattr(stream_places, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(stream_places, "SHORT_SECONDS", 0.01)
    with pytest.raises(NoPlaceError):
        places.take(lasts=False)
    held.pop().release()
    held.append(places.take(lasts=False))


def test_what_is_made_to_last_counts_at_once() -> None:
    places = StreamPlaces(4)
    held = [places.take(lasts=True), places.take(lasts=True)]
    with pytest.raises(NoPlaceError):
        places.take(lasts=False)
    held.pop().release()
    held.append(places.take(lasts=True))


def test_a_place_may_come_back_while_another_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection, which may come at any time, drops a stream in whichever thread it runs."""
    places = StreamPlaces(4)
    held = [places.take(lasts=False) for _ in range(3)]

    def collect() -> bool:
        if held:
            held.pop().release()
        return True

    monkeypatch.setattr(places, "_is_free", collect)
    taken: list[Place] = []
    taking = threading.Thread(target=lambda: taken.append(places.take(lasts=False)), daemon=True)
    taking.start()
    taking.join(SECONDS)
    assert taken


@pytest.mark.parametrize("events", [True, False])
def test_what_would_yield_is_closed_where_it_has_no_place(
    count: Callable[[int], None], events: bool
) -> None:
    count(2)
    places = stream_places._here.get()
    assert places is not None
    held = places.take(lasts=True)
    yields = Closable()
    with pytest.raises(NoPlaceError):
        event_streams.EventStream(yields, lambda: False) if events else StreamedAnswer(yields)
    assert yields.closed == 1
    held.release()


def test_one_thread_sends_what_is_yielded_and_no_events(
    app: LiveApp, count: Callable[[int], None]
) -> None:
    count(1)
    for path in ("/events", "/lasting"):
        refused = call(app, path)
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


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells it")
def test_a_client_that_says_no_more_has_gone() -> None:
    """TCP tells no more of a client that has closed its connection, until something is sent."""
    client, server = socket.socketpair()
    with server, client:
        assert not has_hung_up(server)
        client.shutdown(socket.SHUT_WR)
        assert has_hung_up(server)


def test_a_thread_that_answers_for_no_worker_has_a_place_always() -> None:
    held = [stream_places.take_place(lasts=True) for _ in range(100)]
    assert len(held) == 100
