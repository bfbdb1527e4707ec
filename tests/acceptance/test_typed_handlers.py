"""Handlers that take query parameters, headers and cookies by type, on real workers."""

import contextlib
import signal
from collections.abc import Callable

import pytest

from tests.support.multipart import CONTENT_TYPE, Part, multipart
from tests.support.plugins import MODELS
from tests.support.server import Answer, Server
from tests.support.waiting import wait_until

TYPED = """
import datetime
from typing import Annotated, Literal

import annotated_types
import pydantic

from app.plugin import Cookie, Header, PluginContext, PluginInterface, PluginMetadata, Query


class Typed(PluginInterface):
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata(name="typed", version="1")

    def register_routes(self, server):
        server.get("/typed/{item:int}", self.find)
        server.get("/typed/bounded/{item}", self.bounded)

    def cleanup(self, context): ...

    def find(
        self,
        item: int,
        day: datetime.date,
        limit: int = 10,
        tags: Annotated[list[str], Query("tag")] = [],
        sort: Literal["up", "down"] = "up",
        token: Annotated[str | None, Header("X-Token")] = None,
        session: Annotated[int, Cookie()] = 0,
    ):
        return {"item": item, "day": day, "limit": limit, "tags": tags, "sort": sort,
                "token": token, "session": session}

    def bounded(
        self,
        item: Annotated[int, annotated_types.Ge(1)],
        context: PluginContext,
        tag: Annotated[list[Annotated[str, pydantic.Field(pattern="^[a-z]+$")]],
                       annotated_types.MaxLen(2)] = [],
        token: Annotated[str, Header("X-Token"), pydantic.Field(min_length=3)] = "none",
        session: Annotated[int, Cookie(), annotated_types.Lt(10)] = 0,
    ):
        return {"item": item, "plugin": context.name, "tag": tag, "token": token,
                "session": session}


def new_plugin():
    return Typed()
"""


def test_a_request_fills_what_a_handler_declares_and_an_edit_changes_it(server: Server) -> None:
    server.write("typed", TYPED)
    path = "/typed/5?day=2026-01-31"
    server.wait_everywhere(path, lambda answer: answer.status == 200)
    sent = {"X-Token": "t", "Cookie": "session=7"}
    answer = server.get(f"{path}&tag=a&tag=b%20c&sort=down", **sent)
    assert answer.json == {
        "item": 5,
        "day": "2026-01-31",
        "limit": 10,
        "tags": ["a", "b c"],
        "sort": "down",
        "token": "t",
        "session": 7,
    }
    wrong = server.get("/typed/5?limit=x&sort=sideways", Cookie="session=a")
    assert wrong.status == 422
    assert [(e["where"], e["name"], e["reason"]) for e in wrong.json["errors"]] == [
        ("query", "day", "it is missing"),
        ("query", "limit", "found 'x', expected a whole number"),
        ("query", "sort", "found 'sideways', expected one of up, down"),
        ("cookie", "session", "found 'a', expected a whole number"),
    ]
    server.write("typed", TYPED.replace("limit: int = 10", "limit: float = 0.5"))
    server.wait_everywhere(
        f"{path}&limit=1.5", lambda answer: answer.status == 200 and answer.json["limit"] == 1.5
    )


def test_constraints_are_checked_and_a_handler_is_given_its_plugins_context(server: Server) -> None:
    server.write("bounded", TYPED.replace('"typed"', '"bounded"').replace("/typed/", "/bounds/"))
    path = "/bounds/bounded/5"
    server.wait_everywhere(path, lambda answer: answer.status == 200)
    answer = server.get(f"{path}?tag=a&tag=b", **{"X-Token": "abc", "Cookie": "session=9"})
    assert answer.json == {
        "item": 5,
        "plugin": "bounded",
        "tag": ["a", "b"],
        "token": "abc",
        "session": 9,
    }
    wrong = server.get("/bounds/bounded/0?tag=a&tag=B", **{"X-Token": "ab", "Cookie": "session=10"})
    assert wrong.status == 422
    assert [(e["where"], e["name"]) for e in wrong.json["errors"]] == [
        ("path", "item"),
        ("query", "tag"),
        ("header", "X-Token"),
        ("cookie", "session"),
    ]
    assert server.get("/bounds/bounded/x").status == 404


def test_an_annotation_that_no_query_can_become_is_refused_and_the_one_before_serves(
    server: Server,
) -> None:
    good = TYPED.replace('"typed"', '"kept"').replace("/typed/", "/kept/")
    server.write("kept", good)
    path = "/kept/5?day=2026-01-31"
    server.wait_everywhere(path, lambda answer: answer.status == 200)
    server.write("kept", good.replace("limit: int = 10", "limit: dict"))

    def error() -> str:
        return str((server.get("/plugins/kept").json["error"] or {}).get("message"))

    wait_until(lambda: "parameter 'limit' is annotated dict" in error(), "it is refused")
    assert server.get(path).status == 200


def test_a_body_is_a_model_and_an_edit_of_the_model_goes_live(server: Server) -> None:
    server.write("models", MODELS)
    body = {"number": 5, "items": [{"name": "a"}]}
    server.wait_everywhere("/models", lambda answer: answer.status == 200)
    assert server.post("/models/c", body).json == {
        "customer": "c",
        "order": {"number": 5, "items": [{"name": "a", "count": 1}]},
    }
    wrong = server.post("/models/c", {"number": "x", "items": [{}], "more": 1})
    assert wrong.status == 422
    assert [e["name"] for e in wrong.json["errors"]] == ["number", "items.0.name", "more"]
    assert server.post("/models/c", b"{").status == 400
    edited = MODELS.replace("count: int = 1", "colour: str").replace('"edit": 0', '"edit": 1')
    server.write("models", edited)
    server.wait_everywhere("/models", lambda answer: answer.json.get("edit") == 1)
    assert server.post("/models/c", body).status == 422
    body["items"] = [{"name": "a", "colour": "red"}]
    assert server.post("/models/c", body).json["order"] == body


ANSWERS = """
from typing import Annotated

from app.plugin import (Answer, File, Form, PluginContext, PluginInterface, PluginMetadata,
                        Problem, Produces)


FORMATS = Produces("application/json", "application/yaml", "text/html")


class Answers(PluginInterface):
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata(name="answers", version="1")

    def register_routes(self, server):
        server.get("/answers/{seat}", self.find)
        server.post("/answers", self.book)
        server.get("/answers/parts/{name}", self.parts)
        server.post("/answers/photos", self.hang)
        server.get("/answers/menu", self.menu)

    def cleanup(self, context): ...

    def parts(self, name, context: PluginContext, number: int = 3):
        if number > 1000:
            raise Problem(400, "These are too many.")
        try:
            for part in range(number):
                yield f"{part:>65536}"
        finally:
            (context.data_dir / name).write_text("closed")

    def hang(
        self,
        title: Annotated[str, Form()],
        photos: Annotated[list[File], Form("photo", max_bytes=3_000_000)],
        width: Annotated[int, Form()] = 10,
    ):
        sizes = [[photo.name, len(photo.stream.read())] for photo in photos]
        return {"title": title, "photos": sizes, "width": width}

    def menu(self) -> Annotated[dict, FORMATS]:
        return {"dish": "<b>soupe à l'oignon</b>"}

    def find(self, seat: int):
        if seat > 9:
            raise Problem(404, f"There is no seat {seat}.", title="No such seat",
                          type="https://example.com/seats", members={"seats": 9})
        return None if seat else Answer("<p>0", headers={"Content-Type": "text/html"})

    def book(self, body: dict):
        return Answer(body, status=201, headers={"Location": "/answers/5"})


def new_plugin():
    return Answers()
"""


def test_answers_have_their_status_and_headers_and_problems_their_members(server: Server) -> None:
    server.write("answers", ANSWERS)
    server.wait_everywhere("/answers/5", lambda answer: answer.status == 204)
    booked = server.post("/answers", {"seat": 5})
    assert (booked.status, booked.headers["location"]) == (201, "/answers/5")
    assert booked.json == {"seat": 5}
    page = server.get("/answers/0")
    assert (page.status, page.headers["content-type"], page.body) == (200, "text/html", b"<p>0")
    missing = server.get("/answers/10")
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json == {
        "type": "https://example.com/seats",
        "title": "No such seat",
        "status": 404,
        "detail": "There is no seat 10.",
        "instance": "/answers/10",
        "seats": 9,
    }


def test_forms_come_with_their_files_and_within_their_bounds(server: Server) -> None:
    server.write("forms", ANSWERS.replace('"answers"', '"forms"').replace("/answers", "/forms"))
    server.wait_everywhere("/forms/5", lambda answer: answer.status == 204)
    large: Part = ("photo", b"x" * 2_000_000, "/home/me/large.png")
    for number, status in ((1, 200), (2, 413)):
        raw = multipart([*[large] * number, ("title", "é"), ("photo", b"", "small.png")])
        answer = server.call("POST", "/forms/photos", raw, {"Content-Type": CONTENT_TYPE})
        assert answer.status == status
        if status == 200:
            photos = [["large.png", 2_000_000], ["small.png", 0]]
            assert answer.json == {"title": "é", "photos": photos, "width": 10}
        else:
            assert "'photo' is larger than 3,000,000 bytes" in answer.json["detail"]
    kind = "application/x-www-form-urlencoded"
    answer = server.post("/forms/photos", b"width=x&photo=a.png", **{"Content-Type": kind})
    assert answer.status == 422
    assert [fault["name"] for fault in answer.json["errors"]] == ["title", "photo", "width"]
    answer = server.post("/forms/photos", {"title": "é"}, **{"Content-Type": "application/json"})
    assert answer.status == 415


def test_an_answer_is_what_the_client_accepts(server: Server) -> None:
    server.write("menus", ANSWERS.replace('"answers"', '"menus"').replace("/answers", "/menus"))
    server.wait_everywhere("/menus/5", lambda answer: answer.status == 204)
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for accept, content_type, written in (
        ("*/*", "application/json", '{"dish":"<b>soupe à l\'oignon</b>"}'),
        ("application/json;q=0.1, application/yaml", "application/yaml", "dish: <b>soupe à l'oi"),
        (browser, "text/html; charset=utf-8", "&lt;b&gt;soupe à l"),
    ):
        answer = server.get("/menus/menu", Accept=accept)
        assert (answer.status, answer.headers["content-type"]) == (200, content_type)
        assert written in answer.body.decode()
        assert answer.headers["vary"] == "Accept"
    assert server.get("/menus/menu", Accept="image/png").status == 406


def test_what_a_handler_yields_is_streamed_and_closed_when_the_client_goes(server: Server) -> None:
    text = ANSWERS.replace('"answers"', '"parts"').replace("/answers", "/parts")
    server.write("parts", text)
    server.wait_everywhere("/parts/5", lambda answer: answer.status == 204)
    whole = server.get("/parts/parts/whole")
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert (whole.headers["transfer-encoding"], len(whole.body)) == ("chunked", 3 * 65536)
    assert server.get("/parts/parts/x?number=1001").status == 400
    closed = server.home / "var" / "plugins" / "parts"
    assert (closed / "whole").read_text() == "closed"
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", "/parts/parts/broken?number=1000")
        response = connection.getresponse()
        assert response.read(65536).strip() == b"0"
        # It runs on in its version while a newer one serves.
        server.write("parts", text.replace("if seat else", "if seat != 5 else"))
        server.wait_everywhere("/parts/5", lambda answer: answer.status == 200)
        assert response.read(65536).strip() == b"1"
        assert not (closed / "broken").exists()
        response.close()
    wait_until((closed / "broken").exists, "the generator is closed")


EVENTS = """
import threading
from typing import Annotated

from app.plugin import Event, Header, PluginInterface, PluginMetadata


class Events(PluginInterface):
    def initialize(self, context):
        self.over = threading.Event()

    def get_metadata(self):
        return PluginMetadata(name="events", version="1.0.0")

    def register_routes(self, server):
        server.get("/events", lambda: "VERSION")
        server.sse("/events/stream", self.stream)

    def cleanup(self, context):
        self.over.set()
        (context.data_dir / "VERSION").touch()

    def stream(self, last: Annotated[int, Header("Last-Event-ID")] = 0):
        yield Event({"version": "VERSION"}, id=last + 1)
        self.over.wait()  # which is later than the end of the stream


def new_plugin():
    return Events()
"""


def test_events_end_cleanly_at_an_edit_and_when_their_worker_ends(server: Server) -> None:
    def edit() -> None:
        server.write("events", EVENTS.replace("VERSION", "second"))

    def hang_up() -> None:
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)

    def says(version: str) -> Callable[[Answer], bool]:
        return lambda answer: answer.status == 200 and answer.json == version

    server.write("events", EVENTS.replace("VERSION", "first"))
    for number, version, end in ((1, "first", edit), (2, "second", hang_up)):
        server.wait_everywhere("/events", says(version), 10.0)
        with contextlib.closing(server.connect()) as connection:
            connection.request("GET", "/events/stream", headers={"Last-Event-ID": str(number - 1)})
            response = connection.getresponse()
            assert response.getheader("Content-Type") == "text/event-stream"
            expected = f'id: {number}\ndata: {{"version":"{version}"}}\n\n'
            assert response.read(len(expected)).decode() == expected
            before = server.workers()
            end()
            # To its last byte, without an IncompleteRead: it is not cut off.
            assert response.read() == b""
    wait_until(lambda: not server.workers() & before, "all workers are new", 30.0)
    assert (server.home / "var" / "plugins" / "events" / "first").exists()


def test_events_end_cleanly_in_all_workers_where_one_runs_the_plugin(server: Server) -> None:
    text = EVENTS.replace('"events"', '"alone"').replace("/events", "/alone")
    server.write("alone", "exclusive: host\n", "plugin.yaml")
    server.write("alone", text.replace("VERSION", "first"))
    server.wait_everywhere("/alone", lambda answer: answer.status == 200, 20.0)
    with server.each_worker() as connections:
        streams = []
        for connection in connections.values():
            connection.request("GET", "/alone/stream")
            streams.append(connection.getresponse())
            assert streams[-1].readline() == b"id: 1\n"
        server.write("alone", text.replace("VERSION", "second"))
        for stream in streams:
            assert stream.read().startswith(b'data: {"version":"first"}\n\n')
    server.wait_everywhere(
        "/alone", lambda answer: answer.status == 200 and answer.json == "second", 20.0
    )


QUIET = """
import threading

from app.plugin import PluginInterface, PluginMetadata


class Quiet(PluginInterface):
    def initialize(self, context):
        self.over = threading.Event()

    def get_metadata(self):
        return PluginMetadata(name="quiet", version="1")

    def register_routes(self, server):
        server.sse("/quiet/events", self.events)
        server.get("/quiet/yields", self.yields)

    def cleanup(self, context):
        self.over.set()

    def events(self):
        yield self.over.wait()

    def yields(self):
        while not self.over.wait(0.05):
            yield "a"


def new_plugin():
    return Quiet()
"""


@pytest.mark.parametrize(
    "path", [pytest.param("/quiet/events", marks=pytest.mark.soak), "/quiet/yields"]
)
def test_streams_without_end_leave_threads_for_other_requests(server: Server, path: str) -> None:
    server.write("quiet", QUIET)
    server.wait_everywhere("/plugins/quiet", lambda answer: answer.status == 200, 20.0)
    with contextlib.ExitStack() as streams:
        opened = []
        for _ in range(40):  # more than both workers have threads
            opened.append(streams.enter_context(contextlib.closing(server.connect())))
            opened[-1].request("GET", path)
        statuses = [stream.getresponse() for stream in opened]
        refused = [answer for answer in statuses if answer.status == 503]
        assert {answer.status for answer in statuses} == {200, 503}
        assert 40 - len(refused) <= 14
        assert refused[0].getheader("Retry-After") == "5"
        assert b"threads of this process" in refused[0].read()
        for _ in range(20):
            assert server.get("/health/live").status == 200
        assert server.get("/plugins/quiet").status == 200

    def has_room() -> bool:
        with contextlib.closing(server.connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200

    wait_until(has_room, "those whose clients have gone end", 30.0)


OPTIONS = """
import falcon

from app.plugin import PluginInterface, PluginMetadata


def need_key(req, resp, resource, params):
    if req.get_header("X-Key") != resource.key:
        raise falcon.HTTPForbidden(description="The key is another one.")


class Options(PluginInterface):
    key = "secret"

    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata(name="options", version="1")

    def register_routes(self, server):
        guarded = server.group("/options", before=need_key)
        guarded.get("", self.show)
        guarded.post("", self.make, status=201, after=self.mark)

    def cleanup(self, context): ...

    def show(self):
        return {"edit": 0}

    def make(self, body: dict):
        return body

    def mark(self, req, resp, resource):
        resp.set_header("X-Made", "yes")


def new_plugin():
    return Options()
"""


def test_the_keywords_of_a_route_and_its_group_count_and_an_edit_changes_them(
    server: Server,
) -> None:
    server.write("options", OPTIONS)
    server.wait_everywhere("/options", lambda answer: answer.status == 403)
    assert server.get("/options", **{"X-Key": "secret"}).json == {"edit": 0}
    made = server.post("/options", {"a": 1}, **{"X-Key": "secret"})
    assert (made.status, made.json, made.headers["x-made"]) == (201, {"a": 1}, "yes")
    refused = server.post("/options", {"a": 1})
    assert refused.status == 403
    assert refused.json["detail"] == "The key is another one."
    server.write("options", OPTIONS.replace("before=need_key", "sumary=''"))

    def error() -> str:
        return str((server.get("/plugins/options").json["error"] or {}).get("message"))

    wait_until(lambda: "the option 'sumary' is unknown" in error(), "it is refused")
    assert server.get("/options").status == 403
    server.write("options", OPTIONS.replace(", before=need_key", ""))
    server.wait_everywhere("/options", lambda answer: answer.status == 200)
