"""The REST admin API over WSGI, on a real manager, real files and a real PostgreSQL."""

import contextlib
import io
import json
import logging
import re
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

from app import turns
from app.database import pool as pool_module
from app.database.timeouts import Timeouts
from app.errors import DatabaseUnavailableError
from app.fleet import Fleet
from app.publishing import sight
from app.records import ServedRow
from app.server import create_app
from app.serving import reconciler
from app.worker_records import Convergence
from tests.support.databases import session
from tests.support.live import CONNECTION, Live, client_of, running, settings_for
from tests.support.plugins import source
from tests.support.waiting import wait_until

PROBLEM = "application/problem+json"
GO_KEYS = ["id", "name", "description", "version", "author", "type", "status"]
GO_KEYS += ["source_path", "binary_path"]
MORE_KEYS = ["created_at", "updated_at", "generation", "error", "reload", "endpoints"]

HELLO = """
from app.plugin import PluginInterface, PluginMetadata


class Hello(PluginInterface):
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("hello", "1.2.3", "Says hello: äöü 🍌", "Benana Team")

    def register_routes(self, server):
        server.get("/hello", self.get)
        server.post("/hello", self.post)

    def cleanup(self, context):
        pass

    def get(self):
        return {"says": "hello"}

    def post(self, body: dict):
        return {"received": body}


new_plugin = Hello
"""

# Each of its routes goes wrong in a way of its own.
FAULTY = """
import sys

import falcon

from app import errors
from app.plugin import PluginMetadata

SECRET = "the-inside-of-the-plugin"


class Recursive:
    pass


def raising(make):
    def handler():
        secret = SECRET
        raise make()
    return handler


def endless():
    return endless()


def knotted():
    knot = []
    knot.append(knot)
    return knot


def answering(**changes):
    def handler(req: falcon.Request, resp: falcon.Response):
        for name, value in changes.items():
            setattr(resp, name, value)
    return handler


RAISED = {
    "exception": lambda: Exception(SECRET),
    "value": lambda: ValueError(SECRET),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, SECRET),
    "memory": lambda: MemoryError(SECRET),
    "stop": lambda: StopIteration(SECRET),
    "group": lambda: ExceptionGroup(SECRET, [ValueError(SECRET)]),
    "benana": lambda: errors.BenanaError(SECRET),
    "superseded": lambda: errors.SupersededError(SECRET),
    "odd_text": lambda: ValueError("caf\\udce9 \\ud800 \\0"),
    "no_text": lambda: type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})(),
    "exit": lambda: SystemExit(3),
    "keyboard": lambda: KeyboardInterrupt(),
    "generator": lambda: GeneratorExit(),
    "status_text": lambda: falcon.HTTPError("garbage"),
    "status_range": lambda: falcon.HTTPError(9999),
}
RETURNED = {
    "object": lambda: object(),
    "nan": lambda: {"x": float("nan")},
    "keys": lambda: {(1, 2): 3},
    "knot": knotted,
    "endless": endless,
    "class": lambda: Recursive,
    "media": answering(media=object()),
    "text": answering(text=17),
    "data": answering(data="text"),
    "bad_status": answering(status="garbage"),
    "number_status": answering(status=None),
    "stream": answering(stream=17),
}


class Faulty:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("faulty", "1")

    def register_routes(self, server):
        for name, make in RAISED.items():
            server.get(f"/faulty/raise/{name}", raising(make))
        for name, handler in RETURNED.items():
            server.get(f"/faulty/return/{name}", handler)
        server.get("/faulty/http/{status}", self.http)
        server.get("/faulty/fine", lambda: {"fine": True})

    def cleanup(self, context):
        pass

    def http(self, status: int):
        raise falcon.HTTPError(status, title="Mine", description="As I say.", code=7)


new_plugin = Faulty
"""


@pytest.fixture(scope="module")
def live(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """One server with two plugins for all tests of this file that only add to it."""
    settings = settings_for(tmp_path_factory.mktemp("live"), new_database())
    for name, text in {"hello": HELLO, "faulty": FAULTY}.items():
        (settings.plugins_dir / name).mkdir(parents=True)
        (settings.plugins_dir / name / "main.py").write_text(text)
    with running(settings) as live:
        live.serves("hello")
        live.serves("faulty", "/faulty/fine")
        yield live


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of an application whose database is away: whatever needs it answers 503."""
    settings = settings_for(tmp_path_factory.mktemp("away"), "postgresql:///x?host=/nowhere")
    app = create_app(settings)
    yield client_of(app)
    app.manager.stop()


@pytest.fixture
def guarded(live: Live) -> Iterator[Callable[..., Any]]:
    """Makes a client of an application with other settings, on the live one's database."""
    apps = []

    def make(**changes: Any) -> Any:
        app = create_app(replace(live.settings, watch=False, **changes))
        apps.append(app)
        return client_of(app)

    yield make
    for app in apps:
        app.manager.stop()


def call(
    app: Any, method: str, path: str, headers: dict[str, str] | None = None, **environ: Any
) -> tuple[int, dict[str, str], bytes]:
    """Make a request that WebTest would put right first; the environment is WSGI's."""
    given = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "9999",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "gunicorn.socket": CONNECTION,
        "HTTP_HOST": "127.0.0.1:9999",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **{f"HTTP_{k.upper().replace('-', '_')}": v for k, v in (headers or {}).items()},
        **environ,
    }
    given = {key: value for key, value in given.items() if value is not None}
    answer: list[Any] = []

    def start_response(status: str, found: list[Any], exc_info: Any = None) -> None:
        assert exc_info or not answer, "PEP 3333: a second call needs exc_info"
        answer[:] = status, found

    body = app(given, start_response)
    try:
        raw = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return int(answer[0].split()[0]), {k.lower(): v for k, v in answer[1]}, raw


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    """Check that an answer is a problem by RFC 9457 that shows nothing of our inside."""
    assert answer.status_code == status, answer
    return check_problem_body(answer.content_type, answer.body, status)


def check_problem_body(content_type: str, raw: bytes, status: int) -> dict[str, Any]:
    assert content_type == PROBLEM
    body = json.loads(raw)
    assert {"type", "title", "status", "instance"} <= body.keys()
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert not body["title"][:1].isdigit()
    text = raw.decode()
    assert "Traceback" not in text
    assert 'File "' not in text
    assert "the-inside-of-the-plugin" not in text
    assert "/site-packages/" not in text
    return body


# --- answers -----------------------------------------------------------------------------------


def test_the_list_is_an_array_of_plugins_by_name(live: Live) -> None:
    answer = live.client.get("/plugins")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    names = [plugin["name"] for plugin in answer.json]
    assert names == sorted(names)
    assert {"faulty", "hello"} <= set(names)
    for plugin in answer.json:
        assert list(plugin)[: len(GO_KEYS)] == GO_KEYS
        assert set(GO_KEYS + MORE_KEYS) <= plugin.keys()


def test_one_plugin_is_shown_as_the_go_design_has_it(live: Live) -> None:
    answer = live.client.get("/plugins/hello")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    plugin = answer.json
    assert uuid.UUID(plugin["id"]).version == 4
    archive = Path(plugin["binary_path"])
    assert archive.is_absolute()
    assert archive.is_file()
    assert re.fullmatch(r"hello-[0-9a-f]{32}\.pyz", archive.name)
    assert {key: plugin[key] for key in GO_KEYS[1:]} == {
        "name": "hello",
        "description": "Says hello: äöü 🍌",
        "version": "1.2.3",
        "author": "Benana Team",
        "type": "dynamic",
        "status": "active",
        "source_path": str(live.settings.plugins_dir / "hello"),
        "binary_path": str(archive),
    }
    assert plugin["error"] is None
    assert plugin["generation"] >= 1
    assert plugin["created_at"] <= plugin["updated_at"]
    assert plugin["created_at"].endswith("+00:00")
    assert plugin["endpoints"] == [
        {"method": "GET", "path": "/hello", "handler": "Hello.get"},
        {"method": "POST", "path": "/hello", "handler": "Hello.post"},
    ]
    (listed,) = [p for p in live.client.get("/plugins").json if p["name"] == "hello"]
    assert listed == {key: value for key, value in plugin.items() if key in listed}


def test_reload_answers_as_the_go_design_has_it(live: Live) -> None:
    before = live.generation("hello")
    answer = live.client.post("/plugins/hello/reload", status=202)
    assert answer.content_type == "application/json"
    assert answer.json == {
        "message": "Plugin reload triggered successfully",
        "plugin": "hello",
        "status": "reloading",
    }
    assert live.generation("hello") == before + 1


def test_toggling_twice_takes_the_routes_away_and_brings_them_back(live: Live) -> None:
    live.add("toggled")
    before = live.generation("toggled")
    for number, (status, served) in enumerate([("inactive", 404), ("active", 200)], 1):
        answer = live.client.post("/plugins/toggled/toggle", status=200)
        assert answer.json == {
            "message": "Plugin status updated successfully",
            "plugin": "toggled",
            "status": status,
        }
        wait_until(
            lambda: live.client.get("/toggled", status="*").status_code == served,
            status,
        )
        assert live.plugin("toggled")["status"] == status
        assert live.generation("toggled") == before + number


def test_the_list_can_be_asked_for_a_status(live: Live) -> None:
    live.add("sleeper")
    live.client.post("/plugins/sleeper/toggle")
    live.write("unfit", "raise ValueError('not today')\n")
    wait_until(lambda: live.client.get("/plugins?status=failed").json, "the failure is listed")
    everyone = live.client.get("/plugins").json
    for status in ("active", "inactive"):
        found = live.client.get(f"/plugins?status={status}").json
        assert found == [p for p in everyone if p["status"] == status]
        assert found
    (failure,) = live.client.get("/plugins?status=failed").json
    assert (failure["name"], failure["status"]) == ("unfit", "failed")
    assert failure["source_path"] == str(live.settings.plugins_dir / "unfit")
    assert failure["error"].keys() == {"phase", "message", "file", "line"}
    assert (failure["error"]["file"], failure["error"]["line"]) == ("main.py", 1)
    assert "not today" in failure["error"]["message"]
    assert "unfit" not in {p["name"] for p in everyone}


@pytest.mark.parametrize(
    ("guard", "sqlstate", "status"),
    [
        ("CHECK (status = 'active' OR name <> 'stuck')", "23514", 409),
        ("RAISE EXCEPTION 'not on fridays' USING HINT = 'try on mondays'", "P0001", 409),
        ("RAISE EXCEPTION 'frozen' USING ERRCODE = 'MY001'", "MY001", 409),
        ("RAISE EXCEPTION 'quota of ops used up' USING ERRCODE = '53100'", "53100", 409),
        ("RAISE EXCEPTION 'too long' USING ERRCODE = '22001'", "22001", 422),
        ("PERFORM 9223372036854775807 + 1", "22003", 422),
        ("PERFORM FROM nowhere", "42P01", 500),
    ],
)
def test_what_the_database_refuses_is_answered_with_its_words(
    live: Live, guard: str, sqlstate: str, status: int
) -> None:
    """It was "The database is away", and try again."""
    live.add("stuck")
    with session(live.settings.database_url or "") as sql:
        if guard.startswith("CHECK"):
            sql(f"ALTER TABLE plugins ADD CONSTRAINT mine {guard}")
        else:
            sql(
                "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS"
                f" $$ BEGIN IF NEW.status <> OLD.status THEN {guard}; END IF;"
                " RETURN NEW; END $$"
            )
            sql("CREATE TRIGGER mine BEFORE UPDATE ON plugins FOR EACH ROW"
                " WHEN (OLD.name = 'stuck') EXECUTE FUNCTION refuse()")  # fmt: skip
        try:
            answer = live.client.post("/plugins/stuck/toggle", status=status)
        finally:
            sql("ALTER TABLE plugins DROP CONSTRAINT IF EXISTS mine;"
                " DROP FUNCTION IF EXISTS refuse CASCADE")  # fmt: skip
    body = check_problem(answer, status)
    assert (body["sqlstate"], body["plugin"]) == (sqlstate, "stuck")
    assert "refuses" in body["detail"]
    assert f"SQLSTATE {sqlstate}" in body["detail"]
    if sqlstate == "P0001":
        assert "not on fridays; try on mondays" in body["detail"]
    assert "Retry-After" not in answer.headers
    assert live.plugin("stuck")["status"] == "active"
    live.client.post("/plugins/stuck/toggle", status=200)
    live.client.post("/plugins/stuck/toggle", status=200)


def test_a_database_that_is_read_only_is_said_so_and_not_to_be_away(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby is."""
    bounds = Timeouts.bounds
    monkeypatch.setattr(
        Timeouts, "bounds", lambda *of: f"{bounds(*of)} SET LOCAL transaction_read_only = on; "
    )
    live.client.get("/plugins/hello", status=200)
    answer = live.client.post("/plugins/hello/toggle", status=503)
    assert "takes no changes now: it is read only: cannot execute" in answer.json["detail"]
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.soak
def test_a_database_that_refuses_to_be_read_is_named_once_and_served_on(
    new_database: Callable[[], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sight, "SCAN_SECONDS", 0.2)
    settings = settings_for(tmp_path, new_database())
    (settings.plugins_dir / "hello").mkdir(parents=True)
    (settings.plugins_dir / "hello" / "main.py").write_text(HELLO)
    with running(settings) as live, session(settings.database_url or "") as sql:
        live.serves("hello")
        sql("ALTER TABLE plugins RENAME COLUMN status TO gone")
        try:
            sql("NOTIFY plugin_changes")
            wait_until(lambda: "the rows cannot be read" in caplog.text, "it is said")
            live.write("hello", HELLO.replace('"hello"}', '"changed"}'))
            body = check_problem(live.client.get("/plugins", status=500), 500)
            assert (body["sqlstate"], "status" in body["detail"]) == ("42703", True)
            assert live.client.get("/hello").json == {"says": "hello"}
            wait_until(lambda: "hello: the database refuses" in caplog.text, "the watcher says it")
        finally:
            sql("ALTER TABLE plugins RENAME COLUMN gone TO status")
        sql("NOTIFY plugin_changes")
        wait_until(lambda: live.client.get("/hello").json == {"says": "changed"}, "it follows")
    said = [found.getMessage() for found in caplog.records]
    assert sum("the rows cannot be read" in text for text in said) == 1


def test_an_error_of_another_process_is_shown_by_every_one(
    live: Live, guarded: Callable[..., Any]
) -> None:
    """Each knew of its own loads alone: the list showed an error now and then."""
    live.add("shared")
    live.write("shared", source("shared", "two").replace(
        "def initialize(self, context):\n        pass",
        "def initialize(self, context):\n        assert context.trial, 'only in a trial'",
    ))  # fmt: skip
    error = wait_until(lambda: live.plugin("shared")["error"], "it is not loaded")
    assert "only in a trial" in error["message"]
    other = guarded()  # it serves nothing, and has loaded nothing
    assert other.get("/plugins/shared").json["error"] == error
    (listed,) = [p for p in other.get("/plugins").json if p["name"] == "shared"]
    assert listed["error"] == error
    live.client.post("/plugins/shared/toggle", status=200)
    assert other.get("/plugins/shared").json["error"] is None, "it is not to be served"
    live.write("shared", source("shared", "three"))
    live.client.post("/plugins/shared/toggle", status=200)
    wait_until(lambda: live.plugin("shared")["error"] is None, "all is well again")
    wait_until(lambda: live.client.get("/shared", status="*").status_code == 200, "it is served")
    assert other.get("/plugins/shared").json["error"] is None


@pytest.mark.parametrize("status", ["Active", "all", "x" * 5_000, "%00", "%0a", "%F0%9F%8D%8C", ""])
def test_a_status_that_is_none_is_refused(live: Live, status: str) -> None:
    body = check_problem(live.client.get(f"/plugins?status={status}", status=400), 400)
    assert len(body["detail"]) < 400
    assert "active, inactive, failed" in body["detail"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_what_is_wrong_with_a_folder_that_never_was_a_plugin_is_told(
    live: Live, method: str
) -> None:
    name = f"unable_{method}"
    live.write(name, "def new_plugin():\n    return 1\n")
    wait_until(lambda: live.sql("SELECT 1 FROM plugin_failures WHERE name = %s", name))
    if method == "get":
        body = check_problem(live.client.get(f"/plugins/{name}", status=404), 404)
        assert body["instance"] == f"/plugins/{name}"
    else:
        body = check_problem(live.client.post(f"/plugins/{name}/reload", status=422), 422)
        check_problem(live.client.post(f"/plugins/{name}/toggle", status=404), 404)
    assert body["plugin"] == name
    assert body["error"].keys() == {"phase", "message", "file", "line"}
    for method_name in ("initialize", "get_metadata", "register_routes", "cleanup"):
        assert method_name in body["detail"], "all faults are named at once"


def test_a_broken_edit_answers_422_and_the_old_version_serves(live: Live) -> None:
    live.add("edited")
    before = live.plugin("edited")
    live.write("edited", "def (:\n")
    body = check_problem(live.client.post("/plugins/edited/reload", status=422), 422)
    assert (body["error"]["phase"], body["error"]["file"], body["error"]["line"]) == (
        "compile",
        "main.py",
        1,
    )
    assert live.client.get("/edited").json["says"] == "one"
    after = live.plugin("edited")
    assert after["error"] == body["error"]
    assert (after["generation"], after["binary_path"]) == (
        before["generation"],
        before["binary_path"],
    )
    live.write("edited", source("edited", "two"))
    live.client.post("/plugins/edited/reload", status=202)
    wait_until(lambda: live.client.get("/edited").json["says"] == "two", "it is mended")
    assert live.plugin("edited")["error"] is None


def test_a_folder_that_is_on_disk_and_not_registered_is_registered_by_a_reload(
    live: Live,
) -> None:
    live.add("deleted")
    live.sql("DELETE FROM plugins WHERE name = 'deleted'")
    wait_until(lambda: live.client.get("/deleted", status="*").status_code == 404, "it is gone")
    body = check_problem(live.client.get("/plugins/deleted", status=404), 404)
    folder = live.settings.plugins_dir / "deleted"
    assert f"Its folder {folder} is on this host: POST /plugins/deleted/reload" in body["detail"]
    assert live.client.post("/plugins/deleted/reload", status=202).json["plugin"] == "deleted"
    live.serves("deleted")


def test_a_reload_without_a_folder_says_that_nothing_was_compiled(live: Live) -> None:
    """As on a host that only serves. It was 202 without a word."""
    live.add("elsewhere")
    live.sql("DELETE FROM plugins WHERE name = 'elsewhere'")
    wait_until(lambda: live.client.get("/elsewhere", status="*").status_code == 404, "gone")
    (live.settings.plugins_dir / "elsewhere").rename(live.settings.data_dir.with_name("moved"))
    (digest,) = live.sql(
        "SELECT source_digest FROM plugin_versions WHERE plugin_name = 'elsewhere'"
    )[0]
    live.sql(
        "INSERT INTO plugins (name, binary_path) VALUES ('elsewhere', %s)",
        f"/x/elsewhere-{digest}.pyz",
    )
    live.serves("elsewhere")
    before = live.generation("elsewhere")
    for path, status in (("reload", 202), ("reload?wait=5", 200)):
        answer = live.client.post(f"/plugins/elsewhere/{path}", status=status).json
        assert answer["note"].startswith(
            f"Nothing was compiled: {live.settings.plugins_dir} of this host"
        )
        assert answer["note"].endswith("Its registered archive is loaded again.")
    assert live.generation("elsewhere") == before + 2
    live.sql("UPDATE plugins SET binary_path = NULL WHERE name = 'elsewhere'")
    body = check_problem(live.client.post("/plugins/elsewhere/reload", status=422), 422)
    assert "has no folder of it" in body["detail"]
    assert "no archive of it is registered" in body["detail"]
    live.sql("DELETE FROM plugins WHERE name = 'elsewhere'")


def test_two_plugins_with_one_route_are_told_of_each_other(live: Live) -> None:
    live.add("owner")
    live.write("rival", source("rival").replace('"/rival"', '"/owner"'))
    body = check_problem(live.client.post("/plugins/rival/reload", status=422), 422)
    assert "'owner'" in body["detail"]
    assert "'rival'" in body["detail"]
    assert "/owner" in body["detail"]
    live.write("usurper", source("usurper").replace('"/usurper"', '"/plugins/usurper"'))
    body = check_problem(live.client.post("/plugins/usurper/reload", status=422), 422)
    assert "the server" in body["detail"]


@pytest.mark.parametrize("action", ["", "/reload", "/toggle"])
def test_nobody_of_that_name_is_a_404(live: Live, action: str) -> None:
    method = "POST" if action else "GET"
    answer = live.client.request(f"/plugins/nobody{action}", method=method, status=404)
    assert "'nobody'" in check_problem(answer, 404)["detail"]


def test_twenty_reloads_at_once_all_answer_202(live: Live) -> None:
    live.add("busy")
    before = live.generation("busy")
    barrier = threading.Barrier(20)

    def reload(_: int) -> tuple[int, dict[str, str], bytes]:
        barrier.wait(10)
        return call(live.app, "POST", "/plugins/busy/reload")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(reload, range(20)))
    assert [status for status, _, _ in answers] == [202] * 20, answers
    assert live.generation("busy") == before + 20
    wait_until(
        lambda: live.plugin("busy")["workers"] == {"total": 1, "current": 1, "behind": []},
        "the last one is served",
    )
    assert live.client.get("/busy").json["says"] == "one"
    assert live.sql("SELECT count(*) FROM plugin_endpoints WHERE path = '/busy'") == [(1,)]
    assert live.plugin("busy")["error"] is None


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/plugins", {"GET"}),
        ("DELETE", "/plugins", {"GET"}),
        ("DELETE", "/plugins/hello", {"GET"}),
        ("PUT", "/plugins/hello", {"GET"}),
        ("GET", "/plugins/hello/reload", {"POST"}),
        ("GET", "/plugins/hello/toggle", {"POST"}),
        ("HEAD", "/plugins/hello/toggle", {"POST"}),
        ("PATCH", "/hello", {"GET", "POST"}),
        ("POST", "/health/live", {"GET"}),
    ],
)
def test_a_method_that_is_not_there_names_those_that_are(
    live: Live, method: str, path: str, allowed: set[str]
) -> None:
    status, headers, raw = call(live.app, method, path)
    assert status == 405
    if "GET" in allowed:
        allowed = allowed | {"HEAD"}
    assert {found.strip() for found in headers["allow"].split(",")} == allowed | {"OPTIONS"}
    if method != "HEAD":
        check_problem_body(headers["content-type"], raw, 405)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/plugins/hello/",
        "/plugins/hello/reload/",
        "/plugins//hello",
        "/plugins/hello/other",
        "/health",
        "/PLUGINS",
        "/hello/x",
        "/plugins/hello/toggle/x",
    ],
)
def test_a_path_that_is_nobodys_is_a_404(live: Live, path: str) -> None:
    for method in ("GET", "POST"):
        status, headers, raw = call(live.app, method, path)
        assert status == 404
        assert check_problem_body(headers["content-type"], raw, 404)["instance"] == path


def test_health(live: Live, away: Any) -> None:
    assert live.client.get("/health/live").json == {"status": "live"}
    wait_until(lambda: live.client.get("/health/ready").json == {"status": "ready"}, "it is ready")
    assert away.get("/health/live").json == {"status": "live"}
    answer = away.get("/health/ready", status=503)
    check_problem(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1


# --- names -------------------------------------------------------------------------------------

NAMES = {
    "dots": "..",
    "encoded_dots": "%2e%2e",
    "dot": ".",
    "newline": "%0a",
    "name_newline": "hello%0a",
    "nul": "%00",
    "name_nul": "hello%00",
    "5000": "x" * 5_000,
    "64": "x" * 64,
    "unicode": quote("日本語🍌"),
    "fullwidth": quote("ｈello"),
    "bad_utf8": "%ff%fe",
    "upper": "Hello",
    "dash": "my-plugin",
    "digit": "1hello",
    "space": "%20hello",
    "quote": "'%20OR%201=1--",
    "percent": "%25s",
    "brace": "{name}",
    "backslash": "..%5c..%5cetc",
    "semicolon": "hello;x=1",
}


@pytest.mark.parametrize("action", ["", "/reload", "/toggle"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_is_none_is_a_404_without_a_look_at_anything(
    away: Any, name: str, action: str
) -> None:
    """The database is away, so that whatever asks it, or a folder, would answer 503."""
    method = "POST" if action else "GET"
    answer = away.request(f"/plugins/{name}{action}", method=method, status=404)
    assert len(check_problem(answer, 404)["detail"]) < 500


@pytest.mark.parametrize("path", ["%2f", "%2e%2e%2fhello", "..%2f..%2fetc%2fpasswd"])
def test_an_encoded_slash_leads_nowhere(away: Any, path: str) -> None:
    for method in ("GET", "POST"):
        answer = away.request(f"/plugins/{path}/reload", method=method, status="*")
        assert answer.status_code in {404, 405}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/plugins"),
        ("GET", "/plugins?status=failed"),
        ("GET", "/plugins?status=active"),
        ("GET", "/plugins/hello"),
        ("POST", "/plugins/hello/reload"),
        ("POST", "/plugins/hello/toggle"),
    ],
)
def test_with_the_database_away_every_call_says_when_to_try_again(
    away: Any, method: str, path: str
) -> None:
    answer = away.request(path, method=method, status=503)
    check_problem(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_reload_with_the_database_away_leaves_what_is_served(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    settings = settings_for(tmp_path, url)
    (settings.plugins_dir / "lonely").mkdir(parents=True)
    (settings.plugins_dir / "lonely" / "main.py").write_text(source("lonely"))
    name = url.rpartition("/")[2].partition("?")[0]
    with running(settings) as live, session(url.replace(name, "postgres")) as admin:
        live.serves("lonely")
        admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
            for action in ("reload", "toggle"):
                answer = live.client.post(f"/plugins/lonely/{action}", status=503)
                detail = check_problem(answer, 503)["detail"]
                # The first may meet a session that was ended, the others meet the refusal.
                said = ("is not currently accepting connections", "server closed the connection")
                assert any(text in detail for text in said), detail
                assert int(answer.headers["Retry-After"]) >= 1
            assert live.client.get("/lonely").json["says"] == "one"
            wait_until(
                lambda: live.client.get("/health/ready").json["status"] == "degraded",
                "the outage shows",
            )
        finally:
            admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        live.client.post("/plugins/lonely/reload", status=202)
        wait_until(
            lambda: live.client.get("/health/ready").json == {"status": "ready"}, "it is back"
        )


@pytest.mark.parametrize("looks", [3, 1000])
def test_what_is_published_is_no_503_because_the_wait_for_it_finds_no_database(
    live: Live, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    live.add("waited")
    left = iter(range(looks))
    convergence = Fleet.convergence

    def away(fleet: Fleet, row: ServedRow) -> Convergence:
        if next(left, None) is not None:
            raise DatabaseUnavailableError("the database is away: too many connections for role x")
        return convergence(fleet, row)

    monkeypatch.setattr(Fleet, "convergence", away)
    answer = live.client.post("/plugins/waited/reload?wait=2", status="*")
    generation = live.generation("waited")
    assert answer.json["generation"] == generation > 1
    if looks == 3:
        assert answer.status_code == 200, "it was back in time"
    else:
        detail = check_problem(answer, 504)["detail"]
        assert f"has generation {generation}" in detail
        assert "cannot be told: the database is away: too many connections" in detail


ASKS_TOO_LATE = (
    source("asks", "one")
    .replace("        return {", "        with self.context.database(): pass\n        return {")
    .replace("        pass\n", "        self.context = context\n", 1)
)


def test_how_postgresql_refuses_is_nothing_for_a_plugins_callers(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.add("asks", ASKS_TOO_LATE)

    @contextlib.contextmanager
    def away(*_: Any, **__: Any) -> Iterator[None]:
        raise DatabaseUnavailableError("the database is away: role hunter2 is not permitted")
        yield

    monkeypatch.setattr(pool_module.Database, "lend", away)
    answer = live.client.get("/asks", status=503)
    assert "hunter2" not in answer.text
    assert "The database is away;" in check_problem(answer, 503)["detail"]
    answer = live.client.get("/plugins", status=503)
    assert "role hunter2 is not permitted; what is loaded" in check_problem(answer, 503)["detail"]


# --- the guard -----------------------------------------------------------------------------------

TOKEN = "s3cret"
WRITES = ["/plugins/nobody/reload", "/plugins/nobody/toggle"]


@pytest.mark.parametrize(
    "header",
    ["Bearer s3cret", "bearer s3cret", "BEARER s3cret", "Bearer  s3cret", "Bearer s3cret "],
)
def test_the_right_token_passes(guarded: Callable[..., Any], header: str) -> None:
    client = guarded(admin_token=TOKEN)
    for path in WRITES:
        check_problem(client.post(path, headers={"Authorization": header}, status=404), 404)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "s3cret",
        "Basic s3cret",
        "Bearer S3CRET",
        "Bearer s3cre",
        "Bearer s3cret2",
        "Bearer s3crét",
        "Bearer ÿ",
        "Bearer s3cret,",
        "Bearer s3 cret",
        "Bearers3cret",
        "Token s3cret",
        "Bearer\ts3cret",
        "Bearer " + "s3cret" * 2000,
    ],
)
def test_no_token_or_a_wrong_one_is_a_401(guarded: Callable[..., Any], header: str | None) -> None:
    client = guarded(admin_token=TOKEN)
    for path in WRITES:
        status, headers, raw = call(client.app, "POST", path, HTTP_AUTHORIZATION=header)
        body = check_problem_body(headers["content-type"], raw, 401)
        assert status == 401
        assert headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in json.dumps(body)


READS = ["/plugins", "/plugins?status=failed", "/plugins/hello", "/plugins/nobody", "/workers"]


@pytest.mark.parametrize("path", READS)
def test_with_a_token_reads_want_it_too(guarded: Callable[..., Any], path: str) -> None:
    """They show paths, processes and exceptions' texts."""
    client = guarded(admin_token=TOKEN)
    body = check_problem(client.get(path, status=401), 401)
    assert "BENANA_ADMIN_TOKEN" in body["detail"]
    assert client.head(path, status="*").status_code in {401, 405}
    client.get(path, headers={"Authorization": "Bearer wrong"}, status=401)
    found = client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}, status="*")
    assert found.status_code == (404 if path.endswith("nobody") else 200)


@pytest.mark.parametrize("path", READS)
def test_reads_can_be_kept_open(guarded: Callable[..., Any], path: str) -> None:
    for client in (guarded(admin_token=TOKEN, admin_read_open=True), guarded()):
        expected = 404 if path.endswith("nobody") else 200
        assert client.get(path, status="*").status_code == expected
    client = guarded(admin_token=TOKEN, admin_read_open=True)
    for write in WRITES:
        check_problem(client.post(write, status=401), 401)


def test_health_is_open_with_a_token_and_says_no_more_than_it_must(
    guarded: Callable[..., Any],
) -> None:
    client = guarded(admin_token=TOKEN)
    assert client.get("/health/live").json == {"status": "live"}
    body = check_problem(client.get("/health/ready", status=503), 503)
    assert body.keys() == {"type", "title", "status", "detail", "instance"}


def test_a_token_that_is_not_ascii_is_compared_by_its_bytes(guarded: Callable[..., Any]) -> None:
    client = guarded(admin_token="schlüssel🍌")
    sent = "Bearer " + "schlüssel🍌".encode().decode("latin-1")  # as a WSGI server hands it over
    assert call(client.app, "POST", WRITES[0], HTTP_AUTHORIZATION=sent)[0] == 404
    sent = "Bearer schlüssel"
    assert call(client.app, "POST", WRITES[0], HTTP_AUTHORIZATION=sent)[0] == 401


def test_a_write_that_is_refused_changes_nothing(live: Live, guarded: Callable[..., Any]) -> None:
    before = live.sql("SELECT status, generation FROM plugins WHERE name = 'hello'")
    for client, status in (
        (guarded(admin_token=TOKEN), 401),
        (guarded(bind="0.0.0.0:9999"), 403),
    ):
        for action in ("toggle", "reload"):
            client.post(f"/plugins/hello/{action}", status=status)
    assert live.sql("SELECT status, generation FROM plugins WHERE name = 'hello'") == before


@pytest.mark.parametrize("bind", ["0.0.0.0:9999", "[::]:9999", "192.0.2.1:80", "example.org:80"])
def test_without_a_token_a_bind_that_others_reach_takes_no_writes(
    guarded: Callable[..., Any], bind: str
) -> None:
    client = guarded(bind=bind)
    for path in WRITES:
        body = check_problem(client.post(path, status=403), 403)
        assert "BENANA_ADMIN_TOKEN" in body["detail"]
    assert client.get("/plugins").status_code == 200
    client = guarded(bind=bind, admin_token=TOKEN)
    client.post(WRITES[0], headers={"Authorization": f"Bearer {TOKEN}"}, status=404)


@pytest.mark.parametrize(
    "bind",
    ["127.0.0.1:9999", "localhost:1", "[::1]:9999", "127.8.8.8:1", "unix:/run/benana.sock"],
)
def test_without_a_token_a_local_bind_takes_writes(guarded: Callable[..., Any], bind: str) -> None:
    client = guarded(bind=bind)
    for path in WRITES:
        check_problem(client.post(path, status=404), 404)


@pytest.mark.parametrize("bind", ["127.evil.example:80", "127.0.0.1.evil.example:80"])
def test_a_name_that_looks_like_loopback_is_not_local(
    guarded: Callable[..., Any], bind: str
) -> None:
    check_problem(guarded(bind=bind).post(WRITES[0], status=403), 403)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose process it is")
def test_a_write_of_nobody_knows_whom_needs_a_token(guarded: Callable[..., Any]) -> None:
    """Its other end is closed, or on the other side of a network namespace."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        ours = socket.create_connection(door.getsockname())
        theirs, _ = door.accept()
        with theirs:
            ours.close()
            for connection in (theirs, None):
                unknown: dict[str, Any] = {"gunicorn.socket": connection}
                status, headers, raw = call(guarded().app, "POST", WRITES[0], **unknown)
                detail = check_problem_body(headers["content-type"], raw, 403)["detail"]
                assert "BENANA_ADMIN_TOKEN" in detail
                assert call(guarded().app, "GET", "/plugins", **unknown)[0] == 200
                unknown["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
                status = call(guarded(admin_token=TOKEN).app, "POST", WRITES[0], **unknown)[0]
                assert status == 404


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via"]
)
def test_a_write_through_a_proxy_needs_a_token(guarded: Callable[..., Any], header: str) -> None:
    client = guarded()
    for value in ("203.0.113.9", "127.0.0.1"):
        body = check_problem(client.post(WRITES[0], headers={header: value}, status=403), 403)
        assert "proxy" in body["detail"]
    client = guarded(admin_token=TOKEN)
    headers = {header: "203.0.113.9", "Authorization": f"Bearer {TOKEN}"}
    client.post(WRITES[0], headers=headers, status=404)


CALLS = [
    ("GET", "/plugins"),
    ("GET", "/plugins?status=failed"),
    ("GET", "/plugins/hello"),
    ("GET", "/workers"),
    ("POST", "/plugins/hello/reload"),
    ("POST", "/plugins/hello/toggle"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9998"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://evil.example:9999"}, 403),
        ({"Origin": "http://127.0.0.1:9999.evil.example"}, 403),
        ({"Origin": "http://user@127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "garbage"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": "\xff"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "chrome-extension://abc"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": None}, 400),
        ({"Host": ""}, 400),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost.evil.example:9999"}, 403),
        ({"Host": "user:pw@localhost"}, 400),
        ({"Host": "localhost:99999"}, 400),
        ({"Host": "localhost:x"}, 400),
        ({"Host": "localhost/x"}, 400),
        ({"Host": "localhost?x"}, 400),
        ({"Host": "localhost#x"}, 400),
        ({"Host": "[::1"}, 400),
        ({"Host": "]["}, 400),
        ({"Host": ":9999"}, 400),
        ({"Host": "\xff\xfe"}, 403),
        ({"Host": "x" * 5_000}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ],
)
def test_a_call_of_a_foreign_page_is_refused(
    live: Live, method: str, path: str, headers: dict[str, str | None], expected: int
) -> None:
    before = live.sql("SELECT generation FROM plugins WHERE name = 'hello'")
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    status, answered, raw = call(live.app, method, path, QUERY_STRING=query, **environ)
    assert status == expected, raw
    assert not any(name.startswith("access-control") for name in answered)
    check_problem_body(answered["content-type"], raw, expected)
    assert live.sql("SELECT generation FROM plugins WHERE name = 'hello'") == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:9999"},
        {"Host": "localhost:1"},
        {"Host": "[::1]:9999"},
        {"Host": "[::1]"},
        {"Host": "192.0.2.7:9999"},
        {"Host": "[2001:db8::1]:80", "Origin": "http://[2001:db8::1]:80"},
        {"Host": "Localhost:9999", "Origin": "http://localhost:9999"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "nonsense/\xff"},
        {"Accept": "text/html"},
    ],
)
def test_a_call_of_our_own_passes(live: Live, headers: dict[str, str]) -> None:
    environ: dict[str, Any] = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    if "Content-Type" in headers:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
    assert call(live.app, "GET", "/plugins", **environ)[0] == 200
    assert call(live.app, "POST", WRITES[0], **environ)[0] == 404


def test_a_host_of_the_settings_is_known(guarded: Callable[..., Any]) -> None:
    client = guarded(admin_hosts=frozenset({"plugins.example"}), bind="0.0.0.0:80")
    assert call(client.app, "GET", "/plugins", HTTP_HOST="Plugins.Example:80")[0] == 200
    assert call(client.app, "GET", "/plugins", HTTP_HOST="other.example")[0] == 403


class Endless(io.RawIOBase):
    """A body that goes on and on, and counts what is read of it."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = self.left if size is None or size < 0 else min(size, self.left)
        self.left -= size
        self.taken += size
        return b"x" * size


@pytest.mark.parametrize("action", ["reload", "toggle"])
@pytest.mark.parametrize("chunked", [False, True])
def test_sixty_megabytes_are_a_413_and_nothing_happens(
    live: Live, action: str, chunked: bool
) -> None:
    before = live.sql("SELECT status, generation FROM plugins WHERE name = 'hello'")
    body = Endless(60 * 1024 * 1024)
    environ: dict[str, Any] = {"wsgi.input": body}
    if chunked:
        environ |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    else:
        environ["CONTENT_LENGTH"] = str(body.left)
    status, headers, raw = call(live.app, "POST", f"/plugins/hello/{action}", **environ)
    assert status == 413
    check_problem_body(headers["content-type"], raw, 413)
    assert body.taken < 1024 * 1024
    assert live.sql("SELECT status, generation FROM plugins WHERE name = 'hello'") == before


def test_who_has_no_token_is_not_even_read(guarded: Callable[..., Any]) -> None:
    body = Endless(1024)
    client = guarded(admin_token=TOKEN)
    environ: dict[str, Any] = {"wsgi.input": body, "CONTENT_LENGTH": "1024"}
    assert call(client.app, "POST", WRITES[0], **environ)[0] == 401
    assert body.taken == 0


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "", " 3", "9" * 30])
def test_a_content_length_that_is_none_is_no_fault_of_ours(live: Live, length: str) -> None:
    environ: dict[str, Any] = {"CONTENT_LENGTH": length, "wsgi.input": Endless(3)}
    status, headers, raw = call(live.app, "POST", WRITES[0], **environ)
    assert status in {400, 404, 413}
    check_problem_body(headers["content-type"], raw, status)


def test_the_guard_is_not_for_the_routes_of_plugins(live: Live) -> None:
    """They are the plugin's own business, CORS and hosts included."""
    callers: tuple[dict[str, Any], ...] = (
        {"HTTP_HOST": "shop.example", "HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_HOST": None},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_X_FORWARDED_FOR": "203.0.113.9"},
    )
    for headers in callers:
        assert call(live.app, "GET", "/hello", **headers)[0] == 200
        body = json.dumps({"x": "y" * 100_000}).encode()
        environ: dict[str, Any] = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        status, _, raw = call(live.app, "POST", "/hello", **headers, **environ)
        assert (status, json.loads(raw)) == (200, {"received": json.loads(body)})


# --- plugins that fail -------------------------------------------------------------------------

RAISED = ["exception", "value", "unicode", "memory", "stop", "group", "benana", "superseded"]
RAISED += ["odd_text", "no_text", "exit", "keyboard", "generator", "status_text", "status_range"]
RETURNED = ["object", "nan", "keys", "knot", "endless", "class", "media", "text", "data"]
RETURNED += ["bad_status", "number_status"]


@pytest.mark.parametrize(
    "path", [f"/faulty/raise/{n}" for n in RAISED] + [f"/faulty/return/{n}" for n in RETURNED]
)
def test_a_handler_that_goes_wrong_is_a_500_whose_error_id_is_in_the_log(
    live: Live, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, raw = call(live.app, "GET", path)
    assert status == 500
    assert raw, "the problem has a body"
    assert headers["content-type"] == PROBLEM
    assert int(headers["content-length"]) == len(raw)
    body = json.loads(raw)
    assert "the-inside-of-the-plugin" not in raw.decode()
    assert "Traceback" not in raw.decode()
    (record,) = [r for r in caplog.records if body["error_id"] in r.getMessage()]
    assert record.levelno == logging.ERROR
    assert "faulty" in record.getMessage()
    assert path in record.getMessage()
    assert call(live.app, "GET", "/faulty/fine")[2] == b'{"fine":true}'
    assert live.client.get("/plugins").status_code == 200


def test_a_stream_that_is_none_holds_no_table(live: Live) -> None:
    """Else no later generation would be cleaned up before its drain timeout."""
    for _ in range(3):
        with pytest.raises(TypeError):
            call(live.app, "GET", "/faulty/return/stream")  # the server breaks the connection off
    assert live.app.running.in_use() == (None, frozenset())


@pytest.mark.parametrize("status", [400, 402, 404, 418, 451, 500, 503, 599, 799])
def test_an_http_error_of_a_handler_is_its_answer(live: Live, status: int) -> None:
    found, headers, raw = call(live.app, "GET", f"/faulty/http/{status}")
    assert (found, headers["content-type"]) == (status, PROBLEM)
    body = json.loads(raw)
    assert (body["status"], body["title"], body["detail"], body["code"]) == (
        status,
        "Mine",
        "As I say.",
        7,
    )


def test_what_a_plugin_says_of_itself_need_not_be_unicode(live: Live) -> None:
    """A lone surrogate is text to Python, and to nobody else."""
    text = source("odd").replace('version="1.0.0"', 'version="1.0.0", description="caf\\udce9"')
    live.write("odd", text)
    answer = live.client.post("/plugins/odd/reload", status="*")
    assert answer.status_code in {202, 422}, answer
    live.add("after_odd")


def test_what_a_plugin_raises_need_not_be_unicode(live: Live) -> None:
    raised = 'raise ValueError("caf\\udce9 \\\\u0000 \\0")'
    live.write("odder", f"def new_plugin():\n    {raised}\n")
    check_problem(live.client.post("/plugins/odder/reload", status=422), 422)
    assert live.client.get("/plugins/odder", status=404).json["plugin"] == "odder"
    live.add("after_odder")


def test_a_start_with_any_plugin_raises_nothing(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    """What escapes from there would keep gunicorn from starting."""
    settings = settings_for(tmp_path, new_database())
    faults = {
        "surrogate": source("surrogate").replace('"1.0.0"', '"caf\\udce9"'),
        "raising": 'def new_plugin():\n    raise ValueError("\\ud800 \\\\u0000")\n',
        "fine": source("fine"),
    }
    for name, text in faults.items():
        (settings.plugins_dir / name).mkdir(parents=True)
        (settings.plugins_dir / name / "main.py").write_text(text)
    with running(settings) as live:
        live.serves("fine")
        failed = {found["name"] for found in live.client.get("/plugins?status=failed").json}
        assert "raising" in failed


def test_a_database_that_refuses_the_schema_does_not_end_the_start(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    with contextlib.closing(psycopg2.connect(url)) as other, other, other.cursor() as cursor:
        cursor.execute("CREATE VIEW plugins AS SELECT 1 AS x")
    settings = settings_for(tmp_path, url)
    settings.plugins_dir.mkdir()
    create_app(settings).manager.publish_at_start()


GREEDY = """
import contextlib

import falcon

from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        self.database = context.database

    def get_metadata(self):
        return PluginMetadata("NAME", "1")

    def register_routes(self, server):
        server.get("/NAME/{count:int}", self.get)

    def cleanup(self, context):
        pass

    def get(self, count: int):
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                connection = stack.enter_context(self.database())
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                return {"found": cursor.fetchone()[0]}


new_plugin = Plugin
"""


def test_a_plugin_that_wants_too_many_connections_is_told_so_and_the_others_get_theirs(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SHARE_SECONDS", 0.1)
    for name in ("greedy", "modest"):
        live.write(name, GREEDY.replace("NAME", name))
    limit = live.settings.plugin_connections

    def found(name: str, count: int) -> bool:
        return live.client.get(f"/{name}/{count}", status="*").json == {"found": 1}

    wait_until(lambda: found("greedy", limit) and found("modest", 1), "both are served")
    answer = live.client.get(f"/greedy/{limit + 1}", status=503)
    detail = check_problem(answer, 503)["detail"]
    assert detail.startswith(f"The database is busy: greedy holds {limit}, the oldest for ")
    assert "(taken at main.py:25)" in detail
    assert f"{limit} of them in the very thread" in detail
    assert "set BENANA_PLUGIN_CONNECTIONS to more" in detail
    assert "away" not in detail
    assert answer.headers["Retry-After"] == "1"
    assert found("modest", 1)
    assert found("greedy", limit)
