"""Plugins that are put in place by swapping a link: what Kubernetes, git-sync and releases do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.conditions import Conditions
from app.publishing.watcher import SourceWatcher
from tests.support.links import kubelet, point
from tests.support.looks import Looks, write
from tests.support.waiting import wait_until


def config_map(base: Path, text: str) -> Path:
    kubelet(base / "plugins", text)
    return base / "plugins"


def folder_of_a_config_map(base: Path, text: str) -> Path:
    kubelet(base / "volume", text, inside="plugins/one/main.py")
    return base / "volume" / "plugins"


def config_map_as_a_plugin(base: Path, text: str) -> Path:
    (base / "plugins").mkdir(exist_ok=True)
    kubelet(base / "plugins" / "one", text, inside="main.py")
    return base / "plugins"


def git_sync(base: Path, text: str) -> Path:
    worktree = base / ".worktrees" / text
    worktree.mkdir(parents=True)
    write(worktree, "one", text)
    old = (base / "repo").resolve()
    point(base / "repo", f".worktrees/{text}")
    if old != base / "repo":
        shutil.rmtree(old)
    return base / "repo"


def release(base: Path, text: str) -> Path:
    plugins = base / "releases" / text / "plugins"
    plugins.mkdir(parents=True)
    write(plugins, "one", text)
    point(base / "current", str(base / "releases" / text))
    return base / "current" / "plugins"


def linked_folder(base: Path, text: str) -> Path:
    root = base / "plugins"
    (root / ".releases" / text).mkdir(parents=True)
    write(root / ".releases" / text, "one", text)
    point(root / "one", f".releases/{text}/one")
    return root


def linked_file(base: Path, text: str) -> Path:
    root = base / "plugins"
    (root / "one").mkdir(parents=True, exist_ok=True)
    (root / "shared").mkdir(exist_ok=True)
    (root / "shared" / "main.py").write_text(text)
    if not (root / "one" / "main.py").is_symlink():
        (root / "one" / "main.py").symlink_to("../shared/main.py")
    return root


@pytest.mark.parametrize(
    "put",
    [
        config_map,
        folder_of_a_config_map,
        config_map_as_a_plugin,
        git_sync,
        release,
        linked_folder,
        linked_file,
    ],
)
def test_a_swapped_link_is_followed_at_once_and_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, put: Callable[[Path, str], Path]
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    root = put(base, "old")
    looks, conditions = Looks(root), Conditions()
    watching = SourceWatcher(root, tmp_path / "bin", looks, conditions)  # type: ignore[arg-type]
    watching.start()
    try:
        wait_until(lambda: looks.scans, "it scans first")
        for text in ("new", "newer"):
            scans = looks.scans
            put(base, text)
            # Where the root itself is another one, all is scanned, and seen by that.
            wait_until(
                lambda text=text, scans=scans: looks.saw("one", text) or looks.scans > scans,
                f"{text} is seen",
                1.0,
            )
            assert (root / "one" / "main.py").read_text() == text
    finally:
        watching.stop()
    assert [r.message for r in caplog.records if r.levelname != "INFO"] == []
    assert conditions.held() == ()
