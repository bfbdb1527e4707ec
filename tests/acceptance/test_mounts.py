"""A real server whose files come by links and mounts: ConfigMaps, git-sync, read-only disks."""

import shutil

import pytest

from tests.support.links import kubelet, point
from tests.support.plugins import WHOAMI, source
from tests.support.server import MakeServer
from tests.support.waiting import wait_until

IN_TIME = 1.0


@pytest.mark.soak
def test_a_config_map_as_the_root_is_followed_within_a_second(make_server: MakeServer) -> None:
    server = make_server()

    def update(version: str) -> None:
        kubelet(server.plugins, version, inside="mapped/main.py")
        (server.plugins / "..data" / "mapped" / "main.py").write_text(source("mapped", version))

    update("one")
    server.start()
    server.wait_says("mapped", "one")
    for version in ("two", "three", "four"):
        update(version)
        server.wait_says("mapped", version, seconds=IN_TIME)
    assert "WARNING" not in server.log()


@pytest.mark.soak
def test_a_git_sync_link_is_followed_within_a_second(make_server: MakeServer) -> None:
    server = make_server()
    link = server.home / "repo"

    def update(version: str) -> None:
        tree = server.home / ".worktrees" / version
        for name, text in (("synced", source("synced", version)), ("whoami", WHOAMI)):
            (tree / name).mkdir(parents=True)
            (tree / name / "main.py").write_text(text)
        point(link, f".worktrees/{version}")

    update("one")
    server.environment["BENANA_PLUGINS_DIR"] = str(link)
    server.plugins = link
    server.start()
    server.wait_says("synced", "one")
    for version in ("two", "three"):
        update(version)
        server.wait_says("synced", version, seconds=IN_TIME)
    assert "WARNING" not in server.log()
    (link / "synced" / "main.py").write_text(source("synced", "edited"))
    server.wait_says("synced", "edited", seconds=IN_TIME)


READ_ONLY = """
for mount in $(awk '{print $5}' /proc/self/mountinfo); do
  case $mount in /proc*|/sys*|/dev*) ;; *) mount -o remount,ro,bind "$mount" || exit 9;; esac
done
exec "$@"
"""
KEEPER = """
from app.plugin import PluginMetadata


class Keeper:
    def initialize(self, context):
        self.context = context
        {initialize}

    def get_metadata(self):
        return PluginMetadata("{name}", "1")

    def register_routes(self, server):
        server.get("/{name}", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {{"says": str(self.context.data_dir.is_dir())}}


new_plugin = Keeper
"""


@pytest.mark.soak
@pytest.mark.parametrize("kept", [True, False])
def test_a_read_only_disk_serves_with_nothing_to_write_to(
    make_server: MakeServer, kept: bool
) -> None:
    server = make_server()
    server.write("plain", source("plain", "one"))
    server.write("later", KEEPER.format(name="later", initialize="pass"))
    server.write("wants", KEEPER.format(name="wants", initialize="context.data_dir"))
    server.start()
    server.wait_says("wants", "True")
    server.wait_says("plain", "one")
    if kept:
        server.wait_says("later", "True")
    assert not (server.home / "var" / "plugins" / "plain").exists()
    server.stop()
    if not kept:
        shutil.rmtree(server.artifacts)
        shutil.rmtree(server.home / "var")
    server.environment["BENANA_WATCH"] = "off"
    server.log_file = server.home / "read_only.log"
    server.program = [
        *("unshare", "-m", "--propagation", "private"),
        *("sh", "-c", READ_ONLY, "sh", *server.program),
    ]
    server.start()
    server.wait_says("plain", "one")
    log = server.log()
    assert log.count("read-only file system") == 1, log
    if kept:
        server.wait_says("later", "True")
        server.wait_says("wants", "True")
    else:
        assert server.get("/later").status == 500
        assert server.get("/plain").says == "one"
        error = server.get("/plugins/wants").json["error"]
        assert "BENANA_DATA_DIR" in error["message"]
    assert not list(server.artifacts.glob("*.tmp"))
    levels = [line.split("[")[3][:4] for line in log.splitlines() if line.count("[") > 2]
    assert "WARN" not in levels, log
    assert ("ERRO" in levels) != kept, log
    before = server.workers()
    server.sql("UPDATE plugins SET generation = generation + 1 WHERE name = 'plain'")
    row = server.sql("SELECT generation FROM plugins WHERE name = 'plain'")[0][0]
    wait_until(
        lambda: (
            server.get("/plugins/plain?").json["workers"]["current"] == len(before)
            and server.plugin("plain")["generation"] == row
        ),
        "the next generation is loaded",
    )
    answer = server.post("/plugins/plain/reload")
    assert answer.status == 503, answer.body
    assert "set TMPDIR" in answer.json["detail"]
    assert server.get("/plain").says == "one"
    assert server.workers() == before


@pytest.mark.soak
def test_a_host_that_only_serves_keeps_its_archives_where_it_can(make_server: MakeServer) -> None:
    server = make_server()
    server.write("plain", source("plain", "one"))
    server.start()
    server.wait_says("plain", "one")
    server.stop()
    shutil.rmtree(server.artifacts)
    server.environment["BENANA_WATCH"] = "off"
    server.log_file = server.home / "off.log"
    server.start()
    server.wait_says("plain", "one")
    assert list(server.artifacts.glob("plain-*.pyz"))
    assert "read-only" not in server.log()
    assert "WARNING" not in server.log()
