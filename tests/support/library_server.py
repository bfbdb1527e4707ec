"""The cases of `library_cases` on real servers: edited all at once, under load, and asked."""

import contextlib
import http.client
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from app.settings import Settings
from tests.support.library_cases import Case, is_right
from tests.support.server import Answer, Server, ask

ROUND_SECONDS = 600.0
"""How long one edit of all cases may take, on a machine that has much else to do."""

SETTLE_SECONDS = 30.0
"""How long the version before may take until it is cleaned up, and has left memory."""

COLLECTS = """
import gc
import os

from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata(name="collects", version="1")

    def register_routes(self, server):
        server.post("/collects", self.collect)

    def cleanup(self, context):
        pass

    def collect(self):
        gc.unfreeze()
        gc.collect()
        return {"pid": os.getpid()}


def new_plugin():
    return Plugin()
"""
"""A plugin that has all garbage collected: a server that has much in memory takes its time."""

LOADING = "is still loading"
"""What is said of a load that takes a moment."""

TOO_SLOW = "did not return within"
"""What is said of a trial; a good one too is refused on a machine that has too much to do."""

PAUSE_SECONDS = 0.02
"""Between two requests of the load."""

LOOK_SECONDS = 0.3
"""Between two looks at who serves an edit."""

FAULTS_SECONDS = 1.5
"""Between two looks at what the server says is wrong."""


@dataclass(slots=True)
class Load:
    """What was asked meanwhile: how often, and what was not answered with 200, by case."""

    asked: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """What a worker still has of older versions: entries in libraries' registries, and versions."""

    held: int
    versions: int


Served = dict[str, list[Answer] | str]
"""The answers of all workers by case; why there are none in a sentence."""


class CasesServer:
    """A server with cases. `edit` writes all, `wait` until they are served, and gives the answers.

    `cases` are those that are looked at; they begin with edit 0.
    """

    def __init__(self, server: Server, cases: Sequence[Case], manifest: str) -> None:
        """Put them there, and wait until they are served.

        Args:
            server: one that runs.
            cases: the cases.
            manifest: the `plugin.yaml` of each.
        """
        self.server = server
        server.write("collects", COLLECTS)
        served: Served = {}
        # One after the other: what is imported for the first time in several threads at once may
        # fail, by a deadlock of Python's import locks.
        for case in cases:
            self._put(case, manifest)
            self.cases = [case]
            served |= self.wait(0)
        wrong = {name: wrong_in(answers, 0) for name, answers in served.items()}
        self.refused = {name: fault for name, fault in wrong.items() if fault}
        """Those that are not served, and why."""
        self.cases = [case for case in cases if case.name not in self.refused]
        # Once all are loaded: what a case imports may register with the library of another one.
        served = self.wait(0)
        self.held = {case.name: _most_held(served[case.name]) for case in self.cases}
        """How much the libraries' registries hold after one load, by case."""

    def _put(self, case: Case, manifest: str) -> None:
        """Put a case's folder there, whole when it is seen."""
        made = self.server.home / "made" / case.name
        made.mkdir(parents=True)
        (made / "main.py").write_text(case.plugin(0))
        (made / "plugin.yaml").write_text(manifest)
        made.rename(self.server.plugins / case.name)

    def remove(self, cases: Sequence[Case]) -> None:
        """Take some cases away."""
        self.cases = [case for case in self.cases if case not in cases]
        for case in cases:
            shutil.rmtree(self.server.plugins / case.name)

    def edit(self, number: int) -> None:
        """Write an edit of all cases, one after the other."""
        for case in self.cases:
            self.server.write(case.name, case.plugin(number))

    def wait(self, number: int) -> Served:
        """Wait until every worker serves an edit of each case, or it is known why not."""
        deadline = time.monotonic() + ROUND_SECONDS
        next_faults = time.monotonic() + FAULTS_SECONDS
        found: dict[str, dict[int, Answer]] = {case.name: {} for case in self.cases}
        faults: dict[str, str] = {}
        while True:
            # A worker may be replaced meanwhile; then its successor is asked.
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._ask(found, number)
            pids = self.server.workers()
            left = {name for name in found.keys() - faults if not pids <= found[name].keys()}
            if not left:
                return {
                    name: faults.get(name) or [answers[pid] for pid in sorted(pids)]
                    for name, answers in found.items()
                }
            if time.monotonic() > next_faults:
                next_faults = time.monotonic() + FAULTS_SECONDS
                for name, fault in self._faults(left).items():
                    if TOO_SLOW in fault:  # the machine was: as an operator would do
                        self.server.post(f"/plugins/{name}/reload")
                    else:
                        faults[name] = fault
            if time.monotonic() > deadline:
                raise AssertionError(f"edit {number} of {left} is not served\n{self.server.log()}")
            time.sleep(LOOK_SECONDS)

    def _ask(self, found: dict[str, dict[int, Answer]], number: int) -> None:
        with self.server.each_worker() as connections:
            for name, answers in found.items():
                for pid in connections.keys() - answers.keys():
                    answer = ask(connections[pid], "GET", f"/{name}")
                    is_served = answer.status == 200 and answer.json["edit"] == number
                    if is_served or answer.status == 500:
                        answers[pid] = answer

    def _faults(self, names: Collection[str]) -> dict[str, str]:
        """Return what the server says is wrong with cases."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers = [self.server.get(path) for path in ("/plugins", "/plugins?status=failed")]
            errors = {row["name"]: row["error"] for answer in answers for row in answer.json}
            return {
                name: f"{error['phase']} fails: {error['message']}"
                for name in names
                if (error := errors.get(name)) and LOADING not in error["message"]
            }
        return {}

    def findings(self) -> dict[str, str]:
        """Wait until each case is rehearsed; return how its next edit goes live: hot or fresh."""
        names = [case.name for case in self.cases]
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            found: dict[str, str] = dict(
                self.server.sql(
                    "SELECT name, finding->>'how' FROM plugins p JOIN plugin_versions v"
                    " ON plugin_name = name AND v.source_digest = p.source_digest"
                    " WHERE name = ANY(%s) AND finding IS NOT NULL",
                    names,
                )
            )
            if found.keys() >= set(names):
                return found
            assert time.monotonic() < deadline, f"not rehearsed: {set(names) - found.keys()}"
            time.sleep(LOOK_SECONDS)

    def settle(self) -> dict[str, Left]:
        """Wait until nothing is left of older versions; return what is, by case."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return left

    def _left(self) -> dict[str, Left]:
        left: dict[str, Left] = {}
        for pid in self.server.workers():
            with self.server.each_worker() as connections:  # one that waits long is closed
                left |= self._left_in(connections[pid])
        return left

    def _left_in(self, connection: http.client.HTTPConnection) -> dict[str, Left]:
        left: dict[str, Left] = {}
        assert ask(connection, "POST", "/collects").status == 200
        for case in self.cases:
            answer = ask(connection, "GET", f"/{case.name}")
            assert answer.status == 200, answer
            held = answer.json["held"] - self.held[case.name]
            versions = len(answer.json["alive"]) - 1
            if held > 0 or versions > 0:
                left[case.name] = Left(max(held, 0), versions)
                # A thread may keep what it answered last with (bottle's request, its app) until it
                # answers again: each does, and the next look finds what is really kept.
                for _ in range(Settings.threads):
                    assert ask(connection, "GET", f"/{case.name}").status == 200
        return left

    def keeper_of(self, name: str) -> str:
        """Return what the log says that a case's older versions are kept by."""
        said = re.findall(
            rf"{name}-g\d+: still in memory after its cleanup; (.*)", self.server.log()
        )
        return said[-1] if said else ""

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Ask all cases all the time, one after the other, each over a new connection."""
        load = Load()
        over = threading.Event()

        def ask_always() -> None:
            while True:
                for case in self.cases:
                    if over.wait(PAUSE_SECONDS):
                        return
                    load.asked[case.name] += 1
                    if failure := self._failure_of(case.name):
                        load.failed.setdefault(case.name, []).append(failure)

        thread = threading.Thread(target=ask_always)
        thread.start()
        try:
            yield load
        finally:
            over.set()
            thread.join()

    def _failure_of(self, name: str) -> str:
        try:
            answer = self.server.get(f"/{name}")
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        return "" if answer.status == 200 else f"{answer.status} {answer.body[:300]!r}"


def wrong_in(served: list[Answer] | str, edit: int) -> str:
    """Return what is wrong with how an edit is served, nothing if nothing."""
    if isinstance(served, str):
        return served
    for answer in served:
        if answer.status != 200:
            return f"GET answers {answer.status}"
        if not is_right(answer.json["answer"], edit):
            return f"the library answers {answer.json['answer']} for {edit}"
    return ""


def _most_held(served: list[Answer] | str) -> int:
    held = [answer.json["held"] for answer in served if not isinstance(answer, str)]
    return max(held, default=0)
