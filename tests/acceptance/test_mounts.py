"""A real server whose files come by links and mounts: ConfigMaps, git-sync, read-only disks."""

from collections.abc import Callable

import pytest

from tests.acceptance.server import WHOAMI, Server, source
from tests.integration.test_links import kubelet, point

MakeServer = Callable[..., Server]


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
        server.wait_says("mapped", version, seconds=1.0)
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
        server.wait_says("synced", version, seconds=1.0)
    assert "WARNING" not in server.log()
    (link / "synced" / "main.py").write_text(source("synced", "edited"))
    server.wait_says("synced", "edited", seconds=1.0)
