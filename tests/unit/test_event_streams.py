"""Server-sent events: how they are written, what keeps their stream alive, and what ends it."""

import inspect
import itertools
import re
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import falcon
import pytest

from app.admin import problems
from app.loading import event_streams
from app.loading.context import make_context_factory
from app.loading.event_streams import EventStream, encode
from app.loading.handlers import read_handler
from app.loading.registration import HandlerResource, RouteCollector
from app.loading.signatures import HandlerError
from app.plugin import Answer, Event, PluginContext, Problem, Produces
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from tests.support.handlers import make_responder, returning
from tests.support.waiting import wait_until
from tests.support.wsgi import call, json_of, put

NOTHING = InUse(None, frozenset())
SECONDS = 30.0


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for the threads of streams than a server does."""
    monkeypatch.setattr(event_streams, "OPEN_SECONDS", SECONDS)
    monkeypatch.setattr(event_streams, "CLOSE_SECONDS", SECONDS)


@pytest.fixture
def context(tmp_path: Path) -> PluginContext:
    return make_context_factory(tmp_path, lambda _name: lambda: None)("sample", {})


def served(
    handler: Callable[..., Any], context: PluginContext | None = None
) -> tuple[LiveApp, str]:
    """Serve a handler's events at /x; return the application, and the routes' generation."""
    app = LiveApp()
    problems.install(app)
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handler, "/x", context=context, events=True))
    return app, put(app, "sample", {"/x": resource})


class Endless:
    """A handler that yields numbers, and tells when it is closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()

    def __call__(self) -> Iterator[str]:
        try:
            for number in itertools.count():
                self.made = number + 1
                yield str(number)
        finally:
            self.closed.set()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (int, "it returns int, expected it to yield its events"),
        (dict[str, int] | None, "it returns dict[str, int], expected it to yield its events"),
        (list[Event], "expected it to yield"),
        (Literal["a"], "expected it to yield"),
        (tuple[Iterator[Event], int], "expected it to yield"),
        (Answer[Iterator[Event]], "expected it to yield"),
        (Iterator[bytes], "expected text, Event, or what JSON has"),
        (AsyncIterator[Event], "which is asynchronous"),
        (Annotated[Iterator[Event], Produces("text/html")], "expected events alone"),
    ],
)
def test_a_handler_of_events_that_says_it_answers_otherwise_is_refused(
    kind: Any, said: str
) -> None:
    with pytest.raises(HandlerError, match=re.escape(said)):
        make_responder(returning(kind), "/x", events=True)


@pytest.mark.parametrize(
    "kind",
    [
        inspect.Parameter.empty,
        Any,
        None,
        Iterator,
        Iterator[Event | None],
        Generator[dict[str, int], None, None] | None,
        Iterable[str],
        NoReturn,
    ],
)
def test_a_handler_of_events_says_that_it_yields_or_nothing(kind: Any) -> None:
    make_responder(returning(kind), "/x", events=True)


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        (None, ""),
        ("a", "data: a\n\n"),
        ("", "data: \n\n"),
        ("a\nb\r\nc\rd\u2028e", "data: a\ndata: b\ndata: c\ndata: d\u2028e\n\n"),
        ({"a": "é\n"}, 'data: {"a":"é\\n"}\n\n'),
        ([1, 2], "data: [1,2]\n\n"),
        (0, "data: 0\n\n"),
        (Event("a", event="b", id=3, retry=4), "id: 3\nevent: b\nretry: 4\ndata: a\n\n"),
        (Event({"a": None}, id=""), 'id: \ndata: {"a":null}\n\n'),
        (Event(id=0), "id: 0\n\n"),
        (Event(), ""),
        ("\ud800", "data: ?\n\n"),
    ],
)
def test_what_is_yielded_is_written_as_the_standard_has_it(item: Any, sent: str) -> None:
    assert encode(item) == sent.encode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"event": "a\nb"}, "the event of an event is 'a\\nb'"),
        ({"id": "a\0"}, "the id of an event is 'a\\x00'"),
        ({"id": "\r"}, "the id of an event"),
        ({"retry": -1}, "the retry of an event is -1"),
    ],
)
def test_an_event_that_would_become_another_is_refused(fields: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Event("a", **fields)
    assert said in str(caught.value)


def test_events_are_sent_one_by_one_and_nobody_keeps_them() -> None:
    gate = threading.Event()

    def handle(number: int = 2) -> Iterator[Any]:
        yield {"number": number}
        gate.wait(SECONDS)
        yield Event("end", event="last")

    app, _ = served(handle)
    answer = call(app, "/x", QUERY_STRING="number=5")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert next(answer.body) == b'data: {"number":5}\n\n'
    gate.set()
    assert answer.read() == b"event: last\ndata: end\n\n"
    assert app.running.in_use() == NOTHING
    assert call(app, "/x", QUERY_STRING="number=a").status == 422


def test_what_raises_before_the_first_event_is_an_ordinary_error() -> None:
    def handle() -> Iterator[str]:
        raise Problem(404, "There is no such room.")
        yield "never"

    app, _ = served(handle)
    answer = call(app, "/x")
    assert (answer.status, json_of(answer.read())["detail"]) == (404, "There is no such room.")
    assert app.running.in_use() == NOTHING


def test_what_raises_later_breaks_the_stream_off_after_what_it_has_yielded() -> None:
    def handle() -> Iterator[Any]:
        yield None
        yield "a"
        raise LookupError("later")

    answer = call(served(handle)[0], "/x")
    sent = b""
    with pytest.raises(LookupError, match="later"):
        while True:
            sent += next(answer.body)
    assert sent.removeprefix(b":\n\n") == b"data: a\n\n"
    answer.close()


def test_a_wait_sends_comments_so_that_the_stream_stays_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_streams, "BEAT_SECONDS", 0.01)
    gate = threading.Event()

    def handle() -> Iterator[str]:
        yield "a"
        gate.wait(SECONDS)
        yield "b"

    answer = call(served(handle)[0], "/x")
    assert [next(answer.body) for _ in range(3)] == [b"data: a\n\n", b":\n\n", b":\n\n"]
    gate.set()
    assert answer.read().endswith(b"data: b\n\n")


def test_the_answer_begins_without_an_event_where_none_comes_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_streams, "OPEN_SECONDS", 0.01)
    gate = threading.Event()

    def handle() -> Iterator[str]:
        gate.wait(SECONDS)
        yield "a"

    answer = call(served(handle)[0], "/x")
    assert answer.status == 200
    assert next(answer.body) == b":\n\n"
    gate.set()
    assert answer.read() == b"data: a\n\n"


def test_what_raises_once_the_answer_has_begun_breaks_off_what_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is no answer of the server's own, which knows neither plugin nor problem."""
    monkeypatch.setattr(event_streams, "OPEN_SECONDS", 0.01)
    gate = threading.Event()

    def handle() -> Iterator[str]:
        gate.wait(SECONDS)
        raise Problem(403, "Not you.")
        yield "never"

    answer = call(served(handle)[0], "/x")
    gate.set()
    assert next(answer.body) == b":\n\n"  # which has the status line sent
    with pytest.raises(Problem):
        next(answer.body)
    answer.close()
    said = "sample: GET /x raised Problem after its answer had begun, which breaks off"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_retired_generation_ends_its_streams_and_no_others() -> None:
    gate, closed = threading.Event(), threading.Event()

    def handle() -> Iterator[str]:
        try:
            yield "a"
            gate.wait(SECONDS)  # the stream ends all the same
            yield "b"
        finally:
            closed.set()

    app, generation = served(handle)
    answer = call(app, "/x")
    assert next(answer.body) == b"data: a\n\n"
    app.running.finish_streams("_plugins.other.g1")
    app.running.finish_streams(generation)
    assert list(answer.body) == []
    gate.set()
    answer.close()
    assert closed.wait(SECONDS)
    assert app.running.in_use() == NOTHING


def test_another_generation_s_stream_goes_on() -> None:
    endless = Endless()
    app, _ = served(endless)
    answer = call(app, "/x")
    app.running.finish_streams("_plugins.other.g1")
    assert next(answer.body)
    assert next(answer.body)
    assert not endless.closed.is_set()
    answer.close()
    assert endless.closed.wait(SECONDS)


def test_a_stream_that_began_just_before_its_generation_went_ends(context: PluginContext) -> None:
    endless = Endless()
    context.cancelled.set()
    answer = call(served(endless, context)[0], "/x")
    assert answer.read().startswith(b"data: 0\n\n")
    assert endless.closed.wait(SECONDS)


def test_a_process_that_takes_no_more_requests_ends_all_streams_and_those_that_come() -> None:
    app, _ = served(Endless())
    answer = call(app, "/x")
    app.running.finish_streams()
    assert answer.read().startswith(b"data: 0\n\n")
    assert call(app, "/x").read().startswith(b"data: 0\n\n")
    assert app.running.in_use() == NOTHING


def test_a_slow_client_holds_up_what_yields() -> None:
    endless = Endless()
    answer = call(served(endless)[0], "/x")
    most = event_streams.MAX_WAITING + 1
    wait_until(lambda: endless.made == most, "it waits", SECONDS)
    sent = next(answer.body).decode().split("\n\n")[:-1]
    assert sent == [f"data: {number}" for number in range(most - 1)]
    answer.close()
    assert endless.closed.wait(SECONDS)


def test_an_answer_that_cannot_be_sent_closes_what_yields() -> None:
    closed = threading.Event()

    def handle(resp: falcon.Response) -> Iterator[str]:
        def events() -> Iterator[str]:
            try:
                yield from map(str, itertools.count())
            finally:
                closed.set()

        resp.set_header("X-A", "a\nb")
        return events()

    assert call(served(handle)[0], "/x").status == 500
    assert closed.wait(SECONDS)


def test_what_raises_as_it_is_closed_is_said_and_breaks_nothing_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handle() -> Iterator[str]:
        try:
            yield from map(str, itertools.count())
        finally:
            raise LookupError("at its end")

    app, generation = served(handle)
    answer = call(app, "/x")
    app.running.finish_streams(generation)
    answer.read()
    assert "at its end" in caplog.text
    assert app.running.in_use() == NOTHING


def test_the_end_of_a_stream_waits_a_little_for_what_yields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_streams, "CLOSE_SECONDS", 0.01)
    gate = threading.Event()

    def events() -> Iterator[str]:
        yield "a"
        gate.wait(SECONDS)

    stream = EventStream(events(), lambda: False)
    stream.close()  # and no longer
    gate.set()
    stream.close()


def test_a_stream_without_an_event_ends_and_what_returns_it_may_answer_none_instead() -> None:
    """A client comes again after the first, as where there is nothing new; after a 204 it stays."""

    def events(number: int) -> Iterator[str]:
        yield from map(str, range(number))

    def handle(number: int) -> Iterator[str] | None:
        return None if number < 0 else events(number)

    app, _ = served(handle)
    found = {}
    for number in (-1, 0, 1):
        answer = call(app, "/x", QUERY_STRING=f"number={number}")
        found[number] = (answer.status, answer.read())
    assert found[-1] == (204, b"")
    assert [status for status, _ in (found[0], found[1])] == [200, 200]
    assert b"data: 0" not in found[0][1]
    assert found[1][1].endswith(b"data: 0\n\n")


def test_none_tells_the_client_not_to_come_again() -> None:
    answer = call(served(lambda: None)[0], "/x")
    assert (answer.status, answer.read()) == (204, b"")


def test_what_yields_nothing_is_a_500_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert call(served(lambda: [1])[0], "/x").status == 500
    assert "a handler of server.sse answered with a list, expected it to yield" in caplog.text


def test_head_closes_what_yields() -> None:
    endless = Endless()
    answer = call(served(endless)[0], "/x", "HEAD")
    assert (answer.status, answer.read()) == (200, b"")
    assert endless.closed.wait(SECONDS)


def test_events_are_registered_as_a_get_also_in_a_group() -> None:
    collector = RouteCollector("sample", lambda _frame: None)
    collector.sse("/a", Endless())
    collector.group("/b").sse("/c", Endless())
    routes = collector.finish()
    assert [route.template for route in routes] == ["/a", "/b/c"]
    found = [route.signatures["GET"].content_types for route in routes]
    assert found == [("text/event-stream",)] * 2
    assert read_handler(lambda: 1, "/a")[1].content_types == ()
