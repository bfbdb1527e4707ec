"""The keywords of routes and groups: what they do to an answer, and how they add up."""

import re
from http import HTTPStatus
from typing import Annotated, Any, Literal, NewType

import falcon
import pydantic
import pytest
from falcon import testing

from app.admin import problems
from app.errors import LoadError
from app.loading.registration import RouteCollector
from app.plugin import Answer
from app.routing.application import LiveApp


def collect(register):
    collector = RouteCollector("shop", lambda frame: ("main.py", frame.f_lineno))
    register(collector)
    return collector.finish()


def client(register):
    app = LiveApp()
    builder = app.table.builder()
    builder.add("shop", collect(register))
    app.swap(builder.build())
    return testing.TestClient(app)


def refused(register):
    with pytest.raises(LoadError) as caught:
        collect(register)
    return str(caught.value)


def options_of(register, method="GET"):
    return collect(register)[0].operations[method].options


def test_the_status_is_that_of_a_plain_return():
    def register(server):
        server.post("/plain", lambda: {"made": 1}, status=201)
        server.post("/none", lambda: None, status=202)
        server.post("/other", lambda: ({"there": 1}, 200), status=201)
        server.post("/default", lambda: None)
        server.post("/wrong", wrong, status=201)

    def wrong():
        raise falcon.HTTPConflict

    asked = client(register)
    found = {
        path: asked.simulate_post(path).status_code
        for path in ("/plain", "/none", "/other", "/default", "/wrong")
    }
    assert found == {"/plain": 201, "/none": 202, "/other": 200, "/default": 204, "/wrong": 409}


def test_hooks_run_around_a_handler_as_falcons_do():
    said: list[object] = []

    class Shop:
        def handle(self, req, item: int):
            said.append(("handle", item, req.context.more))
            return {}

    shop = Shop()

    def first(req, resp, resource, params):
        said.append(("first", req.method, resource, dict(params)))
        params["item"] = "7"
        req.context.more = 1

    def last(req, resp, resource):
        said.append(("last", resp.data, resource))

    def register(server):
        server.get("/x/{item}", shop.handle, before=first, after=[last])

    assert client(register).simulate_get("/x/5").status_code == 200
    assert said == [
        ("first", "GET", shop, {"item": "5"}),
        ("handle", 7, 1),
        ("last", b"{}", shop),
    ]


class Item(pydantic.BaseModel):
    number: int


def wraps(req, resp, resource, *_):
    resp.media = {"wrapped": resp.media}


def changes(req, resp, resource, *_):
    resp.media["more"] = 1


def replaces(req, resp, resource, *_):
    resp.media = [1]


def looks(req, resp, resource, *_):
    assert resp.data


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (wraps, {"wrapped": {"number": 5}}),
        (changes, {"number": 5, "more": 1}),
        (replaces, [1]),
        ([wraps, wraps], {"wrapped": {"wrapped": {"number": 5}}}),
        (looks, {"number": 5}),
    ],
)
def test_what_a_hook_makes_of_the_media_of_a_handler_is_sent(hook, expected):
    def owner(resp: falcon.Response):
        resp.media = "of the handler, which then returns something else"
        return {"number": 5}

    def typed(resp: falcon.Response):
        resp.content_type = "application/json"
        return {"number": 5}

    class Resource:
        def on_get(self, req, resp):
            resp.media = {"number": 5}

    def register(server):
        server.get("/dict", lambda: {"number": 5}, after=hook)
        server.get("/model", lambda: Item(number=5), after=hook)
        server.get("/status", lambda: (Item(number=5), 201), after=hook)
        server.get("/owner", owner, after=hook)
        server.get("/typed", typed, after=hook)
        if hook is not looks:
            server.add_route("/resource", Resource(), after=hook)

    asked = client(register)
    paths = ["/dict", "/model", "/status", "/owner", "/typed", "/resource"]
    paths = paths[:-1] if hook is looks else paths
    assert {path: asked.simulate_get(path).json for path in paths} == dict.fromkeys(paths, expected)


def test_what_a_hook_sets_beside_an_error_or_another_body_counts_as_with_falcon():
    """Whatever is in `data` or `text` comes before media, but what a handler's JSON is."""

    def text(resp: falcon.Response):
        resp.content_type = "text/plain"
        return "text"

    def of_a_kind(resp: falcon.Response):
        resp.content_type = "application/vnd.api+json"
        return [1]

    def zipped(req, resp, resource):
        resp.data = resp.data[:5]

    def register(server):
        server.get("/bytes", lambda: b"bytes", after=wraps)
        server.get("/text", text, after=wraps)
        server.get("/kind", of_a_kind, after=wraps)
        server.get("/zipped", lambda: "12345", after=[zipped, wraps])
        server.get("/null", lambda: pydantic.RootModel[None](None), after=looks_at_media)

    def looks_at_media(req, resp, resource):
        assert resp.media is None

    asked = client(register)
    paths = ("bytes", "text", "kind", "zipped", "null")
    found = [asked.simulate_get(f"/{name}").text for name in paths]
    assert found == ["bytes", "text", "[1]", '"1234', "null"]


def adds(req, resp, resource, params):
    params["user"] = "ann"


def drops(req, resp, resource, params):
    params.clear()


def same(req, resp, resource, params): ...


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        (adds, "the hook adds of /x/{item} changed which `params` there are: 'user' was added. "),
        ([same, drops], "the hook same or drops of /x/{item} changed which `params` there are: "),
        ([drops], "'item' is missing. Expected the fields of the template"),
    ],
)
def test_a_hook_that_changes_which_params_a_handler_gets_is_named(capsys, hooks, said):
    def handle(item: int, user: str = ""): ...

    found = client(lambda server: server.get("/x/{item}", handle, before=hooks))
    assert found.simulate_get("/x/5").status_code == 500
    assert said in capsys.readouterr().err


def test_a_type_error_of_a_handler_with_hooks_is_its_own(capsys):
    def handle(item: int):
        raise TypeError("of the handler")

    found = client(lambda server: server.get("/x/{item}", handle, before=same))
    assert found.simulate_get("/x/5").status_code == 500
    assert "TypeError: of the handler" in capsys.readouterr().err


class Whatever:
    def on_get(self, req, resp, **fields):
        resp.media = sorted(fields)


def test_a_falcon_resource_takes_what_hooks_add():
    found = client(lambda server: server.add_route("/x/{item}", Whatever(), before=adds))
    assert found.simulate_get("/x/5").json == ["item", "user"]


def test_a_hook_that_refuses_keeps_the_handler_from_running():
    def refuse(req, resp, resource, params):
        raise falcon.HTTPForbidden

    class Thing:
        def on_get(self, req, resp):
            raise AssertionError

    def application(environ, start_response):
        raise AssertionError

    def register(server):
        group = server.group("/x", before=refuse)
        group.get("/handler", lambda: 1 / 0)
        group.add_route("/resource", Thing())
        group.mount("/mount", application)
        group.group("/in").get("/side", lambda: 1 / 0)
        server.add_route("/y", Thing(), before=[refuse])

    asked = client(register)
    for path in ("/x/handler", "/x/resource", "/x/mount/a", "/x/in/side", "/y"):
        assert asked.simulate_get(path).status_code == 403, path


def test_what_a_group_says_adds_up_with_what_is_said_in_it():
    order = []

    def hook(name):
        return lambda req, resp, *rest: order.append(name)

    def register(server):
        outer = server.group(
            "/v1",
            tags=["all"],
            deprecated=True,
            before=hook("outer"),
            after=hook("outer"),
            responses={404: "none", 409: "outer"},
        )
        inner = outer.group("/in", tags=["some"], before=[hook("inner")], after=hook("inner"))
        inner.get(
            "/x",
            lambda: 1,
            tags=["all", "one"],
            deprecated=False,
            before=hook("own"),
            after=hook("own"),
            responses={409: "own"},
        )

    found = options_of(register)
    assert found.tags == ("all", "some", "one")
    assert not found.deprecated
    assert dict(found.responses) == {"404": "none", "409": "own"}
    client(register).simulate_get("/v1/in/x")
    assert order == ["outer", "inner", "own", "own", "inner", "outer"]


@pytest.mark.parametrize("status", [204, 205])
def test_an_answer_that_has_no_content_returns_none(status):
    def register(returns):
        def find():
            return {}

        find.__annotations__["return"] = returns
        return lambda server: server.get("/x", find, status=status)

    collect(register(None))
    for returns in (dict, list[int], str):
        assert f"expected None: an answer of {status} has no content" in refused(register(returns))


@pytest.mark.parametrize(
    "answer",
    [
        ({"a": 1}, 204),
        Answer({"a": 1}, 205),
        Answer([], "304 Not Modified"),
        ("x", HTTPStatus(204)),
    ],
)
def test_content_for_a_status_that_has_none_is_a_fault_and_not_dropped(answer):
    app = LiveApp()
    problems.install(app)
    builder = app.table.builder()
    builder.add("shop", collect(lambda server: server.get("/x", lambda: answer)))
    app.swap(builder.build())
    assert testing.TestClient(app).simulate_get("/x").status_code == 500
    empty = client(lambda server: server.get("/x", lambda: Answer(None, 204))).simulate_get("/x")
    assert (empty.status_code, empty.content, "content-type" in empty.headers) == (204, b"", False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"sumary": "x"},
            "GET /x: the option 'sumary' is unknown, expected one of summary, description",
        ),
        ({"status": 99}, "'status' is 99, expected a number from 200 to 599"),
        ({"status": True}, "'status' is True"),
        ({"tags": "one"}, "'tags' is 'one', expected a list of texts"),
        ({"operation_id": "a b"}, "'operation_id' is 'a b'"),
        ({"deprecated": 1}, "'deprecated' is 1, expected True or False"),
        ({"summary": 5}, "'summary' is 5, expected text"),
        ({"responses": [404]}, "'responses' is [404], expected a mapping"),
        ({"responses": {4: ""}}, "'responses' is 4, expected a number"),
        ({"security": "token"}, "'security' is 'token', expected one of bearer, basic"),
        ({"security": ["bearer", {"key": {}}]}, "'security' is {'key': {}}, expected"),
        ({"security": {"token": {}}}, "expected a security scheme of OpenAPI"),
        ({"before": 5}, "'before' is 5, expected a hook of Falcon's"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_line(options, said):
    found = refused(lambda server: server.get("/x", lambda: 1, **options))
    assert said in found
    assert "main.py" in found


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            5,
            "the option 'responses' is 5 for 404, expected a text, a type, (text, type), or a resp",
        ),
        ([dict], "[<class 'dict'>] for 404, expected a text, a type"),
        (("gone", 5), "('gone', 5) for 404, expected a text and a type"),
        (
            {"content": 5},
            "the option 'responses' is for 404 no response of OpenAPI: content is 5, expected an "
            "object with a media type for each name",
        ),
        (
            {"content": {"schema": {"type": "string"}}},
            "expected media types as its names, as application/json",
        ),
        (
            {"content": {"application/json": {"schema": dict}}},
            "content.application/json.schema is <class 'dict'>, expected an object that is a "
            "schema; a type stands beside a text: (text, type)",
        ),
        (
            {"content": {"a/b": {"schema": {"properties": {"x": {"type": "text"}}}}}},
            "content.a/b.schema.properties.x.type is 'text', expected one of array, boolean",
        ),
        (
            {"content": {"a/b": {"schema": {"anyOf": [{"type": "null"}, {"required": "x"}]}}}},
            "content.a/b.schema.anyOf[1].required is 'x', expected a list of texts, no two alike",
        ),
        ({"content": {"a/b": {"schema": {"allOf": []}}}}, "is [], expected one schema at least"),
        ({"content": {"a/b": {"schema": {"type": {}}}}}, "schema.type is {}, expected one of"),
        ({"content": {"a/b": {"schema": {"minLength": 1.5}}}}, "is 1.5, expected a count"),
        ({"description": object}, "description is <class 'object'>, expected text"),
        (
            {"model": dict},
            "model is unknown, expected description, headers, content, links; a type stands beside "
            "a text: (text, type)",
        ),
        ({"headers": {"X-A": {"type": "string"}}}, "headers.X-A.type is unknown, expected desc"),
        ({"headers": {"X-A": {}}}, "headers.X-A is {}, expected one of schema and content"),
        ({"$ref": "#/components/responses/A", "content": {}}, "content is unknown, expected $ref"),
        ({404: "x"}, "404 is unknown"),
        ({"content": {"a/b": {"schema": {"multipleOf": 0}}}}, "is 0, expected a number above 0"),
        ({"content": {"a/b": {"schema": {"discriminator": {}}}}}, "is {}, expected propertyName"),
        ({"content": {"a/b": {"schema": {"xml": 5}}}}, "is 5, expected an object that is a xml"),
        (
            {"content": {"a/b": {"examples": {"one": {"value": 1, "externalValue": "x"}}}}},
            "expected one of value and externalValue",
        ),
        (
            {"content": {"a/b": {"encoding": {"x": {"style": "wide"}}}}},
            "is 'wide', expected one of form, spaceDelimited",
        ),
        ({"headers": {"X-A": {"schema": {}, "style": "form"}}}, "is 'form', expected 'simple'"),
        (
            {"headers": {"X-A": {"content": {"a/b": {}, "c/d": {}}}}},
            "headers.X-A.content is {'a/b': {}, 'c/d': {}}, expected one media type",
        ),
        ({"links": {"a": {"description": "x"}}}, "expected one of operationRef and operationId"),
    ],
)
def test_a_response_that_would_make_the_document_invalid_is_refused(said, why):
    for register in (
        lambda server: server.get("/x", lambda: 1, responses={404: said}),
        lambda server: server.add_route("/x", Thing(), responses={404: said}),
    ):
        found = refused(register)
        assert why in found
        assert "main.py" in found


class Thing:
    def on_get(self, req, resp): ...


@pytest.mark.parametrize("status", [999, 99, "404", "4XX", "404 Not Found", True, None])
def test_a_status_that_no_answer_has_is_refused(status):
    found = refused(lambda server: server.get("/x", lambda: 1, responses={status: "x"}))
    assert f"'responses' is {status!r}, expected a number from 200 to 599 or 'default'" in found


@pytest.mark.parametrize(
    "said",
    [
        None,
        Any,
        list[int] | None,
        Annotated[int, "x"],
        NewType("Number", int),
        Literal["a"],
        ("text", dict[str, int]),
        {},
        {"description": "x", "x-own": object()},
        {"$ref": "#/components/responses/Benana.Problem", "description": "x"},
        {
            "headers": {"X-A": {"schema": True, "required": True}},
            "links": {"next": {"operationId": "x", "parameters": {"a": 1}}},
            "content": {
                "text/*": {},
                "a/b": {
                    "schema": {
                        "type": ["object", "null"],
                        "properties": {"type": {"const": 5, "minLength": 2.0}},
                        "additionalProperties": False,
                        "own": 7,
                    },
                    "examples": {"one": {"value": 5}, "two": {"$ref": "#/a"}},
                },
            },
        },
    ],
)
def test_what_openapi_allows_as_a_response_is_taken(said):
    collect(lambda server: server.get("/x", lambda: 1, responses={HTTPStatus.NOT_FOUND: said}))


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ({"type": "token"}, "type is 'token', expected one of apiKey, http, mutualTLS, oauth2"),
        ({"type": "apiKey", "name": "X"}, "in is missing, expected it with the type apiKey"),
        ({"type": "apiKey", "name": "X", "in": "body"}, "in is 'body', expected query, header or"),
        ({"type": "http"}, "scheme is missing"),
        ({"type": "oauth2", "flows": 5}, "flows is 5"),
        ({"type": "oauth2", "flows": {"passwort": {}}}, "flows.passwort is unknown, expected impl"),
        (
            {"type": "oauth2", "flows": {"password": {"tokenUrl": "/token"}}},
            "flows.password is {'tokenUrl': '/token'}, expected scopes",
        ),
        ({"type": "http", "scheme": "bearer", "format": "JWT"}, "format is unknown"),
    ],
)
def test_a_security_scheme_that_would_make_the_document_invalid_is_refused(scheme, why):
    found = refused(lambda server: server.get("/x", lambda: 1, security={"key": scheme}))
    assert f"the option 'security' is for key no security scheme of OpenAPI: {why}" in found


IN_HEADER = {"type": "apiKey", "in": "header", "name": "X-A"}


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ({"key": IN_HEADER}, {"key": IN_HEADER | {"in": "query"}}, "key"),
        ("bearer", {"bearer": IN_HEADER}, "bearer"),
        ({"a": IN_HEADER, "b": IN_HEADER}, {"b": {**IN_HEADER, "name": "X-B"}}, "b"),
    ],
)
def test_a_name_of_two_security_schemes_is_refused(first, second, name):
    def register(server):
        server.get("/x", lambda: 1, security=first)
        server.group("/y", security=second).post("/z", lambda: 1)

    assert (
        f"POST /y/z: the option 'security' has another scheme {name!r} than GET /x, expected the "
        "same, or another name for it"
    ) in refused(register)


def test_a_security_scheme_may_be_said_by_several_routes():
    def register(server):
        server.get("/x", lambda: 1, security={"key": IN_HEADER})
        server.post("/x", lambda: 1, security={"key": dict(IN_HEADER), "other": IN_HEADER})
        server.get("/y", lambda: 1, security=["bearer", "basic"])
        server.get("/z", lambda: 1, security="bearer")

    assert len(collect(register)) == 3


def test_all_that_is_wrong_is_named_and_a_group_is_refused_where_it_is_made():
    found = refused(lambda server: server.get("/x", lambda: 1, status=1, sumary="", tags=5))
    assert "'status'" in found
    assert "'sumary'" in found
    assert "'tags'" in found
    with pytest.raises(ValueError, match="'operation_id' is that of one method"):
        collect(lambda server: server.group("/x", operation_id="x"))


def test_a_resource_ignores_what_falcon_ignores_and_refuses_what_is_of_one_method():
    class Thing:
        def on_get(self, req, resp): ...

    (route,) = collect(lambda server: server.add_route("/x", Thing(), compile=True, tags=["t"]))
    assert route.operations["GET"].options.tags == ("t",)
    assert "'status' is that of one method" in refused(
        lambda server: server.add_route("/x", Thing(), status=201)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"before": lambda: None},
            "the option 'before' is <lambda>(), which Falcon calls (req, resp, "
            "resource, params): too many positional arguments",
        ),
        ({"before": [lambda req, resp, resource, params, more: None]}, "argument: 'more'"),
        (
            {"after": lambda req, resp, resource, params: None},
            "(req, resp, resource, params), which Falcon calls (req, resp, resource): missing a "
            "required argument: 'params'",
        ),
        ({"after": [lambda *_: None, lambda req, resp, *, resource: None]}, "too many"),
    ],
)
def test_a_hook_that_falcon_could_not_call_is_refused(options, said):
    assert said in refused(lambda server: server.get("/x", lambda: 1, **options))
    with pytest.raises(ValueError, match=re.escape(said)):
        collect(lambda server: server.group("/x", **options))

    class Thing:
        def on_get(self, req, resp): ...

    found = refused(lambda server: server.add_route("/x", Thing(), **options))
    assert said in found
    assert "main.py" in found


def test_a_hook_may_be_an_object_and_not_its_class():
    class Hook:
        def __call__(self, req, resp, resource, params): ...

    collect(lambda server: server.get("/x", lambda: 1, before=Hook()))
    found = refused(lambda server: server.get("/x", lambda: 1, before=Hook))
    assert "Hook, expected an object that Falcon calls (req, resp, resource, params), as" in found


def test_a_coroutine_function_is_no_hook():
    async def hook(req, resp, resource, params): ...

    found = refused(lambda server: server.get("/x", lambda: 1, before=hook))
    assert "a coroutine function, expected a plain one" in found


def test_security_is_by_name_or_as_openapi_has_it():
    key = {"type": "apiKey", "in": "header", "name": "X-Key"}

    def register(given):
        return lambda server: server.get("/x", lambda: 1, security=given)

    assert dict(options_of(register("bearer")).security) == {
        "bearer": {"type": "http", "scheme": "bearer"}
    }
    assert dict(options_of(register({"key": key})).security) == {"key": key}
    assert dict(options_of(register([])).security) == {}
    assert options_of(lambda server: server.get("/x", lambda: 1)).security is None
