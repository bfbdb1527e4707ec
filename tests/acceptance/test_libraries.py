"""Plugins that use real libraries at module level: edits go live, and the libraries follow.

The libraries are those of the extra `libraries` of setup.cfg. All cases are edited at once, on
three servers: those whose edits are hot, those that take fresh workers, and these once more, told
to be hot. What comes of it is docs/libraries.md.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from app.records import FRESH
from tests.support import library_table
from tests.support.library_cases import Case, read_cases
from tests.support.library_runs import Finding, edit_often, fail_hot
from tests.support.library_server import CasesServer
from tests.support.library_table import Line
from tests.support.server import Server

pytestmark = [pytest.mark.soak, pytest.mark.alone]

EDITS = 10
HOT_EDITS = 3
"""How many show that a registry grows."""


WRITE = "WRITE_TABLES"
"""The variable that has the table written instead of compared."""

LEAST = 60
"""How many libraries there have to be."""


@dataclass(slots=True)
class Run:
    """What was found of all cases, by their names.

    `refused` are those that are not published; `fails_hot` has what failed under `reload: hot` of
    those that take fresh workers; `replaced` are the workers that ended though all edits were hot.
    """

    cases: list[Case]
    refused: dict[str, str] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    fails_hot: dict[str, str] = field(default_factory=dict)
    replaced: set[int] = field(default_factory=set)

    def lines(self) -> Iterator[Line]:
        """Give the lines of the table."""
        for case in self.cases:
            if case.name in self.refused:
                yield Line.refused(case, self.refused[case.name])
            else:
                yield Line.of(case, self.findings[case.name], self.fails_hot.get(case.name, ""))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Run:
    """Edit all cases. Which of them take fresh workers, the server that begins with all finds."""
    cases = read_cases()
    if missing := sorted({case.library for case in cases if case.version is None}):
        pytest.skip(f"not installed: {', '.join(missing)}; see the extra `libraries`")
    run = Run(cases)

    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("hot", "fresh", "told"):
            home = tmp_path_factory.mktemp(name)
            servers.append(Server(home, new_database(), WEB_CONCURRENCY="2").start())
            stack.callback(servers[-1].kill)
        _edit_all(run, *servers)
    return run


def _edit_all(run: Run, *servers: Server) -> None:
    """Edit the cases on three servers: the hot ones on the first, and the others meanwhile."""
    first, second, third = servers
    hot = CasesServer(first, run.cases, "reload: auto\n")
    run.refused = hot.refused
    found = hot.findings()
    fresh = [case for case in hot.cases if found[case.name] == FRESH]
    run.fresh = [case.name for case in fresh]
    hot.remove(fresh)
    workers = first.workers()
    with ThreadPoolExecutor() as pool:
        told = pool.submit(_fail_hot, third, fresh)
        others = pool.submit(_edit_often, second, fresh)
        run.findings |= edit_often(hot, EDITS)
        run.replaced = workers - first.workers()
        run.findings |= others.result()
        run.fails_hot = told.result()


def _edit_often(server: Server, fresh: list[Case]) -> dict[str, Finding]:
    return edit_often(CasesServer(server, fresh, "reload: auto\n"), EDITS)


def _fail_hot(server: Server, fresh: list[Case]) -> dict[str, str]:
    return fail_hot(CasesServer(server, fresh, "reload: hot\n"), HOT_EDITS)


def test_ten_edits_answer_right_and_lose_no_request(run: Run) -> None:
    """The library's answers too; and its registries hold no more than after one load."""
    assert {n: found.faults for n, found in run.findings.items() if found.faults} == {}
    assert {n: found.failed[:3] for n, found in run.findings.items() if found.failed} == {}
    assert all(found.asked > EDITS for found in run.findings.values()), "there was no load"


def test_hot_edits_replace_no_worker_and_the_others_all(run: Run) -> None:
    assert run.replaced == set()
    shown = {name for name, found in run.findings.items() if found.how != "hot"}
    assert shown == set(run.fresh)


def test_what_takes_fresh_workers_fails_where_it_is_told_to_be_hot(run: Run) -> None:
    assert set(run.fresh) - run.fails_hot.keys() == set()


def test_the_table_of_the_docs_says_what_is_found(run: Run) -> None:
    lines = list(run.lines())
    assert len({case.library for case in run.cases}) >= LEAST
    if os.environ.get(WRITE):
        library_table.write_table(lines)
    expected = {line.use: line.matters for line in library_table.read_table()}
    assert {line.use: line.matters for line in lines} == expected
