"""Plugins that people really write: a good edit goes live, a bad one is refused with what to do.

Each is edited ten times under load, with two workers and with four.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import (
    CASES,
    SERVED_SECONDS,
    add_case,
    code_of,
    edit_case,
    edited,
    light_load,
    wait_for_edit,
)
from tests.support.server import Answer, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

EDITS = 10


@pytest.fixture(scope="module", params=["2", "4"], ids=["2 workers", "4 workers"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[], str],
) -> Iterator[Server]:
    """A server for all cases, with two workers and then with four."""
    home = tmp_path_factory.mktemp("server")
    running = Server(home, new_database(), WEB_CONCURRENCY=request.param)
    # `wait_for_edit` keeps a connection to each worker while another one starts a pool.
    running.environment["GUNICORN_CMD_ARGS"] = "--keep-alive 60"
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("data_beside", ["hello"] * 3),
        ("finds_modules", [1, 2]),
        ("mounts_flask", "for you"),
        ("reads_argv", "parsed"),
    ],
)
def test_ten_edits_go_live_and_no_request_fails(server: Server, name: str, right: Any) -> None:
    assert check(name).returncode == 0
    add_case(server, name)
    wait_for_edit(server, name, 0)
    with light_load(server, f"/{name}", right) as faults:
        for number in range(1, EDITS + 1):
            edit_case(server, name, number)
            wait_for_edit(server, name, number)
    assert not faults, faults[:5]


def test_a_process_pool_of_each_edit_finds_its_functions(server: Server) -> None:
    seconds = 60.0  # each answer starts two pools, and waits for its turn on the cores
    loads, workers = "spawns: serving generation", int(server.environment["WEB_CONCURRENCY"])
    add_case(server, "spawns")
    assert set(map(tuple, wait_for_edit(server, "spawns", 0, seconds))) == {(49, 49)}
    with light_load(server, "/spawns", [49, 49], 2.0) as faults:
        for number in range(1, EDITS + 1):
            before = server.log().count(loads)
            edit_case(server, "spawns", number)
            # Not by asking again and again: who is not there yet would start pools for that, too.
            wait_until(
                lambda b=before: server.log().count(loads) >= b + workers, "all load it", seconds
            )
            wait_for_edit(server, "spawns", number, seconds)
    assert not faults, faults[:5]


def test_an_edit_of_a_data_file_is_served_by_all(server: Server) -> None:
    add_case(server, "data_beside", edited(code_of("data_beside"), 100))
    wait_for_edit(server, "data_beside", 100)
    for number in range(EDITS):
        text = f"hello {number}"
        server.write("data_beside", text, "texts/greeting.txt")
        server.wait_everywhere("/data_beside", partial(_answers, right=[text] * 3), SERVED_SECONDS)


def _answers(found: Answer, right: Any) -> bool:
    return bool(found.json["answer"] == right)


@dataclass(frozen=True)
class Refused:
    """A case that no thread but the main one may run."""

    name: str
    bad: str
    """The line that is refused."""
    good: str
    """What the refusal says to write instead."""
    advice: str
    right: Any
    """What the case answers with the good line."""


REFUSED = [
    Refused(
        "keeps_signal",
        "signal.signal(signal.SIGUSR2, lambda *_: None)\n",
        "",
        "plugins are loaded in a thread: leave them out, and end in cleanup",
        "set",
    ),
    Refused(
        "wants_event_loop",
        "asyncio.get_event_loop()",
        "asyncio.new_event_loop()",
        "asyncio.new_event_loop()",
        False,
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_what_no_worker_could_load_is_refused_by_check_and_publish_alike(
    server: Server, case: Refused
) -> None:
    bad = code_of(case.name)
    assert case.bad in bad
    good = bad.replace(case.bad, case.good)
    checked = check(case.name)
    assert checked.returncode == 1
    assert case.advice in checked.stdout

    add_case(server, case.name, good)
    wait_for_edit(server, case.name, 0)
    with light_load(server, f"/{case.name}", case.right) as faults:
        for number in range(1, EDITS + 1):
            server.write(case.name, edited(bad, number))
            error = wait_until(lambda: (server.plugin(case.name) or {}).get("error"))
            assert case.advice in error["message"]
            assert error["file"] == "main.py"
            server.write(case.name, edited(good, number))
            assert set(wait_for_edit(server, case.name, number)) == {case.right}
            wait_until(lambda: server.plugin(case.name)["error"] is None)
    assert not faults, faults[:5]


def check(name: str) -> "subprocess.CompletedProcess[str]":
    """Run `benana check` on a case."""
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    return subprocess.run(
        [Path(sys.executable).parent / "benana", "check", CASES / name],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
