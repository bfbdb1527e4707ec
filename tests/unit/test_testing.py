"""What a plugin author relies on when a test loads a plugin."""

import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from app.admin.openapi.answer_check import answer_fault
from app.errors import (
    CompileError,
    ConflictError,
    DatabaseUnavailableError,
    DiscoveryError,
    LoadError,
    SettingsError,
)
from app.testing import load_plugin

HEAD = "from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer\n"
BODY = """
EVENTS = []


class Shop(PluginInterface):
    def initialize(self, context: PluginContext) -> None:
        self.context = context
        EVENTS.append("initialize")

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(name="shop", version="2.1.0")

    def register_routes(self, server: PluginServer) -> None:
        server.get("/shop/{item}", self.handle_get)
        server.post("/shop", self.handle_post)

    def cleanup(self, context: PluginContext) -> None:
        EVENTS.append("cleanup")

    def handle_get(self, item: str) -> dict:
        return {"item": item, "config": dict(self.context.config)}

    def handle_post(self, body: dict) -> dict:
        return {"received": body}


def new_plugin() -> PluginInterface:
    return Shop()
"""


def write(root: Path, source: str = HEAD + BODY, **files: str) -> Path:
    folder = root / "shop"
    folder.mkdir()
    (folder / "main.py").write_text(source)
    for stem, text in files.items():
        (folder / f"{stem}.yaml").write_text(text)
    return folder


def changed(old: str, new: str) -> str:
    assert old in BODY
    return HEAD + BODY.replace(old, new)


def own_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("_plugins.shop.")]


def events_of(plugin) -> list[str]:
    return sys.modules[type(plugin.instance).__module__].EVENTS


def test_a_folder_becomes_routes_that_a_client_can_call(tmp_path):
    with load_plugin(write(tmp_path)) as plugin:
        assert plugin.client.get("/shop/fig").json == {"item": "fig", "config": {}}
        assert plugin.client.post_json("/shop", {"n": 1}).json == {"received": {"n": 1}}
        assert (plugin.name, plugin.metadata.version) == ("shop", "2.1.0")
        assert [(found.method, found.path) for found in plugin.endpoints] == [
            ("GET", "/shop/{item}"),
            ("POST", "/shop"),
        ]
        assert plugin.instance.context is plugin.context
        assert plugin.context.trial is False


def test_a_relative_path_is_the_same_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path))
    with load_plugin(".") as plugin:
        assert plugin.name == "shop"


def test_errors_are_the_problems_that_a_server_answers(tmp_path):
    with load_plugin(write(tmp_path)) as plugin:
        missing = plugin.client.get("/nothing", status=404)
        assert missing.content_type == "application/problem+json"
        refused = plugin.client.post_json("/shop", [1], status=422)
        assert refused.json["title"] == "The request does not fit"


def test_a_handler_that_raises_answers_500_with_an_error_id(tmp_path, caplog):
    source = changed('return {"received": body}', "return 1 // 0")
    with load_plugin(write(tmp_path, source)) as plugin:
        answer = plugin.client.post_json("/shop", {}, status=500)
    assert answer.json["error_id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_the_manifests_config_is_what_the_context_holds(tmp_path):
    folder = write(tmp_path, plugin="config: {colour: green, size: 3}\n")
    with load_plugin(folder) as plugin:
        assert plugin.context.config == {"colour": "green", "size": 3}


def test_callers_are_checked_as_by_a_server(tmp_path):
    folder = write(tmp_path, plugin="origins: same\nhosts: [shop.example]\n")
    with load_plugin(folder) as plugin:
        assert plugin.client.get("/shop/a").status_code == 200
        assert plugin.client.get("/shop/a", headers={"Host": "shop.example"}).status_code == 200
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            answer = plugin.client.get("/shop/a", headers=headers, status=403)
            assert answer.content_type == "application/problem+json"


def test_a_given_config_takes_the_place_of_the_manifests(tmp_path):
    folder = write(tmp_path, plugin="config: {colour: green, size: 3}\n")
    with load_plugin(folder, config={"colour": "red"}) as plugin:
        assert plugin.client.get("/shop/fig").json["config"] == {"colour": "red"}
    with load_plugin(folder, config={}) as plugin:
        assert plugin.context.config == {}


@pytest.mark.parametrize("value", [Path("/tmp"), float("nan"), {1, 2}])
def test_a_config_that_no_manifest_could_hold_is_refused(tmp_path, value):
    with (
        pytest.raises(DiscoveryError, match="config is not JSON"),
        load_plugin(write(tmp_path), config={"value": value}),
    ):
        pass


def test_the_data_folder_is_the_plugins_own_and_goes_away(tmp_path):
    folder = write(tmp_path)
    with load_plugin(folder) as first, load_plugin(folder) as second:
        kept = first.context.data_dir
        assert kept.is_dir()
        assert kept != second.context.data_dir
        (kept / "note.txt").write_text("x")
    assert not kept.exists()


def test_leaving_the_block_cleans_up_and_forgets_the_modules(tmp_path):
    with load_plugin(write(tmp_path)) as plugin:
        events = events_of(plugin)
        assert events == ["initialize"]
        assert own_modules()
        assert not plugin.context.cancelled.is_set()
    assert events == ["initialize", "cleanup"]
    assert plugin.context.cancelled.is_set()
    assert own_modules() == []


def test_two_generations_can_be_loaded_at_once(tmp_path):
    folder = write(tmp_path)
    with load_plugin(folder) as first, load_plugin(folder) as second:
        assert type(first.instance) is not type(second.instance)
        assert first.client.get("/shop/a").json["item"] == "a"
        assert second.client.get("/shop/b").json["item"] == "b"


def test_a_failing_cleanup_fails_the_test_with_its_place(tmp_path):
    source = changed('EVENTS.append("cleanup")', 'raise OSError("left open")')
    with pytest.raises(LoadError, match="cleanup failed: OSError: left open") as caught:  # noqa: SIM117
        with load_plugin(write(tmp_path, source)):
            pass
    line = source.splitlines().index('        raise OSError("left open")') + 1
    assert caught.value.place == f"main.py:{line}"
    assert own_modules() == []


def test_a_failing_cleanup_does_not_hide_why_the_test_failed(tmp_path):
    source = changed('EVENTS.append("cleanup")', 'raise OSError("left open")')
    with pytest.raises(AssertionError, match="the test's own") as caught:  # noqa: SIM117
        with load_plugin(write(tmp_path, source)):
            raise AssertionError("the test's own")
    assert any("left open" in note for note in caught.value.__notes__)
    assert own_modules() == []


def test_a_test_that_fails_still_cleans_up(tmp_path):
    events = []
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with load_plugin(write(tmp_path)) as plugin:
            events = events_of(plugin)
            1 // 0  # noqa: B018
    assert events == ["initialize", "cleanup"]


@pytest.mark.parametrize(
    ("source", "kind", "phase", "words"),
    [
        (HEAD + "def broken(:\n", CompileError, "compile", "invalid syntax"),
        (HEAD + "1 / 0\n", LoadError, "import", "ZeroDivisionError"),
        (HEAD, LoadError, "factory", "new_plugin"),
        (changed("def cleanup", "def clean"), LoadError, "contract", r"missing cleanup\(context\)"),
        (changed('name="shop"', 'name="stop"'), LoadError, "get_metadata", "name is 'stop'"),
        (changed('"/shop"', '"shop"'), LoadError, "register_routes", "starts with '/'"),
        (changed('"/shop"', '"/health"'), ConflictError, "register_routes", "the server"),
    ],
)
def test_a_faulty_plugin_raises_what_a_publish_would_record(tmp_path, source, kind, phase, words):
    with pytest.raises(kind, match=words) as caught, load_plugin(write(tmp_path, source)):
        pass
    assert (caught.value.plugin, caught.value.phase) == ("shop", phase)
    assert own_modules() == []


def test_a_conflict_still_cleans_up(tmp_path):
    record = tmp_path / "record"
    source = changed('"/shop"', '"/health"')
    source = source.replace('EVENTS.append("cleanup")', f"open({str(record)!r}, 'w').close()")
    with pytest.raises(ConflictError), load_plugin(write(tmp_path, source)):
        pass
    assert record.exists()


def test_a_folder_that_is_none_is_a_discovery_error(tmp_path):
    with pytest.raises(DiscoveryError), load_plugin(tmp_path / "missing"):
        pass


def test_without_a_database_its_use_is_refused_in_a_sentence(tmp_path):
    with load_plugin(write(tmp_path)) as plugin:  # noqa: SIM117
        with pytest.raises(DatabaseUnavailableError, match="give load_plugin a database_url"):
            plugin.context.database()


def test_a_plugin_that_needs_the_database_to_start_says_so(tmp_path):
    source = changed('EVENTS.append("initialize")', "context.database().__enter__()")
    with (
        pytest.raises(DatabaseUnavailableError, match="shop: initialize failed: this test has no"),
        load_plugin(write(tmp_path, source)),
    ):
        pass


def test_a_database_that_is_away_is_named_when_it_is_used(tmp_path):
    url = "postgresql://nobody@127.0.0.1:1/none"
    with load_plugin(write(tmp_path), database_url=url) as plugin:  # noqa: SIM117
        with pytest.raises(DatabaseUnavailableError, match="the database is away"):
            plugin.context.database().__enter__()


def test_a_database_url_that_cannot_be_read_is_refused(tmp_path):
    with (
        pytest.raises(SettingsError, match="cannot be read"),
        load_plugin(write(tmp_path), database_url="nonsense"),
    ):
        pass


def test_a_thread_of_the_plugin_is_told_to_stop(tmp_path):
    source = changed(
        'EVENTS.append("initialize")',
        "self.worker = threading.Thread(target=context.cancelled.wait); self.worker.start()",
    ).replace('EVENTS.append("cleanup")', "self.worker.join(10)")
    with load_plugin(write(tmp_path, "import threading\n" + source)) as plugin:
        worker = plugin.instance.worker
        assert worker.is_alive()
    assert not worker.is_alive()
    assert worker not in threading.enumerate()


def test_a_missing_webtest_is_named_with_the_remedy():
    program = textwrap.dedent(
        """
        import sys
        sys.modules["webtest"] = None
        try:
            import app.testing
        except ImportError as error:
            print(error)
        """
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'benana[test]'" in answer.stdout


def test_the_import_is_silent_where_warnings_are_errors():
    subprocess.run([sys.executable, "-W", "error", "-c", "import app.testing"], check=True)


def test_its_version_may_stand_in_the_manifest_alone(tmp_path: Path) -> None:
    text = (HEAD + BODY).replace(', version="2.1.0"', "")
    with load_plugin(write(tmp_path, text, plugin="version: 1.10\n")) as plugin:
        assert plugin.metadata.version == "1.10"


def test_a_version_in_the_manifest_that_is_another_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DiscoveryError, match=r"'2\.1', but get_metadata\(\) returns '2\.1\.0'"),
        load_plugin(write(tmp_path, plugin="version: 2.1\n")),
    ):
        pass


TYPED = """
import dataclasses
from typing import Literal

import falcon

from app.plugin import PluginInterface, PluginMetadata


@dataclasses.dataclass
class Item:
    name: str
    count: int


class Shop(PluginInterface):
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata(name="shop", version="1")

    def register_routes(self, server):
        server.get("/shop/{number:int}", self.find)
        server.post("/shop", self.make)
        server.get("/shop/files/{name:path}", self.file)
        server.get("/shop/hidden", lambda: 1, hidden=True)

    def cleanup(self, context): ...

    def find(self, number: int) -> Item:
        if number > 9:
            raise falcon.HTTPNotFound(description="There is none.")
        return Item("a", number if number else "none")

    def make(self, body: Item) -> tuple[Item, Literal[201]]:
        return body, 201 if body.count else 202

    def file(self, name: str, resp: falcon.Response) -> dict:
        resp.content_type = "text/plain"
        return name


def new_plugin():
    return Shop()
"""


def test_a_typed_plugin_has_its_document_and_a_client_that_checks_answers(tmp_path: Path) -> None:
    with load_plugin(write(tmp_path, TYPED)) as shop:
        assert shop.document["info"] == {"title": "shop", "version": "1"}
        assert "Item" in shop.document["components"]["schemas"]
        client = shop.checked_client
        assert client.get("/shop/5").json == {"name": "a", "count": 5}
        assert client.post_json("/shop", {"name": "b", "count": 1}, status=201).json["count"] == 1
        assert client.get("/shop/10", status=404).json["detail"] == "There is none."
        client.post_json("/shop", {"name": "b"}, status=422)
        client.get("/shop/files/a/b", status=200)
        client.get("/shop/hidden", status=200)
        client.get("/shop/unknown/path", status=404)
        client.head("/shop/5", status=200)
        client.options("/shop/5")
        client.delete("/shop/5", status=405)


def test_an_answer_that_the_document_does_not_say_fails_the_test(tmp_path: Path) -> None:
    with load_plugin(write(tmp_path, TYPED)) as shop:
        assert shop.client.get("/shop/0").json["count"] == "none"
        with pytest.raises(AssertionError, match=r"answered 200 .* count: 'none' is not of type"):
            shop.checked_client.get("/shop/0")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "words"),
    [
        (200, "application/json", b"1", None),
        (200, "application/json; charset=utf-8", b'"a"', "'a' is not of type 'integer'"),
        (200, "text/plain", b"1", "with text/plain, and its document says application/json"),
        (200, "", b"1", "with no content type"),
        (202, "application/json", b"1", r"say 202 in the handler's return annotation"),
        (204, "", b"", None),
        (422, "application/problem+json", b"{}", "'type' is a required property"),
    ],
)
def test_what_an_answer_is_checked_for(status, content_type, body, words):
    problem = {"type": "object", "required": ["type"]}
    answers = {
        "200": {"content": {"application/json": {"schema": {"type": "integer"}}}},
        "204": {},
        "422": {"$ref": "#/components/responses/Problem"},
    }
    document = {
        "paths": {"/x/{a}": {"get": {"responses": answers}}},
        "components": {
            "responses": {"Problem": {"content": {"application/problem+json": {"schema": problem}}}}
        },
    }
    fault = answer_fault(document, "GET", "/x/{a:int}", status, content_type, body)
    assert (fault is None) == (words is None)
    assert words is None or re.search(words, str(fault))
