"""Answers that a handler yields: their first part before the status line, and their end."""

import dataclasses
import functools
import http
import inspect
import io
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import falcon
import pytest

from app.admin import problems
from app.loading.registration import HandlerResource
from app.loading.signatures import HandlerError
from app.plugin import Answer, Problem, Produces
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from tests.support.handlers import make_responder, returning
from tests.support.wsgi import call, json_of, put

NOTHING = InUse(None, frozenset())


def served(handler: Callable[..., Any], app: LiveApp | None = None) -> LiveApp:
    """Serve a handler at /x."""
    app = app or LiveApp()
    problems.install(app)
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handler, "/x"))
    put(app, "sample", {"/x": resource})
    return app


def letters(number: int = 3) -> Iterator[bytes]:
    yield from (bytes([97 + place]) for place in range(number))


def endless(ended: list[str]) -> Iterator[bytes]:
    try:
        while True:
            yield b"a"
    finally:
        ended.append("closed")


class Letters:
    def __call__(self) -> Iterator[bytes]:
        yield b"abc"

    def handle(self) -> Iterator[bytes]:
        yield b"abc"

    @classmethod
    def of_class(cls) -> Iterator[bytes]:
        yield b"abc"


@pytest.mark.parametrize(
    "handler",
    [
        letters,
        Letters(),
        Letters().handle,
        Letters.of_class,
        functools.partial(letters, 3),
        lambda: letters(3),
        lambda: map(bytes, ([97], [98, 99])),
        lambda: io.BytesIO(b"abc"),
        lambda: Answer(letters(3)),
    ],
)
def test_what_yields_bytes_is_sent_part_by_part(handler: Callable[..., Any]) -> None:
    answer = call(served(handler), "/x")
    assert (answer.status, answer.read()) == (200, b"abc")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "content-length" not in answer.headers


def test_text_is_sent_as_utf_8() -> None:
    answer = call(served(lambda: iter(["é", "", b"!", bytearray(b"?")])), "/x")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert list(answer.body) == ["é".encode(), b"", b"!", b"?"]


def test_a_text_file_is_sent_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    answer = call(served(lambda: (tmp_path / "a.txt").open()), "/x")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.read() == b"one\ntwo\n"


def test_nothing_yielded_is_an_empty_answer() -> None:
    answer = call(served(lambda: iter(())), "/x")
    assert (answer.status, answer.read()) == (200, b"")


def test_a_stream_has_the_status_headers_and_content_type_that_its_handler_sets() -> None:
    def rows(resp: falcon.Response) -> Iterator[str]:
        resp.content_type = "text/csv"
        resp.status = http.HTTPStatus.ACCEPTED
        yield "a;b"

    answer = call(served(rows), "/x")
    assert (answer.status, answer.headers["content-type"]) == (202, "text/csv")
    assert answer.read() == b"a;b"
    made = Answer(iter(["a"]), 203, {"Content-Type": "text/csv", "X-A": "b"})
    answer = call(served(lambda: made), "/x")
    assert (answer.status, answer.headers["content-type"]) == (203, "text/csv")
    assert (answer.headers["x-a"], answer.read()) == ("b", b"a")


def test_what_raises_before_the_first_part_is_an_ordinary_error() -> None:
    def late(number: int = 0) -> Iterator[bytes]:
        if number:
            raise Problem(409, "It is late.")
        yield b"a"

    app = served(late)
    assert call(app, "/x").read() == b"a"
    answer = call(app, "/x", QUERY_STRING="number=1")
    assert (answer.status, json_of(answer.read())["detail"]) == (409, "It is late.")
    assert call(app, "/x", QUERY_STRING="number=a").status == 422
    assert app.running.in_use() == NOTHING


LINES = "expected an iterator of bytes or text: yield lines of JSON"


class Row(TypedDict):
    number: int


class Rows(Iterator[Row]):
    """What says nothing of how it is sent."""


def yielding(kind: Any) -> Callable[..., Any]:
    """Return a generator function that says it returns a type."""

    def handler() -> Any:
        yield "a"

    handler.__annotations__["return"] = kind
    return handler


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Iterator[Row], f"it returns collections.abc.Iterator[{__name__}.Row], {LINES}"),
        (Generator[Row, None, None], LINES),
        (typing.Iterator[bytes | None], LINES),
        (Iterator[str | int] | None, LINES),
        (Answer[Iterator[Row]], LINES),
        (tuple[Iterator[dict[str, Any]], Literal[201]], LINES),
        (Annotated[Iterator[Row], Produces("application/yaml")], LINES),
        (AsyncIterator[bytes], "AsyncIterator[bytes], which is asynchronous, expected a plain one"),
        (AsyncGenerator[str, None], "which is asynchronous"),
        (Coroutine[Any, Any, int], "which is asynchronous"),
    ],
)
def test_a_handler_that_says_it_yields_what_cannot_be_sent_is_refused(kind: Any, said: str) -> None:
    for handler in (yielding(kind), returning(kind)):
        with pytest.raises(HandlerError) as caught:
            make_responder(handler, "/x")
        assert said in str(caught.value)


@pytest.mark.parametrize("kind", [list[Row], Row, Iterable[Row], bytes, None, Answer[bytes]])
def test_a_handler_that_yields_says_that_it_returns_an_iterator(kind: Any) -> None:
    with pytest.raises(HandlerError, match=r"it (yields|returns)"):
        make_responder(yielding(kind), "/x")
    make_responder(returning(kind), "/x")


@pytest.mark.parametrize(
    "kind",
    [
        inspect.Parameter.empty,
        Any,
        object,
        Iterator,
        Iterator[Any],
        Iterator[str | bytes],
        Iterator[Literal["a", "b"]],
        Generator[bytearray, None, Row],
        Iterable[str],
        Annotated[Iterator[str], Produces("text/plain")],
        Answer[Iterator[bytes]] | Iterator[str] | None,
        Rows,
        typing.BinaryIO,
    ],
)
def test_what_a_handler_yields_is_taken_where_it_may_be_sent(kind: Any) -> None:
    make_responder(returning(kind), "/x")


def test_what_a_decorator_makes_of_what_is_yielded_is_its_own_affair() -> None:
    def as_lines(function: Callable[..., Iterator[Row]]) -> Callable[..., Iterator[str]]:
        @functools.wraps(function)
        def lines(**values: Any) -> Iterator[str]:
            for row in function(**values):
                yield f"{row['number']}\n"

        return lines

    @as_lines
    def rows(number: int = 2) -> Iterator[Row]:
        yield {"number": number}

    assert call(served(rows), "/x", QUERY_STRING="number=7").read() == b"7\n"


@pytest.mark.parametrize("part", [{"a": 1}, 5, None, [b"a"]])
def test_what_is_neither_bytes_nor_text_is_a_500(
    part: object, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    def parts() -> Iterator[object]:
        try:
            yield part
        finally:
            ended.append("closed")

    assert call(served(parts), "/x").status == 500
    assert ended == ["closed"]
    assert f"yielded a {type(part).__name__}, expected bytes or text" in caplog.text


def test_a_later_part_that_is_neither_breaks_the_answer_off() -> None:
    answer = call(served(lambda: iter([b"a", 5])), "/x")
    assert next(answer.body) == b"a"
    with pytest.raises(TypeError, match="yielded a int"):
        next(answer.body)


def test_a_generator_is_closed_and_held_until_then() -> None:
    ended: list[str] = []
    app = LiveApp()
    served(lambda: endless(ended), app)
    answer = call(app, "/x")
    assert next(answer.body) == b"a"
    assert app.running.in_use() != NOTHING
    answer.close()
    assert ended == ["closed"]
    assert app.running.in_use() == NOTHING


def test_head_closes_what_get_would_have_streamed() -> None:
    ended: list[str] = []
    answer = call(served(lambda: endless(ended)), "/x", "HEAD")
    assert (answer.status, answer.read(), ended) == (200, b"", ["closed"])


def test_an_answer_s_class_is_not_asked_whether_it_yields() -> None:
    asked: list[str] = []

    class Asked(type):
        def __getattr__(cls, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    @dataclasses.dataclass
    class Point(metaclass=Asked):
        x: int

    assert call(served(lambda: Point(1)), "/x").read() == b'{"x":1}'
    assert "__next__" not in asked
    assert "__iter__" not in asked
