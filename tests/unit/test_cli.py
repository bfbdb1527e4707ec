"""What a person at a terminal sees of the `benana` command."""

import importlib.metadata
import json
import os
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

import app.cli.commands
from app.cli.commands import main
from app.cli.target import address_of
from app.postgres import server as embedded
from app.testing import load_plugin
from tests.support.fake_admin_api import Api, Silence, plugin

NAMES = ["shop", "a", "none", "plugin", "my_plugin", "plugin_context", "a__b_", "x" + "9" * 62]


class Replaced(Exception):
    """Stands for the end of this process: `os.execve` was called."""

    def __init__(self, program: object, arguments: list[str], environ: dict[str, str]) -> None:
        super().__init__(str(program), arguments)
        self.program = str(program)
        self.arguments = arguments
        self.environ = environ


@pytest.fixture
def executed(monkeypatch):
    """Raise what the process would be replaced with."""

    def execve(program: object, arguments: list[str], environ: dict[str, str]) -> None:
        raise Replaced(program, arguments, environ)

    monkeypatch.setattr(os, "execve", execve)


@pytest.fixture
def api(monkeypatch):
    found = Api()
    with found.serve(socketserver.TCPServer, ("127.0.0.1", 0)) as (_, port):
        monkeypatch.setenv("BENANA_BIND", f"127.0.0.1:{port}")
        yield found


def fault(message: str, **more: object) -> dict[str, object]:
    return {"phase": "compile", "message": message, "file": "main.py", "line": 3, **more}


def write(folder: Path, source: str, **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(source)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


GOOD = """
from app.plugin import PluginInterface, PluginMetadata

class Good(PluginInterface):
    def initialize(self, context): pass
    def get_metadata(self): return PluginMetadata("good", "3.1")
    def register_routes(self, server):
        server.get("/good", self.show)
        server.delete("/good/{number:int}", self.drop)
    def cleanup(self, context): pass
    def show(self): return {}
    def drop(self, number): return None

def new_plugin(): return Good()
"""


# --- help -----------------------------------------------------------------------------------


def test_alone_it_shows_every_command_in_the_order_of_use(run):
    result = run()
    assert result.exit_code == 0
    places = [
        result.stdout.index(f"\n  {name} ")
        for name in ("serve", "new", "check", "list", "reload", "toggle", "openapi", "psql")
    ]
    assert places == sorted(places)
    assert "BENANA_BIND" in result.stdout
    assert run("--help").stdout == result.stdout


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {command}")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_it_says_its_version(run):
    assert run("--version").stdout == f"benana {importlib.metadata.version('benana')}\n"


def test_an_unknown_command_is_a_usage_error(run):
    assert run("nonsense").exit_code == 2


def test_help_imports_neither_the_rooms_nor_http():
    program = (
        "import sys, app.cli.commands; "
        "print([m for m in sys.modules if m.split('.')[0] in ('falcon', 'psycopg2', 'yaml', 'http')"
        " or m.startswith(('app.s', 'app.d', 'app.p', 'app.l', 'app.r')) and m != 'app.settings'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize("command", [("list",), ("new", "shop"), ("psql",), ("reload", "shop")])
def test_a_setting_that_cannot_be_used_is_one_sentence(run, command):
    result = run(*command, BENANA_BIND="nowhere")
    assert result.exit_code == 2
    assert result.stderr == "BENANA_BIND is 'nowhere'; expected host:port or unix:path.\n"
    assert result.stdout == ""


# --- serve ----------------------------------------------------------------------------------


OURS = "app.wsgi:configured()"
SHIPPED = str(Path(app.cli.__file__).parents[2] / "gunicorn.conf.py")


def gunicorn_call(run, *arguments: str, **environ: str) -> list[str]:
    """Return the arguments of the gunicorn that `benana serve` becomes."""
    with pytest.raises(Replaced) as caught:
        run("serve", *arguments, **environ)
    program = str(Path(sys.executable).with_name("gunicorn"))
    assert caught.value.program == caught.value.arguments[0] == program
    return caught.value.arguments[1:]


def test_serve_becomes_gunicorn_with_the_configuration_that_comes_along(run, executed):
    assert gunicorn_call(run) == ["-c", SHIPPED, OURS]


def test_serve_uses_the_configuration_of_the_current_folder(run, executed, tmp_path):
    (tmp_path / "gunicorn.conf.py").touch()
    config = str(tmp_path / "gunicorn.conf.py")
    assert gunicorn_call(run, "--reload", "-w", "3") == ["-c", config, "--reload", "-w", "3", OURS]


@pytest.mark.parametrize("arguments", [("--workers", "4"), ("--", "--workers", "4")])
def test_serve_hands_options_on(run, executed, arguments):
    assert gunicorn_call(run, *arguments) == ["-c", SHIPPED, "--workers", "4", OURS]


@pytest.mark.parametrize("named", ["-c=mine.py", "--config=mine.py"])
def test_serve_uses_a_configuration_that_is_named(run, executed, tmp_path, named):
    (tmp_path / "gunicorn.conf.py").touch()
    option = named.split("=") if named.startswith("-c") else [named]
    assert gunicorn_call(run, *option) == [*option, OURS]
    assert gunicorn_call(run, GUNICORN_CMD_ARGS=" ".join(option)) == [OURS]


def test_serve_leaves_an_application_that_is_named_as_it_is(run, executed):
    assert gunicorn_call(run, "mine:wrapped", "-w", "3") == [
        *("-c", SHIPPED),
        *("mine:wrapped", "-w", "3"),
    ]


@pytest.mark.parametrize("option", ["--no-such-option", "--workers=many"])
def test_serve_refuses_what_gunicorn_does_not_know_in_gunicorns_words(run, executed, option):
    result = run("serve", option)
    assert result.exit_code == 2
    assert "benana serve: error: " in result.stderr


def test_serve_refuses_a_folder_whose_package_hides_benanas(run, executed, tmp_path):
    (tmp_path / "app").mkdir()
    assert gunicorn_call(run), "a folder that is no package hides nothing"
    (tmp_path / "app" / "__init__.py").touch()
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"{tmp_path / 'app' / '__init__.py'} would be imported instead of Benana's own package"
    )


def test_serve_runs_in_a_checkout(run, executed, monkeypatch):
    monkeypatch.chdir(Path(SHIPPED).parent)
    assert gunicorn_call(run) == ["-c", SHIPPED, OURS]


# --- new ------------------------------------------------------------------------------------


def test_new_plugins_of_all_names_pass_their_check(run, tmp_path):
    for name in NAMES:
        assert run("new", name).exit_code == 0
    result = run("check", *(str(tmp_path / "plugins" / name) for name in NAMES))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", NAMES)
def test_a_new_plugin_answers(run, tmp_path, name):
    assert run("new", name).exit_code == 0
    folder = tmp_path / "plugins" / name
    with load_plugin(folder) as loaded:
        assert loaded.client.get(f"/{name}").json == {"message": f"Hello from {name}!"}
        assert loaded.client.post_json(f"/{name}", {"a": 1}).json == {"received": {"a": 1}}
    with load_plugin(folder, config={"greeting": "Ahoy"}) as loaded:
        assert loaded.client.get(f"/{name}").json == {"message": f"Ahoy from {name}!"}


def test_new_typed_plugins_of_all_names_answer_as_their_documents_say(run, tmp_path):
    for name in NAMES:
        assert run("new", "--typed", name).exit_code == 0
        with load_plugin(tmp_path / "plugins" / name) as loaded:
            client = loaded.checked_client
            assert client.get(f"/{name}").json == {"message": f"Hello from {name}!"}
            assert client.post_json(f"/{name}", {"fruit": "banana"}, status=201).json == {
                "order": {"fruit": "banana", "count": 1},
                "total": 0.25,
            }
            client.post_json(f"/{name}", {"fruit": "", "more": 1}, status=422)
            client.get(f"/{name}?times=10", status=422)
            assert {"Greeting", "Order", "Receipt"} <= loaded.document["components"][
                "schemas"
            ].keys()


def test_a_new_plugin_takes_no_calls_of_other_sites_pages(run, tmp_path):
    run("new", "shop")
    with load_plugin(tmp_path / "plugins" / "shop") as loaded:
        foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        loaded.client.post("/shop", "{}", headers=foreign, status=403)
        own = {"Origin": "http://localhost:80", "Host": "localhost:80"}
        loaded.client.post("/shop", "{}", headers=own, status=200)


def test_new_says_what_to_call(run, tmp_path):
    result = run("new", "shop", BENANA_BIND="0.0.0.0:8000")
    assert str(tmp_path / "plugins" / "shop") in result.stdout
    assert "curl http://127.0.0.1:8000/shop\n" in result.stdout


def test_new_says_that_no_server_runs(run, nowhere):
    result = run("new", "shop", BENANA_BIND=nowhere)
    assert "No server runs; start it with `benana serve`" in result.stdout
    assert "serves it" not in result.stdout


def test_new_says_that_the_server_serves_it(run, api, tmp_path):
    source = str(tmp_path / "plugins" / "shop")
    api.answers["GET /plugins/shop"] = (200, {"name": "shop", "source_path": source})
    assert f"The server at {os.environ['BENANA_BIND']} serves it:" in run("new", "shop").stdout


def test_new_says_that_the_server_watches_another_folder(run, api, monkeypatch):
    monkeypatch.setattr(app.cli.commands, "NEW_SECONDS", 0.2)
    api.answers["GET /plugins/shop"] = (404, {"title": "Not found", "detail": "There is none."})
    result = run("new", "shop")
    assert result.exit_code == 0
    assert "has not registered it yet. Does it watch" in result.stdout
    assert len(api.asked) > 1, "a server needs a moment"
    api.answers["GET /plugins/till"] = (200, {"name": "till", "source_path": "/srv/till"})
    assert "one of this name already, of /srv/till" in run("new", "till").stdout


def test_new_says_what_else_answers(run, api):
    api.answers["GET /plugins/shop"] = (200, b"<html>")
    result = run("new", "shop")
    assert (result.exit_code, "is no Benana" in result.stdout) == (0, True)
    api.answers["GET /plugins/till"] = (401, {"title": "Unauthorized", "detail": "Token, please."})
    assert "Token, please." in run("new", "till").stdout


def test_new_knows_unix_sockets(run):
    result = run("new", "shop", BENANA_BIND="unix:/run/benana.sock")
    assert "curl --unix-socket /run/benana.sock http://localhost/shop\n" in result.stdout


def test_new_leaves_nothing_but_the_folder(run, tmp_path):
    run("new", "shop")
    assert [path.name for path in (tmp_path / "plugins").iterdir()] == ["shop"]
    names = sorted(path.name for path in (tmp_path / "plugins" / "shop").iterdir())
    assert names == ["main.py", "plugin.yaml"]


def test_a_watcher_sees_the_new_folder_whole(run, tmp_path, monkeypatch):
    renamed: list[tuple[str, list[str]]] = []
    rename = Path.rename

    def note(self: Path, target: Path) -> Path:
        renamed.append((self.name, sorted(path.name for path in self.iterdir())))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", note)
    run("new", "shop")
    [(draft, files)] = renamed
    assert draft.startswith(".")
    assert files == ["main.py", "plugin.yaml"]


@pytest.mark.parametrize("name", ["Shop", "1st", "a-b", "../x", "", "a" * 64, "é", "a\n"])
def test_new_refuses_what_cannot_name_a_plugin(run, tmp_path, name):
    result = run("new", "--", name)
    assert result.exit_code == 1
    assert "expected 1 to 63 of a-z" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plugins", "health", "ui"])
def test_new_refuses_the_servers_own_routes(run, name):
    result = run("new", name)
    assert result.exit_code == 1
    assert f"/{name} is the server's own" in result.stderr


def test_new_never_overwrites(run, tmp_path):
    folder = write(tmp_path / "plugins" / "shop", "precious")
    (tmp_path / "plugins" / "empty").mkdir()
    (tmp_path / "plugins" / "link").symlink_to("nowhere")
    for name in ("shop", "empty", "link"):
        result = run("new", name)
        assert result.exit_code == 1
        assert "is there already" in result.stderr
    assert (folder / "main.py").read_text() == "precious"
    assert list((tmp_path / "plugins" / "empty").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "plugins").iterdir()) == [
        "empty",
        "link",
        "shop",
    ]


def test_new_where_nothing_can_be_written_is_one_sentence(run, tmp_path):
    (tmp_path / "plugins").write_text("a file")
    result = run("new", "shop")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


# --- check ----------------------------------------------------------------------------------


def test_check_shows_version_and_endpoints(run, tmp_path):
    result = run("check", str(write(tmp_path / "good", GOOD)))
    assert result.exit_code == 0
    assert result.stdout == (
        "good  ok  version 3.1\n"
        "  GET     /good               Good.show\n"
        "  DELETE  /good/{number:int}  Good.drop\n"
    )


def test_check_takes_the_current_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "good", GOOD))
    assert run("check", ".").stdout.startswith("good  ok")


def test_check_shows_a_plugin_without_routes(run, tmp_path):
    lines = [line for line in GOOD.splitlines() if "server." not in line]
    source = "\n".join(lines).replace("(self, server):", "(self, server): pass")
    result = run("check", str(write(tmp_path / "good", source)))
    assert result.exit_code == 0
    assert "no routes" in result.stdout


FAULTS = [
    (GOOD, "verison: 1\n", "discover plugin.yaml:1: plugin.yaml: unknown key 'verison'"),
    ("def f(:\n", "", "compile main.py:1: invalid syntax"),
    ("\nimport nothing_like_it\n", "", "import main.py:2: ModuleNotFoundError"),
    ("x = 1\n", "", "factory main.py: "),
    (GOOD.replace('"good"', '"other"'), "", "get_metadata main.py:6: name is 'other'"),
    (GOOD.replace("context): pass", "context): 1/0", 1), "", "initialize main.py:5: ZeroDiv"),
    (GOOD.replace('"/good"', '"good"'), "", "register_routes main.py:8: the template"),
    (GOOD.replace('"/good"', '"/ui"'), "", "register_routes main.py:8: the route /ui"),
    (GOOD.replace("context): pass", "context): exit(3)"), "", "initialize main.py:5: it called"),
]


def test_check_names_phase_place_and_message(run, tmp_path):
    folders = [
        write(tmp_path / str(number) / "good", source, plugin_yaml=manifest)
        for number, (source, manifest, _) in enumerate(FAULTS)
    ]
    result = run("check", *map(str, folders))
    assert result.exit_code == 1
    said = result.stdout.split("\n\n")
    for part, (_, _, line) in zip(said, FAULTS, strict=True):
        assert part.startswith(f"good  failed\n  {line}")


def test_check_names_every_fault_at_once(run, tmp_path):
    source = GOOD.replace("def cleanup", "def clean").replace("def initialize", "def init")
    result = run("check", str(write(tmp_path / "good", source)))
    assert "missing initialize(context), cleanup(context)" in result.stdout


def test_check_goes_on_after_a_fault(run, tmp_path):
    folders = [write(tmp_path / "bad", "def f(:\n"), write(tmp_path / "good", GOOD)]
    result = run("check", *map(str, folders))
    assert result.exit_code == 1
    assert "bad  failed" in result.stdout
    assert "\n\ngood  ok" in result.stdout


def test_check_shows_a_fault_as_one_line_that_cannot_steer_the_terminal(run, tmp_path):
    source = 'raise ValueError("red\\x1b[31m\\nsecond")\n'
    result = run("check", str(write(tmp_path / "good", source)))
    assert "ValueError: red?[31m second\n" in result.stdout


@pytest.mark.parametrize(("source", "exit_code"), [(GOOD, 0), ("def f(:", 1)])
def test_check_lists_what_it_left_out_and_why(run, tmp_path, source, exit_code):
    folder = write(tmp_path / "good", source, plugin_yaml="ignore: [notes/]\n")
    (folder / "notes").mkdir()
    (folder / "main (conflicted copy).py").write_text("def f(:")
    result = run("check", str(folder))
    assert result.exit_code == exit_code
    assert result.stdout.endswith(
        "  left out:\n"
        "    main (conflicted copy).py  by * (*conflict*)*\n"
        "    notes/                     by notes/\n"
    )


def test_check_says_which_file_it_did_not_compile(run, tmp_path):
    folder = write(tmp_path / "good", GOOD)
    (folder / "main-DESKTOP-7A.py").write_text("\ndef f(:")
    result = run("check", str(folder))
    assert result.exit_code == 0
    assert "not compiled, since no import can name it: main-DESKTOP-7A.py:2: " in result.stdout


def test_check_says_what_a_plugin_that_needs_the_database_misses(run, tmp_path):
    source = GOOD.replace("context): pass", "context): context.database().__enter__()", 1)
    result = run("check", str(write(tmp_path / "good", source)))
    assert result.exit_code == 1
    assert "initialize failed" in result.stdout
    assert "set DATABASE_URL" in result.stdout


def test_check_gives_the_trial_the_database_of_the_environment(run, tmp_path, nowhere):
    source = GOOD.replace("context): pass", "context): context.database().__enter__()", 1)
    url = f"postgresql://nobody@{nowhere}/none"
    result = run("check", str(write(tmp_path / "good", source)), DATABASE_URL=url)
    assert result.exit_code == 1
    assert "the database is away" in result.stdout


def test_check_refuses_a_database_url_that_cannot_be_read(run, tmp_path):
    result = run("check", str(write(tmp_path / "good", GOOD)), DATABASE_URL="nonsense")
    assert result.exit_code == 2
    assert result.stderr.startswith("DATABASE_URL cannot be read")


def test_check_of_a_path_that_is_no_folder_is_a_usage_error(run, tmp_path):
    folder = write(tmp_path / "good", GOOD)
    for path in (tmp_path / "missing", folder / "main.py"):
        assert run("check", str(path)).exit_code == 2
    assert run("check").exit_code == 2


# --- list -----------------------------------------------------------------------------------


def test_list_is_an_aligned_table(run, api):
    api.answers["GET /plugins"] = (
        200,
        [plugin("hello"), plugin("powertable", status="inactive", generation=12, version="0.1")],
    )
    result = run("list")
    assert result.exit_code == 0
    assert result.stdout == (
        "NAME        STATUS    VERSION  GENERATION  ROUTES\n"
        "hello       active    1.0.0             1       1\n"
        "powertable  inactive  0.1              12       1\n"
    )


def test_list_shows_errors_and_below_the_table_the_failures(run, api):
    api.answers["GET /plugins"] = (200, [plugin("hello", error=fault("bad\n  thing"))])
    api.answers["GET /plugins?status=failed"] = (
        200,
        [
            {"name": "one", "status": "failed", "error": fault("worse")},
            {"name": "two", "status": "failed", "error": fault("gone", file=None, line=None)},
        ],
    )
    assert run("list").stdout == (
        "NAME   STATUS  VERSION  GENERATION  ROUTES  ERROR\n"
        "hello  active  1.0.0             1       1  compile main.py:3: bad thing\n"
        "\n"
        "one  failed\n"
        "  compile main.py:3: worse\n"
        "\n"
        "two  failed\n"
        "  compile: gone\n"
    )


def said_by(host, *reasons):
    shown = [{"plugin": p, "what": what, "since": since} for p, what, since in reasons]
    return {"host": host, "pid": 1, "reasons": shown}


def test_list_shows_below_the_table_what_is_not_as_it_should_be(run, api):
    broken = ("hello", "generation 3 cannot\nbe loaded", "2026-07-28T12:00:05.1+00:00")
    earlier = ("hello", "generation 3 cannot\nbe loaded", "2026-07-28T12:00:01.9+00:00")
    full = (None, "the disk is full", "2026-07-28T12:00:03+00:00")
    api.answers["GET /plugins"] = (200, [plugin("hello")])
    api.answers["GET /workers"] = (
        200,
        [said_by("a", broken), said_by("a", earlier, full), said_by("b", full), said_by("b")],
    )
    assert run("list").stdout == (
        "NAME   STATUS  VERSION  GENERATION  ROUTES\n"
        "hello  active  1.0.0             1       1\n"
        "\n"
        "degraded  hello: generation 3 cannot be loaded"
        " (2 of 2 workers of a, since 2026-07-28 12:00:01 UTC)\n"
        "degraded  the disk is full (1 of 2 workers of a, since 2026-07-28 12:00:03 UTC)\n"
        "degraded  the disk is full (1 of 2 workers of b, since 2026-07-28 12:00:03 UTC)\n"
    )


def test_list_calls_what_touches_nothing_that_is_served_a_note(run, api):
    left = {"plugin": "hello", "what": "1 thread", "since": "2026-07-28T12:00:03+00:00"}
    api.answers["GET /plugins"] = (200, [plugin("hello")])
    worker = {"host": "a", "pid": 1, "reasons": [{**left, "degrades": False}]}
    api.answers["GET /workers"] = (200, [worker])
    said = run("list").stdout
    assert "note  hello: 1 thread (1 of 1 workers of a, since 2026-07-28 12:00:03 UTC)" in said
    assert "degraded" not in said


def test_workers_of_an_older_server_have_no_reasons(run, api):
    api.answers["GET /plugins"] = (200, [plugin("hello")])
    api.answers["GET /workers"] = (200, [{"host": "a"}, {"host": "a", "reasons": None}])
    assert "degraded" not in run("list").stdout


def test_list_without_plugins_says_how_to_begin(run, api):
    """Folders may be there all the same, whose rows were deleted."""
    assert run("list").stdout == (
        "No plugin is registered. Write one with `benana new NAME`. A folder that is there already "
        "is\nregistered when it changes, at the server's next start, or by `benana reload NAME`.\n"
    )


def test_list_with_failures_alone_shows_them(run, api):
    failures = [plugin(name, status="failed", error=fault("worse")) for name in ("one", "two")]
    api.answers["GET /plugins?status=failed"] = (200, failures)
    fault_line = "  compile main.py:3: worse\n"
    assert run("list").stdout == f"one  failed\n{fault_line}\ntwo  failed\n{fault_line}"


def test_list_as_json_is_what_the_api_answers(run, api):
    failure = {"name": "one", "status": "failed", "error": fault("worse")}
    api.answers["GET /plugins"] = (200, [plugin("hello", author="É")])
    api.answers["GET /plugins?status=failed"] = (200, [failure])
    result = run("list", "--json")
    assert json.loads(result.stdout) == [plugin("hello", author="É"), failure]
    assert "É" in result.stdout


def test_colours_are_for_a_terminal_alone(run, api):
    api.answers["GET /plugins"] = (200, [plugin("hello")])
    green = click.style("active", fg="green")
    assert green in run("list", color=True).stdout
    assert "\x1b" not in run("list").stdout
    assert "\x1b" not in run("list", color=True, NO_COLOR="1").stdout


def test_on_a_terminal_a_long_error_is_cut_where_the_line_ends(run, api):
    api.answers["GET /plugins"] = (200, [plugin("hello", error=fault("x" * 200))])
    program = (
        "import sys; sys.stdout.isatty = lambda: True; "
        "from app.cli.commands import main; main(['list'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
    )
    assert len(answer.stdout.splitlines()[1]) == 80
    assert answer.stdout.endswith("xxx...\n")
    assert "x" * 200 in run("list").stdout


# --- openapi --------------------------------------------------------------------------------


def test_openapi_prints_the_document_of_all_or_of_one(run, api):
    api.answers["GET /openapi.json"] = (200, {"openapi": "3.1.0", "paths": {}})
    api.answers["GET /plugins/a%2Fb/openapi.json"] = (200, {"openapi": "3.1.0", "info": {}})
    assert json.loads(run("openapi").stdout) == {"openapi": "3.1.0", "paths": {}}
    assert json.loads(run("openapi", "a/b").stdout) == {"openapi": "3.1.0", "info": {}}
    run("openapi", BENANA_ADMIN_TOKEN="secret")
    assert api.asked[-1][2]["authorization"] == "Bearer secret"


def test_openapi_of_what_is_not_served_is_one_sentence(run, api):
    api.fails("GET /plugins/shop/openapi.json", 404, "shop is not served.")
    result = run("openapi", "shop")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "shop is not served.\n")


# --- reload and toggle ----------------------------------------------------------------------


def test_reload_and_toggle_say_the_new_status(run, api):
    api.answers["POST /plugins/hello/reload"] = (202, {"plugin": "hello", "status": "reloading"})
    api.answers["POST /plugins/hello/toggle"] = (200, {"plugin": "hello", "status": "inactive"})
    assert run("reload", "hello").stdout == "hello is reloading\n"
    assert run("toggle", "hello").stdout == "hello is inactive\n"
    assert json.loads(run("toggle", "hello", "--json").stdout)["status"] == "inactive"


def test_a_token_is_sent_as_the_bytes_that_the_server_compares(run, api):
    api.answers["POST /plugins/hello/reload"] = (202, {"status": "reloading"})
    run("reload", "hello", BENANA_ADMIN_TOKEN="gehé€im")
    sent = api.asked[-1][2]["authorization"]
    assert sent.encode("latin-1").decode() == "Bearer gehé€im"


def test_the_list_sends_the_token_with_each_of_its_calls(run, api):
    run("list", BENANA_ADMIN_TOKEN="s3cret")
    assert [asked[2]["authorization"] for asked in api.asked] == ["Bearer s3cret"] * 3


def test_without_a_token_none_is_sent(run, api):
    run("list")
    assert "authorization" not in api.asked[-1][2]


def test_a_token_with_a_line_break_is_refused_in_a_sentence(run, api):
    result = run("list", BENANA_ADMIN_TOKEN="a\nb")
    assert result.exit_code == 2
    assert "BENANA_ADMIN_TOKEN" in result.stderr


def test_a_name_is_quoted(run, api):
    api.fails("POST /plugins/a%2F..%20%3Fx/reload", 404, "There is no such plugin.")
    result = run("reload", "a/.. ?x")
    assert result.exit_code == 1
    assert result.stderr == "There is no such plugin.\n"


def test_a_refusal_is_one_sentence(run, api):
    message = "hello: compile failed: invalid syntax (main.py:3)"
    api.fails("POST /plugins/hello/reload", 422, message, error=fault("invalid syntax"))
    result = run("reload", "hello")
    assert result.exit_code == 1
    assert result.stderr == f"{message}\n"
    assert result.stdout == ""


def test_a_refusal_without_phase_and_place_gets_them(run, api):
    api.fails("POST /plugins/hello/toggle", 404, "hello is no plugin. Bad.", error=fault("Bad."))
    assert run("toggle", "hello").stderr == "hello is no plugin. Bad. (compile, main.py:3)\n"


def test_an_error_id_is_shown_for_it_is_what_the_log_can_be_searched_for(run, api):
    api.fails("GET /plugins", 500, "The log says more under the error id.", error_id="0af3")
    assert run("list").stderr == "The log says more under the error id. (0af3)\n"


def test_a_refusal_cannot_steer_the_terminal(run, api):
    api.fails("GET /plugins", 422, "x: load failed: \x1b[2J\nmore")
    assert run("list").stderr == "x: load failed: ?[2J more\n"


def test_a_problem_without_detail_shows_its_title(run, api):
    api.answers["POST /plugins/hello/toggle"] = (503, {"title": "Service Unavailable"})
    assert run("toggle", "hello").stderr == "Service Unavailable\n"


# --- where the server is --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("127.0.0.1:9999", ("http://127.0.0.1:9999", "")),
        ("0.0.0.0:80", ("http://127.0.0.1:80", "")),
        ("[::]:80", ("http://[::1]:80", "")),
        ("[::1]:80", ("http://[::1]:80", "")),
        ("example.org:80", ("http://example.org:80", "")),
        ("unix:/run/x", ("http://localhost", "/run/x")),
        ("unix:///run/x", ("http://localhost", "/run/x")),
        ("unix:x.sock", ("http://localhost", "x.sock")),
    ],
)
def test_what_is_bound_can_be_called(bind, address):
    assert address_of(bind) == address


@pytest.mark.parametrize("command", [("list",), ("reload", "x"), ("toggle", "x")])
def test_a_server_that_does_not_run_is_one_sentence(run, nowhere, command):
    result = run(*command, BENANA_BIND=nowhere)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Nothing answers at http://{nowhere}: start it with `benana serve`, or set BENANA_BIND or "
        "BENANA_URL.\n"
    )


def test_a_unix_socket_is_called(run, tmp_path):
    api = Api()
    api.answers["GET /plugins"] = (200, [plugin("hello")])
    with api.serve(socketserver.UnixStreamServer, str(tmp_path / "x.sock")):
        result = run("list", BENANA_BIND="unix:x.sock")
    assert "hello  active" in result.stdout
    assert api.asked[0][2]["host"] == "localhost"


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.sock", "Nothing answers at unix:missing.sock"), ("y" * 200, "path too long")],
)
def test_a_unix_socket_that_cannot_be_called_is_one_sentence(run, name, words):
    result = run("list", BENANA_BIND=f"unix:{name}")
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (404, b"<html>"),
        (200, {"name": "x"}),
        (200, [1]),
        (302, []),
        (500, {"error": "x"}),
        (200, b"\xff"),
    ],
)
def test_another_server_is_not_taken_for_benana(run, api, answer):
    api.answers["GET /plugins"] = answer
    result = run("list")
    assert result.exit_code == 1
    assert "is no Benana" in result.stderr


class Chatter(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"220 mail.example.org ESMTP\r\n")


@pytest.mark.parametrize(
    ("kind", "words"), [(Chatter, "does not speak HTTP"), (Silence, "cannot be called")]
)
def test_what_does_not_speak_http_is_one_sentence(run, kind, words):
    with socketserver.TCPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = run("list", BENANA_BIND=f"127.0.0.1:{server.server_address[1]}")
        thread.join()
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


# --- psql -----------------------------------------------------------------------------------


@pytest.fixture
def found_psql(monkeypatch):
    monkeypatch.setattr(embedded, "find_psql", lambda: Path("/opt/bin/psql"))


def test_psql_opens_the_database_of_the_environment(run, executed, found_psql):
    with pytest.raises(Replaced) as caught:
        run("psql", "-c", "SELECT 1", DATABASE_URL="postgresql://me@db.example:6543/shop")
    assert caught.value.program == "/opt/bin/psql"
    _, option, dsn, *rest = caught.value.arguments
    assert option == "--dbname"
    for part in ("user='me'", "host='db.example'", "port='6543'", "dbname='shop'"):
        assert part in dsn
    assert rest == ["-c", "SELECT 1"]


def test_a_password_is_not_shown_to_ps(run, executed, found_psql):
    with pytest.raises(Replaced) as caught:
        run("psql", DATABASE_URL="postgresql://me:sesame@db.example/shop")
    assert "sesame" not in " ".join(caught.value.arguments)
    assert caught.value.environ["PGPASSWORD"] == "sesame"


def test_what_a_dsn_holds_is_quoted(run, executed, found_psql):
    with pytest.raises(Replaced) as caught:
        run("psql", DATABASE_URL=r"host=db dbname='it\'s \\ x'")
    assert r"dbname='it\'s \\ x'" in caught.value.arguments[2]


def test_psql_without_a_running_database_is_one_sentence(run, executed, found_psql, tmp_path):
    result = run("psql")
    assert result.exit_code == 1
    assert f"The PostgreSQL of {tmp_path / 'var'} does not run" in result.stderr


def test_psql_opens_the_embedded_database(run, executed, found_psql, monkeypatch):
    monkeypatch.setattr(embedded.EmbeddedPostgres, "answers", lambda _: True)
    with pytest.raises(Replaced) as caught:
        run("psql")
    assert "dbname='benana'" in caught.value.arguments[2]
    assert "host='/tmp/benana-" in caught.value.arguments[2]


def test_where_there_is_no_psql_the_embedded_databases_address_is_printed(run, monkeypatch):
    monkeypatch.setattr(embedded, "find_psql", lambda: None)
    monkeypatch.setattr(embedded.EmbeddedPostgres, "answers", lambda _: True)
    result = run("psql")
    assert result.exit_code == 1
    assert result.stdout.startswith("postgresql:///benana?host=")
    assert result.stderr.startswith("There is no psql")


def test_where_there_is_no_psql_no_password_is_printed(run, monkeypatch):
    monkeypatch.setattr(embedded, "find_psql", lambda: None)
    result = run("psql", DATABASE_URL="postgresql://me:sesame@db.example/shop")
    assert result.exit_code == 1
    assert "sesame" not in result.output
    assert result.stderr.startswith("There is no psql")


def test_a_program_that_cannot_be_run_is_one_sentence(run, monkeypatch):
    monkeypatch.setattr(embedded, "find_psql", lambda: Path("/nowhere/psql"))
    result = run("psql", DATABASE_URL="postgresql://me@db.example/shop")
    assert result.exit_code == 1
    assert result.stderr == "/nowhere/psql cannot be run: No such file or directory.\n"
