"""Query parameters, headers and cookies of a handler; all that is wrong is said at once."""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import io
import ipaddress
import pathlib
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import annotated_types
import falcon
import pydantic
import pytest
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

from app.loading.handlers import read_handler
from app.loading.registration import HandlerResource, RouteCollector
from app.loading.signatures import HandlerError
from app.plugin import Cookie, Form, Header, Query
from app.routing.application import LiveApp
from tests.support.handlers import make_responder
from tests.support.wsgi import Answer, call, json_of, put

Ask = Callable[[str], Answer]


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def served(handler: Callable[..., Any], template: str = "/x") -> Ask:
    """Serve a handler; the returned function asks it with a query."""
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handler, template))
    put(app, "sample", {template: resource})
    return lambda query: call(app, "/x", QUERY_STRING=query)


def answer_of(handler: Callable[..., Any], query: str) -> Any:
    answer = served(handler)(query)
    content = answer.read()
    assert answer.status == 200, content
    return json_of(content)


def faults_of(handler: Callable[..., Any], query: str) -> Any:
    """Return the `errors` of a 422."""
    answer = served(handler)(query)
    found = json_of(answer.read())
    assert answer.status == 422, found
    assert found["title"] == "The request does not fit"
    for fault in found["errors"]:
        assert f"query parameter {fault['name']!r}: {fault['reason']}" in found["description"]
    return found["errors"]


def of(annotation: Any, default: Any = ...) -> Callable[..., Any]:
    """Return a handler with one query parameter, which answers what it is given."""

    def handle(value: Any) -> Any:
        return [type(value).__name__, value if not isinstance(value, set) else sorted(value)]

    handle.__annotations__ = {"value": annotation}
    if default is not ...:
        handle.__defaults__ = (default,)
    return handle


DAY = datetime.date(2026, 1, 31)


@pytest.mark.parametrize(
    ("annotation", "query", "expected"),
    [
        (str, "value=a%20b", ["str", "a b"]),
        (str, "value=", ["str", ""]),
        (int, "value=-5", ["int", -5]),
        (int | None, "value=5", ["int", 5]),
        (float, "value=1.5", ["float", 1.5]),
        (bool, "value=true", ["bool", True]),
        (bool, "value=0", ["bool", False]),
        (uuid.UUID, f"value={uuid.UUID(int=5)}", ["UUID", str(uuid.UUID(int=5))]),
        (decimal.Decimal, "value=1.10", ["Decimal", "1.10"]),
        (datetime.date, "value=2026-01-31", ["date", "2026-01-31"]),
        (datetime.datetime, "value=2026-01-31T14:30", ["datetime", "2026-01-31T14:30:00"]),
        (Size, "value=large", ["Size", "large"]),
        (Level, "value=2", ["Level", 2]),
        (Literal["up", "down"], "value=up", ["str", "up"]),
        (int | str, "value=x", ["str", "x"]),
        (list[int], "value=1&value=2", ["list", [1, 2]]),
        (list[int], "value=1", ["list", [1]]),
        (list[int] | None, "value=1", ["list", [1]]),
        (list, "value=a&value=b", ["list", ["a", "b"]]),
        (set[int], "value=2&value=1&value=2", ["set", [1, 2]]),
        (tuple[int, ...], "value=1&value=2", ["tuple", [1, 2]]),
        (collections.abc.Sequence[str], "value=a", ["list", ["a"]]),
        (collections.abc.Iterable[int], "value=1&value=2", ["list", [1, 2]]),
        (collections.abc.Collection[int], "value=1", ["list", [1]]),
        (collections.abc.Iterable, "value=1", ["list", ["1"]]),
        (collections.abc.MutableSequence[int] | None, "value=1", ["list", [1]]),
        (collections.abc.Set[int], "value=2&value=1&value=2", ["set", [1, 2]]),
        (pydantic.ByteSize, "value=1kb", ["ByteSize", 1000]),
        (Annotated[int, "how many"], "value=3", ["int", 3]),
        (datetime.timedelta, "value=PT1H30M", ["timedelta", "PT1H30M"]),
        (pathlib.Path, "value=a/b", ["PosixPath", "a/b"]),
        (list[ipaddress.IPv6Network], "value=fe80::/10", ["list", ["fe80::/10"]]),
        (pydantic.HttpUrl, "value=http://a.example/b", ["HttpUrl", "http://a.example/b"]),
        (pydantic.HttpUrl | int, "value=5", ["int", 5]),
        (pydantic.RootModel[int], "value=5", ["RootModel[int]", 5]),
    ],
)
def test_a_value_becomes_what_the_annotation_says(
    annotation: Any, query: str, expected: list[Any]
) -> None:
    assert answer_of(of(annotation), query) == expected


@pytest.mark.parametrize(
    ("default", "query", "expected"),
    [
        (10, "", ["int", 10]),
        (10, "value=5", ["int", 5]),
        (False, "value=yes", ["bool", True]),
        (None, "", ["NoneType", None]),
        (None, "value=5", ["str", "5"]),
        ("a", "value=b", ["str", "b"]),
        (Size.SMALL, "value=large", ["Size", "large"]),
        (DAY, "value=2026-02-01", ["date", "2026-02-01"]),
    ],
)
def test_without_an_annotation_the_type_of_the_default_counts(
    default: Any, query: str, expected: list[Any]
) -> None:
    handler = of(Any, default)
    del handler.__annotations__["value"]
    assert answer_of(handler, query) == expected


@pytest.mark.parametrize(
    ("annotation", "query", "reason"),
    [
        (int, "", "it is missing"),
        (list[int], "other=1", "it is missing"),
        (int, "value=", "found '', expected a whole number"),
        (int, "value=x", "found 'x', expected a whole number"),
        (int, "value=1&value=2", "found 2 values, expected one"),
        (float, "value=nan", "found 'nan', expected a finite number"),
        (bool, "value=maybe", "found 'maybe', expected true or false"),
        (int | None, "value=x", "found 'x', expected a whole number"),
        (int | bool, "value=x", "found 'x', expected a whole number or true or false"),
        (list[int], "value=1&value=x", "found 'x', expected a whole number"),
        (datetime.date, "value=31.1.26", "found '31.1.26', expected a date as 2026-01-31"),
        (Size, "value=huge", "found 'huge', expected one of small, large"),
        (Literal[1, 2], "value=3", "found '3', expected one of 1, 2"),
        (int, f"value={'9' * 200}x", f"found '{'9' * 79}…', expected a whole number"),
    ],
)
def test_what_does_not_fit_is_said(annotation: Any, query: str, reason: str) -> None:
    assert faults_of(of(annotation), query) == [
        {"name": "value", "reason": reason, "where": "query"}
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    def handle(number: int, day: datetime.date, size: Size = Size.SMALL, limit: int = 10) -> str:
        raise AssertionError("it is not called")

    found = faults_of(handle, "size=huge&limit=x&day=2026-01-31")
    assert [fault["name"] for fault in found] == ["number", "size", "limit"]


def test_parameters_that_nobody_takes_are_none_of_ours() -> None:
    assert answer_of(of(int, 10), "other=1&value=2") == ["int", 2]


def test_a_query_beside_fields_and_a_rest() -> None:
    def handle(item: int, limit: int = 3, **rest: Any) -> Any:
        return [item, limit, rest]

    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handle, "/x/{item}/{more}"))
    put(app, "sample", {"/x/{item}/{more}": resource})
    answer = call(app, "/x/5/y", QUERY_STRING="limit=7&item=9&more=z")
    assert json_of(answer.read()) == [5, 7, {"more": "y"}], "the path is not the query"


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (bytes, "bytes, expected"),
        (dict[str, int], "expected"),
        (list[int] | str, "expected one type of many values"),
        (tuple[int, str], "expected one type of many values"),
        (list[list[int]], "expected"),
        (Annotated[str, pydantic.Field(pattern="(")], "pydantic says"),
        (Annotated[dict[str, int], pydantic.Field(min_length=1)], "expected"),
    ],
)
def test_what_no_query_can_become_is_refused_at_its_registration(
    annotation: Any, said: str
) -> None:
    with pytest.raises(HandlerError, match="'value' is annotated") as caught:
        make_responder(of(annotation), "/x")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (pydantic.HttpUrl, "http://a.example/b"),
        (datetime.timedelta, "PT5M"),
        (ipaddress.IPv4Address, "10.0.0.1"),
        (pydantic.IPvAnyAddress, "::1"),
        (pydantic.SecretStr, "x"),
        (list[pydantic.HttpUrl], "http://a.example/b"),
        (pydantic.ByteSize, "5MiB"),
    ],
)
def test_what_pydantic_makes_of_a_text_is_read_where_it_has_a_default(
    annotation: Any, text: str
) -> None:
    def handle(value: Any) -> bool:
        return value is not None

    handle.__annotations__ = {"value": annotation | None}
    handle.__defaults__ = (None,)
    assert answer_of(handle, "") is False
    assert answer_of(handle, f"value={text}") is True
    if annotation is not pydantic.SecretStr:
        (fault,) = faults_of(handle, "value=:no:")
        assert fault["reason"].startswith("found ':no:', expected a")


def split(found: Any) -> Any:
    return found[0].split(",") if isinstance(found, list) else found.removeprefix("#")


BEFORE, WRAP = (
    pydantic.BeforeValidator(split),
    pydantic.WrapValidator(lambda v, make: make(split(v))),
)


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Annotated[int, BEFORE], "%235", ["int", 5]),
        (Annotated[int, WRAP], "%235", ["int", 5]),
        (Annotated[Any, pydantic.PlainValidator(len)], "abc", ["int", 3]),
        (Annotated[list[int], BEFORE], "1,2", ["list", [1, 2]]),
        (Annotated[set[int], BEFORE] | None, "1,2,2", ["set", [1, 2]]),
        (list[Annotated[int, BEFORE]], "%235", ["list", [5]]),
        (pydantic.Json[list[int]], "[1,2]", ["list", [1, 2]]),
        (pydantic.Json[dict[str, int]], '{"a":1}', ["dict", {"a": 1}]),
        (pydantic.Json, "[null]", ["list", [None]]),
        (pydantic.Json | None, "[null]", ["list", [None]]),
        (pydantic.Json[list[int]] | None, "[1,2]", ["list", [1, 2]]),
        (pydantic.Json[int] | None, "1", ["int", 1]),
        (pydantic.Json[dict[str, int]] | int | None, '{"a":1}', ["dict", {"a": 1}]),
        (Annotated[pydantic.Json[list[int]] | None, Query()], "[1]", ["list", [1]]),
        (list[pydantic.Json[int]], "5", ["list", [5]]),
    ],
)
def test_a_validator_that_comes_before_is_given_what_has_come(
    annotation: Any, text: str, expected: Any
) -> None:
    assert answer_of(of(annotation), f"value={text}") == expected
    assert answer_of(of(annotation, None), f"value={text}") == expected
    if annotation == Annotated[int, BEFORE]:
        app = LiveApp()
        resource = HandlerResource()
        resource.set_responder("GET", make_responder(of(annotation), "/x/{value}"))
        put(app, "sample", {"/x/{value}": resource})
        assert json_of(call(app, "/x/#5").read()) == expected
        assert call(app, "/x/no").status == 422


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (collections.abc.Iterable[int], ()),
        (collections.abc.Collection[str], frozenset()),
        (collections.abc.Set[int], {7}),
        (pydantic.ByteSize, 5),
    ],
)
def test_a_default_leaves_a_query_parameter_one(annotation: Any, default: Any) -> None:
    handler = of(annotation, default)
    found = read_handler(handler, "/x")[1].parameters
    assert [(each.kind, each.name, each.required) for each in found] == [("query", "value", False)]
    answer_of(handler, "value=8")


class Model(pydantic.BaseModel):
    number: int


@dataclasses.dataclass
class Data:
    number: int


class Odd(enum.Enum):
    A = (1, 2)


@pytest.mark.parametrize(
    "annotation", [Model, Data, Odd, bytes, dict, dict[str, int], list[Model], list[list[int]]]
)
def test_data_that_no_text_can_become_is_refused_with_a_default_of_none(annotation: Any) -> None:
    for default in (None, ...):
        with pytest.raises(
            HandlerError, match=r"'value' is annotated .*; a JSON body is called 'body'"
        ):
            make_responder(of(annotation | None, default), "/x")
    make_responder(of(annotation, object()), "/x")


def of_fastapi(name: str, *bases: type) -> Any:
    return type(name, bases, {"__module__": "fastapi.params"})()


ITS_QUERY, ITS_DEPENDS = of_fastapi("Query"), of_fastapi("Depends")


def field_default(q: int = pydantic.Field(7, ge=5)) -> None: ...
def query_default(q: int = Query("q")) -> None: ...  # type: ignore[assignment]
def class_default(q: Any = Header) -> None: ...
def its_query(q: int = ITS_QUERY) -> None: ...
def its_header(q: Annotated[str, of_fastapi("Header", FieldInfo)]) -> None: ...
def its_depends(q: Any = ITS_DEPENDS) -> None: ...
def two_places(q: Annotated[int, Header(), Cookie]) -> None: ...
def form_and_query(q: Annotated[int, Form(), Query("q")]) -> None: ...
def inner_place(q: Annotated[int, Header()] | None = None) -> None: ...
def place_of_items(q: list[Annotated[int, Query("x")]]) -> None: ...
def default_in_field(q: Annotated[int, pydantic.Field(default=7)]) -> None: ...
def factory_in_field(q: Annotated[list[int], pydantic.Field(default_factory=list)]) -> None: ...
def body_default(body: Annotated[int, pydantic.Field(default=7)]) -> None: ...
def alias_in_field(q: Annotated[int, pydantic.Field(alias="per-page")]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (field_default, "'q' has Field(…) as its default, expected it in Annotated[…, Field(…)]"),
        (query_default, "'q' has Query(…) as its default, expected it in Annotated[…, Query(…)]"),
        (class_default, "'q' has Header(…) as its default"),
        (its_query, "'q' has FastAPI's Query(…), expected what app.plugin has for it"),
        (its_header, "'q' has FastAPI's Header(…)"),
        (its_depends, "'q' has FastAPI's Depends(…)"),
        (two_places, "'q' is annotated with several places that it comes from, expected one"),
        (form_and_query, "'q' is annotated with several places that it comes from, expected one"),
        (inner_place, "'q' has Header(…) within its type, expected Annotated[…, Header(…)] around"),
        (place_of_items, "'q' has Query(…) within its type"),
        (default_in_field, "'q' has a Field with a default, expected the default as '= …'"),
        (factory_in_field, "'q' has a Field with a default, expected the default as '= …'"),
        (body_default, "'body' has a Field with a default, expected the default as '= …'"),
        (alias_in_field, "'q' has a Field with an alias, expected the name in Query(…)"),
    ],
)
def test_what_would_be_ignored_of_a_parameter_is_refused(
    handler: Callable[..., Any], said: str
) -> None:
    with pytest.raises(HandlerError) as caught:
        make_responder(handler, "/x")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "texts"),
    [
        (decimal.Decimal, ["1e99999999", "-1e99999999", "1e-99999999", "0e99999999", "sNaN"]),
        (decimal.Decimal, ["1e" + "9" * 30, "9" * 5000, "0." + "0" * 5000 + "1"]),
        (Annotated[decimal.Decimal, annotated_types.MultipleOf(decimal.Decimal("0.1"))], ["1e308"]),
        (Annotated[decimal.Decimal, pydantic.Field(max_digits=5)], ["1e308", "1e99999999"]),
        (int, ["9" * 4300, "9" * 4301, "-" + "9" * 5000, "１２"]),
        (Annotated[int, annotated_types.Ge(1)], ["9" * 4300, "9" * 5000]),
        (float, ["9" * 5000, "1e400", "nan"]),
        (datetime.date, ["0000-01-01", "10000-01-01", "9999-12-31", "2026-02-30"]),
        (datetime.datetime, ["9999-12-31T23:59:59-23:59", "9" * 30, "2026-01-01T00:00:60"]),
        (
            datetime.timedelta,
            ["P9999999999D", "P999999999DT24H", "PT1e99S", "9" * 30, "P999999999D"],
        ),
        (datetime.timedelta, ["-P999999999D", "-P999999999DT1S", "inf"]),
        (uuid.UUID, ["{12345678-1234-5678-1234-567812345678}", "-" * 32, "1" * 5000]),
    ],
)
@pytest.mark.parametrize("place", [Query(), Form()])
def test_no_text_however_large_is_a_500(annotation: Any, texts: list[str], place: Any) -> None:
    def handle(value: Any) -> Any:
        return {"value": value}

    handle.__annotations__["value"] = Annotated[annotation, place]
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("POST", make_responder(handle, "/x"))
    put(app, "sample", {"/x": resource})
    for text in texts:
        raw = urllib.parse.urlencode({"value": text}).encode()
        form = {
            "wsgi.input": io.BytesIO(raw),
            "CONTENT_LENGTH": str(len(raw)),
            "CONTENT_TYPE": falcon.MEDIA_URLENCODED,
        }
        asked = form if isinstance(place, Form) else {"QUERY_STRING": raw.decode()}
        answer = call(app, "/x", "POST", **asked)
        assert answer.status in (200, 422), text
        assert json_of(answer.read()), text


def test_none_in_a_literal_is_what_is_left_out() -> None:
    handler = of(Literal["a", None], None)
    assert answer_of(handler, "value=a") == ["str", "a"]
    assert answer_of(handler, "") == ["NoneType", None]
    (fault,) = faults_of(handler, "value=None")
    assert fault["reason"] == "found 'None', expected one of a"


NO_NAME = "which no request can have, expected letters, digits and !#$%&'*+-.^_`|~ in its name"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Header("X Y"), f"'value' is the header 'X Y', {NO_NAME}"),
        (Header("X:Y"), NO_NAME),
        (Header("größe"), NO_NAME),
        (Header("X-Token\n"), NO_NAME),
        (Header(5), "is the header value 5, expected a text as its name"),  # type: ignore[arg-type]
        (
            Header("X_Token"),
            "is the header 'X_Token', which no request can have here, expected 'X-Token'",
        ),
        (Cookie("a b;"), f"'value' is the cookie 'a b;', {NO_NAME}"),
        (Cookie("a=b"), NO_NAME),
        (Cookie('"a"'), NO_NAME),
        (Query(5), "is the query value 5"),  # type: ignore[arg-type]
        (Form(b"a"), "is the form value b'a'"),  # type: ignore[arg-type]
    ],
)
def test_a_name_that_no_request_can_have_is_refused(place: Any, said: str) -> None:
    for default in (..., None):
        with pytest.raises(HandlerError) as caught:
            make_responder(of(Annotated[str | None, place], default), "/x")
        assert said in str(caught.value)


def test_a_parameter_whose_own_name_is_none_of_a_header_is_refused() -> None:
    def find(größe: Annotated[int, Header()]) -> None: ...

    with pytest.raises(HandlerError, match="'größe' is the header 'größe'"):
        make_responder(find, "/x")


@pytest.mark.parametrize(
    "place",
    [Header(), Header("x.y!"), Cookie("__Host-a"), Cookie("a|b"), Query("a b=&"), Form("a b;é")],
)
def test_a_name_that_a_request_can_have_is_taken(place: Any) -> None:
    make_responder(of(Annotated[str, place]), "/x")


def test_a_parameter_without_a_source_says_what_it_may_be() -> None:
    handler = of(Any)
    del handler.__annotations__["value"]
    with pytest.raises(HandlerError, match="the annotation of a query parameter, as int"):
        make_responder(handler, "/x")


# --- constraints -------------------------------------------------------------------------------

Positive = Annotated[int, annotated_types.Gt(0)]


@pytest.mark.parametrize(
    ("annotation", "query", "expected"),
    [
        (Annotated[int, annotated_types.Ge(1)], "value=1", ["int", 1]),
        (Annotated[float, pydantic.Field(ge=0.5, lt=1)], "value=0.5", ["float", 0.5]),
        (Annotated[int, annotated_types.Interval(ge=1, le=3)], "value=3", ["int", 3]),
        (Annotated[str, pydantic.Field(pattern="^a+$")], "value=aa", ["str", "aa"]),
        (Annotated[str, pydantic.StringConstraints(to_upper=True)], "value=a", ["str", "A"]),
        (Annotated[str, annotated_types.Len(1, 3)] | None, "value=abc", ["str", "abc"]),
        (Annotated[list[Positive], annotated_types.MinLen(2)], "value=1&value=2", ["list", [1, 2]]),
        (set[Positive], "value=2&value=2", ["set", [2]]),
    ],
)
def test_a_value_that_keeps_its_constraints_is_filled_in(
    annotation: Any, query: str, expected: Any
) -> None:
    assert answer_of(of(annotation), query) == expected


@pytest.mark.parametrize(
    ("annotation", "query", "reason"),
    [
        (Annotated[int, annotated_types.Ge(1)], "value=0", "greater than or equal to 1"),
        (Annotated[int, annotated_types.Ge(1)], "value=x", "found 'x', expected a whole number"),
        (Annotated[int, annotated_types.Ge(1)], "value=1&value=2", "found 2 values, expected one"),
        (Annotated[int, pydantic.Field(multiple_of=5)], "value=7", "multiple of 5"),
        (Annotated[str, pydantic.Field(pattern="^a+$")], "value=b", "match pattern '^a+$'"),
        (Annotated[str, annotated_types.MaxLen(2)] | None, "value=abc", "at most 2 characters"),
        (list[Positive], "value=1&value=0", "item 2: input should be greater than 0"),
        (Annotated[list[int], annotated_types.MinLen(2)], "value=1", "at least 2 items"),
        (
            Annotated[datetime.date, annotated_types.Ge(datetime.date(2026, 1, 1))],
            "value=2025-12-31",
            "greater than or equal to 2026-01-01",
        ),
    ],
)
def test_a_value_that_breaks_its_constraints_is_a_fault(
    annotation: Any, query: str, reason: str
) -> None:
    (found,) = faults_of(of(annotation), query)
    assert found["where"] == "query"
    assert reason in found["reason"]


def test_the_default_of_a_constrained_parameter_is_the_handlers_own() -> None:
    assert answer_of(of(Annotated[int, annotated_types.Ge(1)], 0), "") == ["int", 0]


def test_a_field_that_does_not_convert_is_a_404_and_one_that_breaks_a_constraint_a_422() -> None:
    def handle(item: Positive, other: Annotated[str, pydantic.Field(max_length=2)]) -> Any:
        return [item, other]

    for template in ("/x/{item}/{other}", "/x/{item:int}/{other}"):
        app = LiveApp()
        resource = HandlerResource()
        resource.set_responder("GET", make_responder(handle, template))
        put(app, "sample", {template: resource})
        assert call(app, "/x/a/b").status == 404
        assert json_of(call(app, "/x/5/b").read()) == [5, "b"]
        answer = call(app, "/x/0/abc")
        assert answer.status == 422
        found = json_of(answer.read())
        assert [(e["where"], e["name"]) for e in found["errors"]] == [
            ("path", "item"),
            ("path", "other"),
        ]
        assert "field 'item': input should be greater than 0" in found["description"]


def test_headers_and_cookies_have_constraints_too() -> None:
    def handle(
        token: Annotated[str, Header("X-Token"), annotated_types.MinLen(3)],
        session: Annotated[int, Cookie(), annotated_types.Ge(1)] = 5,
    ) -> Any:
        return [token, session]

    found = asked(handle, HTTP_X_TOKEN="ab", HTTP_COOKIE="session=0")
    assert [(e["where"], e["name"]) for e in found["errors"]] == [
        ("header", "X-Token"),
        ("cookie", "session"),
    ]
    assert asked(handle, HTTP_X_TOKEN="abc") == ["abc", 5]


def test_fields_and_parameters_may_have_any_name() -> None:
    def handle(type: str, dict: int, ValueError: str, _x: str, str: int = 1) -> Any:  # noqa: A002
        return [type, dict, ValueError, _x, str]

    template = "/x/{type}/{dict}/{ValueError}/{_x}"
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handle, template))
    put(app, "sample", {template: resource})
    asked = call(app, "/x/a/5/b/c", QUERY_STRING="str=7")
    assert json_of(asked.read()) == ["a", 5, "b", "c", 7]
    assert call(app, "/x/a/no/b/c").status == 404
    assert call(app, "/x/a/5/b/c", QUERY_STRING="str=no").status == 422


# --- what documents are made of ----------------------------------------------------------------


def test_a_route_has_what_its_handler_takes_and_returns() -> None:
    def handle(
        item: Positive,
        resp: falcon.Response,
        token: Annotated[str, Header()],
        limit: int = 10,
        _own: int = 3,
    ) -> "list[int]":
        return [item, limit]

    collector = RouteCollector("sample", lambda _frame: None)
    collector.get("/x/{item}", handle)
    (route,) = collector.finish()
    found = route.signatures["GET"]
    assert found.returns == list[int]
    assert [(p.kind, p.name, p.annotation, p.required) for p in found.parameters] == [
        ("path", "item", Positive, True),
        ("response", "resp", falcon.Response, True),
        ("header", "token", Annotated[str, Header()], True),
        ("query", "limit", int, False),
    ]


# --- headers, cookies, and other names ---------------------------------------------------------


def asked(handler: Callable[..., Any], **environ: str) -> Any:
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handler, "/x"))
    put(app, "sample", {"/x": resource})
    answer = call(app, "/x", **environ)
    return json_of(answer.read())


@pytest.mark.parametrize(
    ("annotation", "environ", "expected"),
    [
        (Annotated[str, Header("X-Token")], {"HTTP_X_TOKEN": "secret"}, ["str", "secret"]),
        (Annotated[int, Header("x-count")], {"HTTP_X_COUNT": "5"}, ["int", 5]),
        (Annotated[str, Header()], {"HTTP_VALUE": "a"}, ["str", "a"]),
        (Annotated[str, Header], {"HTTP_VALUE": "a"}, ["str", "a"]),
        (Annotated[str, Header("Content-Type")], {"CONTENT_TYPE": "text/x"}, ["str", "text/x"]),
        (Annotated[str, Cookie()], {"HTTP_COOKIE": "a=1; value=b"}, ["str", "b"]),
        (Annotated[int, Cookie("session")], {"HTTP_COOKIE": "session=7"}, ["int", 7]),
        (Annotated[int, Cookie()], {"HTTP_COOKIE": "value=7; a=1; value=8"}, ["int", 7]),
        (Annotated[str | None, Cookie()], {"HTTP_COOKIE": "value=b; value=a"}, ["str", "b"]),
        (Annotated[list[int], Cookie], {"HTTP_COOKIE": "value=7; value=8"}, ["list", [7, 8]]),
        (Annotated[list[int], Header()], {"HTTP_VALUE": "1, 2,,3"}, ["list", [1, 2, 3]]),
        (Annotated[set[str], Header()], {"HTTP_VALUE": "a"}, ["set", ["a"]]),
        (Annotated[int, Query("per-page")], {"QUERY_STRING": "per-page=7"}, ["int", 7]),
        (Annotated[int, "a note", Query()], {"QUERY_STRING": "value=7"}, ["int", 7]),
        (TypeAliasType("Token", Annotated[str, Header]), {"HTTP_VALUE": "a"}, ["str", "a"]),
    ],
)
def test_a_marker_says_where_a_value_comes_from(
    annotation: Any, environ: dict[str, str], expected: list[Any]
) -> None:
    assert asked(of(annotation), **environ) == expected


def test_a_header_that_lists_nothing_is_missing() -> None:
    assert asked(of(Annotated[list[int], Header()], [5]), HTTP_VALUE=" , ") == ["list", [5]]
    assert asked(of(Annotated[list[int], Header()]))["errors"][0]["reason"] == "it is missing"


def test_a_header_is_named_after_its_parameter() -> None:
    def handle(x_request_id: Annotated[str, Header()], req: Annotated[str | None, Cookie()] = None):
        return [x_request_id, req]

    assert asked(handle, HTTP_X_REQUEST_ID="5", HTTP_COOKIE="req=c") == ["5", "c"]
    found = asked(handle)
    assert found["errors"] == [
        {"name": "x-request-id", "reason": "it is missing", "where": "header"}
    ]


def test_faults_of_all_places_are_said_at_once() -> None:
    def handle(
        token: Annotated[int, Header("X-Token")],
        session: Annotated[int, Cookie()],
        limit: int,
        page: Annotated[int, Query("p")] = 1,
    ) -> None:
        raise AssertionError("it is not called")

    found = asked(handle, HTTP_X_TOKEN="a", HTTP_COOKIE="session=x; session=2", QUERY_STRING="p=x")
    assert [(e["where"], e["name"]) for e in found["errors"]] == [
        ("header", "X-Token"),
        ("cookie", "session"),
        ("query", "limit"),
        ("query", "p"),
    ]
    assert (
        "header 'X-Token': found 'a', expected a whole number; cookie 'session': found 'x', "
        "expected a whole number"
    ) in found["description"]


def test_a_field_of_the_path_cannot_come_from_elsewhere() -> None:
    def handle(item: Annotated[str, Header()]) -> None: ...

    with pytest.raises(HandlerError, match="the field 'item' is annotated with where else"):
        make_responder(handle, "/x/{item}")
