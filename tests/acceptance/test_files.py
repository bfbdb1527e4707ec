"""A folder's changes become every worker's routes, however the files were written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until


def run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def beside(server: Server, tmp_path: Path) -> Path:
    """A folder on the same file system, outside of the plugins' root."""
    folder = server.home / f"beside-{tmp_path.name}"
    folder.mkdir()
    return folder


def test_a_dropped_folder_serves_within_a_second_on_all_workers(server: Server) -> None:
    server.write("dropped", source("dropped", "one"))
    assert server.wait_says("dropped", "one") < 1.0


def test_an_edit_serves_within_a_second_on_all_workers(server: Server) -> None:
    server.write("edited", source("edited", "one"))
    server.wait_says("edited", "one")
    for turn in range(5):
        server.write("edited", source("edited", f"turn {turn}"))
        assert server.wait_says("edited", f"turn {turn}") < 1.0


def test_a_removed_folder_answers_404_and_its_row_is_gone(server: Server) -> None:
    server.write("removed", source("removed"))
    server.wait_says("removed", "one")
    shutil.rmtree(server.plugins / "removed")
    server.wait_gone("removed")
    assert server.sql("SELECT 1 FROM plugins WHERE name = 'removed'") == []
    server.write("removed", source("removed", "again"))
    server.wait_says("removed", "again")


def test_cp_r(server: Server, beside: Path) -> None:
    (beside / "copied" / "deep" / "er").mkdir(parents=True)
    (beside / "copied" / "main.py").write_text(
        source("copied", "copied") + "\nfrom .deep.er.part import WORD  # noqa\n"
    )
    (beside / "copied" / "deep" / "er" / "part.py").write_text("WORD = 1\n")
    run("cp", "-r", str(beside / "copied"), str(server.plugins))
    server.wait_says("copied", "copied")


def test_mv_in_and_mv_out(server: Server, beside: Path) -> None:
    (beside / "moved").mkdir()
    (beside / "moved" / "main.py").write_text(source("moved", "in"))
    run("mv", str(beside / "moved"), str(server.plugins))
    server.wait_says("moved", "in")
    run("mv", str(server.plugins / "moved"), str(beside / "moved"))
    server.wait_gone("moved")


def test_a_renamed_folder_moves_its_routes(server: Server) -> None:
    text = 'NAME = __package__.split(".")[1]\n' + source("before").replace(
        '"before"', "NAME"
    ).replace('"/before"', 'f"/{NAME}"')
    server.write("before", text)
    server.wait_says("before", "one")
    (server.plugins / "before").rename(server.plugins / "after")
    server.wait_says("after", "one")
    server.wait_gone("before")


def test_git_checkout(server: Server) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")
    folder = server.write("checked", source("checked", "main")).parent
    run(*git, "init", "-q", "-b", "main", cwd=folder)
    run(*git, "add", ".", cwd=folder)
    run(*git, "commit", "-qm", "one", cwd=folder)
    server.wait_says("checked", "main")
    run(*git, "checkout", "-qb", "other", cwd=folder)
    (folder / "main.py").write_text(source("checked", "other"))
    run(*git, "commit", "-qam", "two", cwd=folder)
    server.wait_says("checked", "other")
    for branch in ("main", "other", "main"):
        run(*git, "checkout", "-q", branch, cwd=folder)
        server.wait_says("checked", branch)


def test_rsync(server: Server, beside: Path) -> None:
    rsync = tool("rsync")
    (beside / "main.py").write_text(source("synced", "one"))
    run(rsync, "-a", f"{beside}/", str(server.plugins / "synced"))
    server.wait_says("synced", "one")
    (beside / "main.py").write_text(source("synced", "other"))
    run(rsync, "-a", f"{beside}/", str(server.plugins / "synced"))
    server.wait_says("synced", "other")


def test_vim(server: Server) -> None:
    vim = next((found for name in ("vim", "vim.tiny") if (found := shutil.which(name))), None)
    if vim is None:
        pytest.skip("vim is not installed")
    path = server.write("vimmed", source("vimmed", "one"))
    server.wait_says("vimmed", "one")
    for mode, says in (("set writebackup backupcopy=no", "two"), ("set backupcopy=yes", "six")):
        run(
            vim,
            "-u",
            "NONE",
            "-es",
            "-c",
            mode,
            "-c",
            f'%s/says": "\\w*/says": "{says}/',
            "-c",
            "wq",
            str(path),
        )
        server.wait_says("vimmed", says)


def test_sed_in_place(server: Server) -> None:
    path = server.write("sedded", source("sedded", "one"))
    server.wait_says("sedded", "one")
    run("sed", "-i", "s/one/two/", str(path))
    server.wait_says("sedded", "two")


def test_truncate_and_write(server: Server) -> None:
    path = server.write("truncated", source("truncated", "one"))
    server.wait_says("truncated", "one")
    text = source("truncated", "two")
    with path.open("w") as file:
        file.flush()
        for start in range(0, len(text), 40):
            file.write(text[start : start + 40])
            file.flush()
    server.wait_says("truncated", "two")
    wait_until(lambda: server.plugin("truncated")["error"] is None, "the error is cleared")


def test_atomic_replace(server: Server) -> None:
    path = server.write("replaced", source("replaced", "one"))
    server.wait_says("replaced", "one")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(source("replaced", "two"))
    temporary.replace(path)
    server.wait_says("replaced", "two")


def test_touch_and_identical_content_change_nothing(server: Server) -> None:
    path = server.write("touched", source("touched", "one"))
    server.write("fence", source("fence", "one"))
    server.wait_says("touched", "one")
    before = server.plugin("touched")
    path.touch()
    path.write_text(source("touched", "one"))
    os.utime(path, (1, 1))
    temporary = path.with_suffix(".tmp")
    temporary.write_text(source("touched", "one"))
    temporary.replace(path)
    (path.parent / ".hidden").write_text("x")
    (path.parent / "__pycache__").mkdir()
    (path.parent / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    # What comes after has been looked at, so has what came before.
    for turn in range(3):
        server.write("fence", source("fence", f"turn {turn}"))
        server.wait_says("fence", f"turn {turn}")
    assert server.plugin("touched") == before


def test_what_is_left_out_keeps_nothing_from_being_served_and_changes_nothing(
    server: Server,
) -> None:
    broken = "print 'of another Python'"
    server.write("tidy", "ignore: [notes/, '!notes/keep.py']\n", "plugin.yaml")
    left_out = [
        "main (conflicted copy 2026-11-26).py",
        "main.sync-conflict-20261126-101112-ABCDEFG.py",
        "venv/lib/old.py",
        "node_modules/gyp/old.py",
        "tests/fixtures/old.py",
        "{{name}}.py",
        "notes/old.py",
    ]
    for file in left_out:
        server.write("tidy", broken, file)
    server.write("tidy", source("tidy", "one"))
    server.write("fence", source("fence", "one"))
    server.wait_says("tidy", "one")
    before = server.plugin("tidy")
    assert before["error"] is None
    for file in left_out:
        server.write("tidy", broken + " and more", file)
    # What comes after has been looked at, so has what came before.
    for turn in range(2):
        server.write("fence", source("fence", f"left out {turn}"))
        server.wait_says("fence", f"left out {turn}")
    assert server.plugin("tidy") == before
    server.write("tidy", source("tidy", "two"))
    server.wait_says("tidy", "two")


def test_data_files_and_modules_count(server: Server) -> None:
    text = source("parts").replace(
        '"says": "one"',
        '"says": (importlib.resources.files(__package__) / "words" / "word.txt").read_text()'
        " + helper.SUFFIX",
    )
    server.write("parts", "SUFFIX = '!'\n", "helper.py")
    server.write("parts", "hello", "words/word.txt")
    server.write("parts", "import importlib.resources\nfrom . import helper\n" + text)
    server.wait_says("parts", "hello!")
    server.write("parts", "bye", "words/word.txt")
    server.wait_says("parts", "bye!")
    server.write("parts", "SUFFIX = '?'\n", "helper.py")
    server.wait_says("parts", "bye?")


def test_a_plugins_root_that_is_gone_unregisters_nothing(server: Server) -> None:
    server.write("kept", source("kept", "one"))
    server.wait_says("kept", "one")
    away = server.home / "away"
    server.plugins.rename(away)
    wait_until(lambda: "nothing is published or unregistered" in server.log(), "it says why")
    assert server.ask_all("/kept").popitem()[1].says == "one"
    away.rename(server.plugins)
    server.write("kept", source("kept", "two"))
    server.wait_says("kept", "two")
    assert server.plugin("kept")["status"] == "active"


def test_a_new_plugin_is_said_to_be_served_once_it_is(server: Server) -> None:
    code = (
        "import sys; from app.cli.commands import main; "
        "sys.argv = ['benana', 'new', 'brandnew']; main()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"The server at 127.0.0.1:{server.port} serves it:" in done.stdout
    server.wait_everywhere("/brandnew", lambda answer: answer.status == 200)
