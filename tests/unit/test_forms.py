"""Forms: their fields, their files, all of one as a value, and what is refused of them."""

import dataclasses
import enum
import io
import urllib.parse
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, Required

import falcon
import pydantic
import pytest
from typing_extensions import TypedDict

from app.admin import problems
from app.loading import forms
from app.loading.handlers import read_handler
from app.loading.registration import HandlerResource
from app.loading.signatures import HandlerError
from app.plugin import File, Form, Header
from app.routing.application import LiveApp
from tests.support.handlers import make_responder
from tests.support.multipart import CONTENT_TYPE, Part, multipart
from tests.support.wsgi import Answer, call, json_of, put

LIMIT = 1000


class Size(enum.Enum):
    SMALL = "small"
    NONE = ""


class Signup(pydantic.BaseModel):
    name: str
    age: int | None = None
    tags: list[int] = []
    kind: str = pydantic.Field("", alias="Kind")


@dataclasses.dataclass
class Upload:
    title: str
    photo: File


def send(handler: Callable[..., Any], raw: bytes, content_type: str | None, **env: Any) -> Answer:
    """Have a handler answer a body."""
    app = LiveApp()
    problems.install(app)
    resource = HandlerResource()
    resource.set_responder("POST", make_responder(handler, "/x", max_body_bytes=LIMIT))
    put(app, "sample", {"/x": resource})
    env |= {"wsgi.input": io.BytesIO(raw), "CONTENT_LENGTH": str(len(raw))}
    if content_type is not None:
        env["CONTENT_TYPE"] = content_type
    return call(app, "/x", "POST", **env)


def encoded(handler: Callable[..., Any], *fields: tuple[str, str], **env: Any) -> Answer:
    """Send fields in the one encoding."""
    raw = urllib.parse.urlencode(fields).encode()
    return send(handler, raw, "application/x-www-form-urlencoded", **env)


def in_parts(handler: Callable[..., Any], *parts: Part, **env: Any) -> Answer:
    """Send fields and files in the other encoding."""
    return send(handler, multipart(parts), CONTENT_TYPE, **env)


BOTH = pytest.mark.parametrize("sent", [encoded, in_parts])


def faults_of(answer: Answer) -> list[tuple[str, str, str]]:
    found = json_of(answer.read())
    assert answer.status == 422, found
    return [(fault["name"], fault["reason"], fault["where"]) for fault in found["errors"]]


def fault(handler: Callable[..., Any]) -> str:
    with pytest.raises(HandlerError) as caught:
        make_responder(handler, "/x/{field}")
    return str(caught.value)


@BOTH
def test_a_float_of_a_form_is_finite(sent: Any) -> None:
    class Sent(pydantic.BaseModel):
        weight: float

    def handle(form: Sent) -> float:
        return form.weight

    handle.__annotations__["form"] = Annotated[Sent, Form()]
    assert sent(handle, ("weight", "1.5")).status == 200
    assert faults_of(sent(handle, ("weight", "inf"))) == [
        ("weight", "input should be a finite number", "form")
    ]


@BOTH
def test_the_fields_of_a_form_fill_parameters(sent: Callable[..., Answer]) -> None:
    def handle(
        name: Annotated[str, Form()],
        number: Annotated[int, Form("no")],
        wanted: Annotated[bool, Form] = False,
        tags: Annotated[list[float] | None, Form()] = None,
        size: Annotated[Size, Form()] = Size.SMALL,
        other: Annotated[str, Form()] = "other",
    ) -> Any:
        return [name, number, wanted, tags, size, other]

    answer = sent(
        handle, ("name", "é & ü"), ("no", "5"), ("wanted", "on"), ("tags", "1"), ("tags", "2.5")
    )
    assert json_of(answer.read()) == ["é & ü", 5, True, [1.0, 2.5], "small", "other"]
    answer = sent(handle, ("name", ""), ("no", "6"), ("tags", "3"), ("unknown", "x"), ("size", ""))
    assert json_of(answer.read()) == ["", 6, False, [3.0], "", "other"]


@BOTH
def test_what_a_browser_sends_of_an_empty_field_counts_for_texts_alone(
    sent: Callable[..., Answer],
) -> None:
    def handle(
        number: Annotated[int | None, Form()] = None,
        tags: Annotated[list[int], Form()] = [],  # noqa: B006 - it is not changed
        choice: Annotated[Literal["a", "b"], Form()] = "b",
        text: Annotated[str | None, Form()] = None,
    ) -> Any:
        return [number, tags, choice, text]

    fields = [(name, "") for name in ("number", "tags", "choice", "text")]
    assert json_of(sent(handle, *fields).read()) == [None, [], "b", ""]
    assert json_of(sent(handle, ("tags", ""), ("tags", "7")).read()) == [None, [7], "b", None]


@BOTH
def test_all_that_does_not_fit_is_said_at_once(sent: Callable[..., Answer]) -> None:
    def handle(
        number: Annotated[int, Form()],
        missing: Annotated[str, Form()],
        few: Annotated[list[int], Form(), pydantic.Field(max_length=1)],
        photo: File,
        token: Annotated[int, Header()],
    ) -> Any: ...

    answer = sent(handle, ("number", "x"), ("few", "1"), ("few", "2"), ("photo", "a.png"))
    assert faults_of(answer) == [
        ("number", "found 'x', expected a whole number", "form"),
        ("missing", "it is missing", "form"),
        ("few", "list should have at most 1 item after validation, not 2", "form"),
        ("photo", "found text, expected a file, as multipart/form-data has it", "form"),
        ("token", "it is missing", "header"),
    ]


def test_files_are_read_as_streams_whatever_their_size() -> None:
    def handle(
        photo: File,
        pages: Annotated[list[File], Form("page", max_bytes=5_000_000)],
        title: Annotated[str, Form()] = "",
        more: File | None = None,
    ) -> Any:
        assert more is None
        first = photo.stream.read(2)
        photo.stream.seek(0)
        sizes = [(page.size, len(page.stream.read())) for page in pages]
        return [photo.name, photo.content_type, photo.size, first.decode(), sizes, title]

    large = b"\r\n--x" * 500_000
    answer = in_parts(
        handle,
        ("page", large, "1.png"),
        ("photo", b"abc", "C:\\\\fakepath\\\\a.png"),
        ("page", b"", "2.png"),
        ("title", "text"),
        ("more", b"", ""),
    )
    found = json_of(answer.read())
    size = len(large)
    assert found == ["a.png", "image/png", 3, "ab", [[size, size], [0, 0]], "text"]


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        ("a/.", ""),
        ("a\x01b", "ab"),
        ("é.png", "é.png"),
        (".hidden", ".hidden"),
    ],
)
def test_a_file_s_name_leads_nowhere(sent: str, name: str) -> None:
    def handle(photo: File) -> Any:
        return [photo.name]

    assert json_of(in_parts(handle, ("photo", b"a", sent)).read()) == [name]


@pytest.mark.parametrize("length", [5, 6])
def test_a_file_has_a_limit_that_counts_for_all_of_its_name(length: int) -> None:
    def handle(photos: Annotated[list[File], Form(max_bytes=5)]) -> int:
        return len(photos)

    parts: list[Part] = [("photos", b"a" * (length - 1), "a"), ("photos", b"b", "b")]
    answer = in_parts(handle, *parts)
    if length == 5:
        assert json_of(answer.read()) == 2
    else:
        found = json_of(answer.read())
        assert (answer.status, found["title"]) == (413, "Body too large")
        assert found["detail"] == "What came as 'photos' is larger than 5 bytes."


@pytest.mark.parametrize(
    "parts",
    [
        [("a", "x" * (LIMIT + 1))],
        [("a", "x" * LIMIT), ("b", "y")],
        [("b", b"x" * (LIMIT + 1), "unwanted")],
        [("photo", b"x" * (LIMIT + 1), "wanted")],
    ],
)
def test_what_is_too_large_is_a_413_before_it_is_in_memory(parts: list[Part]) -> None:
    def handle(a: Annotated[str, Form()] = "", photo: File | None = None) -> None: ...

    assert in_parts(handle, *parts).status == 413


def test_an_urlencoded_form_that_is_too_large_is_a_413_and_too_many_fields_a_400(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handle(a: Annotated[list[str], Form()]) -> list[str]:
        return a

    assert encoded(handle, ("a", "x" * LIMIT)).status == 413
    kind = "application/x-www-form-urlencoded"
    monkeypatch.setattr(forms, "MAX_PARTS", 5)
    assert send(handle, b"&".join([b"a=1"] * 5), kind).status == 200
    answer = send(handle, b"&".join([b"a=1"] * 6), kind)
    assert answer.status == 400
    assert "The form has more than 5 fields." in answer.read().decode()


@pytest.mark.parametrize(
    ("raw", "content_type", "status", "said"),
    [
        (b"{}", "application/json", 415, "its content type is application/json."),
        (b"a=1", None, 415, "its content type is missing."),
        (b"", "text/plain", 415, "expects a form"),
        (b"", None, 200, ""),
        (b"a=%FF", "application/x-www-form-urlencoded; charset=utf-8", 200, ""),
        (b"a=\xff", "application/x-www-form-urlencoded", 400, "The form is not UTF-8."),
        (b"a=1", "multipart/form-data", 400, "boundary"),
        (b"nothing", CONTENT_TYPE, 400, "unexpected form structure"),
        (multipart([("a", "1")])[:-20], CONTENT_TYPE, 400, "unexpected form structure"),
        (multipart([("a", b"\xff")]), CONTENT_TYPE, 400, "The field 'a' of the form is not UTF-8."),
        (multipart([("b", "")] * 1001), CONTENT_TYPE, 400, "maximum number"),
    ],
)
def test_what_is_no_form_is_refused(
    raw: bytes, content_type: str | None, status: int, said: str
) -> None:
    def handle(a: Annotated[str, Form()] = "") -> str:
        return a

    answer = send(handle, raw, content_type)
    assert answer.status == status
    assert said in answer.read().decode()


def test_a_file_where_text_is_expected_is_said() -> None:
    def handle(a: Annotated[str, Form()], b: Annotated[list[int], Form()]) -> None: ...

    answer = in_parts(handle, ("a", b"x", "a.txt"), ("b", "1"), ("b", b"x", "b.txt"))
    assert faults_of(answer) == [
        ("a", "found a file, expected text", "form"),
        ("b", "found a file, expected text", "form"),
    ]


def test_one_file_where_several_come_is_said() -> None:
    def handle(a: File) -> None: ...

    answer = in_parts(handle, ("a", b"x", "a.txt"), ("a", b"x", "b.txt"))
    assert faults_of(answer) == [("a", "found 2 files, expected one", "form")]


@BOTH
def test_a_model_takes_all_of_a_form(sent: Callable[..., Answer]) -> None:
    def handle(signup: Annotated[Signup, Form()]) -> Any:
        return signup

    answer = sent(handle, ("name", ""), ("age", ""), ("tags", "1"), ("tags", ""), ("Kind", "k"))
    assert json_of(answer.read()) == {"name": "", "age": None, "tags": [1], "Kind": "k"}
    answer = sent(handle, ("age", "x"), ("tags", "1"), ("tags", "y"), ("unknown", ""))
    assert [fault[0] for fault in faults_of(answer)] == ["name", "age", "tags.1", "unknown"]


class Stars(enum.Enum):
    ONE = 1
    MANY = "many"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


STRICT = pydantic.ConfigDict(strict=True)


@BOTH
@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Literal[1, 2, 3], "2", 2),
        (Literal[True], "true", True),
        (Literal[Level.HIGH, "none"], "2", 2),
        (Stars, "1", 1),
        (Stars, "many", "many"),
        (Level, "2", 2),
        (pydantic.StrictInt, "5", 5),
        (pydantic.StrictBool | None, "yes", True),
        (Annotated[float, pydantic.Field(strict=True)], "1.5", 1.5),
        (list[Literal[1, 2]], "1", [1]),
        (Size, "small", "small"),
        (pydantic.Json[list[int]], "[1]", [1]),
        (pydantic.Json[dict[str, pydantic.StrictInt]] | None, '{"a": 1}', {"a": 1}),
        (pydantic.RootModel[Literal[1]], "1", 1),
    ],
)
@pytest.mark.parametrize("config", [pydantic.ConfigDict(), STRICT])
def test_a_field_of_a_model_becomes_what_a_single_one_does(
    sent: Callable[..., Answer], kind: Any, text: str, value: Any, config: pydantic.ConfigDict
) -> None:
    made = pydantic.create_model("Made", __config__=config, field=(kind, ...))

    def whole(form: Any) -> Any:
        return form.field

    def single(field: Any) -> Any:
        return field

    whole.__annotations__["form"] = Annotated[made, Form()]
    single.__annotations__["field"] = Annotated[kind, Form()]
    handlers = [whole] if kind is pydantic.RootModel[Literal[1]] else [whole, single]
    for handler in handlers:
        assert json_of(sent(handler, ("field", text)).read()) == value
        assert sent(handler, ("field", "3.75x")).status == 422


def test_what_is_within_json_of_a_form_is_no_text() -> None:
    class Made(pydantic.BaseModel):
        field: pydantic.Json[list[pydantic.StrictInt]]

    def handle(form: Annotated[Made, Form()]) -> Any:
        return form.field

    handle.__annotations__["form"] = Annotated[Made, Form()]
    assert json_of(encoded(handle, ("field", "[1]")).read()) == [1]
    assert faults_of(encoded(handle, ("field", '["1"]'))) == [
        ("field.0", "input should be a valid integer", "form")
    ]


class Photo(TypedDict):
    number: NotRequired[int]
    photo: NotRequired[File]
    tags: Required[list[int]]


def test_a_typed_dict_may_leave_out_a_file_or_have_it() -> None:
    def handle(form: Annotated[Photo, Form()]) -> Any:
        photo = form.get("photo")
        return [form.get("number"), form["tags"], photo and photo.stream.read().decode()]

    answer = in_parts(handle, ("photo", b"abc", "a.png"), ("tags", "1"), ("number", ""))
    assert json_of(answer.read()) == [None, [1], "abc"]
    assert json_of(in_parts(handle, ("tags", "2")).read()) == [None, [2], None]


@BOTH
def test_other_parameters_take_their_fields_out_of_what_a_model_takes(
    sent: Callable[..., Answer],
) -> None:
    def handle(
        signup: Annotated[Signup | None, Form()] = None,
        csrf: Annotated[int, Form("_csrf")] = 0,
        *,
        token: Annotated[int, Header()] = 0,
    ) -> Any:
        return [signup and signup.name, csrf]

    assert json_of(sent(handle, ("name", "a"), ("_csrf", "5")).read()) == ["a", 5]
    assert json_of(sent(handle, ("_csrf", "5")).read()) == [None, 5]
    answer = sent(handle, ("age", "1"), ("_csrf", "x"), HTTP_TOKEN="y")
    assert {fault[0] for fault in faults_of(answer)} >= {"_csrf", "token", "name"}


def test_a_dataclass_may_have_files() -> None:
    def handle(upload: Annotated[Upload, Form()]) -> Any:
        return [upload.title, upload.photo.stream.read().decode()]

    answer = in_parts(handle, ("title", "t"), ("photo", b"abc", "a.png"))
    assert json_of(answer.read()) == ["t", "abc"]
    answer = in_parts(handle, ("title", b"t", "t.png"))
    assert [fault[:2] for fault in faults_of(answer)] == [
        ("title", "found a file, expected text"),
        ("title", "field required"),
        ("photo", "field required"),
    ]


def test_a_body_without_a_length_is_read_too() -> None:
    def handle(a: Annotated[str, Form()], photo: File) -> Any:
        return [a, photo.size]

    raw = multipart([("photo", b"abc", "a.png"), ("a", "x")])
    more = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    app = LiveApp()
    resource = HandlerResource()
    resource.set_responder("POST", make_responder(handle, "/x"))
    put(app, "sample", {"/x": resource})
    env: dict[str, Any] = {"wsgi.input": io.BytesIO(raw), "CONTENT_TYPE": CONTENT_TYPE, **more}
    assert json_of(call(app, "/x", "POST", **env).read()) == ["x", 3]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b'name="photo"; filename="\xe9.txt"', "UTF-8"),
        (b'name="\xe9"', "UTF-8"),
        (b'name="photo"; filename="a.png"\r\nContent-Type: \xff/\xfe', "ASCII"),
        (b'name="unknown"\r\nContent-Type: t\xc3\xa9xt/plain', "ASCII"),
    ],
)
def test_a_part_whose_headers_cannot_be_read_is_a_400(head: bytes, encoding: str) -> None:
    def handle(photo: File | None = None, a: Annotated[str, Form()] = "") -> None: ...

    def by_falcon(req: falcon.Request) -> Any:
        return [part.name for part in req.get_media()]

    raw = multipart([("a", "x")]).replace(b"--\r\n", b"\r\n")
    raw += b"Content-Disposition: form-data; " + head + b"\r\n\r\nabc\r\n"
    raw += multipart([])
    for handler in (handle, by_falcon):
        answer = send(handler, raw, CONTENT_TYPE)
        said = json_of(answer.read())
        assert (answer.status, said["detail"]) == (
            400,
            f"The headers of part 2 of the form are not {encoding}.",
        )


def test_a_disk_that_is_full_is_a_507(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _raw: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(forms, "_Spool", Full)

    def handle(photo: File) -> None: ...

    answer = in_parts(handle, ("photo", b"abc", "a.png"))
    assert answer.status == 507
    assert "no room for the file 'photo'" in answer.read().decode()


def test_signatures_that_cannot_be_filled_are_refused() -> None:
    def both(field: str, body: dict[str, Any], a: Annotated[str, Form()]) -> None: ...
    def two(field: str, a: Annotated[Signup, Form()], b: Annotated[Signup, Form()]) -> None: ...
    def unknown(field: str, a: Annotated[io.BytesIO, Form()]) -> None: ...
    def limit(field: str, a: Annotated[str, Form(max_bytes=5)]) -> None: ...
    def path(field: File) -> None: ...
    def query(field: Annotated[str, Form()]) -> None: ...

    assert "it takes both a form and 'body'" in fault(both)
    assert "a and b take all of the form, expected one" in fault(two)
    assert "Unable to generate pydantic-core schema for <class '_io.BytesIO'>" in fault(unknown)
    assert "expected a File where max_bytes is said" in fault(limit)
    assert "the field 'field' is annotated File" in fault(path)
    assert "annotated with where else it comes from" in fault(query)


def test_documents_are_told_where_a_parameter_comes_from() -> None:
    def handle(
        signup: Annotated[Signup, Form()],
        photo: File,
        number: Annotated[int, Form("no")] = 5,
    ) -> None: ...

    found = read_handler(handle, "/x")[1].parameters
    assert [(each.kind, each.parameter, each.name, each.required) for each in found] == [
        ("form", "signup", "", True),
        ("form", "photo", "photo", True),
        ("form", "number", "no", False),
    ]


def taking_form(kind: Any) -> Any:
    """Return a handler that takes all of a form as a type."""

    def handle(form: Any) -> None: ...

    handle.__annotations__["form"] = Annotated[kind, Form()]
    return handle


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        list[Signup],
        complex,
        Literal[b"a"],
        tuple[Signup, int],
        list[Signup] | bytes,
        set[Signup],
    ],
)
def test_what_no_form_becomes_is_refused(kind: Any) -> None:
    with pytest.raises(HandlerError, match=r"'form' is annotated .*, expected "):
        make_responder(taking_form(kind), "/x")


LOOSE = pydantic.ConfigDict(arbitrary_types_allowed=True)


class Made(pydantic.BaseModel):
    signup: Signup

    @pydantic.model_validator(mode="before")
    @classmethod
    def make(cls, form: dict[str, Any]) -> Any:
        return {"signup": form}


class Tree(pydantic.BaseModel):
    below: list["Tree"]


@dataclasses.dataclass
class Nested:
    upload: Upload


class Numbers(TypedDict):
    numbers: dict[str, int]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (pydantic.create_model("A", one=(Signup, ...)), "one"),
        (pydantic.create_model("A", one=(Signup | None, ...), two=(Signup, ...)), "one"),
        (pydantic.create_model("A", one=(tuple[int, Signup], ...)), "one"),
        (pydantic.create_model("A", one=(list[list[int]], ...)), "one"),
        (
            Annotated[pydantic.create_model("A", one=(dict, ...)), pydantic.AfterValidator(id)],
            "one",
        ),
        (Tree, "below"),
        (Nested, "upload"),
        (Numbers, "numbers"),
    ],
)
def test_an_object_that_no_form_can_hold_is_refused(kind: Any, field: str) -> None:
    with pytest.raises(HandlerError, match=rf"'form' is annotated .*, whose field '{field}' no t"):
        make_responder(taking_form(kind), "/x")


@pytest.mark.parametrize(
    "kind",
    [
        File | str,
        list[File | str],
        File | list[File] | None,
        pydantic.create_model("A", __config__=LOOSE, one=(File | str, ...)),
        pydantic.create_model("A", __config__=LOOSE, one=(list[File | str] | None, None)),
    ],
)
def test_a_file_or_something_else_is_refused(kind: Any) -> None:
    with pytest.raises(HandlerError, match=r"'form' is annotated .*, expected a File alone"):
        make_responder(taking_form(kind), "/x")


@pytest.mark.parametrize(
    "kind",
    [
        Signup,
        Signup | None,
        pydantic.create_model("A", one=(Signup | None, None)),
        pydantic.create_model("A", one=(Annotated[Signup, pydantic.BeforeValidator(eval)], ...)),
        pydantic.create_model("A", one=(Signup | str, ...)),
        pydantic.create_model("A", one=(pydantic.Json[Signup], ...)),
        pydantic.create_model("A", one=(pydantic.RootModel[int], ...)),
        Made,
        dict[str, str],
        dict,
        Any,
        Annotated[Signup, pydantic.AfterValidator(str)],
    ],
)
def test_what_all_of_a_form_may_become_is_taken(kind: Any) -> None:
    make_responder(taking_form(kind), "/x")
