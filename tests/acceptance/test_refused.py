"""What cannot be served is refused, said clearly, and never takes the old version down."""

import shutil
import time
from typing import Any

import psutil
import pytest

from tests.support.plugins import source
from tests.support.server import Server, ask
from tests.support.waiting import wait_until

ENDLESS = 8.0  # seconds: 5 for the trial, the rest for a busy machine

HOSTILE = {
    "sleeps": ("import time\ntime.sleep(60)\n", "import", "did not return within 5 s", 2),
    "exits": ("import sys\n\nsys.exit()\n", "import", "sys.exit()", 3),
    "os_exits": ("import os\nos._exit(0)\n", "import", "exit code 0", None),
    "segfaults": ("import ctypes\n\nctypes.string_at(0)\n", "import", "SIGSEGV", 3),
    "hoards": ("\nHOARD = bytearray(4 * 1024**3)\n", "import", "MemoryError", 2),
    "kills": ("import os\nos.kill(os.getpid(), 9)\n", "import", "SIGKILL", None),
}


def error_of(server: Server, name: str) -> dict[str, Any]:
    """Wait for a plugin's error and return it."""

    def look() -> Any:
        answer = server.get(f"/plugins/{name}")
        return answer.json.get("error")

    return wait_until(look, f"{name} has an error", ENDLESS)


@pytest.mark.parametrize(
    "name",
    # Each import that never ends takes the trial's 5 s; tests/unit/test_trial.py has quicker ones.
    [pytest.param("sleeps", marks=pytest.mark.soak), *sorted(HOSTILE.keys() - {"sleeps"})],
)
def test_a_hostile_import_is_refused_and_the_workers_live_on(server: Server, name: str) -> None:
    code, phase, message, line = HOSTILE[name]
    workers = server.workers()
    server.write(name, source(name, "good"))
    server.wait_says(name, "good")
    server.write(name, code + source(name, "bad"))
    error = error_of(server, name)
    assert error["phase"] == phase
    assert message in error["message"]
    if line is not None:
        assert (error["file"], error["line"]) == ("main.py", line)
    server.wait_says(name, "good")
    assert server.workers() == workers
    server.write(name, source(name, "better"))
    server.wait_says(name, "better")
    assert server.plugin(name)["error"] is None


@pytest.mark.soak
def test_an_import_that_loops_holds_up_nobody(server: Server) -> None:
    server.write("stuck", source("stuck", "good"))
    server.wait_says("stuck", "good")
    server.write("stuck", "while True:\n    pass\n")
    server.write("swift", source("swift", "one"))
    assert server.wait_says("swift", "one") < 2.0
    assert "did not return within 5 s" in error_of(server, "stuck")["message"]
    server.wait_says("stuck", "good")


@pytest.mark.soak
def test_a_large_table_is_compiled_and_holds_up_nobody(server: Server) -> None:
    rows = "".join(f'    ("key{n}", {n}, "value {n}", {n}.5),\n' for n in range(60_000))
    server.write("sized", source("sized", "small"))
    server.wait_says("sized", "small")
    (server.plugins / "sized" / "table.py").write_text(f"TABLE = [\n{rows}]\n")
    server.write("sized", "from .table import TABLE\n" + source("sized", "large"))
    waits = []
    with server.each_worker() as connections:
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            for connection in connections.values():
                began = time.monotonic()
                assert ask(connection, "GET", "/whoami").status == 200
                waits.append(time.monotonic() - began)
            if server.get("/sized").says == "large":
                break
    server.wait_says("sized", "large")
    assert max(waits) < 1.5, "compiling it takes longer, and holds the GIL"


@pytest.mark.soak
def test_eight_folders_that_hang_hold_up_nobody(server: Server) -> None:
    server.write("honest", source("honest", "zero"))
    server.wait_says("honest", "zero")
    for number in range(8):
        server.write(f"hangs{number}", "import time\ntime.sleep(60)\n")
    server.write("honest", source("honest", "one"))
    server.wait_says("honest", "one")  # once the first ones have given up their places
    for number in range(8):
        wait_until(lambda: f"hangs{number}: import failed" in server.log(), "it is refused", 30.0)
    for number in range(8):
        server.write(f"hangs{number}", "import time\n\ntime.sleep(60)\n")
    for says in ("two", "three", "four"):
        server.write("honest", source("honest", says))
        assert server.wait_says("honest", says) < 4.0, "before the first of them has failed"
    for number in range(8):
        shutil.rmtree(server.plugins / f"hangs{number}")


@pytest.mark.soak
def test_a_folder_of_many_files_holds_up_nobody(server: Server) -> None:
    server.write("honest", source("honest", "before"))
    server.wait_says("honest", "before")
    data = server.write("huge", source("huge")).parent / "data"
    data.mkdir()
    for number in range(20_000):
        (data / f"f{number}").touch()
    server.write("honest", source("honest", "after"))
    assert server.wait_says("honest", "after", 30.0) < 10.0, "the system's events come in turn"
    wait_until(lambda: "huge: discover failed: the folder holds more than" in server.log())

    def spent() -> float:
        times = [psutil.Process(pid).cpu_times() for pid in server.workers()]
        return sum(found.user + found.system for found in times)

    def rests() -> bool:
        before = spent()
        time.sleep(6.0)  # longer than from one scan to the next
        return spent() - before < 1.0

    wait_until(rests, "nothing walks it", 60.0)
    server.write("honest", source("honest", "later"))
    assert server.wait_says("honest", "later") < 1.5
    shutil.rmtree(server.plugins / "huge")


GOOD = source("broken", "good")
BROKEN = {
    "a syntax error": (GOOD + "def f(:\n", "compile", "syntax", "main.py", 26),
    "missing methods": (
        GOOD.replace("def cleanup", "def clean").replace("def initialize", "def init"),
        "contract",
        "missing initialize(context), cleanup(context)",
        "main.py",
        7,
    ),
    "a wrong signature": (
        GOOD.replace("def register_routes(self, server)", "def register_routes(self)"),
        "contract",
        "the signature is register_routes(), expected register_routes(server)",
        "main.py",
        7,
    ),
    "another name": (
        GOOD.replace('name="broken"', 'name="other"'),
        "get_metadata",
        "name is 'other', expected 'broken'",
        "main.py",
        11,
    ),
    "no factory": (
        GOOD.replace("def new_plugin", "def newplugin"),
        "factory",
        "expected a function new_plugin()",
        "main.py",
        None,
    ),
    "a factory that raises": (
        GOOD.replace("return Plugin()", "return 1 / 0"),
        "factory",
        "ZeroDivisionError: division by zero",
        "main.py",
        25,
    ),
    "an initialize that raises": (
        GOOD.replace("        pass\n", "        raise RuntimeError('no')\n", 1),
        "initialize",
        "RuntimeError: no",
        "main.py",
        9,
    ),
    "a register_routes that raises half-way": (
        GOOD.replace('"/broken", self.get)', '"/broken", self.get); [][0]'),
        "register_routes",
        "IndexError",
        "main.py",
        15,
    ),
    "a conflicting route": (
        GOOD.replace('"/broken", self.get)', '"/whoami", self.get)'),
        "register_routes",
        "the route /whoami of the plugin 'broken' is owned by the plugin 'whoami'",
        "main.py",
        15,
    ),
    "a route of the server's": (
        GOOD.replace('"/broken", self.get)', '"/plugins/mine", self.get)'),
        "register_routes",
        "is owned by the server",
        "main.py",
        15,
    ),
    "a handler that does not fit": (
        GOOD.replace("def get(self)", "def get(self, missing)"),
        "register_routes",
        "parameter 'missing' is not filled by anything",
        "main.py",
        15,
    ),
    "an import of what is not there": (
        "import no_such_module\n" + GOOD,
        "import",
        "No module named 'no_such_module'",
        "main.py",
        1,
    ),
    "text that is not UTF-8": (GOOD + "# \udcff\n", "compile", "not UTF-8 text", "main.py", 26),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_edit_keeps_the_old_version(server: Server, fault: str) -> None:
    text, phase, message, file, line = BROKEN[fault]
    path = server.write("broken", GOOD)
    server.wait_says("broken", "good")
    wait_until(lambda: server.plugin("broken")["error"] is None, "no error yet")
    logged = len(server.log())
    path.write_bytes(text.encode(errors="surrogateescape"))
    error = error_of(server, "broken")
    assert (error["phase"], error["file"], error["line"]) == (phase, file, line)
    assert message in error["message"]

    def lines() -> list[str]:
        return [entry for entry in server.log()[logged:].splitlines() if "broken" in entry]

    wait_until(lines, "it is logged")
    server.wait_says("broken", "good")
    assert len(lines()) == 1, lines()
    assert f"broken: {phase} failed" in lines()[0]
    assert "Traceback" not in str(server.get("/plugins/broken").json)
    # The same source again is no fault any more, and is served already.
    path.write_text(GOOD)
    wait_until(lambda: server.plugin("broken")["error"] is None, "the error is cleared")


def test_a_reload_of_a_broken_plugin_says_422_and_serves_on(server: Server) -> None:
    server.write("unloadable", source("unloadable", "good"))
    server.wait_says("unloadable", "good")
    server.write("unloadable", "def f(:\n")
    error_of(server, "unloadable")
    answer = server.post("/plugins/unloadable/reload")
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["error"] == {
        "phase": "compile",
        "message": "invalid syntax",
        "file": "main.py",
        "line": 1,
    }
    server.wait_says("unloadable", "good")


def test_a_plugin_that_never_was_valid_is_not_registered(server: Server) -> None:
    server.write("never", "import sys, os\nx = (\n")
    answer = wait_until(
        lambda: (
            (found := server.get("/plugins/never")).status == 404
            and "error" in found.json
            and found
        )
    )
    assert answer.json["error"]["phase"] == "compile"
    assert answer.json["error"]["file"] == "main.py"
    failures = {found["name"]: found for found in server.get("/plugins?status=failed").json}
    assert failures["never"]["error"] == answer.json["error"]
    assert server.sql("SELECT 1 FROM plugins WHERE name = 'never'") == []
    assert "never" not in {found["name"] for found in server.get("/plugins").json}
    server.write("never", source("never", "at last"))
    server.wait_says("never", "at last")
    assert server.get("/plugins?status=failed").json == [] or "never" not in str(
        server.get("/plugins?status=failed").json
    )


def test_several_syntax_errors_are_named_at_once(server: Server) -> None:
    server.write("faulty", "x = (\n", "a.py")
    server.write("faulty", "def f(:\n", "b.py")
    server.write("faulty", source("faulty"))
    message = wait_until(
        lambda: "a.py" in (text := str(server.get("/plugins/faulty").json)) and text
    )
    assert "a.py:1" in message
    assert "b.py:1" in message


@pytest.mark.parametrize(
    ("folder", "files", "message"),
    [
        ("Upper", {"main.py": source("x")}, "the folder's name is 'Upper'"),
        ("with-dash", {"main.py": source("x")}, "the folder's name is 'with-dash'"),
        ("a" * 64, {"main.py": source("x")}, "expected 1 to 63"),
        ("empty", {"notes.txt": "nothing"}, "expected main.py or plugin.py"),
        ("binary_yaml", {"main.py": source("x"), "plugin.yaml": b"\x00\xff\xfe"}, "UTF-8"),
        ("big_yaml", {"main.py": "", "plugin.yaml": "a: " + "b" * 70_000}, "65,536 at most"),
        (
            "bomb_yaml",
            {"main.py": "", "plugin.yaml": "a: &a [1]\nb: &b [*a, *a]\n"},
            "anchor or alias",
        ),
        ("twice_yaml", {"main.py": "", "plugin.yaml": "version: 1\nversion: 2\n"}, "stands twice"),
        (
            "keys_yaml",
            {"main.py": "", "plugin.yaml": "colour: red\nsize: 3\nenabled: maybe\n"},
            "unknown key 'colour', expected one of",
        ),
        ("types_yaml", {"main.py": "", "plugin.yaml": "config: [1]\n"}, "expected a mapping"),
        ("name_yaml", {"main.py": "", "plugin.yaml": "name: other\n"}, "name is 'other'"),
        ("needy", {"main.py": "", "requirements.txt": "no-such-package>=2\n"}, "pip install -r"),
    ],
)
def test_bad_input_gets_one_clear_error(
    server: Server, folder: str, files: dict[str, Any], message: str
) -> None:
    path = server.plugins / folder
    path.mkdir()
    for file, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (path / file).write_bytes(raw)

    def look() -> Any:
        found = {f["name"]: f for f in server.get("/plugins?status=failed").json}
        return folder in found and message in str(found[folder]) and found[folder]

    assert wait_until(look, f"{folder} has failed with {message}")["status"] == "failed"
    assert server.sql("SELECT 1 FROM plugins WHERE name = %s", folder) == []


def test_symlinks_that_leave_the_root_are_refused(server: Server) -> None:
    outside = server.home / "outside"
    outside.mkdir()
    (outside / "main.py").write_text(source("linked"))
    (server.plugins / "linked").symlink_to(outside)
    server.write("linking", source("linking"))
    (server.plugins / "linking" / "secret.txt").symlink_to("/etc/passwd")

    def look() -> bool:
        found = {f["name"]: str(f["error"]) for f in server.get("/plugins?status=failed").json}
        return (
            "leads out of" in found.get("linked", "") and "secret.txt" in found.get("linking", "")
        ) or (server.plugin("linking") or {}).get("error") is not None

    wait_until(look, "both are refused")
    versions = server.sql("SELECT archive FROM plugin_versions WHERE plugin_name = 'linking'")
    assert all(b"root:" not in bytes(archive) for (archive,) in versions)


@pytest.mark.soak
def test_what_a_trigger_refuses_is_said_once_and_follows_when_it_is_gone(server: Server) -> None:
    """It was retried each second without a word, and the admin API said the database was away."""
    server.write("frozen", source("frozen", "before"))
    server.wait_says("frozen", "before")
    server.sql(
        "CREATE FUNCTION no_edits() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'frozen until Monday'; END $$;"
        " CREATE TRIGGER mine BEFORE UPDATE OF binary_path ON plugins FOR EACH ROW"
        " WHEN (OLD.name = 'frozen') EXECUTE FUNCTION no_edits()"
    )
    server.write("frozen", source("frozen", "after"))
    error = error_of(server, "frozen")
    assert error["phase"] == "save"
    for part in ("frozen until Monday", "SQLSTATE P0001", "no_edits() line 1 at RAISE"):
        assert part in error["message"]
    answer = server.post("/plugins/frozen/reload")
    assert (answer.status, answer.json["sqlstate"]) == (409, "P0001")
    server.wait_says("frozen", "before")
    # The one line of the refusal; that this host is degraded by it is another, after 2 s.
    said = [line for line in server.log().splitlines() if "frozen until Monday" in line]
    assert sum("it is tried again" in line for line in said) == 1
    assert len(said) <= 2
    server.write("swift", source("swift", "beside it"))
    server.wait_says("swift", "beside it")
    server.sql("DROP FUNCTION no_edits CASCADE")
    server.wait_says("frozen", "after", 20.0)  # the waits between two tries have risen
    wait_until(lambda: server.plugin("frozen")["error"] is None)
