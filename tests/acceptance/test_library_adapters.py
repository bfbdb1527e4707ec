"""Plugins whose libraries have an adapter (prometheus_client, marshmallow): their edits stay hot.

The libraries are those of the extra `libraries` of setup.cfg.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.loading import library_entries
from app.publishing.trials.rehearser import Rehearser
from app.publishing.trials.trial import TrialRunner
from app.records import FRESH, HOT
from tests.support.plugins import artifact_of
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

EDITS = 10
EDIT_SECONDS = 5.0
"""The bound of the issue for an edit to be on every worker."""

COUNTER = """
from prometheus_client import REGISTRY, Counter, Gauge

CALLS = Counter("shop_calls_total", "Calls.", ["kind"])
RUNNING = Gauge("shop_running", "Running.")

def answer():
    CALLS.labels("get").inc()
    with RUNNING.track_inprogress():
        counted = REGISTRY.get_sample_value("shop_calls_total", {"kind": "get"})
        held = REGISTRY.get_sample_value("process_open_fds")
    return {"counted": counted, "process": held is not None}
"""

SCHEMA = """
from marshmallow import Schema, fields

class Tag(Schema):
    label = fields.Str()

class Book(Schema):
    tags = fields.Nested("Tag", many=True)

def answer():
    return Book().dump({"tags": [{"label": "new"}]})
"""


def plugin(name: str, code: str, edit: int) -> str:
    return f"""
import os
from app.plugin import PluginMetadata
{code}
EDIT = {edit}

class Plugin:
    def initialize(self, context): pass

    def get_metadata(self):
        return PluginMetadata("{name}", "1.0.0")

    def register_routes(self, server):
        server.get("/{name}", lambda: {{"edit": EDIT, "pid": os.getpid(), "answer": answer()}})

    def cleanup(self, context): pass

new_plugin = Plugin
"""


@pytest.fixture(scope="module", params=[2, 4], ids=["2 workers", "4 workers"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[], str],
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("libraries")
    running = Server(home, new_database(), WEB_CONCURRENCY=str(request.param)).start()
    yield running
    running.stop()


@contextlib.contextmanager
def load(server: Server, name: str) -> Iterator[list[str]]:
    """Ask a plugin all the time, and give what was not answered with 200."""
    failed: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answer = server.get(f"/{name}")
            except OSError as error:
                failed.append(repr(error))
            else:
                if answer.status != 200:
                    failed.append(f"{answer.status} {answer.body[:200]!r}")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield failed
    over.set()
    for thread in threads:
        thread.join()


def edit(server: Server, name: str, code: str, number: int) -> float:
    """Edit a plugin, and return how many seconds it took to be on every worker."""
    server.write(name, plugin(name, code, number))
    began = time.monotonic()
    wait_until(
        lambda: all(
            answer.status == 200 and answer.json["edit"] == number
            for answer in server.ask_all(f"/{name}").values()
        ),
        f"edit {number} of {name} is on every worker\n{server.log()[-3000:]}",
        30.0,
    )
    return time.monotonic() - began


@pytest.mark.parametrize(("name", "code"), [("counter", COUNTER), ("schema", SCHEMA)])
def test_ten_edits_under_load_are_hot_and_lose_nothing(
    server: Server, name: str, code: str
) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("marshmallow")
    edit(server, name, code, 0)
    workers = server.workers()
    with load(server, name) as failed:
        took = [edit(server, name, code, number) for number in range(1, EDITS + 1)]
    assert failed == []
    assert max(took) < EDIT_SECONDS, took
    assert server.workers() == workers, "no worker was replaced"
    wait_until(
        lambda: server.plugin(name)["reload"]["how"] == HOT, "and it was found that none has to be"
    )
    for answer in server.ask_all(f"/{name}").values():
        found = answer.json["answer"]
        if name == "schema":
            assert found == {"tags": [{"label": "new"}]}
        else:
            assert found["process"], "the library's own metrics stay"
            assert found["counted"] > EDITS, "a counter goes on counting over edits"


def test_without_the_adapters_it_is_found_that_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("marshmallow")
    (tmp_path / "sitecustomize.py").write_text(
        "from app.loading import library_entries\nlibrary_entries.BUILT_IN.clear()\n"
    )
    assert library_entries.BUILT_IN
    monkeypatch.syspath_prepend(str(tmp_path))
    runner = TrialRunner(None)
    try:
        rehearser = runner.rehearser(tmp_path / "plugins", tmp_path / "bin")
        assert why(rehearser, COUNTER).startswith(
            "loaded beside its older version, import fails: DuplicateTimeseries: Duplicated"
        )
        assert "marshmallow.class_registry keeps Tag and Book of the older version" in why(
            rehearser, SCHEMA
        )
    finally:
        runner.stop()


def why(rehearser: Rehearser, code: str) -> str:
    found = rehearser.rehearse(None, artifact_of({"main.py": plugin("sample", code, 0)}), 4)
    assert found.reload.how == FRESH
    return found.reload.why
