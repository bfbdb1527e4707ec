"""What a plugin changes in the whole process: the server and the other plugins do not notice."""

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import add_case, edit_case, wait_for_edit
from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

LOOKS = """
import gc, locale, logging, os, socket, sys, warnings

def look():
    logger = logging.getLogger("looks_of_another")
    logger.warning("another plugin says %s", SAYS)
    try:
        warnings.warn("old", DeprecationWarning)
        raised = False
    except DeprecationWarning:
        raised = True
    return {
        "raised": raised, "level": logging.root.level, "disabled": logger.disabled,
        "handlers": [type(item).__name__ for item in logging.root.handlers],
        "variable": os.environ.get("CASE_VARIABLE"), "path": "/case" in sys.path,
        "folder": os.getcwd(), "timeout": socket.getdefaulttimeout(), "gc": gc.isenabled(),
    }
"""


def looking(says: str) -> str:
    """Return a plugin that tells how the process looks, and that logs."""
    text = f"SAYS = {says!r}\n" + LOOKS + source("looks", says)
    return text.replace('"pid": os.getpid()}', '"pid": os.getpid(), "look": look()}')


def looks(server: Server) -> list[Any]:
    """Return how each worker looks."""
    return [answer.json["look"] for answer in server.ask_all("/looks").values()]


@pytest.fixture(params=["2", pytest.param("4", marks=pytest.mark.soak)])
def running(request: pytest.FixtureRequest, make_server: MakeServer) -> Server:
    """A server with a plugin that looks at its process."""
    server = make_server(WEB_CONCURRENCY=request.param)
    server.write("looks", looking("one"))
    server.start()
    server.wait_says("looks", "one")
    return server


TAKERS = {
    "takes_logging": "the logger root level is ERROR, it was INFO",
    "takes_warnings": "the warnings' filter error",
}


@pytest.mark.parametrize(
    "name", ["takes_logging", pytest.param("takes_warnings", marks=pytest.mark.soak)]
)
def test_the_servers_log_goes_on_others_behave_as_before_and_nothing_is_left(
    running: Server, name: str
) -> None:
    before = looks(running)
    add_case(running, name)
    wait_for_edit(running, name, 0)
    wait_until(lambda: looks(running) == before, "all is as before")  # gc pauses after a cleanup
    for number in range(1, 4):
        edit_case(running, name, number)
        wait_for_edit(running, name, number)
    wait_until(lambda: looks(running) == before, "all is as before")
    lines = [line for line in running.log().splitlines() if f"{name}: its load changed" in line]
    assert len(lines) == int(running.environment["WEB_CONCURRENCY"]), "each says it once"
    assert all(TAKERS[name] in line and "[WARNING]" in line for line in lines)
    running.write("looks", looking("two"))
    running.wait_says("looks", "two")
    looks(running)
    log = running.log()
    assert "another plugin says two" in log
    assert re.search(r"\[INFO\] looks: serving generation 2", log), "our own lines go on"
    shutil.rmtree(running.plugins / name)
    running.wait_gone(name)
    wait_until(lambda: looks(running) == before, "all is as before")


def test_green_threads_are_refused_at_the_trial_with_the_reason(running: Server) -> None:
    pytest.importorskip("gevent")
    before = running.workers()
    add_case(running, "patches_gevent")
    line = wait_until(
        lambda: re.search(r".*patches_gevent: import failed: .*", running.log()), "it is refused"
    )[0]
    assert "of gevent in the place of the standard library's" in line
    assert "threading" in line
    assert "time.sleep" in line
    assert running.get("/patches_gevent").status == 404
    assert running.workers() == before
    running.write("looks", looking("after"))
    running.wait_says("looks", "after")


CLOCKS = {
    "mock": 'm.patch("time.time", return_value=1577836800.0).start()',
    "class": """
import datetime
class Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2020, 1, 1)
datetime.datetime = Frozen
""",
}
C_CLOCKS = {
    "past": "import time_machine; time_machine.travel(0).start()",
    "future": "import time_machine; time_machine.travel('2044-01-01T00:00Z', tick=False).start()",
}


@pytest.mark.parametrize(
    "clocks", [CLOCKS, pytest.param(C_CLOCKS, marks=pytest.mark.soak)], ids=["by name", "in C"]
)
def test_who_moves_the_clock_is_refused_at_the_trial_and_nobody_has_its_time(
    running: Server, clocks: dict[str, str]
) -> None:
    if clocks is C_CLOCKS:
        pytest.importorskip("time_machine")
    now = "import datetime as D\nfrom time import time\n" + source("tells_time", "x").replace(
        '"pid": os.getpid()}',
        '"pid": os.getpid(), "at": [time(), D.datetime.now().timestamp()]}',
    )
    before = running.workers()
    running.write("tells_time", now)
    running.wait_says("tells_time", "x")
    for name, patch in clocks.items():
        running.write(name, "import unittest.mock as m\n" + patch + "\n" + source(name, "there"))
        line = wait_until(
            lambda name=name: re.search(rf".*{name}: import failed: .*", running.log()), "refused"
        )[0]
        assert "in the place of the standard library's" in line
        assert "freeze_time" in line
        assert running.get(f"/{name}").status == 404
    running.write("tells_time", now.replace('"x"', '"y"'))
    running.wait_says("tells_time", "y")
    for answer in running.ask_all("/tells_time").values():
        assert all(abs(time.time() - at) < 60 for at in answer.json["at"])
    assert running.workers() == before


LEFT_BEHIND = (
    'm.patch("os.stat", side_effect=FileNotFoundError()).start()',
    'm.patch("os.path.exists", return_value=False).start()',
    'm.patch("threading.Event.wait", return_value=False).start()',
    'm.patch("os.open", side_effect=OSError("no")).start()',
)


def test_a_patch_that_a_test_has_left_behind_stops_nobody_elses_edits(running: Server) -> None:
    before = running.workers()
    for number, patch in enumerate(LEFT_BEHIND):
        name, patched = f"forgets_{number}", patch.split('"')[1].replace("os.path", "posixpath")
        text = f"import unittest.mock as m\n{patch}\n" + source(name, "there")
        running.write(name, text)
        running.wait_says(name, "there")
        said = re.compile(rf"{name}: its load changed.*{patched} ")
        wait_until(lambda said=said: said.search(running.log()), f"{patched} is named")
        running.write("looks", looking(f"after {number}"))
        running.wait_says("looks", f"after {number}")
    assert running.workers() == before


PATCHES = """
import builtins, json, os, pickle, socket, threading, time

REAL = (json.dumps, json.loads, time.time, os.path.exists, time.sleep)

def broken(*_):
    raise RuntimeError("replaced")

def patch(gate):
    json.dumps = lambda value: repr(value).encode()  # as who takes orjson's: bytes, no options
    json.loads = lambda text: REAL[1](text)
    time.time = lambda: 0.0
    os.fork = os.kill = pickle.dumps = pickle.loads = broken
    socket.socket = broken
    while not REAL[3](gate):
        REAL[4](0.01)
    threading.Thread = type("Watched", (threading.Thread,), {})
"""


def test_who_replaces_what_all_call_breaks_nobody_else_and_is_named_once(
    running: Server, tmp_path: Path
) -> None:
    """Each request with a body failed, of all plugins, as long as the one that did it was there."""
    body = 'def get(self, body: dict):\n        return {"says": body}\n    def unused(self):'
    running.write(
        "takes_body",
        source("takes_body")
        .replace("def get(self):", body)
        .replace('server.get("/takes_body"', 'server.post("/takes_body"'),
    )
    wait_until(lambda: running.post("/takes_body", {"a": 1}).status == 200, "it is served")
    gate = tmp_path / "gate"
    text = PATCHES + source("patches", "patched").replace(
        "        pass\n", f"        if not context.trial:\n            patch({str(gate)!r})\n", 1
    )

    def all_is_well() -> None:
        for _ in range(8):
            assert running.post("/takes_body", {"a": "é"}).json == {"says": {"a": "é"}}
            assert running.get("/looks").says == "one"
            assert running.get("/plugins/looks").json["name"] == "looks"
            assert running.get("/health/ready").status == 200
            assert running.get("/nowhere").json["status"] == 404

    before = running.workers()
    running.write("patches", text)
    workers = int(running.environment["WEB_CONCURRENCY"])
    wait_until(
        lambda: running.log().count("generation 1 is still loading") == workers, "it patches"
    )
    all_is_well()
    gate.touch()
    running.wait_says("patches", "patched")
    all_is_well()
    running.write("looks", looking("two"))  # an edit is followed, and a child is forked for it
    running.wait_says("looks", "two")
    for number in range(2):
        running.write("patches", text.replace('"patched"', f'"edit {number}"'))
        running.wait_says("patches", f"edit {number}")
    lines = [line for line in running.log().splitlines() if "patches: its load changed" in line]
    assert len(lines) == workers, "each says it once"
    for name in ("json.dumps", "json.loads", "time.time", "os.fork", "threading.Thread"):
        assert name in lines[0]
    assert running.workers() == before


CARELESS = {
    "driver": """
from psycopg2.extensions import new_type, register_adapter, register_type
from psycopg2.extras import Json, register_default_json, register_default_jsonb, register_uuid

register_uuid()
for register in (register_default_json, register_default_jsonb):
    register(loads=str, globally=True)
register_type(new_type((20, 23, 1700), "WHOLE", lambda value, cursor: value and float(value)))
for kind in (dict, list):
    register_adapter(kind, Json)
""",
    "log": """
import logging, threading

request, former = threading.local(), logging.getLogRecordFactory()

def factory(*arguments, **named):
    record = former(*arguments, **named)
    record.request_id = request.number
    return record

class ToChat(logging.Handler):
    def emit(self, record):
        raise ConnectionError("the chat is away")

logging.setLogRecordFactory(factory)
logging.getLogger().addHandler(ToChat())
""",
    "locks": """
import logging

for handler in (*logging.getLogger("gunicorn.error").handlers, *logging.root.handlers):
    handler.acquire()
logging._lock.acquire()
""",
    "timers": """
import faulthandler, signal

signal.alarm(1)
signal.setitimer(signal.ITIMER_PROF, 0.2, 0.2)
faulthandler.dump_traceback_later(1, exit=True)
""",
    "threads": """
import sys, threading, tracemalloc

def trace(*_):
    raise RuntimeError("traced")

threading.settrace(trace)
threading.setprofile(trace)
threading.stack_size(32768)
tracemalloc.start()
""",
}
LONG = ("timers", "threads")
SAID_OF = {
    "driver": "psycopg2's reading of the type 114 (JSON)",
    "log": "raises ConnectionError: the chat is away",
    "locks": "its import kept logging's own lock, the lock of a handler of the logger root, ",
    "timers": "the timer ITIMER_REAL (signal.alarm) is on",
    "threads": "the hook of threading.settrace is _plugins.careless_threads",
}


@pytest.mark.parametrize(
    "of", ["driver", "log", "locks", *(pytest.param(of, marks=pytest.mark.soak) for of in LONG)]
)
def test_who_is_careless_takes_nobody_else_down(running: Server, of: str) -> None:
    """Nothing could be published, the workers ended one after the other, or nobody answered."""
    before, name = running.workers(), f"careless_{of}"
    running.write(name, CARELESS[of] + source(name, "there"))
    running.wait_says(name, "there")
    wait_until(lambda: SAID_OF[of] in running.log(), "it is named")
    passes_at = time.monotonic() + 1.5  # its timers would come by then
    wait_until(lambda: time.monotonic() > passes_at, "a second")
    for says in ("two", "three"):
        running.write("looks", looking(says))
        running.wait_says("looks", says)
    assert running.post("/plugins/looks/reload?wait=10").status == 200
    for path in ("/plugins", "/plugins/looks", "/workers", "/health/ready"):
        assert running.get(path).status == 200, path
    assert running.get("/health/ready").json["status"] == "ready"
    assert running.workers() == before
    assert " ended with an error" not in running.log()
    shutil.rmtree(running.plugins / name)
    wait_until(lambda: running.get(f"/{name}").status == 404, "it goes")


CHANGES = """
import logging, os, sys, warnings
os.environ.setdefault("CASE_VARIABLE", "{value}")
if "/case" not in sys.path:
    sys.path.append("/case")
"""


def changing(value: str) -> str:
    """Return a plugin that sets a variable as `load_dotenv` does, and extends the path."""
    text = CHANGES.format(value=value) + source("changes", value)
    return text.replace('"pid": os', '"variable": os.environ["CASE_VARIABLE"], "pid": os')


@pytest.mark.soak
def test_a_variable_follows_each_edit_is_named_once_and_goes_with_the_plugin(
    running: Server,
) -> None:
    before = looks(running)
    for value in ("one", "two", "three"):
        running.write("changes", changing(value))
        running.wait_says("changes", value)
        assert {a.json["variable"] for a in running.ask_all("/changes").values()} == {value}
        assert {look["variable"] for look in looks(running)} == {value}
    running.write("changes", changing("broken") + "\nraise ValueError\n")
    wait_until(lambda: (running.plugin("changes") or {}).get("error"), "it is refused")
    assert {a.json["variable"] for a in running.ask_all("/changes").values()} == {"three"}
    log = running.log()
    workers = int(running.environment["WEB_CONCURRENCY"])
    assert log.count("the environment variable CASE_VARIABLE is new") == workers
    assert log.count("the entry of sys.path /case is new") == workers
    shutil.rmtree(running.plugins / "changes")
    running.wait_gone("changes")
    wait_until(lambda: looks(running) == before, "nothing is left")


@pytest.mark.soak
def test_our_log_goes_on_after_a_load_that_failed_in_the_workers(running: Server) -> None:
    text = source("fails").replace(
        "        pass\n",
        "        import logging\n"
        "        if not context.trial:\n"
        "            logging.disable(logging.CRITICAL)\n"
        "            logging.config = logging.root.handlers.clear()\n"
        "            raise ValueError('not here')\n",
        1,
    )
    running.write("fails", text)
    wait_until(lambda: "fails: its load changed" in running.log(), "it is named")
    running.write("looks", looking("goes on"))
    running.wait_says("looks", "goes on")
    looks(running)
    assert "another plugin says goes on" in running.log()


ENDS_THREAD = """
import ctypes, threading

def end(name):
    for thread in threading.enumerate():
        if thread.name == name:
            error = ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), error)
            return True
    return False
"""


def ending_threads() -> str:
    """Return a plugin whose handler ends a thread of the server's."""
    text = ENDS_THREAD + source("ends")
    text = text.replace('server.get("/ends", self.get)', 'server.get("/ends/{name}", self.get)')
    return text.replace("def get(self):", "def get(self, name):").replace(
        '"says": "one"', '"says": end(name)'
    )


@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    ["benana-recorder", "benana-reconciler", "benana-listener", "benana-cleanup", "benana-loader"],
)
def test_a_worker_whose_own_thread_has_ended_is_replaced_and_no_request_fails(
    make_server: MakeServer, name: str
) -> None:
    server = make_server().start()
    server.write("ends", ending_threads())
    server.wait_everywhere("/ends/nobody", lambda answer: answer.status == 200)
    before = server.workers()
    pid = server.get(f"/ends/{name}").json["pid"]
    for number in range(3):  # what the thread waits for
        server.write("whoami", source("whoami", f"edit {number}"))
        server.wait_everywhere("/plugins", lambda answer: answer.status == 200)
    wait_until(lambda: pid not in server.workers(), f"it is replaced\n{server.log()}", 40.0)
    wait_until(lambda: len(server.workers()) == 2, "another is there")
    assert f"of this worker's own threads {name} ended; it takes no more" in server.log()
    assert len(server.workers() & before) == 1
    server.wait_says("whoami", "edit 2", 10.0)


@pytest.mark.soak
def test_a_database_that_is_away_replaces_nobody(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(database=False)
    server.start()
    before = server.workers()
    supervised = (server.home / "var/postgres/postmaster.pid").read_text().split()[0]
    for _ in range(3):
        os.kill(int(supervised), signal.SIGKILL)
        server.wait_everywhere("/whoami", lambda answer: answer.status == 200)
        supervised = wait_until(
            lambda old=supervised: _other_postmaster(server, old), "PostgreSQL is back", 30.0
        )
    server.write("late", source("late"))
    server.wait_says("late", "one", 20.0)
    assert server.workers() == before
    assert "own threads" not in server.log()


def _other_postmaster(server: Server, old: str) -> str | None:
    try:
        pid = (server.home / "var/postgres/postmaster.pid").read_text().split()[0]
    except (OSError, IndexError):
        return None
    return pid if pid != old else None
