"""The Go design's development guide and its API examples, step by step in Python."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until

# The example of the specification, to the letter.
EXAMPLE = """
from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer


class MyPlugin(PluginInterface):
    def initialize(self, context: PluginContext) -> None: ...

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(name="myplugin", version="1.0.0",
                              description="My awesome plugin", author="Developer")

    def register_routes(self, server: PluginServer) -> None:
        server.get("/myplugin", self.handle_get)
        server.post("/myplugin", self.handle_post)

    def cleanup(self, context: PluginContext) -> None: ...

    def handle_get(self) -> dict:
        return {"message": "Hello from MyPlugin!"}

    def handle_post(self, body: dict) -> dict:
        return {"received": body}


def new_plugin() -> PluginInterface:
    return MyPlugin()
"""


@pytest.fixture(scope="module")
def shipped(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    """A server with the plugins that ship."""
    server = Server(tmp_path_factory.mktemp("shipped"), new_database())
    subprocess.run(
        ["cp", "-r", *(str(CHECKOUT / "plugins" / n) for n in ("hello", "powertable")),
         str(server.plugins)],
        check=True,
    )  # fmt: skip
    yield server.start()
    server.stop()


def curl(server: Server, *arguments: str) -> str:
    """Run curl as the guide does, with the server's own port."""
    here = [argument.replace(":9999", f":{server.port}") for argument in arguments]
    done = subprocess.run(["curl", "-sS", *here], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("running", [True, False])
def test_the_development_guide(make_server: Callable[..., Server], running: bool) -> None:
    server = make_server()
    if running:
        server.start()
    server.write("myplugin", EXAMPLE)
    if not running:
        server.start()
    wait_until(
        lambda: (
            json.loads(curl(server, "http://localhost:9999/plugins/myplugin")).get("status")
            == "active"
        ),
        "it is registered",
        1.0,
    )
    server.wait_everywhere("/myplugin", lambda answer: answer.status == 200, 1.0)
    assert json.loads(curl(server, "http://localhost:9999/myplugin")) == {
        "message": "Hello from MyPlugin!"
    }
    assert json.loads(curl(server, "-d", '{"a": 1}', "http://localhost:9999/myplugin")) == {
        "received": {"a": 1}
    }


def test_plugin_py_is_an_entry_too(shipped: Server) -> None:
    shipped.write("second", source("second", "by plugin.py"), "plugin.py")
    shipped.wait_says("second", "by plugin.py")


def test_list_all_plugins(shipped: Server) -> None:
    plugins = json.loads(curl(shipped, "http://localhost:9999/plugins"))
    (found,) = [plugin for plugin in plugins if plugin["name"] == "powertable"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["id"])
    assert found["description"] == "A plugin for creating powerful tables"
    assert (found["version"], found["author"]) == ("0.1.0", "Benana Team")
    assert (found["type"], found["status"]) == ("dynamic", "active")
    assert found["source_path"] == str(shipped.plugins / "powertable")
    assert re.fullmatch(
        rf"{shipped.artifacts}/powertable-[0-9a-f]{{32}}\.pyz", found["binary_path"]
    )
    assert found["error"] is None
    assert {"method": "GET", "path": "/powertable", "handler": "TableApi.list_tables"} in found[
        "endpoints"
    ]
    address = "http://localhost:9999/plugins/powertable"
    wait_until(lambda: not json.loads(curl(shipped, address))["reasons"], "both workers listen")
    one = json.loads(curl(shipped, address))
    assert one.pop("workers")["total"] == 2
    assert one.pop("reasons") == []
    assert one == found


def test_reload_and_toggle(shipped: Server) -> None:
    url = "http://localhost:9999/plugins/powertable"
    assert json.loads(curl(shipped, "-X", "POST", f"{url}/reload")) == {
        "message": "Plugin reload triggered successfully",
        "plugin": "powertable",
        "status": "reloading",
    }
    for status, code in (("inactive", 404), ("active", 200)):
        assert json.loads(curl(shipped, "-X", "POST", f"{url}/toggle")) == {
            "message": "Plugin status updated successfully",
            "plugin": "powertable",
            "status": status,
        }
        shipped.wait_everywhere("/powertable", lambda answer: answer.status == code)


def test_powertable_on_both_workers(shipped: Server) -> None:
    made = shipped.call("PUT", "/powertable/fruit", {"columns": [{"name": "name", "type": "text"}]})
    assert made.status == 201
    assert shipped.post("/powertable/fruit/rows", [{"name": "fig"}, {"name": "plum"}]).status == 201
    for answer in shipped.ask_all("/powertable/fruit/rows?sort=-name").values():
        assert [row["name"] for row in answer.json["rows"]] == ["plum", "fig"]


def test_falcons_own_answers(shipped: Server) -> None:
    assert shipped.get("/nowhere").status == 404
    wrong = shipped.call("DELETE", "/hello")
    assert wrong.status == 405
    assert set(wrong.headers["allow"].replace(",", " ").split()) == {
        "GET",
        "HEAD",
        "POST",
        "OPTIONS",
    }
    asked = shipped.call("OPTIONS", "/hello")
    assert asked.status == 200
    assert "GET" in asked.headers["allow"]


@pytest.mark.parametrize("path", ["/hello", "/powertable/seen/export", "/plugins", "/health/live"])
def test_curl_dash_i_shows_the_headers_of_get(shipped: Server, path: str) -> None:
    if "export" in path:
        shipped.call("PUT", "/powertable/seen", {"columns": [{"name": "name", "type": "text"}]})
    lines = curl(shipped, "-I", f"http://localhost:9999{path}").splitlines()
    asked = shipped.get(path)
    assert lines[0].split()[1] == "200"
    head = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    assert head["content-length"] == str(len(asked.body))
    assert head["content-type"] == asked.headers["content-type"].lower()
    assert shipped.call("HEAD", path).body == b""
