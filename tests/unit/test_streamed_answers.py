"""Answers that a handler yields: their first part before the status line, and their end."""

import dataclasses
import functools
import http
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import falcon
import pytest

from app.admin import problems
from app.loading.registration import HandlerResource
from app.plugin import Answer, Problem
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from tests.support.handlers import make_responder
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
