"""A version is a real folder: what code expects of its files, on a real server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.database.publication import KEPT_VERSIONS
from tests.support.server import Answer, MakeServer, Server
from tests.support.waiting import wait_until

PLUGIN = """
import os
from app.plugin import PluginMetadata

EDIT = 0

{code}

class Plugin:
    def initialize(self, context): ...
    def get_metadata(self): return PluginMetadata("{name}", "1")
    def register_routes(self, server):
        server.get("/{name}", lambda: {{"edit": EDIT, "pid": os.getpid(), "says": answer()}})
    def cleanup(self, context): ...

new_plugin = Plugin
"""

BESIDE = """
import importlib.resources
import pathlib
HERE = pathlib.Path(__file__).parent

def answer():
    return [
        (HERE / "texts" / "greeting.txt").read_text(),
        open(os.path.join(os.path.dirname(__file__), "texts", "greeting.txt")).read(),
        open(str(importlib.resources.files(__package__) / "texts" / "greeting.txt")).read(),
    ]
"""

FOUND = """
import importlib
import pkgutil
from . import parts

def answer():
    names = sorted(module.name for module in pkgutil.iter_modules(parts.__path__))
    return [importlib.import_module(f"{parts.__name__}.{name}").VALUE for name in names]
"""

FLASK = """
from flask import Flask, render_template
app = Flask(__name__)

def answer():
    with app.app_context():
        return render_template("page.txt", who="you")
"""

SPAWNS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from .arithmetic import square

def answer():
    return [ask(method) for method in ("spawn", "forkserver")]

def ask(method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(square, 7).result(timeout=30)
"""

PICKLES = """
import pickle
from pathlib import Path

class Book: ...

def answer():
    path = Path("FOLDER", "book.pickle")
    if EDIT == 0:
        mine = path.with_name(f"book-{os.getpid()}.pickle")
        mine.write_bytes(pickle.dumps(Book()))
        mine.rename(path)
    raw = path.read_bytes()
    return [type(pickle.loads(raw)) is Book, (__name__.encode() in raw) == (EDIT == 0)]
"""

HELD = """
import time
from pathlib import Path
HERE = Path(__file__).parent

def answer():
    flags = Path({flags!r})
    (flags / "began").touch()
    while (flags / "hold").exists():
        time.sleep(0.01)
    return (HERE / "text.txt").read_text()
"""
"""Waits in the middle of a request for as long as there is a file `hold`."""


def add(server: Server, name: str, code: str, files: dict[str, str]) -> None:
    """Write a plugin with what else belongs to it, its main.py last."""
    for path, text in files.items():
        target = server.plugins / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    server.write(name, PLUGIN.format(name=name, code=code))


PARSES = """
import argparse
import sys
import threading
OPTIONS = argparse.ArgumentParser().parse_args()
THREAD, READ = threading.current_thread().name, sys.stdin.read()

def answer():
    return [THREAD, READ]
"""


CASES: list[tuple[str, str, dict[str, str], object]] = [
    ("beside", BESIDE, {"texts/greeting.txt": "hello"}, ["hello"] * 3),
    (
        "found",
        FOUND,
        {"parts/__init__.py": "", "parts/one.py": "VALUE = 1", "parts/two.py": "VALUE = 2"},
        [1, 2],
    ),
    ("flasked", FLASK, {"templates/page.txt": "for {{ who }}"}, "for you"),
    ("parses", PARSES, {}, ["benana-loader", ""]),
    ("spawns", SPAWNS, {"arithmetic.py": "def square(n):\n    return n * n\n"}, [49, 49]),
]


@pytest.mark.parametrize(
    ("name", "code", "files", "expected"),
    [
        pytest.param(*case, id=case[0], marks=[pytest.mark.soak] * (case[0] == "spawns"))
        for case in CASES
    ],
)
def test_it_is_found_in_every_worker_and_after_edits(
    server: Server, name: str, code: str, files: dict[str, str], expected: object
) -> None:
    add(server, name, code, files)
    for edit in (0, 1, 2):
        make_edit(server, name, edit)
        answers = wait_for_edit(server, name, edit)
        assert answers == [expected] * 2, server.log()


def test_what_a_version_before_has_pickled_is_read_once_that_is_gone(
    server: Server, tmp_path: Path
) -> None:
    add(server, "pickles", PICKLES.replace("FOLDER", str(tmp_path)), {})
    for edit in (0, 1, 2):
        make_edit(server, "pickles", edit)
        wait_for_edit(server, "pickles", edit)

        def answers() -> list[object]:
            return [answer.json["says"] for answer in server.ask_all("/pickles").values()]

        wait_until(lambda: answers() == [[True, True]] * 2, f"edit {edit} reads it")


def make_edit(server: Server, name: str, edit: int) -> None:
    main = server.plugins / name / "main.py"
    main.write_text(main.read_text().replace(f"EDIT = {edit - 1}\n", f"EDIT = {edit}\n"))


def wait_for_edit(server: Server, name: str, edit: int) -> list[Any]:
    """Wait until every worker serves an edit, and return what they say."""

    def is_served(answer: Answer) -> bool:
        return answer.status == 200 and bool(answer.json["edit"] == edit)

    server.wait_everywhere(f"/{name}", is_served, seconds=15.0)
    return [answer.json["says"] for answer in server.ask_all(f"/{name}").values()]


def test_a_request_ends_with_the_files_that_it_began_with(server: Server, tmp_path: Path) -> None:
    code = HELD.format(flags=str(tmp_path))
    add(server, "held", code, {"text.txt": "old"})
    assert wait_for_edit(server, "held", 0) == ["old"] * 2
    (tmp_path / "began").unlink()
    (tmp_path / "hold").touch()
    with ThreadPoolExecutor(1) as requests:
        held = requests.submit(server.get, "/held")
        wait_until((tmp_path / "began").exists)
        server.write("held", "new", "text.txt")
        wait_until(lambda: server.plugin("held")["generation"] == 2)
        (tmp_path / "hold").unlink()
        assert held.result(10).json["says"] == "old"
    server.wait_says("held", "new")


def test_folders_go_with_their_archives_and_what_was_refused_leaves_none(server: Server) -> None:
    def kept(pattern: str) -> set[str]:
        return {path.stem.rpartition("-")[2] for path in server.artifacts.glob(pattern)}

    for edit in range(KEPT_VERSIONS + 3):
        server.write("often", PLUGIN.format(name="often", code=f"def answer(): return {edit}"))
        server.wait_everywhere("/often", lambda a, n=edit: a.json.get("says") == n)  # type: ignore[misc]
    server.write("often", "1 / 0")
    wait_until(lambda: (server.plugin("often") or {}).get("error"))
    # Old versions go once it is quiet; their folders a little later.
    wait_until(lambda: len(kept("often-*.pyz")) == KEPT_VERSIONS)
    wait_until(lambda: kept("often-*.pyz") == kept("unpacked/often/*"))
    assert "cannot be removed" not in server.log()


def test_without_a_place_for_folders_plugins_run_from_memory_and_the_log_says_so(
    make_server: MakeServer,
) -> None:
    server = make_server()
    server.artifacts.mkdir(parents=True)
    (server.artifacts / "unpacked").touch()
    server.start()
    assert "plugins run from memory, and find no files beside their code" in server.log()
    (server.artifacts / "unpacked").unlink()
    add(server, "beside", BESIDE, {"texts/greeting.txt": "hello"})
    assert wait_for_edit(server, "beside", 0) == [["hello"] * 3] * 2
    wait_until(lambda: server.log().count("can be written again") == 2)
