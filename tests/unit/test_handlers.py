"""Handlers: how parameters are filled, and what return values become."""

from __future__ import annotations

import asyncio
import collections
import collections.abc
import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import http
import io
import ipaddress
import json
import threading
import types
import typing
import uuid
from pathlib import Path
from typing import Any

import falcon
import pydantic
import pytest

from app.loading.body_parameter import MAX_BODY_BYTES
from app.loading.context import make_context_factory
from app.loading.registration import HandlerResource, RouteCollector
from app.loading.signatures import HandlerError, describe
from app.loading.strict_json import to_json
from app.plugin import Answer, Event, PluginContext, Problem
from app.uri_templates import template_fields
from tests.support.handlers import make_responder
from tests.support.wsgi import call, json_of, put, resource


@pytest.fixture
def serve(app):
    """Serve one handler; the returned function calls it."""

    def make(handler, template="/x", path=None, method="GET", **options):
        resource = HandlerResource()
        resource.set_responder(method, make_responder(handler, template, **options))
        put(app, "sample", {template: resource})

        def ask(path=path or template, *, body=None, chunked=False, content_type=None, **environ):
            if body is not None:
                body = body if isinstance(body, bytes) else body.encode()
                environ["wsgi.input"] = io.BytesIO(body)
                if chunked:
                    environ["wsgi.input_terminated"] = True
                    environ["HTTP_TRANSFER_ENCODING"] = "chunked"
                else:
                    environ["CONTENT_LENGTH"] = str(len(body))
            if content_type is not None:
                environ["CONTENT_TYPE"] = content_type
            answer = call(app, path, method, **environ)
            answer.content = answer.read()  # type: ignore[attr-defined]
            return answer

        return ask

    return make


@pytest.fixture
def post(serve):
    """Serve a POST handler that answers with its body; call it with a body."""

    def make(handler, **options):
        return serve(handler, method="POST", **options)

    return make


def fault(handler, template="/x") -> str:
    with pytest.raises(HandlerError) as caught:
        make_responder(handler, template)
    return str(caught.value)


def annotated(**annotations):
    """Make an echo of `body` with real annotations, not the texts of this module's import."""

    def decorate(function):
        function.__annotations__ = annotations
        return function

    return decorate


# --- fields --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("/", {}),
        ("/a/{b}", {"b": False}),
        ("/{a:int}/{b}", {"a": True, "b": False}),
        ("/{a:int(min=1)}-{b}/{c:path}", {"a": True, "b": False, "c": True}),
        ('/{a:dt("%Y:%m")}', {"a": True}),
    ],
)
def test_the_fields_of_a_template(template, fields):
    assert template_fields(template) == fields


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [
        (int, "42", 42),
        (int, "-7", -7),
        (float, "1.5", 1.5),
        (float, "3", 3.0),
        (uuid.UUID, "12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-567812345678"),
        (str, "42", "42"),
        (Any, "42", "42"),
        (typing.Annotated[str, "note"], "42", "42"),
    ],
)
def test_a_field_is_converted_to_its_annotation(serve, annotation, sent, received):
    @annotated(item=annotation)
    def handle(item):
        plain = typing.get_origin(annotation) is not typing.Annotated and annotation is not Any
        assert not plain or type(item) is annotation
        return [item]

    assert json_of(serve(handle, "/x/{item}")(f"/x/{sent}").content) == [received]


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (int, "x"),
        (int, "1.5"),
        (int, "9" * 5000),
        (float, "x"),
        (uuid.UUID, "x"),
        (int, "%00"),
        (uuid.UUID, "1234"),
        (int, "1e3"),
    ],
)
def test_a_field_that_does_not_convert_is_not_found(serve, annotation, sent):
    @annotated(item=annotation)
    def handle(item):
        raise AssertionError(item)

    assert serve(handle, "/x/{item}")(f"/x/{sent}").status == 404


@pytest.mark.parametrize("sent", ["nan", "inf", "-inf", "1e999"])
def test_a_float_that_is_not_finite_is_not_found_as_with_falcons_converter(serve, sent):
    def handle(item: float):
        return [item]

    assert serve(handle, "/x/{item}")(f"/x/{sent}").status == 404
    assert serve(handle, "/x/{item:float}")(f"/x/{sent}").status == 404


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [(typing.Optional[int], "5", 5), (int | None, "5", 5), (typing.Annotated[int, "n"], "5", 5)],  # noqa: UP045
)
def test_a_field_with_a_wrapped_annotation_is_converted_too(serve, annotation, sent, received):
    @annotated(item=annotation)
    def handle(item):
        return [item]

    assert json_of(serve(handle, "/x/{item}")(f"/x/{sent}").content) == [received]


SENT = (
    "1 -1 +1 1_000 1__0 007 %201 1%20 1%0A %091 %C2%A01 1.0 1. .5 %D9%A3 %EF%BC%91 %C2%B2 1e3 "
    "1E400 nan -Infinity 0x10 True - %2B1 1%00 12345678123456781234567812345678 "
    "{12345678-1234-5678-1234-567812345678} urn:uuid:12345678123456781234567812345678"
)


@pytest.mark.parametrize(
    ("converter", "annotation"), [("int", int), ("float", float), ("uuid", uuid.UUID)]
)
def test_an_annotation_takes_what_falcons_converter_takes(serve, converter, annotation):
    @annotated(item=annotation)
    def handle(item):
        return [type(item).__name__, str(item)]

    def plain(req, resp, item):
        resp.media = [type(item).__name__, str(item)]

    theirs = falcon.App()
    theirs.add_route(f"/x/{{item:{converter}}}", resource(on_get=plain))
    ask = serve(handle, "/x/{item}")
    taken = 0
    for sent in [*SENT.split(), "", "9" * 5000]:
        expected, answer = call(theirs, f"/x/{sent}"), ask(f"/x/{sent}")
        assert answer.status == expected.status, sent
        if answer.status == 200:
            taken += 1
            assert json_of(answer.content) == json_of(expected.read())
    assert taken


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 2


Slug = typing.NewType("Slug", str)
Number = typing.NewType("Number", int)


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [
        (datetime.date, "2020-01-02", datetime.date(2020, 1, 2)),
        (datetime.time, "12:30", datetime.time(12, 30)),
        (datetime.datetime, "2020-01-02T03:04:05", datetime.datetime(2020, 1, 2, 3, 4, 5)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (bool, "true", True),
        (bool, "0", True is False),
        (Size, "l", Size.LARGE),
        (Priority, "2", Priority.HIGH),
        (typing.Literal["a", 2, True], "2", 2),
        (typing.Literal["a", 2, True], "true", True),
        (typing.Literal[Size.SMALL], "s", Size.SMALL),
        (Slug, "a", "a"),
        (Number, "5", 5),
        (Number | None, "5", 5),
        (int | str, "5", 5),
        (int | str, "x", "x"),
        (uuid.UUID | datetime.date, "2020-01-02", datetime.date(2020, 1, 2)),
        (typing.Annotated[Number | None, []], "5", 5),
        (object, "5", "5"),
    ],
)
def test_a_field_of_every_plain_type_is_converted(serve, annotation, sent, received):
    seen = []

    @annotated(item=annotation)
    def handle(item):
        seen.append(item)

    assert serve(handle, "/x/{item}")(f"/x/{sent}").status == 204
    assert (type(seen[0]), seen[0]) == (type(received), received)


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (datetime.date, "2020-02-30"),
        (datetime.date, "%ED%A0%80"),
        (datetime.datetime, "noon"),
        (decimal.Decimal, "x"),
        (decimal.Decimal, "NaN"),
        (decimal.Decimal, "Infinity"),
        (decimal.Decimal, "%201"),
        (decimal.Decimal, "1e999999999999999999"),
        (bool, "maybe"),
        (bool, ""),
        (Size, "LARGE"),
        (Priority, "3"),
        (Priority, "02"),
        (typing.Literal["a"], "b"),
        (Number, "x"),
        (uuid.UUID | datetime.date, "x"),
    ],
)
def test_a_field_that_is_none_of_its_type_is_not_found(serve, annotation, sent):
    @annotated(item=annotation)
    def handle(item):
        raise AssertionError(item)

    assert serve(handle, "/x/{item}")(f"/x/{sent}").status == 404


@pytest.mark.parametrize(
    "annotation",
    [
        list[int],
        dict,
        bytes,
        falcon.Request,
        type("Own", (), {}),
        type("OwnInt", (int,), {}),
        typing.Literal[b"x"],
        enum.Enum("Odd", {"A": (1, 2)}),
        int | bytes,
        typing.TypeVar("T"),
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused_and_says_which_there_are(annotation):
    @annotated(item=annotation)
    def handle(item): ...

    message = fault(handle, "/x/{item}")
    assert "the field 'item' is annotated" in message
    assert "expected str, int, float" in message
    make_responder(handle, "/x/{item:int}")  # Falcon converts it: the annotation says nothing


def test_falcons_converter_wins_over_the_annotation(serve):
    def handle(item: str):
        return [type(item).__name__]

    assert json_of(serve(handle, "/x/{item:int}")("/x/5").content) == ["int"]


def test_several_fields_of_one_segment_are_filled_by_name(serve):
    def handle(b: int, a):
        return [a, b]

    assert json_of(serve(handle, "/{a}-{b}")("/p-5").content) == ["p", 5]


def test_a_default_does_not_hide_a_field(serve):
    def handle(item: int = 9):
        return [item]

    assert json_of(serve(handle, "/x/{item}")("/x/5").content) == [5]


def test_the_rest_of_the_fields_go_into_keywords(serve):
    def handle(a: int, **rest):
        return [a, rest]

    assert json_of(serve(handle, "/{a}/{b}/{c:int}")("/1/2/3").content) == [1, {"b": "2", "c": 3}]


@pytest.mark.parametrize("field", ["req", "resp"])
def test_a_field_may_have_the_name_of_a_responders_own_parameter(serve, field):
    namespace = {}
    exec(f"def handle({field}): return [{field}]", namespace)
    assert json_of(serve(namespace["handle"], f"/x/{{{field}}}")("/x/5").content) == ["5"]


def test_a_field_may_be_called_body(serve):
    def handle(body: int):
        return [body]

    assert json_of(serve(handle, "/x/{body}")("/x/5").content) == [5]


@pytest.mark.parametrize(
    ("path", "name"), [("/x/%C3%BC", "ü"), ("/x/a%2Bb", "a+b"), ("/x/a+b", "a+b")]
)
def test_a_field_holds_decoded_text(serve, path, name):
    assert json_of(serve(lambda item: [item], "/x/{item}")(path).content) == [name]


# --- faults --------------------------------------------------------------------------------


def test_every_fault_of_a_signature_is_named_at_once():
    def handle(position, /, unknown, *, other): ...

    message = fault(handle, "/x/{field}/{second:int}")
    for part in (
        "position",
        "positional-only",
        "unknown",
        "other",
        "{field}",
        "{second}",
        "handle",
    ):
        assert part in message


def test_a_parameter_without_a_source_is_refused_and_a_bound_one_is_not():
    assert "what" in fault(lambda what: 1)
    make_responder(lambda what=1, key=2, **rest: 1, "/x")


def test_a_field_that_nobody_takes_is_refused():
    assert "{item}" in fault(lambda: 1, "/x/{item}")


@pytest.mark.parametrize("thing", [None, 5, "handler", {}, object()])
def test_what_cannot_be_called_is_refused(thing):
    assert "callable" in fault(thing)


async def coroutine_function():
    return 1


class AsyncCallable:
    async def __call__(self):
        return 1


class AsyncMethod:
    async def handle(self):
        return 1


@pytest.mark.parametrize(
    "handler",
    [
        coroutine_function,
        functools.partial(coroutine_function),
        AsyncMethod().handle,
        AsyncCallable(),
    ],
    ids=["function", "partial", "method", "callable"],
)
def test_a_coroutine_function_is_refused(handler):
    assert "coroutine" in fault(handler)


def test_an_asynchronous_generator_is_refused():
    async def handle():
        yield 1

    assert "handle" in fault(handle)


def test_a_plain_wrapper_around_a_coroutine_function_is_a_plain_handler(serve):
    @functools.wraps(coroutine_function)
    def handle():
        return asyncio.run(coroutine_function())

    assert json_of(serve(handle)().content) == 1


def passing_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class PassedOn:
    @passing_on
    async def handle(self, item: int, times: int = 2):
        await asyncio.sleep(0)
        return [item] * times

    @passing_on
    @passing_on
    async def fail(self):
        raise falcon.HTTPNotFound


def test_a_plain_decorator_that_returns_a_coroutine_is_answered_with_its_result(serve):
    assert json_of(serve(PassedOn().handle, "/x/{item}")("/x/5").content) == [5, 5]
    assert serve(PassedOn().fail)().status == 404


@contextlib.contextmanager
def managed():
    yield 1


@contextlib.asynccontextmanager
async def managed_too():
    yield 1


@functools.singledispatch
def dispatched(item): ...


class Dispatched:
    @functools.singledispatchmethod
    def handle(self, item): ...


@pytest.mark.parametrize(
    ("handler", "template", "name"),
    [
        (managed, "/x", "managed is decorated with contextlib.contextmanager"),
        (managed_too, "/x", "managed_too is decorated with contextlib.asynccontextmanager"),
        (functools.partial(managed), "/x", "contextlib.contextmanager"),
        (dispatched, "/x/{item}", "dispatched is decorated with functools.singledispatch,"),
        (Dispatched().handle, "/x/{item}", "decorated with functools.singledispatchmethod"),
    ],
)
def test_what_makes_no_answer_is_refused(handler, template, name):
    assert name in fault(handler, template)


def test_an_annotation_that_is_no_type_is_refused_by_name():
    def handle(body: NoSuchType): ...  # type: ignore[name-defined] # noqa: F821

    assert "NoSuchType" in fault(handle)


def test_an_unknown_return_annotation_is_nobodys_business(serve):
    def handle(item: int) -> OnlyForTypeCheckers:  # type: ignore[name-defined] # noqa: F821
        return [item]

    assert json_of(serve(handle, "/x/{item}")("/x/5").content) == [5]


def test_a_built_in_without_a_signature_is_refused():
    assert "signature" in fault(dict.fromkeys) or "positional-only" in fault(dict.fromkeys)


def test_an_annotation_that_cannot_be_hashed_is_no_crash():
    @annotated(item=typing.Annotated[int, []])
    def handle(item): ...

    make_responder(handle, "/x/{item}")


# --- kinds of callables --------------------------------------------------------------------


class Plugin:
    def method(self, item: int):
        return [type(self).__name__, item]

    @classmethod
    def of_class(cls, item: int):
        return [cls.__name__, item]

    @staticmethod
    def static(item: int):
        return ["static", item]

    def __call__(self, item: int):
        return ["call", item]


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return [*function(*args, **kwargs), "logged"]

    return wrapper


@logged
def decorated(item: int):
    return ["decorated", item]


def two(first, item: int):
    return [first, item]


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (Plugin().method, ["Plugin", 5]),
        (Plugin.of_class, ["Plugin", 5]),
        (Plugin.static, ["static", 5]),
        (Plugin(), ["call", 5]),
        (decorated, ["decorated", 5, "logged"]),
        (functools.partial(two, "bound"), ["bound", 5]),
        (functools.partial(two, first="named"), ["named", 5]),
        (functools.partial(Plugin().method), ["Plugin", 5]),
        (lambda item: ["lambda", int(item)], ["lambda", 5]),
        (logged(Plugin().method), ["Plugin", 5, "logged"]),
    ],
    ids=[
        "method",
        "class",
        "static",
        "object",
        "wraps",
        "partial",
        "partial-named",
        "partial-method",
        "lambda",
        "wrapped-method",
    ],
)
def test_every_kind_of_callable_is_served_with_text_annotations(serve, handler, expected):
    assert json_of(serve(handler, "/x/{item}")("/x/5").content) == expected


def test_a_partial_gets_its_request_by_a_text_annotation(serve):
    def handle(first, asked: falcon.Request):
        return [first, asked.path]

    assert json_of(serve(functools.partial(handle, 1))().content) == [1, "/x"]


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (Plugin().method, "Plugin.method"),
        (Plugin(), "Plugin"),
        (decorated, "decorated"),
        (Plugin.static, "Plugin.static"),
    ],
)
def test_a_handlers_name_as_it_is_shown(handler, name):
    assert describe(handler) == name


# --- what would fail at every request ------------------------------------------------------


def generator(item=None):
    yield 1


def test_a_wrapper_that_reads_a_generator_is_a_plain_handler(serve):
    @functools.wraps(generator)
    def handle(**fields):
        return list(generator(**fields))

    assert json_of(serve(handle, "/x/{item}")("/x/5").content) == [1]


@pytest.mark.parametrize("handler", [Plugin, dict, functools.partial(Plugin), enum.Enum])
def test_a_class_is_refused(handler):
    assert "is the class" in fault(handler)


def hiding(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def hiding_all_but_fields(function):
    def wrapper(**fields):
        return [*function(**fields), "wrapped"]

    return wrapper


def hiding_all_but_self(function):
    def wrapper(self, **fields):
        return function(self, **fields)

    return wrapper


def narrowing(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def checking(function):
    """Ask for the request, whether its function does or not."""

    @functools.wraps(function)
    def wrapper(self, req, *args, **kwargs):
        return [req.method, *function(self, *args, **kwargs)]

    return wrapper


def filling(function):
    """Give its function a parameter that the path does not have."""

    @functools.wraps(function)
    def wrapper(self):
        return function(self, item=7)

    return wrapper


class Hiding:
    def __init__(self, function):
        self.function = function

    def __call__(self, **fields):
        return self.function(**fields)


@Hiding
def hidden_by_object(item: int):
    return [item]


@hiding_all_but_fields
def hidden_function(body: dict):
    return [body]


class Decorated:
    @hiding
    def hidden(self, item: int):
        return [item]

    @hiding
    def hidden_body(self, body):
        return [body]

    @hiding_all_but_self
    def hidden_query(self, item: int, limit: int):
        return [item, limit]

    @hiding_all_but_self
    def hidden_default(self, limit: int = 5):
        return [limit]

    @hiding_all_but_self
    def hidden_request(self, req):
        return [req.method]

    @hiding_all_but_self
    def hidden_text(self, item: str, cache={}, _more=1):  # noqa: B006
        return [item]

    @hiding_all_but_self
    def hidden_number(self, item: int):
        return [item]

    @narrowing
    def narrow(self, item: int):
        return [item]

    @narrowing
    def narrow_alone(self):
        return ["alone"]

    @checking
    def checked(self, item: int):
        return [item]

    @logged
    @checking
    @logged
    def thrice(self, item: int):
        return [item]

    @filling
    def filled(self, item: int):
        return [item]

    @functools.cache  # noqa: B019
    def cached(self, item: int):
        return [item]


@pytest.mark.parametrize(
    ("handler", "template"),
    [
        (Decorated().hidden, "/x/{item}"),
        (Decorated().hidden_body, "/x"),
        (hiding(two), "/x/{item}"),
        (Decorated().hidden_query, "/x/{item}"),
        (Decorated().hidden_number, "/x/{item}"),
        (hidden_by_object, "/x/{item}"),
        (Decorated().hidden_default, "/x"),
        (Decorated().hidden_request, "/x"),
        (hidden_function, "/x"),
        (Decorated().narrow, "/x/{item}"),
        (narrowing(two), "/x"),
        (lambda *args: 1, "/x"),
    ],
)
def test_a_decorator_that_hides_what_its_function_takes_is_refused(handler, template):
    assert "functools.wraps" in fault(handler, template)


@pytest.mark.parametrize("item", ["no", "{item}"])
def test_a_decorator_that_gives_the_field_itself_takes_none(item):
    if item == "no":
        make_responder(Decorated().filled, "/x")
    else:
        assert "no parameter takes the field {item}" in fault(Decorated().filled, "/x/{item}")


@pytest.mark.parametrize(
    ("handler", "template", "expected"),
    [
        (Decorated().checked, "/x/{item}", ["GET", 5]),
        (Decorated().thrice, "/x/{item}", ["GET", 5, "logged", "logged"]),
        (Decorated().filled, "/x/5", [7]),
        (Decorated().cached, "/x/{item}", [5]),
        (Decorated().narrow_alone, "/x/5", ["alone"]),
        (functools.partial(Decorated.checked, Decorated()), "/x/{item}", ["GET", 5]),
        (functools.partial(logged(two), "bound"), "/x/{item}", ["bound", 5, "logged"]),
        (functools.partial(two, item=7, first=1), "/x/{item}", [1, 5]),
        (functools.partial(functools.partial(two, 1), item=7), "/x/5", [1, 7]),
        (logged(functools.partial(two, 1)), "/x/{item}", [1, 5, "logged"]),
        (hiding_all_but_fields(lambda item: [item]), "/x/{item}", ["5", "wrapped"]),
        (Decorated().hidden_text, "/x/{item}", ["5"]),
        (staticmethod(Plugin.static), "/x/{item}", ["static", 5]),
    ],
)
def test_what_a_decorator_or_a_partial_leaves_is_filled(serve, handler, template, expected):
    assert json_of(serve(handler, template)("/x/5").content) == expected


@pytest.mark.parametrize(
    ("handler", "template"),
    [
        (functools.partial(lambda item, **rest: 1, 5), "/x/{item}"),
        (functools.partial(lambda item: 1, 5), "/x/{item}"),
        (Plugin().__call__, "/{self}/{item}"),
    ],
)
def test_a_field_that_is_given_already_is_refused(handler, template):
    assert "is given to it already" in fault(handler, template)


@pytest.mark.parametrize(
    "handler",
    [
        functools.partial(lambda: 1, 5),  # type: ignore[call-arg]
        functools.partial(lambda: 1, nothing=5),  # type: ignore[call-arg]
        functools.partial(lambda a, **rest: 1, 5, a=6),  # type: ignore[misc]
    ],
)
def test_a_partial_that_cannot_be_called_is_refused(handler):
    assert "signature" in fault(handler)


def test_a_method_without_self_is_refused():
    class Thing:
        def handle(): ...  # type: ignore[misc]

    assert "signature" in fault(Thing().handle)  # type: ignore[misc]


def test_the_method_of_a_class_instead_of_an_object_is_refused():
    assert "'self'" in fault(Plugin.method, "/x/{item}")


def query(limit: int = 10): ...
def query_by_keyword(*, limit: bool = False): ...


class Clock: ...


def cached(item, cache={}): ...  # noqa: B006
def injected(clock: Clock | None = None): ...
def called(now: typing.Callable[[], float] = float): ...
def private(_limit: int = 10): ...


@pytest.mark.parametrize(
    ("handler", "template"),
    [
        (cached, "/x/{item}"),
        (injected, "/x"),
        (called, "/x"),
        (private, "/x"),
        (lambda name="x", number=1: 1, "/x"),
        (functools.partial(query, limit=5), "/x"),
        (logged(functools.partial(query, limit=5)), "/x"),
        (functools.partial(query_by_keyword, limit=True), "/x"),
        (query, "/x/{limit}"),
    ],
)
def test_a_default_that_the_plugin_means_is_left_alone(handler, template):
    make_responder(handler, template)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (falcon.Request | None, falcon.Request),
        (typing.Optional[falcon.Response], falcon.Response),  # noqa: UP045
        (typing.Annotated[falcon.Request, "note"], falcon.Request),
    ],
)
@pytest.mark.parametrize("default", [None, "none"])
def test_a_request_that_may_be_none_is_given(serve, annotation, given, default):
    seen = []

    @annotated(asked=annotation)
    def handle(asked):
        seen.append(asked)

    if default is None:
        handle.__defaults__ = (None,)
    serve(handle)()
    assert isinstance(seen[0], given)


# --- request and response ------------------------------------------------------------------


def test_request_and_response_are_given_by_annotation_under_any_name(serve):
    def handle(a: falcon.Request, b: falcon.Response):
        b.set_header("X-Path", a.path)
        return [1]

    assert serve(handle)().headers["x-path"] == "/x"


@pytest.mark.parametrize(("req", "resp"), [("req", "resp"), ("request", "response")])
def test_request_and_response_are_given_by_name(serve, req, resp):
    namespace = {}
    exec(f"def handle({resp}, {req}): {resp}.text = {req}.method", namespace)
    assert serve(namespace["handle"])().content == b"GET"


def test_a_subclass_of_falcons_request_counts():
    class Mine(falcon.Request): ...

    @annotated(asked=Mine)
    def handle(asked): ...

    make_responder(handle, "/x")


def test_the_name_alone_does_not_count_against_another_annotation(serve):
    @annotated(req=int)
    def handle(req):
        return req

    assert json_of(serve(handle)(QUERY_STRING="req=5").content) == 5


def test_a_response_in_the_handlers_own_hands_is_left_alone(serve):
    def handle(resp):
        resp.status = 418
        resp.content_type = "text/plain"
        resp.text = "teapot"

    answer = serve(handle)()
    assert (answer.status, answer.content) == (418, b"teapot")
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_response_that_is_taken_and_not_touched_is_falcons_200(serve):
    assert serve(lambda resp: None)().status == 200


def test_a_status_and_headers_stay_beside_a_returned_answer(serve):
    def handle(resp):
        resp.status = falcon.HTTP_201
        resp.set_header("Location", "/x/1")
        return {"id": 1}

    answer = serve(handle)()
    assert (answer.status, answer.headers["location"]) == (201, "/x/1")
    assert json_of(answer.content) == {"id": 1}


def test_a_handler_that_raises_falcons_errors_is_answered_so(serve):
    def handle():
        raise falcon.HTTPConflict(title="No", description="Not now")

    answer = serve(handle)()
    assert answer.status == 409
    assert json_of(answer.content)["detail"] == "Not now"


def test_a_handler_that_raises_is_a_500_problem_without_a_traceback(serve):
    def handle():
        raise ValueError("secret detail")

    answer = serve(handle)()
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"secret" not in answer.content
    assert b"Traceback" not in answer.content
    assert "error_id" in json_of(answer.content)


# --- bodies --------------------------------------------------------------------------------


def echo(body):
    return {"received": body}


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"],
)
def test_a_body_is_read_whatever_its_content_type(post, content_type):
    # `curl -d '{"a": 1}'` sends it as a form.
    answer = post(echo)(body='{"a": [1, "ü"]}', content_type=content_type)
    assert (answer.status, json_of(answer.content)) == (200, {"received": {"a": [1, "ü"]}})


@pytest.mark.parametrize("chunked", [True, False])
def test_a_chunked_body_is_read_like_any_other(post, chunked):
    answer = post(echo)(body='{"a": 1}', chunked=chunked)
    assert json_of(answer.content) == {"received": {"a": 1}}


def test_a_body_without_a_length_that_nobody_ends_is_empty(post):
    ask = post(echo)
    assert ask(**{"wsgi.input": io.BytesIO(b"never read"), "CONTENT_LENGTH": ""}).status == 422


@pytest.mark.parametrize("raw", ["", " ", "\r\n\t"])
def test_a_missing_body_is_said_with_all_else_that_does_not_fit(post, raw):
    def handle(body: dict, limit: int): ...

    answer = post(handle)(body=raw)
    assert answer.status == 422
    assert [(e["name"], e["reason"]) for e in json_of(answer.content)["errors"]] == [
        ("limit", "it is missing"),
        ("body", "it is missing"),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nope",
        b"{'a': 1}",
        b"\xff",
        b"[1,]",
        b'"\x01"',
        b"1 2",
        b"[" * 200_000,
        b"\0",
        b"9" * 5000,
        b'{"a":1}x',
        b"[1, 1e999]",
        b"-1e400",
        b"1" * 400 + b".0",
        b"[" * 201 + b"]" * 201,
        b'{"a":' * 989 + b"1" + b"}" * 989,
        b'"\xed\xa0\x80"',
        b'"\xc3',
    ],
)
def test_a_body_that_is_not_json_is_a_400_problem(post, raw):
    answer = post(echo)(body=raw)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("raw", "received"),
    [
        (b"[" * 199 + b'"]]"' + b"]" * 199, None),
        (b"[" + b"[]," * 5000 + b"1]", [[]] * 5000 + [1]),
        (b'"' + b"[" * 500 + b'"', "[" * 500),
        (b"9" * 4300, int("9" * 4300)),
        (b"1e308", 1e308),
        (b"1e-999", 0.0),
        (b"\xef\xbb\xbf[1]", [1]),
        ("[1]".encode("utf-16"), [1]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud83d\\ude00"', "😀"),
    ],
)
def test_a_body_at_the_edge_of_json_is_read_and_answered(post, raw, received):
    answer = post(echo)(body=raw)
    assert answer.status == 200
    if received is not None:
        assert json_of(answer.content) == {"received": received}


@pytest.mark.parametrize("read", [1, 5, 6])
def test_a_body_that_is_shorter_than_announced_is_refused(post, read):
    def handle(body):
        raise AssertionError(body)

    ask = post(handle)
    answer = ask(**{"wsgi.input": io.BytesIO(b'{"a":1}'[:read]), "CONTENT_LENGTH": "7"})
    assert answer.status == 400
    assert f"Found {read} bytes, expected the 7" in json_of(answer.content)["detail"]


@pytest.mark.parametrize("raw", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_numbers_that_json_does_not_have_are_a_400_problem(post, raw):
    assert post(echo)(body=raw).status == 400


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_413(post, chunked):
    ask = post(echo, max_body_bytes=10)
    assert ask(body='"12345678"', chunked=chunked).status == 200
    assert ask(body='"123456789"', chunked=chunked).status == 413


def test_a_length_that_is_too_large_is_refused_before_anything_is_read(post):
    class Untouchable(io.BytesIO):
        def read(self, *_args):
            raise AssertionError("it was read")

    answer = post(echo)(**{"wsgi.input": Untouchable(), "CONTENT_LENGTH": str(MAX_BODY_BYTES + 1)})
    assert answer.status == 413


@pytest.mark.parametrize("length", ["x", "-1", "1.5"])
def test_a_length_that_is_no_number_is_a_400(post, length):
    ask = post(echo)
    assert ask(**{"wsgi.input": io.BytesIO(b"{}"), "CONTENT_LENGTH": length}).status == 400


class Duck(typing.Protocol):
    def quack(self) -> None: ...


BODIES = {
    "object": {"a": 1},
    "array": [1],
    "text": "x",
    "int": 5,
    "float": 1.5,
    "bool": True,
    "null": None,
}


@pytest.mark.parametrize(
    ("annotation", "fitting"),
    [
        (dict, {"object"}),
        (dict[str, Any], {"object"}),
        (typing.Dict, {"object"}),  # noqa: UP006
        (collections.abc.Mapping, {"object"}),
        (typing.Mapping[str, int], {"object"}),
        (collections.abc.MutableMapping[str, int], {"object"}),
        (list, {"array"}),
        (list[int], {"array"}),
        (str, {"text"}),
        (int, {"int"}),
        (float, {"int", "float"}),
        (bool, {"bool"}),
        (dict | None, {"object", "null"}),
        (typing.Optional[dict], {"object", "null"}),  # noqa: UP045
        (dict | list, {"object", "array"}),
        (typing.Union[int, str, None], {"int", "text", "null"}),  # noqa: UP007
        (Any, set(BODIES)),
        (object, set(BODIES)),
        (dict | Any, set(BODIES)),
        (collections.abc.Sequence, {"array"}),
        (typing.NewType("Payload", dict), {"object"}),
        (dict[str, int], {"object"}),
        (dict[str, str], set()),
        (list[str], set()),
        (typing.Sequence[float], {"array"}),
        (list[str] | list[int], {"array"}),
        (list[dict[str, int]] | None, {"null"}),
        (typing.Literal["x", 5], {"text", "int"}),
        (typing.Literal[1], set()),
        (None, {"null"}),
        (typing.Annotated[dict, "note"], {"object"}),
    ],
)
def test_a_body_of_another_json_type_than_the_annotation_is_refused(post, annotation, fitting):
    @annotated(body=annotation)
    def handle(body):
        return {"received": body}

    ask = post(handle)
    accepted = {kind for kind, body in BODIES.items() if ask(body=json.dumps(body)).status == 200}
    assert accepted == fitting


def test_a_refused_body_names_what_was_found_and_expected(post):
    def handle(body: dict | list): ...

    answer = post(handle)(body="5")
    assert answer.status == 422
    assert json_of(answer.content)["errors"] == [
        {
            "name": "body",
            "reason": "found a whole number, expected an object or an array",
            "where": "body",
        }
    ]


class Undescribed:
    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("annotation", [Duck, Undescribed, list[Undescribed], dict | Undescribed])
def test_a_body_that_nothing_can_be_made_of_is_refused_and_says_what_to_write(annotation):
    @annotated(body=annotation)
    def handle(body): ...

    message = fault(handle)
    assert "body is annotated" in message
    assert "expected" in message
    assert "of which pydantic says" in message


def test_a_body_with_something_else_in_it_is_refused_by_its_items(post):
    def handle(body: list[int]):
        return body

    detail = json_of(post(handle)(body='[1, "a"]').content)["detail"]
    assert "an array with something else in it" in detail
    assert "each item a whole number" in detail


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("raw", [b'{"a": 1}', b"\xff\x00", b"", b" "])
def test_a_body_of_bytes_is_the_body_as_it_came(post, raw, chunked):
    def handle(body: bytes):
        return body.hex()

    answer = post(handle)(body=raw, chunked=chunked)
    assert (answer.status, json_of(answer.content)) == (200, raw.hex())


def test_an_empty_body_of_bytes_is_its_default_or_none(post):
    def optional(body: bytes | None):
        return [body is None]

    def default(body: bytes = b"nothing"):
        return body.decode()

    assert json_of(post(optional)(body="").content) == [True]
    assert json_of(post(optional)(body="x").content) == [False]
    assert json_of(post(default)(body="").content) == "nothing"


def test_a_body_of_bytes_has_the_same_limit(post):
    def handle(body: bytes):
        return len(body)

    ask = post(handle, max_body_bytes=10)
    assert ask(body="1234567890").status == 200
    assert ask(body="12345678901").status == 413


def test_an_empty_body_is_none_where_none_is_allowed(post):
    def handle(body: dict | None):
        return [body]

    assert json_of(post(handle)(body="").content) == [None]


def test_an_empty_body_is_the_default_where_there_is_one(post):
    def handle(body: dict = {"by": "default"}):  # noqa: B006
        return body

    assert json_of(post(handle)(body="").content) == {"by": "default"}
    assert post(handle)(body="null").status == 422


def test_text_annotations_of_a_body_are_resolved(post):
    def handle(body: list[int]):
        return body

    assert post(handle)(body="{}").status == 422
    assert json_of(post(handle)(body="[1]").content) == [1]


# --- answers -------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Inner:
    at: datetime.datetime
    lock: Any = dataclasses.field(default=None)


@dataclasses.dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()


NOON = datetime.datetime(2020, 1, 2, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        ([], []),
        ({}, {}),
        ((1, 2), [1, 2]),
        ("text", "text"),
        ("", ""),
        (0, 0),
        (False, False),
        (1.5, 1.5),
        (10**30, 10**30),
        ({1: "a", None: "b", True: "c"}, None),  # noqa: F601
        ({"k": None}, {"k": None}),
        (NOON, "2020-01-02T12:00:00+00:00"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.time(1, 2), "01:02:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.timedelta(days=1, seconds=3.5), "P1DT3.5S"),
        (Path("a/b.txt"), "a/b.txt"),
        ({uuid.UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
        ([{datetime.date(2020, 1, 2): {Colour.RED: None}}], [{"2020-01-02": {"red": None}}]),
        (
            {Colour.RED: Inner(NOON, {Colour.RED: 1}), True: 1, 2: {NOON}},
            {
                "red": {"at": "2020-01-02T12:00:00+00:00", "lock": {"red": 1}},
                "true": 1,
                "2": ["2020-01-02T12:00:00+00:00"],
            },
        ),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        ({1}, [1]),
        (frozenset(), []),
        (Inner(NOON), {"at": "2020-01-02T12:00:00+00:00", "lock": None}),
        (
            Outer(Inner(NOON), (Inner(NOON),)),
            {
                "inner": {"at": "2020-01-02T12:00:00+00:00", "lock": None},
                "many": [{"at": "2020-01-02T12:00:00+00:00", "lock": None}],
            },
        ),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.namedtuple("P", "x y")(1, 2), [1, 2]),  # type: ignore[arg-type, call-arg]
        ("ü☃🐍\u2028</script>", "ü☃🐍\u2028</script>"),
        ({"ü": "\x00\x1f"}, {"ü": "\x00\x1f"}),
        ([ipaddress.ip_network("fe80::/10")], ["fe80::/10"]),
        (collections.deque([1, NOON]), [1, "2020-01-02T12:00:00+00:00"]),
        (types.MappingProxyType({"a": {NOON}}), {"a": ["2020-01-02T12:00:00+00:00"]}),
        ({"a": collections.ChainMap({"b": 1}, {"c": 2})}, {"a": {"b": 1, "c": 2}}),
        ({"at": pydantic.HttpUrl("http://a.example")}, {"at": "http://a.example/"}),
        ([pydantic.SecretStr("a")], ["**********"]),
    ],
)
def test_what_a_handler_returns_is_the_json_answer(serve, answer, expected):
    given = serve(lambda: answer)()
    if expected is None:
        expected = {"1": "c", "null": "b"}
    assert (given.status, json_of(given.content)) == (200, expected)
    assert given.headers["content-type"] == "application/json"
    assert int(given.headers["content-length"]) == len(given.content)


@pytest.mark.parametrize(
    ("content_type", "answer", "expected"),
    [
        ("text/html", "<h1>ü</h1>", "<h1>ü</h1>".encode()),
        ("text/csv; charset=utf-8", "a,b\n", b"a,b\n"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("application/json", b'{"made":"before"}', b'{"made":"before"}'),
        ("application/json", '{"a":1}', b'{"a":1}'),
        ("application/vnd.api+json; charset=utf-8", '"ü"', '"ü"'.encode()),
        ("application/json", 5, b"5"),
        ("application/geo+json", {"a": 1}, b'{"a":1}'),
        ("text/html", "", b""),
    ],
)
def test_an_answer_goes_out_as_its_own_content_type_says(serve, content_type, answer, expected):
    def handle(resp):
        resp.content_type = content_type
        return answer

    given = serve(handle)()
    assert (given.status, given.content) == (200, expected)
    assert given.headers["content-type"] == content_type


@pytest.mark.parametrize("answer", [{"a": 1}, [1], 5, ("a", "b")])
def test_an_answer_that_does_not_fit_its_content_type_is_a_500_problem(serve, caplog, answer):
    def handle(resp):
        resp.content_type = "text/html"
        return answer

    assert serve(handle)().status == 500
    assert "expected text or bytes" in caplog.text


Pair = collections.namedtuple("Pair", "item number")


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        (({"a": 1}, 201), 201, {"a": 1}),
        (([1], 202, {"X-A": "b", "Location": "/x"}), 202, [1]),
        (("not here", 404), 404, "not here"),
        (({"a": 1}, falcon.HTTP_201), 201, {"a": 1}),
        (({"a": 1}, http.HTTPStatus.CREATED), 201, {"a": 1}),
        ((Inner(NOON), 201), 201, {"at": "2020-01-02T12:00:00+00:00", "lock": None}),
        (Pair({"a": 1}, 201), 200, [{"a": 1}, 201]),
        ((200, 404), 200, [200, 404]),
        ((1.5, 404), 200, [1.5, 404]),
        (("a", "b"), 200, ["a", "b"]),
        (({"a": 1}, {"b": 2}), 200, [{"a": 1}, {"b": 2}]),
        (("Ann", 30, "Berlin"), 200, ["Ann", 30, "Berlin"]),
        (({"a": 1}, True), 200, [{"a": 1}, True]),
        ((), 200, []),
        (([],), 200, [[]]),
        ([{"a": 1}, 201], 200, [{"a": 1}, 201]),
    ],
)
def test_a_plain_tuple_with_a_status_is_an_answer_and_others_are_arrays(
    serve, answer, status, expected
):
    given = serve(lambda: answer)()
    assert (given.status, json_of(given.content)) == (status, expected)
    if len(answer) == 3 and isinstance(answer[2], dict):
        assert (given.headers["x-a"], given.headers["location"]) == ("b", "/x")


@pytest.mark.parametrize("answer", [(None, 404), (None, 204), (None, 202, {"x-a": "b"})])
def test_none_with_a_status_has_no_body(serve, answer):
    given = serve(lambda: answer)()
    assert (given.status, given.content) == (answer[1], b"")


@pytest.mark.parametrize("number", [2, 99, 100, 600, -1])
def test_a_tuple_with_a_number_that_is_no_status_is_refused_and_not_sent_as_a_list(
    serve, caplog, number
):
    assert serve(lambda: ([1], number))().status == 500
    assert "expected (answer, status)" in caplog.text


def test_a_tuples_text_goes_out_by_its_content_type(serve):
    def handle(resp):
        resp.content_type = "text/html"
        return "<h1>", 404

    given = serve(handle)()
    assert (given.status, given.content) == (404, b"<h1>")


def test_none_is_204_without_a_body(serve):
    answer = serve(lambda: None)()
    assert (answer.status, answer.content) == (204, b"")


def plain_bytes() -> bytes:
    return b"\xff\x00"


def bytes_with_status():
    return b"\xff\x00", 201


def bytes_beside_a_response(resp):
    resp.set_header("X-A", "1")
    return b"\xff\x00"


@pytest.mark.parametrize("handler", [plain_bytes, bytes_with_status, bytes_beside_a_response])
def test_bytes_are_answered_as_they_are(serve, handler):
    given = serve(handler)()
    assert given.status == (201 if handler is bytes_with_status else 200)
    assert given.headers["content-type"] == "application/octet-stream"
    assert given.content == b"\xff\x00"


@pytest.mark.parametrize(
    "answer",
    [
        float("nan"),
        {"a": float("inf")},
        [b"x"],
        {"a": b"x"},
        object(),
        {"a": threading.Lock()},
        {(1, 2): 3},
        Inner,
        (n for n in (1,)),
        1j,
        {"d": Inner(NOON, object())},
    ],
)
def test_what_json_does_not_have_is_a_500_problem(serve, answer):
    given = serve(lambda: answer)()
    assert given.status == 500
    assert given.headers["content-type"] == "application/problem+json"
    assert "error_id" in json_of(given.content)


def test_an_answer_that_holds_itself_is_a_500_problem(serve):
    answer: list[Any] = []
    answer.append(answer)
    assert serve(lambda: answer)().status == 500


def test_an_answer_that_is_nested_too_deep_is_a_500_problem(serve):
    answer: list[Any] = []
    for _ in range(100_000):
        answer = [answer]
    try:
        assert serve(lambda: answer)().status == 500
    finally:
        while answer:
            answer = answer.pop()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc80\ud800"])
def test_a_lone_surrogate_is_answered_as_valid_utf_8(serve, text):
    answer = serve(lambda: {"t": text, text: 1, "ü": "ü"})()
    assert answer.status == 200
    assert json.loads(answer.content.decode("utf-8")) == {"t": text, text: 1, "ü": "ü"}


def test_a_lone_surrogate_that_a_client_sends_comes_back_as_valid_utf_8(post):
    answer = post(echo)(body='{"a": "\\ud800"}')
    assert json.loads(answer.content.decode("utf-8")) == {"received": {"a": "\ud800"}}


def test_json_is_compact_and_unescaped():
    assert to_json({"ü": [1, {"a": "b"}]}) == '{"ü":[1,{"a":"b"}]}'.encode()


def test_a_dataclass_that_cannot_be_copied_is_answered_field_by_field():
    assert to_json(Outer(Inner(NOON, lock={1}))) == (
        b'{"inner":{"at":"2020-01-02T12:00:00+00:00","lock":[1]},"many":[]}'
    )


def test_two_handlers_of_one_resource_do_not_mix(app):
    resource = HandlerResource()
    resource.set_responder("GET", make_responder(lambda: "get", "/x"))
    resource.set_responder("DELETE", make_responder(lambda: "delete", "/x"))
    put(app, "sample", {"/x": resource})
    assert json_of(call(app, "/x").read()) == "get"
    assert json_of(call(app, "/x", "DELETE").read()) == "delete"
    answer = call(app, "/x", "PUT")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE", "OPTIONS"}


# --- the plugin's context ----------------------------------------------------------------------


def test_a_handler_may_take_the_plugins_context(app):
    context = make_context_factory(Path("nowhere"), lambda _: print)("sample", {"limit": 3})

    def handle(where: PluginContext, number: int = 1):
        return [where.config["limit"], number, where is context]

    collector = RouteCollector("sample", lambda _frame: None, context=context)
    collector.get("/x", handle)
    (route,) = collector.finish()
    put(app, "sample", {"/x": route.resource})
    assert json_of(call(app, "/x", QUERY_STRING="number=5").read()) == [3, 5, True]


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ({}, "PT0S"),
        ({"hours": 10, "minutes": 30}, "PT10H30M"),
        ({"seconds": -70}, "-PT1M10S"),
        ({"days": 20, "microseconds": 50}, "P20DT0.00005S"),
        ({"days": -1, "microseconds": -500}, "-P1DT0.0005S"),
        ({"days": 400}, "P400D"),
    ],
)
def test_a_duration_is_written_as_iso_8601_has_it(span, text):
    assert json_of(to_json(datetime.timedelta(**span))) == text


@pytest.mark.parametrize("key", [(1, 2), frozenset(), range(2)])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(TypeError, match=rf"a {type(key).__name__}"):
        to_json({"a": [{key: 1}]})


def test_an_answer_that_holds_itself_is_said_so():
    answer: dict[str, Any] = {"name": "a"}
    answer["self"] = [answer]
    with pytest.raises(ValueError, match="Circular reference"):
        to_json(answer)
    assert to_json({"after": 1}) == b'{"after":1}'


# --- answers with a status, and problems -------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "content"),
    [
        (Answer({"a": 1}), 200, b'{"a":1}'),
        (Answer([1, 2], 201), 201, b"[1,2]"),
        (Answer({"a": 1}, "201 Created"), 201, b'{"a":1}'),
        (Answer({"a": 1}, http.HTTPStatus.ACCEPTED), 202, b'{"a":1}'),
        (Answer(None), 204, b""),
        (Answer(None, 202), 202, b""),
        (Answer(0), 200, b"0"),
        ((http.HTTPStatus.CREATED, {"a": 1}), 201, b'{"a":1}'),
        ((http.HTTPStatus.CREATED, 5), 201, b"5"),
        ((http.HTTPStatus.ACCEPTED, None), 202, b""),
    ],
)
def test_an_answer_may_have_its_status(serve, answer, status, content):
    given = serve(lambda: answer)()
    assert (given.status, given.content) == (status, content)


def test_an_answer_may_have_headers_and_its_own_content_type(serve):
    made = Answer("<p>é", 404, {"Content-Type": "text/html; charset=utf-8", "X-Of": "a"})
    given = serve(lambda: made)()
    assert (given.status, given.content) == (404, "<p>é".encode())
    assert given.headers["content-type"] == "text/html; charset=utf-8"
    assert given.headers["x-of"] == "a"
    of_json: list[Any] = [
        Answer('{"a":1}', headers={"Content-Type": "application/problem+json"}),
        ('{"a":1}', 200, {"content-type": "application/json"}),
    ]
    for each in of_json:
        assert serve(lambda each=each: each)().content == b'{"a":1}'
    given = serve(lambda: (http.HTTPStatus.CREATED, [1], {"Location": "/x/1"}))()
    assert (given.status, given.content, given.headers["location"]) == (201, b"[1]", "/x/1")


@pytest.mark.parametrize("status", [99, 199, 600, 0, True, "201", "Created"])
def test_an_answer_whose_status_cannot_be_sent_says_so(serve, caplog, status):
    assert serve(lambda: Answer([1], status))().status == 500
    assert "Answer of" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        (Answer({"a": 1}), 201),
        (http.HTTPStatus.CREATED, Answer({"a": 1})),
        (Answer(None), 201, {"X-A": "b"}),
        Answer(Answer({"a": 1}), 201),
        [Answer(1)],
        {"a": Answer(1)},
    ],
)
def test_an_answer_within_something_else_is_refused(serve, caplog, answer):
    assert serve(lambda: answer)().status == 500
    assert (
        "a handler answered with an Answer within something else, expected it alone" in caplog.text
    )


def test_an_event_that_is_no_event_of_a_stream_is_refused(serve, caplog):
    assert serve(lambda: Event({"a": 1}))().status == 500
    assert "an Event, which a handler of server.sse yields" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Set-Cookie": "a=1", "X-N": 5, "Link": "<a>, <b>"},
        [("X-N", "5"), ("Set-Cookie", "a=1"), ("Link", "<a>"), ("link", "<b>")],
        iter([("x-n", 5), ("set-cookie", "a=1"), ("LINK", "<a>, <b>")]),
    ],
)
def test_headers_may_be_pairs_and_cookies(serve, headers):
    given = serve(lambda: Answer([1], 201, headers))()
    assert (given.status, given.content) == (201, b"[1]")
    assert (given.headers["x-n"], given.headers["set-cookie"]) == ("5", "a=1")
    assert given.headers["link"] == "<a>, <b>"


def test_each_of_several_cookies_is_set(app, serve):
    serve(lambda: Answer(None, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    (started,) = call(app, "/x").calls
    assert [value for name, value in started[1] if name == "set-cookie"] == ["a=1", "b=2"]


@pytest.mark.parametrize("headers", [["X-N"], [("X-N",)], {5: "a"}, 5, "X-N: 5"])
def test_headers_that_are_none_are_refused(serve, caplog, headers):
    given = serve(lambda: Answer([1], headers=headers))()
    assert given.status == 500
    assert f"the headers of a {type(headers).__name__} that holds something else" in caplog.text


@pytest.mark.parametrize("value", [object(), {"a": object()}, iter([5])])
def test_an_answer_that_cannot_be_written_leaves_no_headers_on_the_error(serve, value):
    given = serve(lambda: Answer(value, 201, {"X-N": "5", "Set-Cookie": "a=1"}))()
    assert given.status == 500
    assert not {"x-n", "set-cookie"} & given.headers.keys()


def test_a_problem_is_answered_as_it_is_raised(serve):
    def handle(number: int):
        raise Problem(
            409,
            f"The seat {number} is taken.",
            title="Taken",
            type="https://example.com/taken",
            members={"seat": number, "free": [1, 2]},
            headers={"Retry-After": "5"},
        )

    given = serve(handle, "/x/{number}")("/x/7")
    assert (given.status, given.headers["retry-after"]) == (409, "5")
    assert given.headers["content-type"] == "application/problem+json"
    assert json_of(given.content) == {
        "type": "https://example.com/taken",
        "title": "Taken",
        "status": 409,
        "detail": "The seat 7 is taken.",
        "instance": "/x/7",
        "seat": 7,
        "free": [1, 2],
    }


@pytest.mark.parametrize(
    ("status", "line", "title"),
    [
        (404, 404, "Not Found"),
        (http.HTTPStatus.GONE, 410, "Gone"),
        ("409 Conflict", 409, "Conflict"),
        ("499 Gone Away", 499, "Gone Away"),
    ],
)
def test_a_problem_needs_no_more_than_its_status(serve, status, line, title):
    def handle():
        raise Problem(status)

    given = serve(handle)()
    assert given.status == line
    assert json_of(given.content) == {
        "type": "about:blank",
        "title": title,
        "status": line,
        "instance": "/x",
    }


def test_a_problem_whose_members_are_no_json_is_a_500(serve, caplog):
    def handle():
        raise Problem(409, members={"lock": threading.Lock()})

    assert serve(handle)().status == 500
    assert "which is not JSON" in caplog.text
