"""The body of a handler as a type of its plugin's: models, dataclasses, all that pydantic takes."""

import dataclasses
import datetime
import decimal
import enum
import io
import json
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NewType

import annotated_types
import pydantic
import pydantic_core
import pytest
import typing_extensions
from typing_extensions import TypeAliasType

from app.loading.registration import HandlerResource
from app.loading.signatures import HandlerError
from app.plugin import Form, Header
from app.routing.application import LiveApp
from tests.support.handlers import make_responder
from tests.support.wsgi import call, json_of, put


class Item(pydantic.BaseModel):
    name: str
    count: Annotated[int, pydantic.Field(ge=1)] = 1


class Order(pydantic.BaseModel):
    number: int
    day: datetime.date
    items: list[Item] = []
    price: decimal.Decimal | None = None


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    item: Item


class Aliased(pydantic.BaseModel):
    order_number: int = pydantic.Field(alias="orderNumber")


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Edge(typing_extensions.TypedDict):
    a: int
    item: Item


class Loose(typing_extensions.TypedDict):
    __pydantic_config__ = pydantic.ConfigDict(extra="allow")  # type: ignore[misc]
    a: int


def no_spaces(text: str) -> str:
    if " " in text:
        raise ValueError("it has a space")
    return text


def custom_error(text: str) -> pydantic_core.PydanticCustomError:
    return pydantic_core.PydanticCustomError("odd", "{it}", {"it": text})


class Size(enum.Enum):
    SMALL = "small"


def of(annotation: Any, default: Any = ...) -> Any:
    def handle(body: Any) -> Any:
        return {"type": type(body).__name__, "body": body}

    handle.__annotations__ = {"body": annotation}
    if default is not ...:
        handle.__defaults__ = (default,)
    return handle


def post(handler: Any, body: bytes | str, **environ: str) -> Any:
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("POST", make_responder(handler, "/x"))
    put(app, "sample", {"/x": resource})
    raw = body if isinstance(body, bytes) else body.encode()
    given = {"wsgi.input": io.BytesIO(raw), "CONTENT_LENGTH": str(len(raw)), **environ}
    answer = call(app, "/x", "POST", **given)
    return answer.status, json_of(answer.read())


@pytest.mark.parametrize(
    ("annotation", "body", "kind", "expected"),
    [
        (Item, '{"name": "a"}', "Item", {"name": "a", "count": 1}),
        (
            Order,
            '{"number": 5, "day": "2026-01-31", "items": [{"name": "a"}], "price": 1.10}',
            "Order",
            {
                "number": 5,
                "day": "2026-01-31",
                "items": [{"name": "a", "count": 1}],
                "price": "1.1",
            },
        ),
        (list[Item], '[{"name": "a"}]', "list", [{"name": "a", "count": 1}]),
        (dict[str, Item], '{"k": {"name": "a"}}', "dict", {"k": {"name": "a", "count": 1}}),
        (Item | None, "null", "NoneType", None),
        (Aliased, '{"orderNumber": 5}', "Aliased", {"orderNumber": 5}),
        (Point, '{"x": 1}', "Point", {"x": 1, "y": 0}),
        (set[int], "[2, 2]", "set", [2]),
        (tuple[int, str], '[1, "a"]', "tuple", [1, "a"]),
        (datetime.date, '"2026-01-31"', "date", "2026-01-31"),
        (Size, '"small"', "Size", "small"),
        (Annotated[list[Item], pydantic.Field(min_length=1)], '[{"name": "a"}]', "list", None),
    ],
)
def test_a_body_becomes_what_the_annotation_says(
    annotation: Any, body: str, kind: str, expected: Any
) -> None:
    status, answer = post(of(annotation), body)
    assert (status, answer["type"]) == (200, kind), answer
    if expected is not None or kind == "NoneType":
        assert answer["body"] == expected


@pytest.mark.parametrize(
    ("annotation", "body", "errors"),
    [
        (Item, "{}", [("name", "field required")]),
        (Item, '{"name": 5, "count": 0}', [
            ("name", "input should be a valid string"),
            ("count", "input should be greater than or equal to 1"),
        ]),
        (Item, '{"name": "a", "colour": 1}', [("colour", "extra inputs are not permitted")]),
        (list[Item], '[{"name": "a"}, {}]', [("1.name", "field required")]),
        (Point, '{"x": 1, "z": 2}', [("z", "unexpected keyword argument")]),
        (Item, "[]", [("body", "input should be an object")]),
        (Order, '{"number": 1, "day": "x", "items": [{"name": "a", "more": 1}]}', [
            ("day", "input should be a valid date or datetime, input is too short"),
            ("items.0.more", "extra inputs are not permitted"),
        ]),
    ],
)  # fmt: skip
def test_all_that_does_not_fit_is_said_with_its_place(
    annotation: Any, body: str, errors: list[tuple[str, str]]
) -> None:
    status, answer = post(of(annotation), body)
    assert status == 422, answer
    found = [(e["name"], e["reason"]) for e in answer["errors"]]
    assert found == errors
    assert {e["where"] for e in answer["errors"]} == {"body"}


def test_a_model_that_takes_other_fields_gets_them() -> None:
    status, answer = post(of(Open), '{"item": {"name": "a"}, "more": 1}')
    assert (status, answer["body"]["more"]) == (200, 1)


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("{", "Invalid JSON"),
        ('{"name": NaN}', "Invalid JSON"),
        ("[" * 300 + "]" * 300, "Invalid JSON"),
        (b'{"name": "\xff"}', "Invalid JSON"),
    ],
)
def test_what_is_no_json_is_a_400(body: str | bytes, title: str) -> None:
    status, answer = post(of(Item), body)
    assert (status, answer["title"]) == (400, title), answer


@pytest.mark.parametrize(
    ("annotation", "fits", "broken", "name"),
    [
        (Annotated[int, pydantic.Field(ge=5)], "5", "1", "body"),
        (pydantic.PositiveInt, "1", "0", "body"),
        (Annotated[str, annotated_types.MinLen(3)], '"abc"', '"ab"', "body"),
        (Annotated[list[int], pydantic.Field(min_length=2)], "[1, 2]", "[1]", "body"),
        (list[Annotated[int, pydantic.Field(ge=5)]], "[5]", "[5, 1]", "1"),
        (dict[str, pydantic.PositiveInt], '{"a": 1}', '{"a": 0}', "a"),
        (Annotated[int, pydantic.Field(ge=5)] | None, "null", "1", "body"),
        (Annotated[str, pydantic.AfterValidator(no_spaces)], '"a"', '"a b"', "body"),
        (TypeAliasType("Many", Annotated[int, annotated_types.Ge(5)]), "5", "1", "body"),
        (NewType("Few", Annotated[int, annotated_types.Le(5)]), "5", "6", "body"),
        (Annotated[bytes, annotated_types.MaxLen(3)], "abc", "abcd", "body"),
    ],
)
def test_the_constraints_of_a_plain_body_are_kept(
    annotation: Any, fits: str, broken: str, name: str
) -> None:
    def handle(body: Any) -> str:
        return type(body).__name__

    handle.__annotations__ = {"body": annotation}
    assert post(handle, fits)[0] == 200
    status, answer = post(handle, broken)
    assert status == 422, answer
    assert [(e["name"], e["where"]) for e in answer["errors"]] == [(name, "body")]


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [(Edge, "%s"), (list[Edge], "[%s]"), (Edge | None, "%s"), (dict[str, Edge], '{"k": %s}')],
)
def test_a_typed_dict_is_checked_wherever_it_stands(annotation: Any, wrap: str) -> None:
    whole = '{"a": 1, "item": {"name": "x"}}'
    assert post(of(annotation), wrap % whole)[0] == 200
    for broken in ("{}", '{"a": "x", "item": {"name": "x"}}', '{"a": 1, "item": {}}'):
        assert post(of(annotation), wrap % broken)[0] == 422, broken
    status, answer = post(of(annotation), wrap % '{"a": 1, "item": {"name": "x"}, "more": 1}')
    assert status == 422
    assert answer["errors"][0]["name"].endswith("more")


def test_what_stands_in_a_typed_dict_is_made_too() -> None:
    def handle(body: Edge) -> str:
        return body["item"].name

    assert post(handle, '{"a": 1, "item": {"name": "x"}}') == (200, "x")


def test_a_typed_dict_that_says_so_takes_other_fields() -> None:
    assert post(of(Loose), '{"a": 1, "more": 2}')[1]["body"] == {"a": 1, "more": 2}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it from 3.12 on")
def test_a_typed_dict_of_typing_is_refused_where_it_cannot_be_checked() -> None:
    class Plain(typing.TypedDict):
        a: int

    for annotation in (Plain, list[Plain], Plain | None):
        with pytest.raises(HandlerError, match=r"use `typing_extensions\.TypedDict` instead"):
            make_responder(of(annotation), "/x")


@pytest.mark.parametrize("body", ["", "  "])
def test_an_empty_body_is_said_with_all_else_that_does_not_fit(body: str) -> None:
    def handle(body: Item, limit: int) -> None:
        raise AssertionError("it is not called")

    status, answer = post(handle, body)
    assert status == 422
    assert [(e["name"], e["reason"]) for e in answer["errors"]] == [
        ("limit", "it is missing"),
        ("body", "it is missing"),
    ]


@pytest.mark.parametrize("kind", [ValueError, AssertionError, custom_error])
def test_a_message_of_a_validator_that_utf8_cannot_hold_is_no_fault_of_the_json(kind: Any) -> None:
    def refuse(_value: str) -> str:
        raise kind("\ud800")

    status, answer = post(of(Annotated[str, pydantic.AfterValidator(refuse)]), '"a"')
    assert (status, answer["errors"][0]["where"]) == (422, "body")
    assert "UTF-8" in answer["errors"][0]["reason"]


def test_an_empty_body_is_the_default_or_none() -> None:
    assert post(of(Item, None), "")[1]["body"] is None
    assert post(of(Item | None), "")[1]["body"] is None
    assert post(of(Item, Item(name="d")), "")[1]["body"]["name"] == "d"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_json_in_each_of_its_encodings_is_read(encoding: str) -> None:
    status, answer = post(of(Item), '{"name": "é"}'.encode(encoding))
    assert (status, answer["body"]["name"]) == (200, "é")


def test_faults_of_the_body_come_with_those_of_the_rest() -> None:
    def handle(body: Item, limit: int, token: Annotated[str, Header("X-Token")]) -> None:
        raise AssertionError("it is not called")

    status, answer = post(handle, '{"count": "x"}', QUERY_STRING="limit=a")
    assert status == 422
    assert [(e["where"], e["name"]) for e in answer["errors"]] == [
        ("query", "limit"),
        ("header", "X-Token"),
        ("body", "name"),
        ("body", "count"),
    ]
    assert "body 'name': field required" in answer["description"]


def test_a_body_with_very_many_faults_names_the_first_hundred() -> None:
    status, answer = post(of(list[Item]), f"[{', '.join(['{}'] * 1000)}]")
    assert (status, len(answer["errors"])) == (422, 100)


LARGE = 6000
"""Of so many items, a body is no longer checked to its end."""


@pytest.mark.parametrize(
    ("annotation", "item", "frame", "expected"),
    [
        (list[Item], "{}", "[{}]", ["0.name"]),
        (tuple[Item, ...], "{}", "[{}]", ["0.name"]),
        (set[int], '"x"', "[{}]", ["0"]),
        (list[list[Item]], "[{}, 5]", "[[], {}]", ["1.0.name"]),
        (Order, '{"more": 1}', '{{"number": "x", "day": "2026-01-31", "items": [{}]}}',
            ["number", "items.0.name", "items.0.more"]),
        (dict[str, Item], '"k": {}', "{{{}}}", ["k.name"]),
        (Order | list[Item], "{}", "[{}]", ["Order", "list[Item].0.name"]),
    ],
)  # fmt: skip
def test_a_large_body_is_checked_to_the_first_item_that_does_not_fit(
    annotation: Any, item: str, frame: str, expected: list[str]
) -> None:
    status, answer = post(of(annotation), frame.format(", ".join([item] * LARGE)))
    assert (status, [fault["name"] for fault in answer["errors"]]) == (422, expected)


class Weight(pydantic.BaseModel):
    default: float = 0.0
    more: list[float] = []
    any: Any = None


@dataclasses.dataclass
class Weighed:
    weight: Weight
    scale: float = 1.0


class Scale(typing_extensions.TypedDict):
    by: float


class Boundless(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(allow_inf_nan=True)
    high: float
    inner: Weight = Weight()


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (Weight, '{"default": %s}'),
        (Weight, '{"more": [1, %s]}'),
        (list[Weight], '[{"default": %s}]'),
        (Weighed, '{"weight": {"default": %s}}'),
        (Weighed, '{"weight": {}, "scale": %s}'),
        (set[float], "[%s]"),
        (Scale, '{"by": %s}'),
        (Annotated[float, pydantic.Field(ge=0)], "%s"),
        (list[Weight], f'[{"{}, " * LARGE}{{"default": %s}}]'),
    ],
)
def test_a_float_of_a_type_is_finite(annotation: Any, wrap: str) -> None:
    for written in ('"inf"', '"-Infinity"', '"NaN"'):
        status, answer = post(of(annotation), wrap % written)
        assert status in (400, 422), (written, answer)
    assert post(of(annotation), wrap % '"inf"')[1]["errors"][0]["reason"] == (
        "input should be a finite number"
    )
    for written in ("1e400", "1E+0400", "1" * 400 + ".0", "1" * 250 + "e99"):
        assert post(of(annotation), wrap % written)[0] in (400, 422), written
    for written in ("1.5", "1e308", '"2"'):
        assert post(of(annotation), wrap % written)[0] == 200, written


@pytest.mark.parametrize(
    "number", ["1e400", "9E+999", "-1.5e00400", "NaN", "-Infinity", "7" * 400 + ".0"]
)
def test_a_number_without_room_is_refused_wherever_it_stands(number: str) -> None:
    assert post(of(Weight), f'{{"any": {{"deep": [{number}]}}}}')[0] == 400
    assert post(of(Weight), f'{{"any": "{number}"}}')[0] == 200


def test_a_number_without_room_for_a_float_of_a_model_names_the_field() -> None:
    class Scaled(pydantic.BaseModel):
        weight: float

    status, answer = post(of(Scaled), '{"weight": 1e999}')
    assert status == 422
    assert "weight" in answer["errors"][0]["name"]


def test_a_type_that_says_so_takes_infinite_floats() -> None:
    def handle(body: Boundless) -> bool:
        return body.high == float("inf")

    assert post(handle, '{"high": "inf"}') == (200, True)
    assert post(handle, '{"high": 1, "inner": {"default": "inf"}}')[0] == 422
    assert post(of(Annotated[float, pydantic.AllowInfNan()]), '"5"')[0] == 200


class Priced(pydantic.BaseModel):
    price: decimal.Decimal
    least: Annotated[decimal.Decimal, annotated_types.Ge(1)] = decimal.Decimal(1)
    cents: Annotated[decimal.Decimal, pydantic.Field(max_digits=5, decimal_places=2)] = (
        decimal.Decimal(1)
    )


@dataclasses.dataclass
class PricedFields:
    price: decimal.Decimal


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (decimal.Decimal, "%s"),
        (Priced, '{"price": %s}'),
        (Priced, '{"price": 1, "least": %s}'),
        (PricedFields, '{"price": %s}'),
        (list[decimal.Decimal | None], "[%s]"),
        (list[Priced], '[{"price": %s}]'),
    ],
)
def test_a_decimal_is_as_large_as_a_float_at_most(annotation: Any, wrap: str) -> None:
    for written, said in (
        ('"1e99999999"', "should be less than 1E+309"),
        ('"-1e99999999"', "should be greater than"),
        ('"1e-99999999"', "no more than 1000 decimal places"),
    ):
        status, answer = post(of(annotation), wrap % written)
        assert (status, said in str(answer)) == (422, True) or "greater than or equal" in str(
            answer
        )
    for written in ('"1.5e308"', '"1.0000000000000000001"', "2"):
        assert post(of(annotation), wrap % written)[0] == 200, written


class Iterates(pydantic.BaseModel):
    numbers: Iterable[int]


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (Iterable[int], "[%s]"),
        (Iterates, '{"numbers": [%s]}'),
        (Iterable[Iterates] | None, '[{"numbers": [%s]}]'),
    ],
)
def test_an_iterable_is_checked_before_the_handler_runs(annotation: Any, wrap: str) -> None:
    def handle(body: Any) -> Any:
        return list(body) if isinstance(body, Iterator) else body

    handle.__annotations__["body"] = annotation
    for number in ('"x"', "1.5", "1, {}"):
        status, answer = post(handle, wrap % number)
        assert status == 422
        assert "valid integer" in answer["errors"][0]["reason"]
    assert post(handle, wrap % '1, "2"') == (200, json.loads(wrap % "1, 2"))


class Waits(pydantic.BaseModel):
    span: datetime.timedelta


@pytest.mark.parametrize("place", ["body", "form", "text"])
def test_what_overflows_in_pydantic_is_a_422(place: str) -> None:
    def whole(form: Annotated[Waits, Form()]) -> Any:
        return form

    def text(
        span: Annotated[datetime.timedelta, pydantic.BeforeValidator(str.upper), Form()],
    ) -> Any:
        return span

    wide = {"CONTENT_TYPE": "application/x-www-form-urlencoded"}
    for sent, status in (("-P999999999DT1S", 422), ("-P999999999D", 200)):
        if place == "body":
            answer = post(of(Waits), f'{{"span": "{sent}"}}')
        else:
            answer = post(whole if place == "form" else text, f"span={sent}", **wide)
        assert answer[0] == status
        if status == 422:
            assert answer[1]["errors"][0]["reason"] == "a value is larger than its type can be"


def test_a_decimal_keeps_the_bounds_of_its_own() -> None:
    status, answer = post(of(Priced), '{"price": 1, "cents": "1.001"}')
    assert (status, answer["errors"][0]["reason"]) == (
        422,
        "decimal input should have no more than 2 decimal places",
    )

    class Boundless(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(allow_inf_nan=True)
        price: decimal.Decimal

    def handle(body: Boundless) -> bool:
        return body.price == decimal.Decimal("inf")

    assert post(handle, '{"price": "inf"}') == (200, True)


def nested_models(levels: int) -> Any:
    made = pydantic.create_model("Level", value=(int, 1))
    for _ in range(levels):
        made = pydantic.create_model("Level", inner=(made, ...))
    return made


def nested_lists(levels: int) -> Any:
    made: Any = int
    for _ in range(levels):
        made = list[made]
    return made


TOO_DEEP = "whose parts are nested too deep to be read, expected some dozens of levels at most"


@pytest.mark.parametrize("kind", [nested_models(300), nested_lists(900)])
def test_a_type_that_is_nested_too_deep_is_refused_with_a_sentence(kind: Any) -> None:
    for handler in (of(kind), of(Annotated[kind, Form()]), of(kind | None)):
        with pytest.raises(HandlerError) as caught:
            make_responder(handler, "/x")
        said = str(caught.value)
        assert "body" in said
        assert TOO_DEEP in said
        assert len(said) < 1000


def test_a_type_that_is_nested_some_dozens_of_levels_is_taken() -> None:
    deep = '{"inner": ' * 40 + "{}" + "}" * 40
    assert post(of(nested_models(40)), deep)[0] == 200
    assert post(of(nested_lists(40)), "[" * 40 + "5" + "]" * 40)[0] == 200


TREE = """
type Tree = dict[str, Tree]
type Json = dict[str, Json] | list[Json] | str | int | None
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` is younger")
@pytest.mark.parametrize("named", ["Tree", "list[Tree]", "Tree | None", "dict[str, Json]"])
def test_a_type_may_hold_itself(named: str) -> None:
    names: dict[str, Any] = {}
    exec(TREE, names)  # no older Python reads it
    annotation = eval(named, names)
    wrap = "[%s]" if named.startswith("list") else "%s"
    assert post(of(annotation), wrap % '{"a": {"b": {}}}')[0] == 200
    status, answer = post(of(annotation), wrap % '{"a": {"b": 0.5}}')
    assert (status, answer["errors"][0]["where"]) == (422, "body")


class Unknown(pydantic.BaseModel):
    part: "NoSuchType"  # type: ignore[name-defined] # noqa: F821


@dataclasses.dataclass
class Unfinished:
    part: "NoSuchType"  # type: ignore[name-defined] # noqa: F821


class Nested(pydantic.BaseModel):
    inner: Unknown


class Earlier(pydantic.BaseModel):
    later: "Later"


class Later(pydantic.BaseModel):
    number: int


@pytest.mark.parametrize(
    "annotation",
    [Unknown, Unfinished, Nested, list[Unknown], Unknown | None, dict[str, Unfinished]],
)
def test_a_type_that_names_what_is_not_there_is_refused(annotation: Any) -> None:
    for said in (annotation, Annotated[annotation, Form()]):
        with pytest.raises(HandlerError, match=r"name 'NoSuchType' is not defined$") as caught:
            make_responder(of(said), "/x")
        assert "write 'body: dict'" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Unknown, Nested, list[Unknown], Unknown | None])
def test_so_is_a_model_that_is_to_be_returned(annotation: Any) -> None:
    def handle() -> Any: ...

    handle.__annotations__ = {"return": annotation}
    expected = r"it returns \w+, of which pydantic says: name 'NoSuchType' is not defined$"
    with pytest.raises(HandlerError, match=expected):
        make_responder(handle, "/x")
    handle.__annotations__ = {"return": list[Earlier]}
    make_responder(handle, "/x")


def test_a_type_that_names_what_comes_later_is_made() -> None:
    assert post(of(Earlier), '{"later": {"number": 1}}')[0] == 200


class Sized(pydantic.BaseModel):
    count: Annotated[int, pydantic.Field(min_length=3)]


Misapplied = [
    Annotated[int, pydantic.Field(min_length=3)],
    Annotated[int, annotated_types.MinLen(3), annotated_types.Ge(5)],
    Annotated[int | None, pydantic.Field(max_length=3)],
    Annotated[int | str, pydantic.Field(max_length=3)],
    Annotated[str, pydantic.Field(ge=3)],
    Annotated[str, annotated_types.MultipleOf(3)],
    Annotated[list[int], pydantic.Field(ge=3)],
    Annotated[int, pydantic.Field(pattern="x")],
    Annotated[float, pydantic.StringConstraints(to_lower=True)],
    Annotated[datetime.date, pydantic.Field(max_length=3)],
    Annotated[datetime.date, annotated_types.Ge(5)],
]


@pytest.mark.parametrize(
    "annotation",
    [*Misapplied, Sized, list[Sized], dict[str, Misapplied[0]]],  # type: ignore[valid-type]
)
def test_a_constraint_that_its_type_cannot_have_is_refused(annotation: Any) -> None:
    with pytest.raises(HandlerError, match="of which pydantic says: "):
        make_responder(of(annotation), "/x")


@pytest.mark.parametrize("annotation", Misapplied)
def test_so_it_is_in_the_query_and_the_path(annotation: Any) -> None:
    def handle(value: Any) -> None: ...

    handle.__annotations__ = {"value": annotation}
    for template in ("/x", "/x/{value}"):
        with pytest.raises(HandlerError, match="'value' is annotated"):
            make_responder(handle, template)


def even(number: int) -> int:
    if number % 2:
        raise ValueError("it is odd")
    return number


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, pydantic.Field(multiple_of=3, ge=3)],
        Annotated[bool, pydantic.Field(ge=True)],
        Annotated[decimal.Decimal, pydantic.Field(max_digits=3)],
        Annotated[list[int], pydantic.Field(min_length=1)],
        Annotated[dict[str, int], annotated_types.Len(1, 3)],
        Annotated[frozenset[int], annotated_types.MinLen(1)],
        Annotated[str | None, pydantic.Field(pattern="a")],
        Annotated[int, pydantic.AfterValidator(even)],
        Annotated[datetime.datetime, annotated_types.Ge(datetime.datetime(2026, 1, 1))],
    ],
)
def test_a_constraint_that_its_type_has_is_none_of_them(annotation: Any) -> None:
    make_responder(of(annotation), "/x")


class Kind(pydantic.BaseModel):
    numbers: list[int]
    told: dict[str, Any] = {"type": "list"}


def test_a_large_body_that_fits_is_taken_as_a_small_one() -> None:
    for count in (1, LARGE * 2):
        status, answer = post(of(Kind), f'{{"numbers": {[1] * count}}}')
        assert status == 200, answer
        assert answer["body"] == {"numbers": [1] * count, "told": {"type": "list"}}


def test_of_faults_without_end_the_number_is_said() -> None:
    unknown = ", ".join(f'"field{number}": 1' for number in range(60_000))
    status, answer = post(of(Item), f'{{"name": "a", {unknown}}}')
    assert status == 422
    assert answer["errors"] == [
        {"name": "body", "reason": "60,000 faults, too many to name", "where": "body"}
    ]


def test_what_a_client_sent_is_cut_where_an_answer_shows_it() -> None:
    class Cat(pydantic.BaseModel):
        kind: Literal["cat"]

    class Dog(pydantic.BaseModel):
        kind: Literal["dog"]

    long = "x" * 100_000
    status, answer = post(of(Item), f'{{"name": "a", "{long}end": 1}}')
    (fault,) = answer["errors"]
    assert (status, len(fault["name"]), fault["name"][-3:]) == (422, 100, "end")
    pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    status, answer = post(of(pet), f'{{"kind": "{long}"}}')
    (fault,) = answer["errors"]
    assert (status, len(fault["reason"])) == (422, 500)
    assert fault["reason"].endswith("expected tags: 'cat', 'dog'")
    assert len(answer["description"]) < 1000


def test_models_are_answered_wherever_they_are() -> None:
    def handle() -> Any:
        order = Order(number=1, day=datetime.date(2026, 1, 31), items=[Item(name="a")])
        return {"orders": [order], "alias": Aliased(orderNumber=3)}, 201

    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(handle, "/x"))
    put(app, "sample", {"/x": resource})
    answer = call(app, "/x")
    assert answer.status == 201
    assert json_of(answer.read()) == {
        "orders": [
            {"number": 1, "day": "2026-01-31", "items": [{"name": "a", "count": 1}], "price": None}
        ],
        "alias": {"orderNumber": 3},
    }


def test_pydantic_is_imported_by_the_first_handler_that_needs_it() -> None:
    code = (
        "import sys\n"
        "from app.loading.handlers import read_handler\n"
        "def plain(body: dict, limit: int = 1): ...\n"
        "read_handler(plain, '/x')\n"
        "assert 'pydantic' not in sys.modules\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Point: x: int\n"
        "def typed(body: Point): ...\n"
        "read_handler(typed, '/x')\n"
        "assert 'pydantic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_literal_of_texts_is_none_of_pydantics() -> None:
    assert post(of(Literal["a"]), '"a"')[1]["body"] == "a"
