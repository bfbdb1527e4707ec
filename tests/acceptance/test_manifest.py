"""What `plugin.yaml` says takes effect."""

import re

from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until


def test_enabled_false_is_the_status_at_the_first_registration(server: Server) -> None:
    server.write("quiet", "enabled: false\ndescription: From the manifest\n", "plugin.yaml")
    server.write("quiet", source("quiet", "one"))
    wait_until(lambda: server.plugin("quiet"), "it is registered")
    assert server.plugin("quiet")["status"] == "inactive"
    assert server.plugin("quiet")["description"] == "From the manifest"
    server.wait_gone("quiet")
    assert server.post("/plugins/quiet/toggle?wait=5").json["workers"]["current"] == 2
    server.wait_says("quiet", "one")
    server.write("quiet", source("quiet", "two"))
    server.wait_says("quiet", "two")


def test_config_and_entry_reach_the_plugin(server: Server) -> None:
    server.write("set_up", "entry: parts.start:make\nconfig:\n  word: [a, 1]\n", "plugin.yaml")
    text = source("set_up").replace("def new_plugin", "def make")
    text = text.replace("        pass\n", "        self.config = context.config\n", 1)
    text = text.replace('"says": "one"', '"says": str(self.config)')
    server.write("set_up", text, "parts/start.py")
    server.wait_says("set_up", "{'word': ['a', 1]}")
    server.write("set_up", "entry: parts.start:make\nconfig: {word: b}\n", "plugin.yaml")
    server.wait_says("set_up", "{'word': 'b'}")


def test_the_manifests_version_is_served_where_the_code_names_none(server: Server) -> None:
    text = source("numbered", "one")
    bare = re.sub(r'version="[^"]*"|(?<="numbered"), "[^"]*"', 'version=""', text)
    assert bare != text
    server.write("numbered", "version: 1.10\n", "plugin.yaml")
    server.write("numbered", bare)
    server.wait_says("numbered", "one")
    assert server.plugin("numbered")["version"] == "1.10"
    server.write("numbered", bare.replace('version=""', 'version="1.1"').replace("one", "two"))
    wait_until(lambda: server.plugin("numbered")["error"], "it is refused")
    error = server.plugin("numbered")["error"]
    assert "version is '1.10', but get_metadata() returns '1.1'" in error["message"]
    assert (error["file"], error["line"]) == ("plugin.yaml", 1)
    server.wait_says("numbered", "one")
    server.write("numbered", "version: 1.1\n", "plugin.yaml")
    server.wait_says("numbered", "two")
    assert server.plugin("numbered")["version"] == "1.1"
