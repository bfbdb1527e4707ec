"""A WSGI application of a plugin's answers as it does alone, below its prefix."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import falcon
import falcon.testing
import pytest

from app.admin import problems
from app.errors import LoadError
from app.loading.registration import RouteCollector
from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from app.routing.plugin_app import answer_by_own
from tests.support.wsgi import Answer, call, put


class Closing:
    """A body that notes how often it was closed."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.parts

    def close(self) -> None:
        self.closed += 1


def shows(env: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    """Answer with what it was asked."""
    read = env["wsgi.input"].read()
    asked = [env["REQUEST_METHOD"], env["SCRIPT_NAME"], env["PATH_INFO"], env["QUERY_STRING"]]
    start("207 Multi-Status", [("Content-Type", "text/x-it"), ("X-It", "1")])
    return [json.dumps([*asked, read.decode()]).encode()]


def lazy(env: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
    """Start with its first part, as a generator does."""
    start("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-It", "2")])
    yield b"one "
    yield b"two"


def writes(env: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    write = start("200 OK", [("Content-Length", "9")])
    write(b"writ")
    write(b"ten ")
    return [b"1"]


def thinks_again(env: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    start("200 OK", [("X-It", "no")])
    try:
        raise ValueError("oh")
    except ValueError as error:
        start("500 Oh", [("X-It", "yes")], (ValueError, error, error.__traceback__))
    return [b"oh"]


def says_nothing(env: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    return [b"x"]


def breaks(env: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    raise LookupError("broken")


def serve(app: LiveApp, set_up: Callable[[Any], object]) -> LiveApp:
    collector = RouteCollector("shop", lambda _frame: None, "_plugins.shop.g1")
    set_up(collector)
    routes = collector.finish()
    answer_by_own(app, collector.own, routes)
    builder = app.table.builder()
    builder.add("shop", routes)
    app.swap(builder.build())
    return app


@pytest.fixture
def app() -> LiveApp:
    made = LiveApp()
    problems.install(made)
    return made


def mounted(app: LiveApp, application: Any) -> LiveApp:
    return serve(app, lambda server: server.group("/shop").mount("/admin", application))


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/b/", "/caf\xc3\xa9", "//a", "/a%2fb"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "PROPFIND"])
def test_it_is_asked_for_all_below_its_prefix(app: LiveApp, method: str, path: str) -> None:
    environ = falcon.testing.create_environ("/", method=method, query_string="q=1")
    environ |= {"PATH_INFO": f"/shop/admin{path}", "wsgi.input": io.BytesIO(b"hello")}
    answer = Answer(mounted(app, shows), environ | {"CONTENT_LENGTH": "5"})
    assert json.loads(answer.read()) == [method, "/shop/admin", path, "q=1", "hello"]
    assert answer.calls[0][0] == "207 Multi-Status"
    assert answer.headers["content-type"] == "text/x-it"
    assert answer.headers["x-it"] == "1"


def test_what_is_not_below_its_prefix_is_not_its_own(app: LiveApp) -> None:
    mounted(app, shows)
    for path in ("/shop", "/shop/adminx", "/shop/other", "/"):
        assert call(app, path).status == 404
    put(app, "neighbour", {"/shop/admin/here": lambda req, resp: setattr(resp, "text", "near")})
    assert call(app, "/shop/admin/here").read() == b"near"
    assert call(app, "/shop/admin/there").status == 207


def test_its_headers_may_come_with_its_first_part(app: LiveApp) -> None:
    answer = call(mounted(app, lazy), "/shop/admin")
    assert answer.read() == b"one two"
    assert [v for k, v in answer.calls[0][1] if k.lower() == "set-cookie"] == ["a=1", "b=2"]
    assert app.running.in_use() == InUse(None, frozenset())


def test_what_it_writes_comes_first(app: LiveApp) -> None:
    answer = call(mounted(app, writes), "/shop/admin")
    assert (answer.read(), answer.headers["content-length"]) == (b"written 1", "9")


def test_it_may_change_its_mind_for_an_exception(app: LiveApp) -> None:
    answer = call(mounted(app, thinks_again), "/shop/admin")
    assert (answer.calls[0][0], answer.headers["x-it"]) == ("500 Oh", "yes")


@pytest.mark.parametrize("application", [says_nothing, breaks])
def test_its_faults_are_its_plugins(app: LiveApp, application: Any) -> None:
    answer = call(mounted(app, application), "/shop/admin/x")
    assert answer.status == 500
    assert b"the plugin 'shop'" in answer.read()


@pytest.mark.parametrize(
    ("method", "status"), [("GET", "200 OK"), ("HEAD", "200 OK"), ("GET", "304 Not Modified")]
)
def test_its_body_is_closed_once(app: LiveApp, method: str, status: str) -> None:
    body = Closing(b"abc")

    def application(env: dict[str, Any], start: Callable[..., Any]) -> Closing:
        start(status, [("Content-Length", "3")])
        return body

    answer = call(mounted(app, application), "/shop/admin", method)
    expected = b"abc" if (method, status) == ("GET", "200 OK") else b""
    assert answer.read() == expected
    assert body.closed == 1


def test_a_falcon_application_answers_as_it_does_alone(app: LiveApp) -> None:
    class Thing:
        def on_get(self, req: falcon.Request, resp: falcon.Response, number: int) -> None:
            resp.media = {"number": number, "path": req.path, "prefix": req.root_path}

    inner = falcon.App()
    inner.add_route("/things/{number:int}", Thing())
    mounted(app, inner)
    found = call(app, "/shop/admin/things/7").read()
    assert json.loads(found) == {"number": 7, "path": "/things/7", "prefix": "/shop/admin"}
    for path in ("/things/x", "/nothing"):
        ours, alone = call(app, f"/shop/admin{path}"), call(inner, path)
        assert (ours.calls, ours.read()) == (alone.calls, alone.read())


def test_a_flask_application_answers(app: LiveApp) -> None:
    flask = pytest.importorskip("flask")
    inner = flask.Flask("inner")

    @inner.route("/things/<int:number>", methods=["GET", "POST"])
    def thing(number: int) -> Any:
        return flask.jsonify(number=number, url=flask.url_for("thing", number=1))

    mounted(app, inner)
    found = json.loads(call(app, "/shop/admin/things/7").read())
    assert found == {"number": 7, "url": "/shop/admin/things/1"}
    assert call(app, "/shop/admin/things/7", "DELETE").status == 405


def test_the_plugins_middleware_sees_its_requests(app: LiveApp) -> None:
    class Marks:
        def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
            resp.set_header("X-Marked", str(req_succeeded))

    def set_up(server: Any) -> None:
        server.add_middleware(Marks())
        server.mount("/shop", shows)

    serve(app, set_up)
    assert call(app, "/shop/x").headers["x-marked"] == "True"


@pytest.mark.parametrize(
    ("prefix", "application"),
    [("shop", shows), ("/", shows), ("", shows), ("/{x}", shows), ("/é", shows), ("/shop", None)],
)
def test_what_cannot_be_mounted_is_refused(app: LiveApp, prefix: str, application: Any) -> None:
    with pytest.raises(LoadError, match="mount: "):
        serve(app, lambda server: server.mount(prefix, application))


def test_a_prefix_is_mounted_once(app: LiveApp) -> None:
    def set_up(server: Any) -> None:
        server.get("/shop", lambda: 1)
        server.mount("/shop", shows)

    with pytest.raises(LoadError, match="the route /shop is registered twice"):
        serve(app, set_up)
