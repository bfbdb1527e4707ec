"""What a plugin sets up of its own: the answers are those of a `falcon.App` set up alike."""

import functools
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import falcon
import falcon.routing
import falcon.testing
import pytest

from app.admin import problems
from app.errors import ConflictError, LoadError
from app.loading.registration import RouteCollector
from app.routing.answers import AnswerAgain
from app.routing.application import LiveApp
from app.routing.conflicts import find_conflict
from app.routing.grace_periods import InUse
from app.routing.plugin_app import answer_by_own
from tests.support.wsgi import Answer, call, json_of, put

SetUp = Callable[[Any], None]


class OutOfStockError(Exception):
    """An exception of a plugin's own."""


class Thing:
    def on_get(self, req: falcon.Request, resp: falcon.Response, number: int = 0) -> None:
        req.context.setdefault("seen", []).append(f"responder {number} {req.path}")
        resp.media = {"number": number, "query": req.params, "template": req.uri_template}
        resp.set_header("X-Seen", ", ".join(req.context.get("seen") or ()))

    def on_head(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        """Falcon would answer 405, and Benana as GET does."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        resp.media = {"got": req.get_media()}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        raise OutOfStockError("none left")

    def on_put(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        raise falcon.HTTPConflict(title="Taken", description="by another")

    def on_patch(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        raise falcon.HTTPStatus(falcon.HTTP_202, headers={"x-it": "1"}, text="later")


class Notes:
    """Middleware that notes what it sees, in a header."""

    def __init__(self, name: str) -> None:
        self.name = name

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.setdefault("seen", []).append(f"{self.name} request")
        resp.append_header("X-Request", self.name)

    def process_resource(self, req: Any, resp: Any, resource: Any, params: dict[str, Any]) -> None:
        req.context["seen"].append(f"{self.name} resource {sorted(params)}")
        if "number" in params:
            params["number"] += 1

    def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
        resp.append_header("X-Response", f"{self.name} {req_succeeded} {resource is not None}")


class Moves:
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.path.startswith("/things/moved/"):
            req.path = req.path.replace("/moved/", "/")


class Keeps:
    """Answers by itself."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.get_header("If-None-Match") == "kept":
            resp.status = falcon.HTTP_304
            resp.complete = True


class Refuses:
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.get_param("refuse") == "request":
            raise falcon.HTTPUnauthorized(description="who are you?")
        if req.get_param("refuse") == "stock":
            raise OutOfStockError("in middleware")

    def process_resource(self, req: Any, resp: Any, resource: Any, params: Any) -> None:
        if req.get_param("refuse") == "resource":
            raise falcon.HTTPForbidden()

    def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
        if req.get_param("refuse") == "response":
            raise falcon.HTTPError(falcon.HTTP_503, title="late")


def middleware(server: Any) -> None:
    server.add_middleware(Notes("outer"))
    server.add_middleware([Notes("inner"), Moves(), Keeps(), Refuses()])


def handlers(server: Any) -> None:
    def sold_out(req: Any, resp: Any, ex: Exception, params: Any) -> None:
        resp.status = falcon.HTTP_410
        resp.media = {"sold out": str(ex), "params": params}

    def any_http(req: Any, resp: Any, ex: falcon.HTTPError, params: Any) -> None:
        resp.status = ex.status
        resp.text = f"an error: {ex.title}"

    server.add_middleware(Refuses())
    server.add_error_handler(OutOfStockError, sold_out)
    server.add_error_handler((falcon.HTTPConflict, falcon.HTTPForbidden), any_http)


def serializer(server: Any) -> None:
    def as_text(req: falcon.Request, resp: falcon.Response, exception: falcon.HTTPError) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = f"{exception.title}|{exception.description}"

    server.add_middleware(Refuses())
    server.set_error_serializer(as_text)
    server.add_error_handler(OutOfStockError, _as_conflict)


def _as_conflict(req: Any, resp: Any, ex: Exception, params: Any) -> None:
    raise falcon.HTTPConflict(description=str(ex))


class Upper(falcon.media.BaseHandler):
    """A media type of a plugin's own."""

    def serialize(self, media: object, content_type: str | None = None) -> bytes:
        return json.dumps(media).upper().encode()

    def deserialize(
        self, stream: Any, content_type: str | None, content_length: int | None
    ) -> object:
        return stream.read().decode().upper()


def options(server: Any) -> None:
    server.req_options.strip_url_path_trailing_slash = True
    server.req_options.keep_blank_qs_values = False
    server.req_options.media_handlers["text/x-upper"] = Upper()
    server.resp_options.media_handlers["text/x-upper"] = Upper()
    server.resp_options.default_media_type = "text/x-upper"
    server.add_error_handler(OutOfStockError, _as_conflict)


def cors(server: Any) -> None:
    server.add_middleware(
        falcon.CORSMiddleware(allow_origins="https://a.example", expose_headers=["X-Seen"])
    )
    server.add_error_handler(OutOfStockError, _as_conflict)


class Sku(falcon.routing.BaseConverter):
    """A converter of a plugin's own."""

    def __init__(self, digits: int = 2) -> None:
        self.digits = digits

    def convert(self, value: str) -> str | None:
        return value.upper() if len(value) == self.digits and value.isalnum() else None


class Named:
    def on_get(self, req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
        resp.media = {"fields": fields, "template": req.uri_template}


def converters(server: Any) -> None:
    server.router_options.converters["sku"] = Sku
    for template in ("/things/named/{x:sku}", "/things/named/{x:sku}/of/{y:sku(3)}.txt"):
        server.add_route(template, Named())
    server.add_error_handler(OutOfStockError, _as_conflict)


FILES = Path(__file__).parent


def fall_backs(server: Any) -> None:
    def search(req: Any, resp: Any, term: str = "", **kwargs: Any) -> None:
        resp.media = {"term": term, "rest": kwargs, "template": req.uri_template}

    server.add_middleware(Notes("it"))
    server.add_sink(search, r"/search/(?P<term>[a-z]+)")
    server.add_sink(search, "/things")
    server.add_sink(search, re.compile(r"/search/exact$"))
    server.add_static_route("/files", str(FILES))
    server.add_static_route("/files/down", str(FILES), downloadable=True)
    server.add_error_handler(OutOfStockError, _as_conflict)


SETS = {
    set_up.__name__: set_up
    for set_up in (middleware, handlers, serializer, options, cors, fall_backs, converters)
}

CALLS: dict[str, dict[str, Any]] = {
    "plain": {"path": "/things"},
    "field": {"path": "/things/7"},
    "query": {"path": "/things", "QUERY_STRING": "a=1&b="},
    "moved": {"path": "/things/moved/7"},
    "kept": {"path": "/things", "HTTP_IF_NONE_MATCH": "kept"},
    "unknown": {"path": "/things/7/nothing"},
    "no converter": {"path": "/things/seven"},
    "not ascii": {"path": "/things/\xc3\xa9"},
    "slash": {"path": "/things/"},
    "no method": {"path": "/things", "method": "SEARCH"},
    "options": {"path": "/things", "method": "OPTIONS"},
    "status": {"path": "/things", "method": "PATCH"},
    "own exception": {"path": "/things/7", "method": "DELETE"},
    "http error": {"path": "/things", "method": "PUT"},
    "refused": {"path": "/things", "QUERY_STRING": "refuse=request"},
    "refused at resource": {"path": "/things/7", "QUERY_STRING": "refuse=resource"},
    "refused at response": {"path": "/things/7", "QUERY_STRING": "refuse=response"},
    "own exception in middleware": {"path": "/things/7", "QUERY_STRING": "refuse=stock"},
    "own media": {"path": "/things", "method": "POST", "CONTENT_TYPE": "text/x-upper"},
    "json": {"path": "/things", "method": "POST", "CONTENT_TYPE": "application/json"},
    "no media": {"path": "/things", "method": "POST", "CONTENT_TYPE": "text/x-none"},
    "preflight": {
        "path": "/things/7",
        "method": "OPTIONS",
        "HTTP_ORIGIN": "https://a.example",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET",
    },
    "converted": {"path": "/things/named/a1"},
    "converted twice": {"path": "/things/named/a1/of/xyz.txt"},
    "not converted": {"path": "/things/named/a1/of/xy.txt"},
    "sink": {"path": "/search/abc"},
    "sink, more": {"path": "/search/abc/def", "method": "DELETE"},
    "sink, other method": {"path": "/search/abc", "method": "PROPFIND"},
    "sink, exact": {"path": "/search/exact"},
    "sink, none": {"path": "/search/7"},
    "sink, its segment": {"path": "/search"},
    "file": {"path": "/files/conftest.py"},
    "file, head": {"path": "/files/conftest.py", "method": "HEAD"},
    "file, to be kept": {"path": "/files/down/conftest.py"},
    "file, none": {"path": "/files/none.md"},
    "file, folder": {"path": "/files/"},
    "file, outside": {"path": "/files/../conftest.py"},
    "of another origin": {"path": "/things/7", "HTTP_ORIGIN": "https://b.example"},
    "of the origin": {"path": "/things/7", "HTTP_ORIGIN": "https://a.example"},
}


TEMPLATES = ("/things", "/things/{number:int}")


def ours(set_up: SetUp, templates: tuple[str, ...] = TEMPLATES) -> LiveApp:
    """Return an application with one plugin that is set up so, and one that is not."""
    app = LiveApp()
    problems.install(app)
    put(app, "other", {"/other": lambda req, resp: setattr(resp, "text", "plain")})
    return serve(app, set_up, templates)


def serve(
    app: LiveApp, set_up: SetUp, templates: tuple[str, ...], generation: str = "_plugins.shop.g1"
) -> LiveApp:
    """Serve a plugin, which is named in its generation, in the place of what it was."""
    name = generation.split(".")[1]
    collector = RouteCollector(name, lambda _frame: None, generation)
    set_up(collector)
    for template in templates:
        collector.add_route(template, Thing())
    routes = collector.finish()
    answer_by_own(app, collector.own, routes)
    builder = app.table.builder()
    builder.remove(name)
    builder.add(name, routes)
    app.swap(builder.build())
    return app


def serve_more(app: LiveApp, set_up: SetUp = middleware) -> None:
    """Have another plugin with an application of its own."""
    serve(app, set_up, ("/more",), "_plugins.more.g2")


def plain(set_up: SetUp) -> falcon.App[Any, Any]:
    app = falcon.App()
    set_up(app)
    # What differs from Falcon on purpose, for all plugins: errors are problems.
    live = LiveApp()
    problems.install(live)
    if set_up is not serializer:
        app.set_error_serializer(cast(Any, live._serialize_error))
    for template in TEMPLATES:
        app.add_route(template, Thing())
    return app


def asked(app: Any, path: str, method: str = "GET", **environ: Any) -> tuple[Any, ...]:
    environ = {"wsgi.input": _body(method), "CONTENT_LENGTH": "7", **environ}
    if method not in {"POST", "PUT", "PATCH"}:
        del environ["wsgi.input"], environ["CONTENT_LENGTH"]
    environment = falcon.testing.create_environ("/", method=method) | {"PATH_INFO": path} | environ
    answer = Answer(app, environment)
    return answer.calls[-1][0], sorted(answer.calls[-1][1]), answer.read()


def text(content: str) -> dict[str, Any]:
    """Return an environment's body."""
    return {"wsgi.input": io.BytesIO(content.encode()), "CONTENT_LENGTH": str(len(content))}


def _body(method: str) -> Any:
    return io.BytesIO(b'"hello"' if method == "POST" else b"")


def compared() -> Iterator[Any]:
    """Give each set-up with each call that both sides are to answer alike."""
    for set_up in SETS.values():
        for name, environ in CALLS.items():
            # What is elsewhere is nobody's here, and the application's there.
            elsewhere = set_up is not fall_backs and not environ["path"].startswith("/things")
            # An exception that nobody handles is a 500 of ours.
            unhandled = set_up is middleware and name.startswith("own exception")
            if not elsewhere and not unhandled:
                yield pytest.param(set_up, name, id=f"{set_up.__name__}-{name}")


# Plain Falcon does not close what it would have streamed for a HEAD.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("set_up", "name"), [*compared()])
def test_the_answers_are_falcons(set_up: SetUp, name: str) -> None:
    assert asked(ours(set_up), **CALLS[name]) == asked(plain(set_up), **CALLS[name])


@pytest.mark.parametrize("set_up", SETS.values(), ids=SETS)
def test_other_plugins_have_nothing_of_it(set_up: SetUp) -> None:
    bare = ours(lambda _server: None)
    app = ours(set_up)
    for path in ("/other", "/other/unknown", "/unknown", "/", "/thingsome"):
        assert asked(app, path) == asked(bare, path)


def test_what_is_below_a_shared_segment_is_nobodys() -> None:
    app = ours(middleware)
    put(app, "neighbour", {"/things/next": lambda req, resp: setattr(resp, "text", "next")})
    assert "x-request" not in call(app, "/things/unknown").headers
    assert "x-request" not in call(app, "/things/next").headers
    assert call(app, "/things/7").headers["x-request"] == "outer, inner"


def test_a_table_of_two_layers_finds_it_too() -> None:
    app = LiveApp()
    problems.install(app)
    app.table = type(app.table).empty(small=0, merged_share=0.01)
    serve(app, middleware, TEMPLATES)
    put(app, "other", {"/other": lambda req, resp: None})
    assert not app.table.plain_paths
    for path in ("/things", "/things/7", "/things/7/unknown"):
        assert call(app, path).headers["x-request"] == "outer, inner", path


def test_what_a_middleware_raises_is_its_plugins_fault() -> None:
    class Breaks:
        def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
            raise ValueError("broken")

    app = ours(lambda server: server.add_middleware(Breaks()))
    failed = []
    app.on_failure = lambda route, what: failed.append((route.owner, what))
    for path in ("/things", "/things/7", "/things/unknown/9"):
        answer = call(app, path)
        assert answer.status == 500
        assert b"the plugin 'shop'" in answer.read()
    assert failed == [("shop", "raised ValueError")] * 3


def test_what_a_middleware_makes_of_the_media_of_a_handler_is_sent_and_errors_stay() -> None:
    class Wraps:
        def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.media = "before there is an answer"

        def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
            resp.media = {"wrapped": resp.media}

    class Falcons:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.media = [1]

        def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
            raise falcon.HTTPConflict

    def refuse() -> None:
        raise falcon.HTTPConflict

    def set_up(server: Any) -> None:
        server.add_middleware(Wraps())
        server.get("/typed", lambda: [1])
        server.put("/typed", refuse)
        server.add_route("/falcon", Falcons())

    app = ours(set_up, ())
    for path in ("/typed", "/falcon"):
        assert json_of(call(app, path).read()) == {"wrapped": [1]}
        answer = call(app, path, "PUT")
        assert (answer.status, json_of(answer.read())["status"]) == (409, 409)


def test_a_middleware_that_tries_to_end_the_worker_does_not() -> None:
    class Exits:
        def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:
            raise SystemExit(3)

    app = ours(lambda server: server.add_middleware(Exits()))
    answer = call(app, "/things")
    assert answer.status == 500
    assert b"tried to end the server" in answer.read()
    assert app.running.in_use() == InUse(None, frozenset())


def test_a_request_in_a_middleware_holds_its_generation_and_keeps_to_it() -> None:
    app = ours(lambda _server: None)

    class Swaps:
        """Has another generation served while a request is in the first one's middleware."""

        def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
            if app.table.number < 4:
                serve(app, lambda _server: None, ("/things/{number:int}",), "_plugins.shop.g3")
            assert app.running.in_use().generations == {"_plugins.shop.g2"}
            req.path = "/things"  # which the newer one does not have

    serve(
        app, lambda server: server.add_middleware(Swaps()), ("/things", "/old"), "_plugins.shop.g2"
    )
    assert call(app, "/old").status == 200
    assert app.running.in_use() == InUse(None, frozenset())
    assert call(app, "/things").status == 404


@pytest.mark.parametrize("path", ["/things", "/things/7"])
def test_a_request_never_has_a_responder_without_the_middleware_of_its_edit(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit that brings the first middleware comes as the request has just begun."""
    app = ours(lambda _server: None)
    make = app._request_type

    def swap_and_make(env: Any, options: Any) -> Any:
        if app.table.number < 3:
            serve(app, middleware, TEMPLATES, "_plugins.shop.g2")
        return make(env, options=options)

    monkeypatch.setattr(app, "_request_type", swap_and_make)
    answer = call(app, path)
    assert answer.status == 200
    assert answer.headers["x-request"] == "outer, inner"
    assert app.running.in_use() == InUse(None, frozenset())


def test_the_root_of_a_server_may_have_middleware() -> None:
    app = ours(middleware, ("/",))
    for path in ("/", ""):
        assert asked(app, path)[0] == "200 OK"
        assert ("x-request", "outer, inner") in asked(app, path)[1]


def test_a_newer_generation_without_it_has_none() -> None:
    app = serve(ours(middleware), lambda _server: None, ("/things",), "_plugins.shop.g2")
    assert "x-request" not in call(app, "/things").headers
    assert app.table.apps == {}


def test_json_is_strict_unless_the_plugin_has_a_handler_of_its_own() -> None:
    def own(server: Any) -> None:
        server.req_options.media_handlers["application/json"] = Upper()

    with_json: dict[str, Any] = {"method": "POST", "CONTENT_TYPE": "application/json"}
    app = ours(lambda server: server.add_middleware(Notes("it")))
    assert call(app, "/things", **with_json, **text("1e999")).status == 400
    answer = call(ours(own), "/things", **with_json, **text("1e999"))
    assert (answer.status, answer.read()) == (200, b'{"got": "1E999"}')


@pytest.mark.parametrize("name", ["req_options", "resp_options"])
def test_a_class_is_no_media_handler(name: str) -> None:
    def set_up(server: Any) -> None:
        getattr(server, name).media_handlers["text/x-upper"] = Upper

    with pytest.raises(LoadError, match="text/x-upper is the class Upper, expected an object of"):
        ours(set_up)


def test_options_that_are_none_fail_its_own_requests_alone() -> None:
    def broken(server: Any) -> None:
        server.resp_options.media_handlers = 5
        server.req_options.media_handlers = None

    app = ours(broken)
    answer = call(app, "/things")
    assert answer.status == 500
    assert b"the plugin 'shop'" in answer.read()
    assert call(app, "/other").status == 200


@pytest.mark.parametrize("path", ["/things", "/things/7"])
def test_a_request_that_is_answered_again_is_so_in_the_table_of_then(path: str) -> None:
    """As one that has waited for an exclusive plugin."""
    app = ours(middleware)

    def again(req: Any, resp: Any, **_: Any) -> None:
        serve(app, lambda _server: None, TEMPLATES, "_plugins.shop.g3")
        put(app, "more", {})
        assert app.table.apps == {}
        raise AnswerAgain

    put(app, "shop", {"/things": again, "/things/{number:int}": again})
    serve_more(app)
    answer = call(app, path)
    assert answer.status == 200
    assert answer.headers["x-seen"].startswith("responder")


@pytest.mark.parametrize("prefix", ["/", r"/(?P<all>.*)", "search", r"/s[ea]+rch", "", None])
def test_a_sink_without_a_first_segment_of_its_own_is_refused(prefix: Any) -> None:
    with pytest.raises(LoadError, match="the prefix of a sink is"):
        ours(lambda server: server.add_sink(lambda req, resp: None, prefix))


def test_the_file_of_a_head_is_closed() -> None:
    files = len([*Path("/proc/self/fd").iterdir()])
    answer = call(ours(fall_backs), "/files/conftest.py", "HEAD")
    assert (answer.status, answer.read()) == (200, b"")
    assert int(answer.headers["content-length"]) == (FILES / "conftest.py").stat().st_size
    assert len([*Path("/proc/self/fd").iterdir()]) == files


def test_a_sink_leaves_others_their_routes_and_they_leave_it_the_rest() -> None:
    app = ours(fall_backs)
    put(app, "neighbour", {"/search/here": lambda req, resp: setattr(resp, "text", "near")})
    assert call(app, "/search/here").read() == b"near"
    assert call(app, "/search/there").status == 200
    with pytest.raises(ConflictError):
        put(app, "taker", {"/search/{term}": lambda req, resp: None})


def test_two_plugins_may_call_their_converters_alike() -> None:
    class Other(Sku):
        def convert(self, value: str) -> str | None:
            return f"other {value}"

    def other(server: Any) -> None:
        server.router_options.converters["sku"] = Other
        server.add_route("/more/{x:sku}", Named())

    app = ours(converters)
    serve_more(app, other)
    assert json.loads(call(app, "/things/named/a1").read())["fields"] == {"x": "A1"}
    assert json.loads(call(app, "/more/a1").read())["fields"] == {"x": "other a1"}


def test_falcons_own_converter_may_be_another_in_one_plugin() -> None:
    def own_int(server: Any) -> None:
        server.router_options.converters["int"] = Sku
        server.add_route("/more/{x:int}", Named())

    app = ours(lambda _server: None)
    serve_more(app, own_int)
    assert json.loads(call(app, "/more/a1").read())["fields"] == {"x": "A1"}
    assert call(app, "/things/7").status == 200
    assert call(app, "/things/a1").status == 404


def test_an_unknown_converter_is_refused_and_one_that_stands_elsewhere_is_not() -> None:
    with pytest.raises(LoadError, match='Unknown converter: "sku"'):
        ours(lambda server: server.add_route("/things/named/{x:sku}", Named()))
    # As where only templates are compared, or the plugin runs in another process.
    assert find_conflict("a", ["/x/{y:sku(3)}"], {"b": ["/x/z"]}) is None
    assert find_conflict("a", ["/x/{y:sku}/1"], {"b": ["/x/{y:sku}/2"]}) is not None
    assert find_conflict("a", ["/x/{y:sku}/1", "/x/{y:sku}/2"], {}) is None


@pytest.mark.parametrize("wrong", [3, object, "sku", lambda: None])
def test_what_is_no_converter_is_refused(wrong: Any) -> None:
    def set_up(server: Any) -> None:
        server.router_options.converters["sku"] = wrong
        server.add_route("/things/named/{x:sku}", Named())

    with pytest.raises((LoadError, TypeError)):
        ours(set_up)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda server: server.add_middleware(object()),
        lambda server: server.add_error_handler(3, lambda *_: None),
        lambda server: server.add_error_handler(OutOfStockError),
    ],
)
def test_what_falcon_refuses_is_refused_as_it_is_set_up(wrong: SetUp) -> None:
    with pytest.raises((TypeError, AttributeError)):
        ours(wrong)


class Short:
    """Middleware and handlers that take less than Falcon gives them, or more."""

    def process_response(self, req: Any, resp: Any) -> None: ...

    def handle(self, req: Any, resp: Any) -> None: ...

    async def later(self, *arguments: Any) -> None: ...

    def __call__(self, req: Any, resp: Any, resource: Any, params: Any, more: Any) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda server: server.add_middleware(Notes),
            "add_middleware was given the class Notes, expected an object of it: Notes()",
        ),
        (lambda server: server.add_middleware([Notes("one"), Keeps]), "of it: Keeps()"),
        (
            lambda server: server.add_middleware(re),
            "must implement at least one middleware method",
        ),
        (
            lambda server: server.add_middleware(SimpleNamespace(process_request=print_all)),
            "whose process_request is no method, expected an object of a class that has it",
        ),
        (
            lambda server: server.add_middleware(Short()),
            "the middleware has Short.process_response(req: Any, resp: Any) -> None, which Falcon "
            "calls (req, resp, resource, req_succeeded): too many positional arguments",
        ),
        (
            lambda server: server.add_error_handler(OutOfStockError, Short().handle),
            "the error handler is Short.handle(req: Any, resp: Any) -> None, which Falcon calls "
            "(req, resp, ex, params): too many",
        ),
        (
            lambda server: server.add_error_handler(OutOfStockError, Short().later),
            "the error handler is Short.later, a coroutine function, expected a plain one",
        ),
        (
            lambda server: server.set_error_serializer(Short),
            "the class Short, expected an object that Falcon calls (req, resp, exception), as "
            "Short()",
        ),
        (
            lambda server: server.add_sink(Short().handle, r"/files/(?P<term>.+)"),
            "the sink is Short.handle(req: Any, resp: Any) -> None, which Falcon calls (req, resp, "
            "term=…): got an unexpected keyword argument 'term'",
        ),
        (lambda server: server.add_sink(None, "/files"), "the sink is None"),
    ],
)
def test_what_falcon_could_not_call_is_refused_and_not_a_500_each_time(
    wrong: SetUp, said: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        ours(wrong)


def print_all(*arguments: Any) -> None:
    print(*arguments)


def test_what_falcon_can_call_is_taken() -> None:
    class Wide:
        process_request = staticmethod(Notes("none").process_request)

        def process_resource(self, *arguments: Any, more: int = 0) -> None: ...

        def process_response(self, req: Any, *rest: Any) -> None: ...

    def set_up(server: Any) -> None:
        server.add_middleware(iter([Wide(), Notes("last")]))
        server.add_error_handler(OutOfStockError, lambda *_, **__: None)
        server.add_error_handler(KeyError, functools.partial(print_all, 1))
        server.set_error_serializer(lambda req, resp, exception, more=None: None)
        server.add_sink(lambda req, resp, term, **more: None, r"/files/(?P<term>.+)")

    assert (
        call(ours(set_up), "/things/7").headers["x-seen"].startswith("none request, last request")
    )


def test_nothing_can_be_set_up_later() -> None:
    collector = RouteCollector("shop", lambda _frame: None)
    collector.finish()
    with pytest.raises(LoadError, match="after register_routes had ended"):
        collector.add_middleware(Notes("late"))


def test_a_group_has_its_routes_below_its_prefix() -> None:
    collector = RouteCollector("shop", lambda _frame: None, "_plugins.shop.g1")
    version = collector.group("/shop").group("/v1")
    version.add_route("/things", Thing())
    version.add_route("/", Thing())
    version.get("/orders/{number:int}", lambda number: {"order": number})
    assert [route.template for route in collector.finish()] == [
        "/shop/v1/things",
        "/shop/v1",
        "/shop/v1/orders/{number:int}",
    ]


@pytest.mark.parametrize("prefix", ["", "v1", "/v1/", "/", None])
def test_what_is_no_prefix_is_refused(prefix: Any) -> None:
    collector = RouteCollector("shop", lambda _frame: None)
    for server in (collector, collector.group("/shop")):
        with pytest.raises(ValueError, match="the prefix is"):
            server.group(prefix)
