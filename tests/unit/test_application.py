"""The application: a request runs in one table from its start to its last byte."""

import datetime
import io
import threading
import wsgiref.util

import falcon
import pytest
from gunicorn.http.wsgi import FileWrapper

from app.routing.application import LiveApp
from app.routing.grace_periods import InUse
from tests.support.wsgi import call, json_of, put, resource

WAIT = 10
NOTHING = InUse(None, frozenset())


def says(text):
    def on_get(req, resp, **fields):
        resp.text = text

    return on_get


def streams(*parts):
    """Make a responder whose body is an iterable of parts; a callable part is called."""

    def on_get(req, resp):
        def generate():
            for part in parts:
                yield part() if callable(part) else part

        resp.stream = generate()

    return on_get


class Body:
    """A streamed body that records how it is closed."""

    def __init__(self, parts=(b"x",), on_close=lambda: None):
        self.parts = iter(parts)
        self.on_close = on_close
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)

    def close(self):
        self.closed += 1
        self.on_close()


def in_thread(function):
    """Run a function in a thread; join it with `.finish()`, which returns what it returned."""
    outcome = []

    def run():
        try:
            outcome.append((True, function()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def finish():
        thread.join(WAIT)
        assert outcome, "the thread did not end"
        fine, value = outcome[0]
        if not fine:
            raise value
        return value

    thread.finish = finish  # type: ignore[attr-defined]
    return thread


# --- one table for one request -------------------------------------------------------------


def test_a_new_application_answers_404(app):
    answer = call(app, "/x")
    assert answer.status == 404
    assert app.running.in_use() == NOTHING


def test_a_swap_shows_in_the_next_request(app):
    put(app, "one", {"/x": says("old")})
    assert call(app, "/x").read() == b"old"
    put(app, "one", {"/x": says("new")})
    assert call(app, "/x").read() == b"new"
    put(app, "one", {})
    assert call(app, "/x").status == 404


def test_a_request_stays_in_its_table_while_others_are_swapped_in(app):
    inside, go_on = threading.Event(), threading.Event()

    def slow(req, resp):
        inside.set()
        assert go_on.wait(WAIT)
        resp.text = app.running.slot().at.generation

    number = put(app, "one", {"/x": slow})
    thread = in_thread(lambda: call(app, "/x").read())
    assert inside.wait(WAIT)
    for _ in range(3):
        put(app, "one", {"/x": says("new")})
    assert app.running.in_use().generations == {number}
    assert call(app, "/x").read() == b"new"
    assert app.running.in_use().generations == {number}
    go_on.set()
    assert thread.finish() == number.encode()
    assert app.running.in_use() == NOTHING


def test_a_swap_between_noting_and_routing_is_noted(app):
    noted = []

    def new(req, resp):
        noted.append(app.running.in_use())
        resp.text = "new"

    put(app, "one", {"/x": says("old")})
    reads = []

    class Racing(LiveApp):
        @property
        def table(self):  # type: ignore[override]
            reads.append(app.running.in_use())
            return self.__dict__["now" if len(reads) == 1 else "later"]

    table = app.table
    generation = put(app, "one", {"/x": new})
    later = app.table
    app.swap(table)
    app.__dict__["now"], app.__dict__["later"] = app.__dict__.pop("table"), later
    app.__class__ = Racing
    assert call(app, "/x").read() == b"new"
    assert reads[1] == InUse(table.number, frozenset()), "until it has its route"
    assert noted == [InUse(None, frozenset({generation}))], "and where it runs from then on"


@pytest.mark.parametrize("count", [8])
def test_many_threads_hold_their_own_tables(app, count):
    gates = [threading.Event() for _ in range(count)]
    inside = threading.Semaphore(0)
    numbers = []

    def wait_for(gate):
        def on_get(req, resp):
            inside.release()
            assert gate.wait(WAIT)
            resp.text = "x"

        return on_get

    threads = []
    for gate in gates:
        numbers.append(put(app, "one", {"/x": wait_for(gate)}))
        threads.append(in_thread(lambda: call(app, "/x").read()))
        assert inside.acquire(timeout=WAIT)
    assert len(set(numbers)) == count
    for position, (gate, thread) in enumerate(zip(gates, threads, strict=True)):
        assert app.running.in_use().generations == set(numbers[position:])
        gate.set()
        assert thread.finish() == b"x"
    assert app.running.in_use() == NOTHING


# --- streams -------------------------------------------------------------------------------


def test_a_stream_holds_its_table_until_it_is_closed(app):
    number = put(app, "one", {"/x": streams(b"a", b"b")})
    answer = call(app, "/x")
    put(app, "one", {})
    assert app.running.in_use().generations == {number}
    assert list(answer.body) == [b"a", b"b"]
    assert app.running.in_use().generations == {number}  # exhausted, and not closed yet
    answer.close()
    assert app.running.in_use() == NOTHING


def test_a_stream_that_is_closed_twice_releases_once_and_does_not_raise(app):
    body = Body()
    put(app, "one", {"/x": lambda req, resp: setattr(resp, "stream", body)})
    first, second = call(app, "/x"), None
    body2 = Body()
    other = put(app, "two", {"/y": lambda req, resp: setattr(resp, "stream", body2)})
    second = call(app, "/y")
    first.close()
    first.close()
    assert app.running.in_use().generations == {other}
    second.close()
    assert app.running.in_use() == NOTHING


def test_a_client_that_goes_away_early_releases_and_closes_the_body(app):
    body = Body([b"a", b"b", b"c"])
    put(app, "one", {"/x": lambda req, resp: setattr(resp, "stream", body)})
    answer = call(app, "/x")
    assert next(iter(answer.body)) == b"a"
    answer.close()
    assert body.closed == 1
    assert app.running.in_use() == NOTHING


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
def test_a_stream_that_raises_raises_an_exception_and_is_released_by_close(app, caplog, error):
    def broken():
        raise error

    put(app, "one", {"/x": streams(b"a", broken)})
    answer = call(app, "/x")
    parts = iter(answer.body)
    assert next(parts) == b"a"
    with pytest.raises(Exception) as caught:
        next(parts)
    assert isinstance(caught.value, Exception)
    assert app.running.in_use() != NOTHING
    answer.close()
    assert app.running.in_use() == NOTHING
    (record,) = caplog.records
    raised = f"one: GET /x raised {type(error).__name__}"
    assert record.getMessage() == f"{raised} after its answer had begun, which breaks off"
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_a_stream_whose_close_raises_is_released_and_does_not_raise(app, caplog, error):
    def broken():
        raise error

    body = Body(on_close=broken)
    put(app, "one", {"/x": lambda req, resp: setattr(resp, "stream", body)})
    answer = call(app, "/x")
    answer.close()
    assert body.closed == 1
    assert app.running.in_use() == NOTHING
    (record,) = caplog.records
    said = f"one: GET /x raised {type(error).__name__} at the end of its stream"
    assert (record.getMessage(), record.exc_info[1]) == (said, error)


class BrokenIter:
    """A body whose `iter()` raises."""

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize(
    "stream",
    [5, BrokenIter(ValueError("x")), BrokenIter(SystemExit(3))],
    ids=["number", "ValueError", "SystemExit"],
)
def test_a_body_that_cannot_be_iterated_holds_no_table_for_ever(app, stream):
    put(app, "one", {"/x": lambda req, resp: setattr(resp, "stream", stream)})
    answer = None
    try:
        answer = call(app, "/x")
        list(answer.body)
    except Exception:
        pass
    if answer is not None:
        answer.close()
    assert app.running.in_use() == NOTHING
    assert app.running.slot().at is None


def test_a_file_like_stream_is_read_and_closed(app, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 20_000)
    file = (tmp_path / "f").open("rb")
    put(app, "one", {"/x": lambda req, resp: setattr(resp, "stream", file)})
    assert len(call(app, "/x").read()) == 20_000
    assert file.closed
    assert app.running.in_use() == NOTHING


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_answers_without_a_body_hold_nothing(app, method):
    body = Body()

    def on_head(req, resp):
        resp.stream = body

    put(app, "one", {"/x": resource(on_head=on_head, on_options=on_head)})
    answer = call(app, "/x", method)
    answer.read()
    assert app.running.in_use() == NOTHING


def test_a_stream_that_moves_to_another_thread_is_released_there(app):
    put(app, "one", {"/x": streams(b"a")})
    answer = call(app, "/x")
    assert in_thread(answer.read).finish() == b"a"
    assert app.running.in_use() == NOTHING


def test_plain_answers_stay_plain_lists(app):
    put(app, "one", {"/x": says("a")})
    assert type(call(app, "/x").body) is list


# --- requests in requests ------------------------------------------------------------------


def test_a_request_within_a_request_runs_in_the_current_table_and_the_outer_one_stays_noted(app):
    def outer(req, resp):
        put(app, "one", {"/inner": says("new")})
        resp.text = call(app, "/inner").read().decode()
        resp.text += str(app.running.in_use().generations == {number})

    number = put(app, "one", {"/outer": outer, "/inner": says("old")})
    assert call(app, "/outer").read() == b"newTrue"
    assert app.running.in_use() == NOTHING


def test_a_request_within_a_request_that_fails_leaves_the_outer_one_its_table(app):
    def outer(req, resp):
        first = call(app, "/inner").status
        second = call(app, "/missing").status
        resp.text = f"{first} {second} {app.running.in_use().generations == {number}}"

    def inner(req, resp):
        raise SystemExit(1)

    number = put(app, "one", {"/outer": outer, "/inner": inner})
    assert call(app, "/outer").read() == b"500 404 True"
    assert app.running.in_use() == NOTHING


def test_a_stream_of_a_request_within_a_request_holds_its_own_generation(app):
    kept, inner = [], []

    def outer(req, resp):
        inner.append(put(app, "one", {"/inner": streams(b"a")}))
        kept.append(call(app, "/inner"))
        resp.text = "x"

    put(app, "one", {"/outer": outer, "/inner": streams(b"a")})
    call(app, "/outer").read()
    assert app.running.in_use().generations == {*inner}
    assert kept[0].read() == b"a"
    assert app.running.in_use() == NOTHING


def test_a_request_made_while_a_stream_is_read_runs_in_the_current_table(app):
    put(app, "one", {"/x": streams(lambda: call(app, "/y").read()), "/y": says("old")})
    answer = call(app, "/x")
    put(app, "one", {"/y": says("new")})
    assert answer.read() == b"new"
    assert app.running.in_use() == NOTHING


# --- what a plugin raises ------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), SystemExit(), KeyboardInterrupt(), GeneratorExit(), BaseException("x")]
)
@pytest.mark.parametrize("path", ["/x", "/f/1", "//x"])
def test_what_would_end_the_worker_is_a_500_problem(app, caplog, error, path):
    def broken(req, resp, **fields):
        raise error

    put(app, "one", {"/x": broken, "/f/{id}": broken})
    answer = call(app, path)
    problem = json_of(answer.read())
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == 500
    assert app.running.in_use() == NOTHING
    assert app.running.slot().at is None
    record = caplog.records[-1]
    assert record.levelname == "ERROR"
    assert problem["error_id"] in record.getMessage()
    assert record.getMessage().startswith("one: GET")
    assert call(app, path).status == 500  # and the application lives on


def test_a_crash_on_a_path_that_is_not_ascii_names_its_plugin_too(app, caplog):
    def broken(req, resp, **fields):
        raise SystemExit(1)

    put(app, "one", {"/ü/{x}": broken})
    assert call(app, "/%C3%BC/1").status == 500
    assert caplog.records[-1].getMessage().startswith("one: ")


def test_an_exception_is_a_500_problem_that_names_the_plugin(app, caplog):
    def broken(req, resp):
        raise LookupError("secret")

    put(app, "one", {"/x": broken})
    answer = call(app, "/x")
    problem = json_of(answer.read())
    assert answer.status == 500
    assert "'one'" in problem["detail"]
    assert "secret" not in str(problem)
    assert problem["error_id"] in caplog.text
    assert app.running.in_use() == NOTHING


def test_an_exception_whose_text_raises_is_a_500_all_the_same(app, quiet):
    class Rude(Exception):
        def __str__(self):
            raise ValueError("no text")

        __repr__ = __str__

    def broken(req, resp):
        raise Rude

    put(app, "one", {"/x": broken})
    assert call(app, "/x").status == 500
    assert app.running.in_use() == NOTHING


def test_a_base_exception_whose_text_raises_is_a_500_all_the_same(app):
    class Rude(BaseException):
        def __str__(self):
            raise ValueError("no text")

        __repr__ = __str__

    def broken(req, resp):
        raise Rude

    put(app, "one", {"/x": broken})
    assert call(app, "/x").status == 500
    assert app.running.in_use() == NOTHING


# --- an answer is checked before it is started ----------------------------------------------


def answers(**attributes):
    """Make a responder that sets attributes of its response."""

    def on_get(req, resp):
        for name, value in attributes.items():
            setattr(resp, name, value)

    return on_get


def sets_header(name, value):
    return lambda req, resp: resp.set_header(name, value)


def appends_header(req, resp):
    resp.append_header("x-b", "a\nb")


def raises(error):
    def on_get(req, resp):
        resp.set_header("x-kept", "yes")
        raise error

    return on_get


@pytest.mark.parametrize(
    ("responder", "found"),
    [
        (answers(data="text"), "a str as its body"),
        (answers(data=bytearray(b"x")), "a bytearray as its body"),
        (answers(text=5), "a int as its body"),
        (answers(stream="text"), "a str as resp.stream"),
        (answers(stream=[b"a", "b"]), "a str in resp.stream"),
        (sets_header("x-a", "a\r\nb: c"), "a header x-a"),
        (sets_header("x-a", "☃"), "a header x-a"),
        (sets_header("x-a", "\x7f"), "a header x-a"),
        (sets_header("x\na", "a"), "the header name"),
        (sets_header("", "a"), "the header name"),
        (appends_header, "a header x-b"),
        (answers(content_type="text/html\n"), "a header content-type"),
        (answers(status="200 A\nB"), "the status"),
        (answers(status="20 A"), "the status"),
        (answers(status=None), "the status"),
        (raises(falcon.HTTPError(400, headers={"x-a": "\n"})), "a header x-a"),
    ],
)
def test_what_cannot_be_sent_is_started_once_as_a_problem_that_the_log_explains(
    app, caplog, responder, found
):
    put(app, "one", {"/x": responder})
    answer = call(app, "/x")
    problem = json_of(answer.read())
    assert len(answer.calls) == 1
    assert (answer.status, problem["status"]) == (500, 500)
    assert "x-a" not in answer.headers
    assert "end the server" not in problem["detail"]
    message = caplog.records[-1].getMessage()
    assert message.startswith(f"one: GET /x answered with {found}")
    assert "expected" in message
    assert problem["error_id"] in message
    assert caplog.records[-1].exc_info is None
    assert app.running.in_use() == NOTHING


@pytest.mark.parametrize(
    ("responder", "status", "body"),
    [
        (answers(data=type("Bytes", (bytes,), {})(b"x")), 200, b"x"),
        (answers(text=b"x"), 200, b"x"),
        (answers(stream=[b"a", b"b"]), 200, b"ab"),
        (answers(status="299 Own Words", text="x"), 299, b"x"),
        (answers(status=799, text="x"), 799, b"x"),
        (answers(status=204, data="not sent"), 204, b""),
        (sets_header("x-a", "tab\tand \xe9"), 200, b""),
        (sets_header("x!#$%&'*+-.^_`|~09", ""), 200, b""),
        (sets_header("content-type", "text/html; charset=utf-8"), 200, b""),
    ],
)
def test_what_can_be_sent_is_sent_as_it_is(app, responder, status, body):
    put(app, "one", {"/x": responder})
    answer = call(app, "/x")
    assert (answer.status, answer.read()) == (status, body)


def test_an_error_while_an_answer_is_rendered_keeps_its_status_and_headers(app):
    def unknown_type(req, resp):
        resp.set_header("x-kept", "yes")
        resp.content_type, resp.media = "application/x-unknown", 1

    put(app, "one", {"/x": resource(on_get=unknown_type, on_head=unknown_type)})
    answer = call(app, "/x")
    assert answer.status == 415
    assert answer.headers["x-kept"] == "yes"
    assert json_of(answer.read())["detail"] == "application/x-unknown is an unsupported media type."
    answer = call(app, "/x", "HEAD")
    assert (answer.status, answer.read()) == (415, b"")


def test_an_exception_while_an_answer_is_rendered_is_no_attempt_to_end_the_server(app, caplog):
    put(app, "one", {"/x": answers(media={1, 2})})
    answer = call(app, "/x")
    assert answer.status == 500
    assert json_of(answer.read())["detail"].startswith("An error in the plugin 'one'")
    assert "is not JSON serializable" in caplog.text


class OwnMembers(falcon.HTTPError):
    def to_dict(self, obj_type=dict):
        found = {**super().to_dict(obj_type), "at": datetime.date(2020, 1, 2), "fields": ["a"]}
        return found | {"description": "mine"}


class OwnJson(falcon.HTTPError):
    def to_json(self, handler=None):
        return b'{"own":1}'


def test_an_error_of_a_plugins_own_says_how_it_looks(app):
    put(app, "one", {"/x": raises(OwnMembers(422, title="No")), "/y": raises(OwnJson(400))})
    problem = json_of(call(app, "/x").read())
    assert (problem["title"], problem["detail"], problem["status"]) == ("No", "mine", 422)
    assert (problem["at"], problem["fields"]) == ("2020-01-02", ["a"])
    assert call(app, "/y").read() == b'{"own":1}'


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (falcon.HTTPError(409), "Conflict"),
        (falcon.HTTPError("499 Own"), "Own"),
        (falcon.HTTPError(falcon.HTTP_404), "Not Found"),
        (falcon.HTTPGone(title="Own"), "Own"),
    ],
)
def test_an_errors_title_is_not_its_status_line(app, error, title):
    put(app, "one", {"/x": raises(error)})
    assert json_of(call(app, "/x").read())["title"] == title


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3)])
def test_an_error_that_cannot_be_told_is_a_500_problem(app, error):
    class Broken(falcon.HTTPError):
        def to_dict(self, obj_type=dict):
            raise error

    put(app, "one", {"/x": raises(Broken(400))})
    answer = call(app, "/x")
    problem = json_of(answer.read())
    assert (answer.status, len(answer.calls)) == (500, 1)
    assert ("end the server" in problem["detail"]) == isinstance(error, SystemExit)
    assert app.running.slot().at is None


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [FileWrapper, wsgiref.util.FileWrapper])
def test_a_file_reaches_the_server_as_one_that_it_can_send_by_itself(app, tmp_path, wrapper):
    (tmp_path / "f").write_bytes(b"x" * 20_000)
    file = (tmp_path / "f").open("rb")
    number = put(app, "one", {"/x": answers(stream=file)})
    answer = call(app, "/x", **{"wsgi.file_wrapper": wrapper})
    put(app, "one", {})
    assert isinstance(answer.body, wrapper)
    assert answer.body.filelike.fileno() == file.fileno()
    assert app.running.in_use().generations == {number}
    assert len(answer.read()) == 20_000
    assert file.closed
    assert app.running.in_use() == NOTHING


def test_a_file_wrapper_that_is_a_function_gets_its_file_too(app):
    def wrapper(file, size):
        return iter(lambda: file.read(size), b"")

    put(app, "one", {"/x": answers(stream=io.BytesIO(b"abc"))})
    assert call(app, "/x", **{"wsgi.file_wrapper": wrapper}).read() == b"abc"  # type: ignore[arg-type]
    assert app.running.in_use() == NOTHING


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_file_like_that_would_end_the_worker_raises_an_exception(app, error):
    class Rude:
        def read(self, *_args):
            raise error

        fileno = close = read

    put(app, "one", {"/x": answers(stream=Rude())})
    answer = call(app, "/x", **{"wsgi.file_wrapper": FileWrapper})
    for attempt in (answer.body.filelike.fileno, lambda: next(iter(answer.body))):
        with pytest.raises(RuntimeError, match=type(error).__name__):
            attempt()
    answer.close()
    assert app.running.in_use() == NOTHING


def test_an_error_that_escapes_falcon_clears_the_slot(app):
    class Boom(Exception): ...

    def start_response(*_args):
        raise Boom

    put(app, "one", {"/x": says("a")})
    with pytest.raises(Boom):
        app(falcon.testing.create_environ("/x"), start_response)
    assert app.running.slot().at is None
    assert app.running.in_use() == NOTHING


def test_threads_that_are_gone_hold_nothing(app):
    put(app, "one", {"/x": says("a")})
    for _ in range(20):
        in_thread(lambda: call(app, "/x").read()).finish()
    assert app.running.in_use() == NOTHING


def test_two_applications_do_not_share_slots():
    first, second = LiveApp(), LiveApp()
    number = put(first, "one", {"/x": streams(b"a")})
    answer = call(first, "/x")
    assert first.running.in_use().generations == {number}
    assert second.running.in_use() == NOTHING
    answer.close()
