"""The document of what is live: what is in it, when it is made, and that it keeps nothing alive."""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import gc
import subprocess
import sys
import types
import typing
import uuid
import weakref
from http import HTTPStatus
from typing import Annotated, Any, Literal

import annotated_types
import falcon
import jsonschema
import pydantic
import pytest

from app.admin.openapi import document as document_module
from app.admin.openapi import fragment
from app.admin.openapi.document import LACKS, LiveDocuments
from app.isolation.stand_in import stand_in_for
from app.loading.annotations import show
from app.loading.registration import RouteCollector
from app.loading.routes import SERVER, Route
from app.plugin import Cookie, File, Form, Header, PluginMetadata, Produces, Query
from app.records import Endpoint
from app.responses import Answer
from app.routing.application import LiveApp
from app.routing.plugin_app import answer_by_own
from tests.support.openapi import checked, followed, schema_at


class Live:
    """An application with a route table that tests change, and its documents."""

    def __init__(self, **options):
        self.app = LiveApp()
        self.metadata = {}
        self.number = 0
        self.documents = LiveDocuments(
            self.app, self.metadata.get, has_token=options.get("has_token", False)
        )

    def load(self, name, register, *, alone=False):
        """Load a plugin, or its next generation."""
        self.number += 1
        collector = RouteCollector(name, lambda _: None, f"_plugins.{name}.g{self.number}")
        register(collector)
        builder = self.app.table.builder()
        builder.remove(name)
        routes = collector.finish()
        for route in routes:
            if alone:
                route.run_alone()
        builder.add(name, routes)
        self.app.swap(builder.build())

    def remove(self, name):
        builder = self.app.table.builder()
        builder.remove(name)
        self.app.swap(builder.build())

    def all(self, *, with_admin=False):
        return checked(self.documents.of_all(with_admin=with_admin).body)

    def one(self, name):
        found = self.documents.of_plugin(name)
        return None if found is None else checked(found.body)


@pytest.fixture
def live():
    return Live()


def operation(live, register, method="get", path="/x"):
    live.load("shop", register)
    return live.one("shop")["paths"][path][method]


def models(module="main", generation=1, plugin="shop", **fields):
    """Make a model as a plugin's module has it."""
    name = f"_plugins.{plugin}.g{generation}.{module}"
    return pydantic.create_model("Item", __module__=name, **fields)


class Quiet:
    def process_request(self, req, resp): ...


def quiet(*arguments): ...


def answering(kind):
    def handler(): ...

    handler.__annotations__["return"] = kind
    return handler


def taking(kind):
    def handler(body): ...

    handler.__annotations__["body"] = kind
    return handler


# --- what is described -----------------------------------------------------------------------


def test_a_typed_handler_says_all_by_itself(live):
    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Order(pydantic.BaseModel):
        number: int

    class Shop:
        def find_order(
            self,
            number: int,
            colour: Colour,
            day: datetime.date | None = None,
            tags: Annotated[tuple[str, ...], Query("tag")] = (),
            token: Annotated[str, Header("X-Token"), "Who asks."] = "none",
            session: Annotated[int, Cookie()] = 0,
        ) -> Order:
            """Find an order.

            It looks in
            the database.

            Args:
                number: its number.
                day: when it was
                    ordered.

            Returns:
                The order.

            Raises:
                KeyError: there is none.
            """
            raise KeyError

    found = operation(
        live,
        lambda server: server.get("/shop/{number}", Shop().find_order),
        path="/shop/{number}",
    )
    assert found["summary"] == "Find an order."
    assert found["description"] == "It looks in\nthe database."
    assert found["operationId"] == "find_order"
    assert found["tags"] == ["shop"]
    assert found["responses"]["200"]["description"] == "The order."
    assert {
        (p["in"], p["name"], p.get("required", False), p.get("description", ""))
        for p in found["parameters"]
    } == {
        ("path", "number", True, "its number."),
        ("query", "colour", True, ""),
        ("query", "day", False, "when it was ordered."),
        ("query", "tag", False, ""),
        ("header", "X-Token", False, "Who asks."),
        ("cookie", "session", False, ""),
    }
    schemas = {p["name"]: p["schema"] for p in found["parameters"]}
    assert schemas == {
        "number": {"type": "integer"},
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "day": {"type": "string", "format": "date"},
        "tag": {"type": "array", "items": {"type": "string"}, "default": []},
        "X-Token": {"type": "string", "default": "none"},
        "session": {"type": "integer", "default": 0},
    }


def test_the_options_of_a_route_count(live):
    class Made(pydantic.BaseModel):
        number: int

    def register(server):
        server.post(
            "/x",
            answering(dict),
            summary="Make it",
            description="As it says.",
            tags=["makers"],
            operation_id="make",
            deprecated=True,
            status=201,
            responses={
                202: Made,
                409: "There is one.",
                410: ("It was there.", Made),
                "default": {"description": "Else", "headers": {"X-A": {"schema": {}}}},
            },
            security={"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
        )
        server.get("/x", answering(dict), hidden=True)
        server.put("/x", answering(dict), security=[])

    found = operation(live, register, "post")
    assert (found["summary"], found["description"]) == ("Make it", "As it says.")
    assert (found["tags"], found["operationId"], found["deprecated"]) == (["makers"], "make", True)
    assert sorted(found["responses"]) == ["201", "202", "409", "410", "default"]
    assert found["responses"]["409"]["description"] == "There is one."
    assert "application/problem+json" in found["responses"]["409"]["content"]
    assert found["responses"]["410"]["description"] == "It was there."
    assert found["responses"]["default"]["headers"] == {"X-A": {"schema": {}}}
    assert found["security"] == [{"key": []}]
    document = live.one("shop")
    assert document["components"]["securitySchemes"]["key"]["in"] == "header"
    assert schema_at(document, "post", "/x", "202")["properties"]["number"]["type"] == "integer"
    assert document["paths"]["/x"].keys() == {"post", "put"}
    assert document["paths"]["/x"]["put"]["security"] == []
    whole = live.all()
    assert whole["paths"]["/x"]["post"]["security"] == [{"shop.key": []}]
    assert "shop.key" in whole["components"]["securitySchemes"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (bytes, {"application/octet-stream": {}}),
        (("The file.", bytes), {"application/octet-stream": {}}),
        (typing.Iterator[bytes], {"*/*": {}}),
        (None, None),
        (int, {"application/json": {"schema": {"type": "integer"}}}),
    ],
)
def test_another_answer_is_described_as_what_is_sent_of_its_type(live, kind, content):
    found = operation(live, lambda server: server.get("/x", answering(dict), responses={404: kind}))
    said = "The file." if isinstance(kind, tuple) else "Not Found"
    expected = {} if content is None else {"content": content}
    assert found["responses"]["404"] == {"description": said, **expected}


def test_a_time_of_the_path_in_a_format_of_its_own_is_no_date_time(live):
    def handler(when: datetime.datetime, at: datetime.datetime):
        return 1

    handler.__annotations__["at"] = Annotated[datetime.datetime, annotated_types.Ge(NEW)]

    def register(server):
        server.get('/x/{when:dt("%Y-%m")}/{at:dt("%Y")}', handler)
        server.get("/y/{when:dt}/{at}", handler)
        server.get("/z/{when:dt()}/{at:dt}", handler)

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    formats = [
        [
            each["schema"].get("format")
            for each in paths[f"/{name}/{{when}}/{{at}}"]["get"]["parameters"]
        ]
        for name in "xyz"
    ]
    assert formats == [[None, None], ["date-time"] * 2, ["date-time"] * 2]
    own = paths["/x/{when}/{at}"]["get"]["parameters"][0]["schema"]
    assert own == {"type": "string", "description": 'A time as strptime reads it: "%Y-%m".'}


NEW = datetime.datetime(2020, 1, 1)


def test_falcon_resources_have_their_methods_fields_and_docstrings(live):
    class Thing:
        def on_get(self, req, resp, number, name):
            """Show it.

            As it is.
            """

        def on_delete(self, req, resp, number, name): ...

        def on_get_all(self, req, resp):
            """Show all."""

    def register(server):
        server.add_route("/x/{number:int}/{name}", Thing())
        server.add_route("/x", Thing(), suffix="all", tags=["things"])

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    assert paths["/x"]["get"]["summary"] == "Show all."
    assert paths["/x"]["get"]["tags"] == ["things"]
    item = paths["/x/{number}/{name}"]
    assert item.keys() == {"get", "delete"}
    assert item["get"]["description"] == "As it is."
    assert [p["schema"] for p in item["get"]["parameters"]] == [
        {"type": "integer"},
        {"type": "string"},
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (list[str | None], {"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}),
        (tuple[int, int], {"prefixItems": [{"type": "integer"}] * 2, "minItems": 2}),
        (Literal["a", 1], {"type": ["string", "integer"], "enum": ["a", 1]}),
        (decimal.Decimal, {"type": "string"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (set[int], {"type": "array", "uniqueItems": True}),
        (Any, {}),
        (Annotated[int, "a number"], {"type": "integer"}),
        (Annotated[int, pydantic.Field(ge=5)], {"type": "integer", "minimum": 5}),
    ],
)
def test_an_answer_has_the_schema_of_its_annotation(live, kind, expected):
    operation(live, lambda server: server.get("/x", answering(kind)))
    assert expected.items() <= schema_at(live.one("shop"), "get", "/x").items()


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (None, ["204", "default"]),
        (dict | None, ["200", "204", "default"]),
        (tuple[dict, Literal[201, 202]], ["201", "202", "default"]),
        (tuple[dict, int], ["default"]),
        (dict | tuple[dict, int], ["200", "default"]),
        (tuple[HTTPStatus, dict], ["default"]),
        (tuple[Literal[HTTPStatus.CREATED], dict], ["201", "default"]),
        (tuple[dict, Literal[HTTPStatus.CREATED], dict[str, str]], ["201", "default"]),
        (tuple[int, int], ["200", "default"]),
        (typing.Iterator[bytes], ["200", "default"]),
        (typing.Generator[str, None, None], ["200", "default"]),
        (typing.BinaryIO, ["200", "default"]),
        (Answer[dict], ["200", "default"]),
        (Answer, ["200", "default"]),
        (Answer[dict] | None, ["200", "204", "default"]),
    ],
)
def test_what_a_handler_returns_says_which_statuses_there_are(live, kind, statuses):
    found = operation(live, lambda server: server.get("/x", answering(kind)))
    assert sorted(found["responses"]) == statuses


def test_constraints_are_in_the_schemas_and_what_breaks_one_is_a_422(live):
    def find(
        number: Annotated[int, annotated_types.Ge(1)],
        other: int,
        limit: Annotated[int, pydantic.Field(le=9)] = 5,
        tags: Annotated[list[Annotated[str, pydantic.Field(pattern="^a")]] | None, Query()] = None,
    ) -> dict:
        return {}

    def show(number: Annotated[int, annotated_types.Ge(1)]) -> dict:
        return {}

    def register(server):
        server.get("/x/{number:int}/{other}", find)
        server.get("/y/{number}", show)

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    found = paths["/x/{number}/{other}"]["get"]
    assert [parameter["schema"] for parameter in found["parameters"]] == [
        {"type": "integer", "minimum": 1},
        {"type": "integer"},
        {"allOf": [{"type": "integer", "maximum": 9}], "default": 5},
        {"type": "array", "items": {"type": "string", "pattern": "^a"}},
    ]
    assert paths["/y/{number}"]["get"]["responses"].keys() == {"200", "404", "422", "default"}


def test_a_default_that_is_not_of_its_type_is_left_out(live):
    def find(
        wrong: int = "abc",  # type: ignore[assignment]
        flag: int = True,
        exact: decimal.Decimal = decimal.Decimal("1.5"),
        many: list[int] = "abc",  # type: ignore[assignment]
        right: float = 1,
    ): ...

    found = operation(live, lambda server: server.get("/x", find))
    defaults = {each["name"]: each["schema"].get("default") for each in found["parameters"]}
    assert defaults == {"wrong": None, "flag": None, "exact": None, "many": None, "right": 1}


@pytest.mark.parametrize(
    "kind", [collections.abc.Iterable[int], collections.abc.Collection[int] | None]
)
def test_a_parameter_of_several_values_is_an_array_whatever_its_type_is_called(live, kind):
    def handler(value=()): ...

    handler.__annotations__["value"] = kind
    found = operation(live, lambda server: server.get("/x", handler))
    assert found["parameters"][0]["schema"] == {
        "type": "array",
        "items": {"type": "integer"},
        "default": [],
    }


class Mixed(enum.Enum):
    AUTO = "auto"
    ONE = 1


@pytest.mark.parametrize(
    ("kind", "default", "shown"),
    [
        (Literal["auto", 1], "auto", "auto"),
        (Literal["auto", 1], 1, 1),
        (Literal["auto", 1, True], True, True),
        (Literal["auto", 1], 1.5, None),
        (Literal["auto", 1] | None, "auto", "auto"),
        (Mixed, Mixed.AUTO, "auto"),
        (Mixed, Mixed.ONE, 1),
    ],
)
def test_a_default_of_choices_of_several_types_is_described(live, kind, default, shown):
    def handler(value=default): ...

    handler.__annotations__["value"] = kind
    found = operation(live, lambda server: server.get("/x", handler))
    assert found["parameters"][0]["schema"].get("default") == shown
    assert found["parameters"][0]["schema"]["enum"][:2] == ["auto", 1]


class Bounded(pydantic.BaseModel):
    low: Annotated[int, pydantic.Field(ge=5)] = 1
    fits: Annotated[int, pydantic.Field(ge=5)] = 7


class Defaults(pydantic.BaseModel):
    literal: Literal["x"] = "y"  # type: ignore[assignment]
    number: int = "y"  # type: ignore[assignment]
    moments: list[datetime.datetime] = [datetime.datetime(2020, 1, 1)]
    day: datetime.date = "x"  # type: ignore[assignment]
    key: uuid.UUID = "x"  # type: ignore[assignment]
    inner: Bounded = Bounded.model_construct(low=2)
    all: list[Bounded] = [Bounded.model_construct(low=2)]
    counts: dict[str, int] = {"a": "b"}  # type: ignore[dict-item]
    pair: tuple[int, str] = (1, 2)  # type: ignore[assignment]
    choice: Literal["a", "b"] | Annotated[str, pydantic.Field(min_length=3)] = "c"
    default: Annotated[str, pydantic.Field(pattern="^a")] = "b"


class GoodDefaults(pydantic.BaseModel):
    literal: Literal["x"] = "x"
    number: int | None = None
    moments: list[datetime.datetime] = [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)]
    day: datetime.date = datetime.date(2020, 1, 1)
    key: uuid.UUID = uuid.UUID(int=1)
    inner: Bounded = Bounded.model_construct(low=5)
    all: list[Bounded] = [Bounded.model_construct(low=5)]
    counts: dict[str, int] = {"a": 1}
    pair: tuple[int, str] = (1, "2")
    choice: Literal["a", "b"] | Annotated[str, pydantic.Field(min_length=3)] = "cdef"
    default: Annotated[str, pydantic.Field(pattern="^a")] = "ab"
    size: float = 1


@pytest.mark.parametrize(("kind", "stays"), [(Defaults, False), (GoodDefaults, True)])
def test_a_default_of_a_model_is_described_where_its_schema_allows_it(live, kind, stays):
    def register(server):
        server.post("/x", taking(kind))
        server.get("/x", answering(kind))

    live.load("shop", register)
    document = live.one("shop")
    asked = document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for schema in (followed(document, asked), schema_at(document, "get", "/x")):
        assert {"default" in each for each in schema["properties"].values()} == {stays}
    names = document["components"]["schemas"]
    bounded = next(schema for name, schema in names.items() if name.startswith("Bounded"))
    assert bounded["properties"].keys() == {"low", "fits"}
    assert {n: e.get("default") for n, e in bounded["properties"].items()} == {
        "low": None,
        "fits": 7,
    }


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (Annotated[int, pydantic.Field(ge=5)], 1, 5),
        (Annotated[str, pydantic.Field(pattern="^a$")], "b", "a"),
        (Annotated[list[int], pydantic.Field(max_length=1)], [1, 2], [1]),
        (Literal["a"], "b", "a"),
        (list[int], ["a"], [1]),
        (uuid.UUID, "x", "0" * 8 + "-0000-0000-0000-" + "0" * 12),
        (datetime.date, "x", "2020-01-01"),
        (datetime.datetime, "2020-01-01", "2020-01-01T00:00:00Z"),
        (int | str, 1.5, "a"),
    ],
)
@pytest.mark.parametrize("place", [Query, Header, Form])
def test_a_default_of_a_parameter_is_described_where_its_schema_allows_it(
    live, kind, wrong, right, place
):
    def handler(default):
        def handle(value=default): ...

        handle.__annotations__["value"] = Annotated[kind, place()]
        return handle

    for default, stays in ((wrong, False), (right, True)):
        found = operation(live, lambda s, d=default: s.post("/x", handler(d)), "post")
        if place is Form:
            schema = form_of(found)["multipart/form-data"]["properties"]["value"]
        else:
            schema = found["parameters"][0]["schema"]
        assert ("default" in schema) is stays, default


def test_an_answer_with_headers_may_have_another_content_type(live):
    found = operation(live, lambda server: server.get("/x", answering(Answer[int])))
    content = found["responses"]["200"]["content"]
    assert content == {"application/json": {"schema": {"type": "integer"}}, "*/*": {}}


@pytest.mark.parametrize("kind", [pydantic.Json[list[int | None]], pydantic.Json])
def test_a_parameter_that_is_json_is_described_as_text_and_never_null(live, kind):
    def handler(kind, default):
        def handle(value=default): ...

        handle.__annotations__["value"] = kind
        return handle

    def register(server):
        server.get("/x", handler(kind, None))
        server.get("/y", handler(kind | None, None))
        server.get("/z", handler(Annotated[kind | None, Query()], None))

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    schemas = [paths[path]["get"]["parameters"][0]["schema"] for path in ("/x", "/y", "/z")]
    assert schemas[0]["type"] == "string"
    assert schemas == [schemas[0]] * 3


@pytest.mark.parametrize("kind", [Answer[str], tuple[str | None, Literal[200], dict[str, str]]])
def test_text_that_may_have_a_content_type_of_its_own_may_be_any_json(live, kind):
    found = operation(live, lambda server: server.get("/x", answering(kind)))
    content = found["responses"]["200"]["content"]
    assert content == {"application/json": {"schema": {}}, "*/*": {}}


def form_of(found):
    return {name: each["schema"] for name, each in found["requestBody"]["content"].items()}


def test_the_fields_and_files_of_a_form_are_described(live):
    def sign_up(name: Annotated[str, Form()], age: Annotated[int, Form("years"), "In years."] = 0):
        return None

    def upload(photo: File, more: list[File] = [], title: Annotated[str, Form()] = ""):  # noqa: B006
        return None

    def register(server):
        server.post("/x", sign_up)
        server.post("/y", upload)

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    plain = form_of(paths["/x"]["post"])
    assert plain.keys() == {"application/x-www-form-urlencoded", "multipart/form-data"}
    fields = plain["multipart/form-data"]
    assert fields["required"] == ["name"]
    years = {"type": "integer", "default": 0}
    assert fields["properties"] == {
        "name": {"type": "string"},
        "years": {"allOf": [years], "description": "In years."},
    }
    assert {"400", "413", "415", "422"} <= paths["/x"]["post"]["responses"].keys()
    found = form_of(paths["/y"]["post"])
    assert found.keys() == {"multipart/form-data"}
    file = {"type": "string", "format": "binary"}
    properties = found["multipart/form-data"]["properties"]
    assert properties["photo"] == file
    assert properties["more"]["items"] == file
    assert found["multipart/form-data"]["required"] == ["photo"]


def test_a_model_of_a_whole_form_is_a_component_and_may_hold_files(live):
    class SignUp(pydantic.BaseModel):
        name: str
        photo: File

    def sign_up(body: Annotated[SignUp, Form()], more: Annotated[int, Form()] = 0):
        return None

    found = operation(live, lambda server: server.post("/x", sign_up), "post")
    schema = form_of(found)["multipart/form-data"]
    whole, rest = schema["allOf"]
    assert rest["properties"].keys() == {"more"}
    model = followed(live.one("shop"), whole)
    assert whole == {"$ref": "#/components/schemas/SignUp"}
    assert model["properties"]["photo"] == {"type": "string", "format": "binary", "title": "Photo"}


class Optional(pydantic.BaseModel):
    needed: str
    nick: str | None = None
    photo: Annotated[File | None, Form(max_bytes=5)] = None
    pages: list[File] | None = None
    age: Annotated[int, annotated_types.Ge(1)] | None = None
    size: Literal["small", None] = None
    site: pydantic.HttpUrl | None = None


@dataclasses.dataclass
class OptionalFields:
    nick: str | None = None
    marks: list[int | None] | None = None


FILE = {"type": "string", "format": "binary"}


@pytest.mark.parametrize("kind", [Optional, Optional | None, Annotated[Optional, "Said."]])
def test_no_part_of_a_form_is_null(live, kind):
    def sign_up(whole: Annotated[kind, Form()]):  # type: ignore[valid-type]
        return None

    def change(body: Optional) -> Optional:
        return body

    def register(server):
        server.post("/x", sign_up)
        server.put("/x", change)

    live.load("shop", register)
    document = live.one("shop")
    found = form_of(document["paths"]["/x"]["post"])["multipart/form-data"]
    assert found["required"] == ["needed"]
    shown = {
        name: {key: value for key, value in each.items() if key not in ("title", "maxLength")}
        for name, each in found["properties"].items()
    }
    assert shown == {
        "needed": {"type": "string"},
        "nick": {"type": "string"},
        "photo": FILE,
        "pages": {"type": "array", "items": FILE},
        "age": {"type": "integer", "minimum": 1},
        "size": {"enum": ["small"]},
        "site": {"type": "string", "format": "uri", "minLength": 1},
    }
    # A body of JSON may say null.
    body = document["paths"]["/x"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"type": "null"} in followed(document, body)["properties"]["nick"]["anyOf"]


def test_no_part_of_a_form_that_a_dataclass_takes_is_null(live):
    def sign_up(whole: Annotated[OptionalFields, Form()], photo: File | None = None):
        return None

    found = operation(live, lambda server: server.post("/x", sign_up), "post")
    whole, rest = form_of(found)["multipart/form-data"]["allOf"]
    nick, marks = whole["properties"].values()
    assert (nick["type"], marks["type"], marks["items"]) == ("string", "array", {"type": "integer"})
    assert rest == {"type": "object", "properties": {"photo": FILE}, "required": []}


@pytest.mark.parametrize("kind", ["form", "rest"])
def test_a_closed_model_leaves_room_for_the_fields_beside_it(live, kind):
    class Closed(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        name: str

    def form(whole: Annotated[Closed, Form()]): ...

    def rest(whole: Annotated[Closed, Form()], more: Annotated[int, Form()]): ...

    found = operation(live, lambda s: s.post("/x", {"form": form, "rest": rest}[kind]), "post")
    schema = form_of(found)["multipart/form-data"]
    components = live.one("shop")["components"]
    valid = jsonschema.Draft202012Validator({"components": components, **schema}).is_valid
    assert valid({"name": "a"}) is (kind == "form")
    assert valid({"name": "a", "more": 5}) is (kind == "rest")


Positive = Annotated[int, annotated_types.Ge(1)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int | None, {"type": "integer"}),
        (Positive | None, {"type": "integer", "minimum": 1}),
        (Annotated[int | None, annotated_types.Ge(1)], {"type": "integer", "minimum": 1}),
        (Annotated[Positive | None, "Said."], {"type": "integer", "minimum": 1}),
        (
            list[Positive | None] | None,
            {"type": "array", "items": {"type": "integer", "minimum": 1}},
        ),
        (Literal["a"] | None, {"type": "string", "enum": ["a"]}),
        (Literal["a", None], {"type": "string", "enum": ["a"]}),
        (Annotated[pydantic.HttpUrl | None, pydantic.Field(max_length=9)], {"type": "string"}),
    ],
)
@pytest.mark.parametrize("place", [Query, Header, Cookie, Form])
def test_no_text_of_a_request_is_null(live, kind, expected, place):
    def handle(value: Annotated[kind, place()] = None): ...  # type: ignore[valid-type]

    found = operation(live, lambda server: server.post("/x", handle), "post")
    if place is Form:
        schema = form_of(found)["multipart/form-data"]["properties"]["value"]
    else:
        schema = found["parameters"][0]["schema"]
    schema = schema["allOf"][0] if "allOf" in schema else schema
    assert expected.items() <= schema.items()
    assert "null" not in str(schema)
    assert "None" not in str(schema)


def test_an_answer_has_the_media_types_that_its_handler_produces(live):
    class Item(pydantic.BaseModel):
        name: str

    def show() -> Annotated[
        Item | None, Produces("application/json", "application/yaml", "text/html")
    ]:
        return None

    def events() -> typing.Iterator[str]:
        yield "a"

    def register(server):
        server.get("/x", show)
        server.sse("/y", events, summary="Events")

    live.load("shop", register)
    document = live.one("shop")
    found = document["paths"]["/x"]["get"]["responses"]
    assert {"200", "204", "406", "default"} == found.keys()
    content = found["200"]["content"]
    assert content.keys() == {"application/json", "application/yaml", "text/html"}
    assert content["text/html"] == {}
    assert followed(document, content["application/yaml"]["schema"])["properties"].keys() == {
        "name"
    }
    events_found = document["paths"]["/y"]["get"]
    assert events_found["summary"] == "Events"
    assert events_found["responses"]["200"]["content"].keys() == {"text/event-stream"}
    assert "406" not in events_found["responses"]


def test_dataclasses_and_typed_dicts_are_components_and_may_hold_themselves(live):
    module = types.ModuleType("_plugins.shop.g1.main")
    sys.modules[module.__name__] = module
    code = (
        "import dataclasses\n"
        "from typing import NotRequired\n"
        "from typing_extensions import TypedDict\n"
        "@dataclasses.dataclass\n"
        "class Node:\n"
        "    name: str\n"
        "    below: 'list[Node]'\n"
        "class Edge(TypedDict):\n"
        "    a: int\n"
        "    b: NotRequired['Edge']\n"
        "Nodes = list[Node]\n"
    )
    try:
        exec(code, vars(module))

        def register(server):
            server.get("/x", answering(module.Nodes))
            server.post("/x", taking(module.Edge))

        live.load("shop", register)
        document = live.one("shop")
    finally:
        del sys.modules[module.__name__]
    node = document["components"]["schemas"]["Node"]
    assert node["required"] == ["name", "below"]
    assert node["properties"]["below"]["items"] == {"$ref": "#/components/schemas/Node"}
    edge = document["components"]["schemas"]["Edge"]
    assert edge["required"] == ["a"]
    assert edge["properties"]["b"] == {"$ref": "#/components/schemas/Edge"}


@pytest.mark.parametrize(
    ("set_up", "statuses", "has_content"),
    [
        (lambda server: None, {"200", "422", "default"}, True),
        (lambda server: server.add_middleware(Quiet()), {"200", "422", "default"}, False),
        (lambda server: server.add_error_handler(KeyError, quiet), {"200", "default"}, False),
        (lambda server: server.set_error_serializer(quiet), {"200", "default"}, False),
    ],
)
def test_a_plugin_with_errors_of_its_own_is_not_said_to_answer_problems(
    live, set_up, statuses, has_content
):
    def find(limit: int) -> dict:
        return {}

    collector = RouteCollector("shop", lambda _: None, "_plugins.shop.g1")
    set_up(collector)
    collector.get("/x", find)
    routes = collector.finish()
    answer_by_own(live.app, collector.own, routes)
    builder = live.app.table.builder()
    builder.add("shop", routes)
    live.app.swap(builder.build())
    document = live.one("shop")
    responses = document["paths"]["/x"]["get"]["responses"]
    assert responses.keys() == statuses
    default = responses["default"]
    assert ("$ref" in default) == has_content


def test_what_is_mounted_is_named_and_has_no_operations(live):
    def flask_like(environ, start_response):
        return []

    def register(server):
        server.mount("/x", flask_like)
        server.mount("/y", flask_like, hidden=True)
        server.mount("/z", flask_like, description="The shop.")

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    assert paths.keys() == {"/x", "/z"}
    assert "flask_like" in paths["/x"]["description"]
    assert paths["/z"] == {"description": "The shop."}


def test_a_plugin_that_runs_elsewhere_has_its_methods(live):
    endpoints = [Endpoint("GET", "/x/{id:int}", "Shop.find"), Endpoint("*", "/y", "app")]
    stand_in = stand_in_for("1", "shop", 1, endpoints, lambda req, resp: None)
    builder = live.app.table.builder()
    builder.add("shop", stand_in.routes)
    live.app.swap(builder.build())
    paths = live.one("shop")["paths"]
    assert paths["/x/{id}"]["get"]["operationId"] == "find"
    assert "post" not in paths["/y"]


def test_the_document_of_all_is_the_same_in_the_process_that_runs_an_exclusive_plugin(live):
    def find(number: int, limit: int = 5) -> list[int]:
        return []

    live.load("shop", lambda server: server.get("/x/{number:int}", find), alone=True)
    here, own = live.documents.of_all(with_admin=False), live.one("shop")
    endpoints = live.app.table.owned.find("shop")[0].endpoints
    stand_in = stand_in_for("1", "shop", 1, endpoints, lambda req, resp: None)
    builder = live.app.table.builder()
    builder.remove("shop")
    builder.add("shop", stand_in.routes)
    live.app.swap(builder.build())
    assert live.documents.of_all(with_admin=False).etag == here.etag
    assert "200" not in checked(here.body)["paths"]["/x/{number}"]["get"]["responses"]
    assert "200" in own["paths"]["/x/{number}"]["get"]["responses"]
    assert live.documents.elsewhere("shop") is not None


# --- names -----------------------------------------------------------------------------------


def test_components_and_operations_of_two_plugins_have_names_of_their_own(live):
    for name, field in (("one", "a"), ("two", "b")):
        item = models(plugin=name, **{field: (int, ...)})
        live.load(
            name, lambda server, item=item, name=name: server.get(f"/{name}", answering(item))
        )
    whole = live.all()
    assert {"one.Item", "two.Item"} <= whole["components"]["schemas"].keys()
    assert schema_at(whole, "get", "/one")["properties"].keys() == {"a"}
    assert schema_at(whole, "get", "/two")["properties"].keys() == {"b"}
    ids = {whole["paths"][f"/{name}"]["get"]["operationId"] for name in ("one", "two")}
    assert ids == {"one.handler", "two.handler"}
    assert schema_at(live.one("one"), "get", "/one")["properties"].keys() == {"a"}
    assert "Item" in live.one("one")["components"]["schemas"]


def _said(schema, **more):
    return {"description": "x", "content": {"application/json": {"schema": schema}}, **more}


@pytest.mark.parametrize("name", ["one", "two"])
def test_what_a_plugin_refers_to_itself_has_its_names_in_the_document_of_all(live, caplog, name):
    """References in `responses`, and in what a model says of its own schema."""
    own_item: dict[str, Any] = {"$ref": "#/components/schemas/Item"}
    references = {
        "allOf": [own_item],
        "oneOf": [
            {"$ref": "#/components/schemas/Item/properties/a"},
            {"$ref": "#/components/schemas/Benana.Problem"},
        ],
        "discriminator": {
            "propertyName": "a",
            "mapping": {"x": "#/components/schemas/Item", "y": "Item", "z": "Elsewhere"},
        },
        "example": {"$ref": "#/components/schemas/Item"},
    }
    links = {"next": {"operationId": "item"}, "other": {"operationId": "two.another"}}
    for each in ("one", "two"):
        item = models(plugin=each, a=(int, ...))
        config = pydantic.ConfigDict(json_schema_extra={"properties": {"b": own_item}})
        more = pydantic.create_model("More", __config__=config)

        def register(server, item=item, more=more, each=each):
            said = {404: _said(references), 409: _said({}, links=links)}
            server.get(f"/{each}/item", answering(item), operation_id="item", responses=said)
            server.get(f"/{each}/more", answering(more))

        live.load(each, register)
    whole, own = live.all(), live.one(name)
    said = own["paths"][f"/{name}/item"]["get"]["responses"]
    assert said["404"]["content"]["application/json"]["schema"] == references
    assert said["409"]["links"] == links
    said = whole["paths"][f"/{name}/item"]["get"]["responses"]
    assert said["404"]["content"]["application/json"]["schema"] == {
        "allOf": [{"$ref": f"#/components/schemas/{name}.Item"}],
        "oneOf": [
            {"$ref": f"#/components/schemas/{name}.Item/properties/a"},
            {"$ref": "#/components/schemas/Benana.Problem"},
        ],
        "discriminator": {
            "propertyName": "a",
            "mapping": {
                "x": f"#/components/schemas/{name}.Item",
                "y": f"{name}.Item",
                "z": "Elsewhere",
            },
        },
        "example": {"$ref": "#/components/schemas/Item"},
    }
    assert said["409"]["links"]["next"] == {"operationId": f"{name}.item"}
    assert said["409"]["links"]["other"] == {"operationId": "two.another"}
    more = schema_at(whole, "get", f"/{name}/more")
    assert more["properties"]["b"] == {"$ref": f"#/components/schemas/{name}.Item"}
    assert "cannot be described" not in caplog.text
    assert LACKS not in own


def test_no_plugin_takes_the_names_of_the_server(live):
    """Its components, its security scheme and its operations have names that no plugin has."""

    class Plugins:
        def on_get(self, req, resp): ...

    class Plugin(pydantic.BaseModel):
        a: int

    class Problem(pydantic.BaseModel):
        b: int

    live.documents = LiveDocuments(live.app, live.metadata.get, has_token=True)
    builder = live.app.table.builder()
    builder.add(SERVER, (Route(SERVER, "/plugins", Plugins()),))
    live.app.swap(builder.build())

    def register(server):
        key = {"type": "apiKey", "in": "header", "name": "X-Key"}
        server.get("/x", answering(Plugin), operation_id="get_plugins", security={"token": key})
        server.get("/y", answering(Problem))

    live.load("benana", register)
    whole = live.all(with_admin=True)
    assert schema_at(whole, "get", "/x")["properties"].keys() == {"a"}
    assert schema_at(whole, "get", "/y")["properties"].keys() == {"b"}
    assert "status" in followed(whole, {"$ref": "#/components/schemas/Benana.Problem"})["required"]
    assert len(whole["components"]["securitySchemes"]) == 2
    assert whole["paths"]["/x"]["get"]["operationId"] == "benana.get_plugins"


def test_two_modules_of_a_plugin_may_have_models_of_one_name_in_each_generation(live):
    def load(generation):
        first = models("main", generation, a=(int, ...))
        second = models("parts.other", generation, b=(int, ...))

        def register(server):
            server.get("/x", answering(first))
            server.get("/y", answering(second))

        live.load("shop", register)
        return live.one("shop")

    before, after = load(1), load(2)
    assert schema_at(before, "get", "/x")["properties"].keys() == {"a"}
    assert schema_at(before, "get", "/y")["properties"].keys() == {"b"}
    assert before["components"]["schemas"].keys() == after["components"]["schemas"].keys()
    assert "parts__other__Item" in after["components"]["schemas"]


def test_a_dataclass_and_a_model_of_one_name_are_two_components(live):
    @dataclasses.dataclass
    class Item:
        c: int

    def register(server):
        server.get("/x", answering(models(a=(int, ...))))
        server.get("/y", answering(Item))

    live.load("shop", register)
    document = live.one("shop")
    assert schema_at(document, "get", "/x")["properties"].keys() == {"a"}
    assert schema_at(document, "get", "/y")["properties"].keys() == {"c"}


def test_a_model_that_is_read_and_answered_differently_has_both_schemas(live):
    class Item(pydantic.BaseModel):
        name: str
        at: datetime.datetime = datetime.datetime(2026, 1, 31)

        @pydantic.computed_field
        def length(self) -> int:
            return len(self.name)

    def echo(body: Item, at: datetime.time = datetime.time(1)) -> Item:
        return body

    live.load("shop", lambda server: server.post("/x", echo))
    document = live.one("shop")
    body = document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "length" in schema_at(document, "post", "/x")["properties"]
    assert "length" not in followed(document, body)["properties"]


def test_operations_of_one_name_get_others(live):
    def same(**fields) -> int:
        return 1

    def register(server):
        server.get("/x", same)
        server.get("/x/{id:int}", same)
        server.post("/x", same)
        server.put("/x", same, operation_id="own")
        server.delete("/x", same, operation_id="own")

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    ids = [each["operationId"] for item in paths.values() for each in item.values()]
    assert sorted(ids) == ["get_x", "get_x_id", "own", "own_2", "post_x"]


# --- when it is made -------------------------------------------------------------------------


def test_nothing_is_written_at_a_swap_and_each_generation_once(live, monkeypatch):
    written = []
    real = fragment.write_fragment

    def noting(owner, routes, prefix):
        written.append((owner, prefix))
        return real(owner, routes, prefix)

    monkeypatch.setattr("app.admin.openapi.document.write_fragment", noting)
    live.load("one", lambda server: server.get("/one", answering(int)))
    live.load("two", lambda server: server.get("/two", answering(int)))
    assert not written
    first = live.documents.of_all(with_admin=False)
    assert live.documents.of_all(with_admin=False) is first
    assert written == [("one", "one."), ("two", "two.")]
    live.load("two", lambda server: server.get("/two", answering(str)))
    second = live.documents.of_all(with_admin=False)
    assert written == [("one", "one."), ("two", "two."), ("two", "two.")]
    assert second.etag != first.etag
    live.load("two", lambda server: server.get("/two", answering(int)))
    assert live.documents.of_all(with_admin=False).etag == first.etag


def test_what_is_removed_is_gone_from_the_documents(live):
    live.load("one", lambda server: server.get("/one", answering(int)))
    live.load("two", lambda server: server.get("/two", answering(int)))
    assert live.one("one") is not None
    assert live.all()["paths"].keys() == {"/one", "/two"}
    live.remove("one")
    assert live.one("one") is None
    whole = live.all()
    assert whole["paths"].keys() == {"/two"}
    assert whole["tags"] == [{"name": "two"}]
    assert live.one(SERVER) is None


def test_a_document_keeps_nothing_of_a_generation_alive(live):
    traces = []

    def register(server):
        item = models(a=(int, ...))
        traces.append(weakref.ref(item))
        server.post("/x", taking(item))

    live.load("shop", register)
    live.all()
    live.one("shop")
    live.remove("shop")
    gc.collect()
    assert traces[0]() is None


def test_types_whose_own_code_raises_cost_their_schema_alone(live, caplog):
    class Bad(pydantic.BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, schema, handler):
            raise SystemExit

    def register(server):
        server.get("/x", answering(Bad))
        server.get("/y", answering(models(a=(int, ...))))

    live.load("shop", register)
    document = live.one("shop")
    assert schema_at(document, "get", "/x") == {}
    assert schema_at(document, "get", "/y")["properties"].keys() == {"a"}


def test_a_route_that_cannot_be_described_is_there_with_its_methods(live, caplog):
    class Odd:
        def __hash__(self):
            raise SystemExit

    live.load("shop", lambda server: server.get("/x", answering(Odd())))
    assert live.one("shop")["paths"]["/x"].keys() == {"get"}
    assert "shop: its routes cannot be described: SystemExit" in caplog.text


@dataclasses.dataclass
class Reach:
    limit: float = float("inf")
    parts: list[float] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize(
    "kind", [Reach, models(limit=(float, float("nan"))), models(a=(list[float], [float("-inf")]))]
)
def test_a_default_that_json_does_not_have_is_left_out(live, kind):
    def register(server):
        server.post("/x", taking(kind))
        server.get("/x", answering(kind))

    live.load("shop", register)
    document = live.one("shop")
    body = document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    properties = followed(document, body)["properties"]
    assert properties
    assert all("default" not in each for each in properties.values())


@pytest.mark.parametrize(
    ("kind", "responses"),
    [
        (models(a=(float, pydantic.Field(examples=[float("nan")]))), {}),
        (int, {200: {"description": "x", "x-of": object()}}),
        (int, {404: {"description": "x", "content": {"a/b": {"example": float("inf")}}}}),
    ],
)
def test_what_is_no_json_costs_its_own_plugin_its_description_alone(live, caplog, kind, responses):
    live.load("good", lambda server: server.get("/good", answering(int)))
    live.load("shop", lambda server: server.get("/x", answering(kind), responses=responses))
    document = live.all()
    assert document["paths"]["/good"]["get"]["responses"]["200"]["content"]
    assert document["paths"]["/x"].keys() == {"get"}
    assert live.one("shop")["paths"].keys() == {"/x"}
    assert "shop: its routes cannot be described: what is said of " in caplog.text
    assert " is no JSON (" in caplog.text
    # Said where the plugin is looked at, too, and in the log once for each document.
    (lack,) = live.one("shop")[LACKS]
    assert lack.startswith("its routes cannot be described: what is said of ")
    assert live.documents.lacks_of("shop") == (lack,)
    assert caplog.text.count("shop: its routes cannot be described") == 2
    assert LACKS not in live.one("good")
    assert live.documents.lacks_of("good") == live.documents.lacks_of("nobody") == ()
    live.load("shop", lambda server: server.get("/x", answering(int)))
    assert live.documents.lacks_of("shop") == ()
    assert LACKS not in live.one("shop")


def test_what_a_document_lacks_is_told_while_another_is_written(live, monkeypatch):
    monkeypatch.setattr(document_module, "WAIT_SECONDS", 0.01)
    live.load("shop", lambda s: s.get("/x", answering(Unknown)))
    with live.documents._lock:
        assert live.documents.lacks_of("shop") == ()  # nobody knows it yet
    lacks = live.documents.lacks_of("shop")
    assert lacks
    with live.documents._lock:
        assert live.documents.lacks_of("shop") == lacks


class Unknown:
    """A class that pydantic knows nothing of."""


def nested(levels):
    made = models(value=(int, 1))
    for _ in range(levels):
        made = models(inner=(made, ...))
    return made


def test_what_a_model_says_of_its_schema_makes_no_document_invalid(live):
    class Said(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(json_schema_extra={"type": "thing", "x-own": 5})
        number: Annotated[int, pydantic.Field(json_schema_extra={"minimum": "low", "title": "N"})]
        many: Annotated[list[int], pydantic.Field(json_schema_extra={"items": {"type": "whole"}})]
        text: Annotated[str, pydantic.Field(json_schema_extra={"examples": {"a": {"value": "b"}}})]

    kind = Annotated[int, pydantic.WithJsonSchema({"type": "integer", "enum": 5})]

    def register(server):
        server.get("/x", answering(Said))
        server.get("/y", answering(kind))

    live.load("shop", register)
    document = live.one("shop")
    said = schema_at(document, "get", "/x")
    assert "type" not in said
    assert said["x-own"] == 5
    assert said["properties"] == {
        "number": {"title": "N", "type": "integer"},
        "many": {"title": "Many", "type": "array", "items": {}},
        "text": {"title": "Text", "type": "string"},
    }
    assert schema_at(document, "get", "/y") == {"type": "integer"}
    lacks = document[LACKS]
    assert all(each.endswith("; it is left out") for each in lacks)
    assert [each.partition(", expected ")[0] for each in lacks] == [
        f"{show(kind)}.enum is 5",
        "Said.properties.number.minimum is 'low'",
        "Said.properties.many.items.type is 'whole'",
        "Said.properties.text.examples is {'a': {'value': 'b'}}",
        "Said.type is 'thing'",
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Unknown, "Unknown cannot be described, as if it were anything: PydanticSchemaGeneration"),
        (nested(90), "Item cannot be described, as if it were anything: RecursionError"),
    ],
)
def test_a_type_that_cannot_be_described_is_named_and_costs_nothing_else(live, caplog, kind, said):
    caplog.set_level("INFO")

    class Item(pydantic.BaseModel):
        name: str

    def register(server):
        server.get("/x", answering(kind))
        server.get("/y", answering(Item))

    live.load("shop", register)
    document = live.one("shop")
    (lack,) = document[LACKS]
    assert said in lack
    assert live.documents.lacks_of("shop") == (lack,)
    assert f"shop: {lack}" in caplog.text
    assert schema_at(document, "get", "/x") == {}
    assert schema_at(document, "get", "/y")["properties"].keys() == {"name"}


@pytest.mark.parametrize("status", [404, "default"])
def test_a_reference_to_what_is_not_there_costs_its_own_plugin_its_description(
    live, caplog, status
):
    schema = {"$ref": "#/components/schemas/Lost"}
    said = {"description": "x", "content": {"application/json": {"schema": schema}}}
    live.load("good", lambda server: server.get("/good", answering(int)))
    live.load("shop", lambda server: server.get("/x", answering(int), responses={status: said}))
    document = live.all()
    assert document["paths"]["/good"]["get"]["responses"]["200"]["content"]
    assert document["paths"]["/x"].keys() == {"get"}
    assert "shop: its routes cannot be described: /x refers to #/components/schemas/Lost" in (
        caplog.text
    )


def test_references_that_lead_somewhere_stay(live, caplog):
    schema = {"$ref": "#/components/schemas/Benana.Problem", "default": {"$ref": "#/nowhere"}}
    said = {"description": "x", "content": {"application/json": {"schema": schema}}}
    found = operation(live, lambda s: s.get("/x", answering(int), responses={404: said}))
    assert found["responses"]["404"] == said
    assert "cannot be described" not in caplog.text


def test_a_body_that_a_request_must_have_is_required(live):
    def bare(body): ...

    def default(body=None): ...

    def nothing(body: dict | None): ...

    def anything(body: Any): ...

    handlers = {bare: True, anything: True, default: False, nothing: False}

    def register(server):
        for handler in handlers:
            server.post(f"/{handler.__name__}", handler)

    live.load("shop", register)
    paths = live.one("shop")["paths"]
    for handler, required in handlers.items():
        body = paths[f"/{handler.__name__}"]["post"]["requestBody"]
        assert body.get("required", False) is required, handler.__name__


def test_parameters_that_take_one_value_are_described_once(live):
    def handler(
        a: str,
        b: Annotated[int, Query("a")],
        c: Annotated[str, Header("X-Id")],
        d: Annotated[str, Header("x-id")],
    ) -> None: ...

    found = operation(live, lambda server: server.get("/x", handler))["parameters"]
    assert [(each["name"], each["in"]) for each in found] == [("a", "query"), ("X-Id", "header")]


# --- the server itself -----------------------------------------------------------------------


def test_the_admin_api_is_there_for_who_may_read_it_alone(live):
    class Plugins:
        def on_get(self, req, resp):
            """List the plugins."""

    live.documents = LiveDocuments(live.app, live.metadata.get, has_token=True)
    builder = live.app.table.builder()
    builder.add(SERVER, (Route(SERVER, "/plugins", Plugins()),))
    live.app.swap(builder.build())
    live.load("shop", lambda server: server.get("/x", answering(int)))
    assert live.all()["paths"].keys() == {"/x"}
    assert "securitySchemes" not in live.all()["components"]
    whole = live.all(with_admin=True)
    found = whole["paths"]["/plugins"]["get"]
    assert found["summary"] == "List the plugins."
    assert found["security"] == [{"Benana.token": []}]
    assert live.all()["info"]["version"] == "live"


def test_a_plugins_own_document_has_its_name_and_version(live):
    live.load("shop", lambda server: server.get("/x", answering(int)))
    assert live.one("shop")["info"] == {"title": "shop", "version": "g1"}
    live.metadata["shop"] = PluginMetadata("shop", "2.0", "Sells.")
    live.load("shop", lambda server: server.get("/x", answering(int)))
    assert live.one("shop")["info"] == {"title": "shop", "version": "2.0", "description": "Sells."}


def test_bytes_and_what_may_be_streamed_are_no_json_alone(live):
    def of(kind):
        found = operation(live, lambda server: server.get("/x", answering(kind)))
        return found["responses"]["200"]["content"]

    assert of(bytes) == {"application/octet-stream": {}}
    assert of(collections.abc.Iterable[str]) == {"application/json": {"schema": {}}, "*/*": {}}


class Sku(str):
    """A text of the plugin's own."""


class Cents(int):
    """A number of the plugin's own."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Sku, {"type": "string"}),
        (Cents | None, {"type": "integer"}),
        (list[Sku], {"type": "array", "items": {"type": "string"}}),
    ],
)
def test_what_is_text_or_a_number_is_described_as_that(live, kind, expected):
    live.load("shop", lambda server: server.get("/x", answering(kind)))
    document = live.one("shop")
    assert schema_at(document, "get", "/x") == expected
    assert LACKS not in document


class Page:
    def __html__(self):
        return ""


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Answer[typing.Iterator[bytes]], {"*/*"}),
        (Answer[bytes], {"application/octet-stream", "*/*"}),
        (tuple[typing.Iterator[str], Literal[200]], {"*/*"}),
        (tuple[bytes, Literal[200]], {"application/octet-stream"}),
        (tuple[int | None, Literal[200]], {"application/json"}),
        (typing.BinaryIO, {"*/*"}),
        (typing.IO[str], {"*/*"}),
        (Annotated[Page, Produces("text/html")], {"text/html"}),
        (tuple[str, Literal[200], dict[str, str]], {"application/json", "*/*"}),
    ],
)
def test_what_no_schema_describes_lacks_none(live, kind, content):
    live.load("shop", lambda server: server.get("/x", answering(kind)))
    document = live.one("shop")
    assert document["paths"]["/x"]["get"]["responses"]["200"]["content"].keys() == content
    assert LACKS not in document


def test_a_handler_that_always_raises_answers_nothing_else(live):
    found = operation(live, lambda server: server.get("/x", answering(typing.NoReturn)))
    assert found["responses"].keys() == {"default"}


def test_what_an_answer_holds_is_not_for_writing_alone(live):
    class Login(pydantic.BaseModel):
        name: str
        password: pydantic.SecretStr
        former: list[pydantic.SecretStr] = []

    def log_in(body: Login) -> Login:
        return body

    found = operation(live, lambda server: server.post("/x", log_in), "post")
    document = live.one("shop")
    asked = followed(document, found["requestBody"]["content"]["application/json"]["schema"])
    answered = schema_at(document, "post", "/x")["properties"]
    assert asked["properties"]["password"]["writeOnly"]
    assert "writeOnly" not in answered["password"]
    assert "writeOnly" not in answered["former"]["items"]


def test_none_is_no_text(live):
    def handle(url: pydantic.HttpUrl | None = None, many: list[pydantic.HttpUrl] | None = None): ...

    url, many = operation(live, lambda server: server.get("/x", handle))["parameters"]
    assert url["schema"]["type"] == "string"
    assert many["schema"]["items"]["format"] == "uri"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` is younger")
def test_a_type_that_holds_itself_is_a_component(live):
    names = {}
    exec("type Tree = dict[str, Tree]", names)  # no older Python reads it

    def handle(body): ...

    tree = names["Tree"]
    handle.__annotations__ = {"body": tree, "return": dict[str, tree]}  # type: ignore[valid-type]
    found = operation(live, lambda server: server.post("/x", handle), "post")
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    assert schema["$ref"].startswith("#/components/schemas/Tree")


def test_plain_types_are_described_without_pydantic():
    code = (
        "import sys\n"
        "from app.admin.openapi.document import LiveDocuments\n"
        "from app.loading.registration import RouteCollector\n"
        "from app.routing.application import LiveApp\n"
        "def find(limit: int = 5) -> list[str]: ...\n"
        "def make(body: dict[str, int]) -> tuple[dict, int]: ...\n"
        "collector = RouteCollector('shop', lambda _: None, '_plugins.shop.g1')\n"
        "collector.get('/x', find)\n"
        "collector.post('/x', make)\n"
        "app = LiveApp()\n"
        "builder = app.table.builder()\n"
        "builder.add('shop', collector.finish())\n"
        "app.swap(builder.build())\n"
        "LiveDocuments(app, {}.get, has_token=False).of_all(with_admin=True)\n"
        "sys.exit('pydantic' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_responder_says_nothing_of_what_it_answers(live):
    class Thing:
        def on_get(self, req: falcon.Request, resp: falcon.Response): ...

    found = operation(live, lambda server: server.add_route("/x", Thing()))
    assert found["responses"] == {"default": {"description": "What it answers."}}
