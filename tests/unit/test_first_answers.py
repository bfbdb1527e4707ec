"""The first answer of a route is told, whatever gives it; then it is answered as before."""

from pathlib import Path
from typing import Any

import falcon
import pytest

from app.admin import problems
from app.loading.registration import RouteCollector
from app.loading.routes import Route
from app.routing.application import LiveApp
from app.routing.first_answers import FirstAnswer
from app.routing.plugin_app import answer_by_own
from tests.support.wsgi import call


class Thing:
    """Answers as its path says."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, how: str = "") -> None:
        if how == "raises":
            raise LookupError("what is it?")
        if how == "missing":
            raise falcon.HTTPNotFound
        if how == "refused":
            resp.status = falcon.HTTP_403
        if how == "moved":
            raise falcon.HTTPFound("/elsewhere")
        if how == "later":
            raise falcon.HTTPStatus(202)
        resp.media = {1, 2} if how == "unsayable" else {"how": how}
        if how == "stream":
            resp.stream = iter([b"1", b"2"])
            resp.text = resp.media = None
        if how == "header":
            resp.set_header("x-it", "a\nb")


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/raises":
        raise LookupError("what is it?")
    status = "404 Not Found" if environ["PATH_INFO"] == "/missing" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [b"hello"]


def sink(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    if req.path.endswith("raises"):
        raise LookupError("what is it?")
    resp.text = "sunk"


class Breaks:
    """Middleware that breaks an answer that its resource has given."""

    def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
        if req.get_param("break"):
            raise ValueError("broken")


class World:
    """A plugin with a route of each kind, and what was told of them."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        (folder / "it.txt").write_text("it")
        self.app = LiveApp()
        problems.install(self.app)
        collector = RouteCollector("shop", lambda _frame: None, "_plugins.shop.g1")
        collector.add_route("/things", Thing())
        collector.add_route("/things/{how}", Thing())
        collector.get("/function", lambda: {"a": 1})
        collector.mount("/hello", hello)
        if own:
            collector.add_sink(sink, "/sink")
            collector.add_static_route("/files", str(folder))
            collector.add_middleware(Breaks())
        self.routes = collector.finish()
        answer_by_own(self.app, collector.own, self.routes)
        builder = self.app.table.builder()
        builder.add("shop", self.routes)
        self.app.swap(builder.build())
        self.told: list[str] = []
        self.before = [dict(route.methods) for route in self.routes]

    def watch(self) -> None:
        for route in self.routes:
            FirstAnswer(route, self.tell)

    def tell(self, route: Route) -> None:
        self.told.append(route.template)

    @property
    def is_as_before(self) -> list[str]:
        """The routes that are answered as before."""
        pairs = zip(self.routes, self.before, strict=True)
        return [
            route.template
            for route, methods in pairs
            if route.around is None and dict(route.methods) == methods
        ]


@pytest.fixture(params=[False, True], ids=["the server's application", "its own"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, own=request.param)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/things", "/things"),
        ("/things/good", "/things/{how}"),
        ("/things/moved", "/things/{how}"),
        ("/things/later", "/things/{how}"),
        ("/things/stream", "/things/{how}"),
        ("/function", "/function"),
        ("/hello", "/hello"),
        ("/hello/you", "/hello/{path:path}"),
    ],
)
def test_the_first_answer_is_told_once(world: World, path: str, template: str) -> None:
    plain = call(world.app, path)
    seen = plain.status, plain.headers, plain.read()
    world.watch()
    assert world.is_as_before == []
    for _ in range(3):
        answer = call(world.app, path)
        assert (answer.status, answer.headers, answer.read()) == seen
    assert world.told == [template]
    assert world.is_as_before == [template]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/things/raises", 500),
        ("/things/missing", 404),
        ("/things/refused", 403),
        ("/things/unsayable", 500),
        ("/things/header", 500),
        ("/hello/raises", 500),
        ("/hello/missing", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_no_answer_is_not_told(world: World, path: str, status: int) -> None:
    world.watch()
    for _ in range(3):
        assert call(world.app, path).status == status
    assert world.told == []
    assert world.is_as_before == []


def test_what_falcon_answers_by_itself_is_no_answer(world: World) -> None:
    world.watch()
    assert call(world.app, "/things", "OPTIONS").status == 200
    assert call(world.app, "/things", "POST").status == 405
    assert world.told == []


def test_head_is_an_answer(world: World) -> None:
    world.watch()
    assert call(world.app, "/things", "HEAD").status == 200
    assert world.told == ["/things"]


def test_sinks_and_static_routes_are_told_too(tmp_path: Path) -> None:
    world = World(tmp_path, own=True)
    world.watch()
    assert call(world.app, "/sink/raises").status == 500
    assert call(world.app, "/files/none.txt").status == 404
    assert call(world.app, "/files/it.txt", "OPTIONS").status == 200
    assert world.told == []
    for _ in range(2):
        assert call(world.app, "/sink/it").read() == b"sunk"
        assert call(world.app, "/files/it.txt").read() == b"it"
    assert world.told == ["/sink/{path:path}", "/files/{path:path}"]
    assert world.is_as_before == world.told


def test_what_a_middleware_breaks_is_no_answer(tmp_path: Path) -> None:
    world = World(tmp_path, own=True)
    world.watch()
    assert call(world.app, "/things", QUERY_STRING="break=1").status == 500
    assert world.told == []
    assert call(world.app, "/things").status == 200
    assert world.told == ["/things"]
