"""Answers in several media types: which one a request gets, and how each is written."""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any
from xml.etree import ElementTree as ET

import falcon
import pydantic
import pytest
import yaml
from falcon.media import BaseHandler

from app.admin import problems
from app.errors import LoadError
from app.loading.handlers import read_handler
from app.loading.registration import HandlerResource, RouteCollector
from app.loading.representations import WRITERS, represent
from app.loading.signatures import HandlerError
from app.plugin import Answer, Header, Problem, Produces
from app.routing.application import LiveApp
from app.routing.plugin_app import answer_by_own
from tests.support import wsgi
from tests.support.handlers import make_responder
from tests.support.wsgi import call, json_of, put

JSON, YAML, XML = "application/json", "application/yaml", "application/xml"
ALL = Produces(JSON, YAML, XML, "text/html", "text/plain")

Ask = Callable[..., wsgi.Answer]


class Order(pydantic.BaseModel):
    name: str
    day: datetime.date


class Markup(str):
    """HTML, as markupsafe has it."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclasses.dataclass
class Point:
    x: int
    y: float


def served(handler: Callable[..., Any], method: str = "GET") -> Ask:
    app = LiveApp()
    problems.install(app)
    resource = HandlerResource()
    resource.set_responder(method, make_responder(handler, "/x"))
    put(app, "sample", {"/x": resource})

    def ask(accept: str | None, **env: Any) -> wsgi.Answer:
        env |= {} if accept is None else {"HTTP_ACCEPT": accept}
        return call(app, "/x", method, **env)

    return ask


def every() -> Annotated[dict[str, int], ALL]:
    return {"a": 1}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (YAML, YAML),
        ("APPLICATION/YAML", YAML),
        ("application/json;Q=0.5, Application/YAML", YAML),
        ("Text/*, */*;q=0.1", "text/html; charset=utf-8"),
        ("application/json;q=0.5, application/yaml", YAML),
        ("application/json;q=0, */*;q=0.1", YAML),
        ("text/*, application/json;q=0.9", "text/html; charset=utf-8"),
        ("image/png, text/plain;q=0.2", "text/plain; charset=utf-8"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None),
    ],
)
def test_a_request_gets_what_it_prefers(accept: str | None, content_type: str | None) -> None:
    answer = served(every)(accept)
    assert answer.status == 200
    assert answer.headers["content-type"] == (content_type or "text/html; charset=utf-8")
    assert answer.headers["vary"] == "Accept"
    if content_type == JSON:
        assert json_of(answer.read()) == {"a": 1}


def is_produces() -> ALL: ...  # type: ignore[valid-type]
def is_text() -> "Produces('text/html')": ...  # type: ignore[valid-type]
def within() -> Annotated[Order, ALL] | None: ...
def in_list() -> list[Annotated[Order, ALL]]:  # type: ignore[empty-body]
    ...
def the_class() -> Annotated[Order, Produces]:  # type: ignore[empty-body]
    ...
def of_nothing() -> Annotated[Order, Produces()]:  # type: ignore[empty-body]
    ...
def twice() -> Annotated[Order, Produces(JSON), Produces(YAML)]:  # type: ignore[empty-body]
    ...


@pytest.mark.parametrize(
    "handler", [is_produces, is_text, within, in_list, the_class, of_nothing, twice]
)
def test_media_types_that_would_be_ignored_are_refused(handler: Callable[..., Any]) -> None:
    with pytest.raises(HandlerError, match="with one Produces around all"):
        make_responder(handler, "/x")


def test_a_media_type_is_named_in_any_case() -> None:
    def handle() -> Annotated[dict[str, int], Produces("Application/YAML", "Text/Plain")]:
        return {"a": 1}

    assert served(handle)(YAML).headers["content-type"] == "Application/YAML"
    assert served(handle)("text/plain").headers["content-type"] == "Text/Plain; charset=utf-8"
    assert served(handle)("*/*").headers["content-type"] == "Application/YAML"


def test_what_an_answer_varies_with_is_added() -> None:
    def handle() -> Annotated[Answer[int], ALL]:
        return Answer(1, headers={"Vary": "Origin"})

    assert set(served(handle)(YAML).headers["vary"].split(", ")) == {"Accept", "Origin"}


@pytest.mark.parametrize(
    "accept", ["image/png", "application/json;q=0", "text/*;q=0, application/pdf", "no type"]
)
def test_where_nothing_fits_it_is_a_406_and_nothing_is_done(accept: str) -> None:
    called = []

    def book(number: Annotated[int, Header()]) -> Annotated[int, Produces(JSON, "text/html")]:
        called.append(number)
        return number

    answer = served(book, "POST")(accept)
    found = json_of(answer.read())
    assert (answer.status, called) == (406, [])
    assert found["detail"] == (
        f"This call answers application/json, text/html; the request accepts {accept}."
    )


def test_a_handler_that_says_nothing_answers_json_whatever_is_accepted() -> None:
    answer = served(lambda: {"a": 1})("image/png")
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    assert "vary" not in answer.headers


VALUES: list[Any] = [
    {"name": "é", "list": [1, 2.5, None, True], "in": {"it": ""}},
    [Order(name="a", day=datetime.date(2026, 1, 31))],
    Point(1, 2.5),
    "text: 'é'",
    5,
    [],
]


@pytest.mark.parametrize("value", VALUES, ids=map(str, range(len(VALUES))))
def test_yaml_holds_what_json_would(value: Any) -> None:
    def handle() -> Annotated[Any, Produces(JSON, YAML)]:
        return value

    ask = served(handle)
    assert yaml.safe_load(ask(YAML).read()) == json_of(ask(JSON).read())


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1, None], "b": "<&>"}, "<a><item>1</item><item nil='true'/></a><b>&lt;&amp;></b>"),
        (
            {"a b": True, "xmlns": 1.5},
            "<entry name='a b'>true</entry><entry name='xmlns'>1.5</entry>",
        ),
        ({'<"': "\x00\ud800"}, "<entry name='&lt;\"'>\ufffd\ufffd</entry>"),
        (Order(name="é", day=datetime.date(2026, 1, 31)), "<name>é</name><day>2026-01-31</day>"),
        ("text", "text"),
    ],
)
def test_xml_is_well_formed_whatever_is_in_it(value: Any, written: str) -> None:
    def handle() -> Annotated[Any, Produces(XML, "text/xml")]:
        return value

    raw = served(handle)(None).read()
    expected = ET.fromstring(f"<response>{written}</response>")
    assert ET.tostring(ET.fromstring(raw)) == ET.tostring(expected)
    assert served(handle)("text/xml").read() == raw


def test_text_is_text_and_everything_else_readable_json() -> None:
    answers: list[Any] = ["<é>", {"a": ["<é>"]}, "\ud800"]
    shown = []
    for value in answers:

        def handle(found: Any = value) -> Annotated[Any, Produces("text/plain")]:
            return found

        shown.append(served(functools.partial(handle, value))(None).read().decode())
    assert shown == ["<é>", '{\n  "a": [\n    "<é>"\n  ]\n}', "?"]


def test_html_holds_nothing_that_a_browser_runs_but_what_calls_itself_html() -> None:
    script = "<script>alert(1)</script>"

    def plain() -> Annotated[Any, Produces("text/html")]:
        return {"text": script}

    def made() -> Annotated[Any, Produces("text/html", JSON)]:
        return Markup("<b>&lt;&gt;</b>")

    page = served(plain)(None).read().decode()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert served(made)(None).read() == b"<b>&lt;&gt;</b>"
    assert json_of(served(made)(JSON).read()) == "<b>&lt;&gt;</b>"


def test_a_status_headers_none_and_a_stream_are_what_they_are_elsewhere() -> None:
    def handle(kind: str, resp: falcon.Response) -> Annotated[Any, ALL]:
        if kind == "answer":
            return Answer([1], 201, {"X-A": "b"})
        if kind == "tuple":
            return [1], 202
        if kind == "own":
            resp.content_type = "text/csv"
            return "a;b"
        if kind == "headers":
            return Answer("a;b", headers={"Content-Type": "text/csv"})
        return iter([b"a"])

    def none() -> Annotated[None, ALL]: ...

    ask = functools.partial(served(handle), YAML)
    answers = {
        kind: ask(QUERY_STRING=f"kind={kind}") for kind in ("answer", "tuple", "own", "stream")
    }
    found = {k: (a.status, a.headers["content-type"], a.read()) for k, a in answers.items()}
    assert found == {
        "answer": (201, YAML, b"- 1\n"),
        "tuple": (202, YAML, b"- 1\n"),
        "own": (200, "text/csv", b"a;b"),
        "stream": (200, "application/octet-stream", b"a"),
    }
    assert answers["answer"].headers["x-a"] == "b"
    assert ask(QUERY_STRING="kind=headers").headers["content-type"] == "text/csv"
    assert served(none)(YAML).status == 204


def test_errors_are_problems_whatever_is_accepted() -> None:
    def handle(number: int) -> Annotated[int, ALL]:
        raise Problem(409, "It is taken.")

    ask = served(handle)
    assert ask(YAML, QUERY_STRING="number=x").status == 422
    answer = ask(YAML, QUERY_STRING="number=1")
    assert (answer.status, answer.headers["content-type"]) == (409, "application/problem+json")


def test_json_of_another_name_and_a_charset_of_ones_own() -> None:
    def handle() -> Annotated[Any, Produces("application/vnd.api+json", "text/plain; charset=x")]:
        return {"a": 1}

    answer = served(handle)(None)
    assert answer.headers["content-type"] == "application/vnd.api+json"
    assert json_of(answer.read()) == {"a": 1}
    assert served(handle)("text/plain").headers["content-type"] == "text/plain; charset=x"


class Pages(BaseHandler):
    def serialize(self, media: Any, _content_type: str) -> bytes:
        return f"<h1>{type(media).__name__}</h1>".encode()


def test_a_plugin_s_own_media_handlers_write_what_the_handler_returned() -> None:
    def handle() -> Annotated[Point, Produces(JSON, "text/html", "application/x-point")]:
        return Point(1, 2)

    collector = RouteCollector("sample", lambda _frame: None)
    handlers = collector.resp_options.media_handlers
    handlers["text/html"] = handlers["application/x-point"] = Pages()
    collector.get("/x", handle)
    app, routes = LiveApp(), collector.finish()
    answer_by_own(app, collector.own, routes)
    builder = app.table.builder()
    builder.add("sample", routes)
    app.swap(builder.build())
    for accept in ("text/html", "application/x-point"):
        answer = call(app, "/x", HTTP_ACCEPT=accept)
        assert (answer.headers["content-type"], answer.read()) == (accept, b"<h1>Point</h1>")
    assert json_of(call(app, "/x", HTTP_ACCEPT=JSON).read()) == {"x": 1, "y": 2}


def test_what_nothing_can_write_is_refused_as_it_is_registered() -> None:
    def handle() -> Annotated[Point | None, Produces(JSON, "application/msgpack")]: ...

    def events() -> Annotated[Iterator[str], Produces(JSON)]:
        yield "a"

    collector = RouteCollector("sample", lambda _frame: None)
    collector.get("/x", handle)
    with pytest.raises(LoadError) as caught:
        collector.finish()
    assert "it produces application/msgpack, expected application/json" in caught.value.message
    with pytest.raises(HandlerError, match="expected events alone"):
        make_responder(events, "/x", events=True)


def test_an_annotation_that_is_no_type_and_produces_something_is_refused() -> None:
    def handle() -> "Annotated[Unknown, Produces('text/html')]": ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(HandlerError, match="is no type"):
        make_responder(handle, "/x")


def test_documents_are_told_the_media_types() -> None:
    assert read_handler(every, "/x")[1].content_types == ALL.media_types


def test_our_handlers_are_falcon_s_media_handlers_too() -> None:
    resp = falcon.Response()
    resp.options.media_handlers[YAML] = WRITERS[YAML]
    resp.content_type, resp.media = YAML, {"a": 1}
    assert resp.render_body() == b"a: 1\n"
    represent(resp, YAML, [2])
    assert resp.data == b"- 2\n"
