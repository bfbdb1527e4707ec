"""Whatever is done, in whatever order, the invariants of ARCHITECTURE.md hold after each step.

Hypothesis chooses the steps; a model says what each plugin is to serve. All examples run against
one server with PostgreSQL of its own, each with plugins of its own.
"""

import http.client
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres
from tests.support.requester import counting, session
from tests.support.server import Server, ask
from tests.support.waiting import wait_until

WORKERS = 2
SECONDS = 4.0
"""The bound for every worker to serve what the rows say: the database's return takes the most."""

SEED = int(os.environ.get("BENANA_TEST_SEED", "3"))


@dataclass
class World:
    """The server and its database, and what was done to them."""

    server: Server
    postgres: EmbeddedPostgres
    steps: Counter[str] = field(default_factory=Counter)
    examples: int = 0
    slowest: float = 0.0


@pytest.fixture(scope="module")
def world(new_postgres: NewPostgres) -> Iterator[World]:
    """A running server of 2 workers with a PostgreSQL that can be restarted."""
    with tempfile.TemporaryDirectory(prefix="benana-machine-") as folder:
        Path(folder).chmod(0o755)
        postgres = new_postgres(Path(folder) / "postgres")
        url = postgres.start()
        home = Path(folder) / "server"
        home.mkdir()
        server = Server(home, url, WEB_CONCURRENCY=str(WORKERS))
        try:
            server.start()
            yield World(server, postgres)
            server.stop()
            assert server.process is not None
            assert server.process.returncode == 0
        finally:
            server.kill()
            postgres.stop()


@dataclass
class Plugin:
    """What the model knows of a plugin."""

    name: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    source: int | None = None
    """The number in the folder's source; None without a folder."""
    broken: bool = False
    served: int | None = None
    """The number that the row is of; None without a row."""
    active: bool = True
    generation: int = 0
    paths: dict[int, str] = field(default_factory=dict)
    """The archives of the numbers that were published, from the rows."""


SLOTS = st.integers(0, 1)


class Machine(RuleBasedStateMachine):
    """Steps on two plugins; after each, every worker is to serve what the model says."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.plugins: list[Plugin] = []
        self.floor: dict[tuple[int, str], int] = {}
        self.calm = True
        """Whether PostgreSQL was left alone in the last step: restarts would crowd out the rest."""

    @initialize()
    def begin(self) -> None:
        """Two plugins that nobody has seen before."""
        self.world.examples += 1
        prefix = f"m{self.world.examples}"
        self.plugins = [Plugin(f"{prefix}_a"), Plugin(f"{prefix}_b")]
        for plugin in self.plugins:
            self._write(plugin)

    # --- steps -------------------------------------------------------------------------------

    @rule(slot=SLOTS)
    def edit(self, slot: int) -> None:
        """Write the next version; a folder that was gone is restored by it."""
        self._step("edit")
        self._write(self.plugins[slot])

    @rule(slot=SLOTS)
    def break_it(self, slot: int) -> None:
        """Write what does not compile, or does not load."""
        plugin = self.plugins[slot]
        if plugin.source is None:
            return
        self._step("break")
        number = next(plugin.numbers)
        text = "def f(:\n" if number % 2 else "raise RuntimeError('broken')\n"
        self.world.server.write(plugin.name, f"# {number}\n{text}")
        plugin.source, plugin.broken = number, True

    @rule(slot=SLOTS)
    def delete_folder(self, slot: int) -> None:
        """Remove the folder: the plugin is unregistered."""
        plugin = self.plugins[slot]
        if plugin.source is None:
            return
        self._step("delete")
        shutil.rmtree(self.world.server.plugins / plugin.name)
        plugin.source, plugin.broken, plugin.served, plugin.active = None, False, None, True
        plugin.generation = 0
        # A new row begins at 1 again, under another id.
        self._forget_floor(plugin)

    @precondition(lambda self: any(p.source is None for p in self.plugins))
    @rule()
    def restore(self) -> None:
        """Write a folder that is gone again."""
        self._step("restore")
        for plugin in self.plugins:
            if plugin.source is None:
                self._write(plugin)

    @rule(slot=SLOTS)
    def toggle(self, slot: int) -> None:
        """Turn it off or on over REST."""
        plugin = self.plugins[slot]
        answer = self.world.server.post(f"/plugins/{plugin.name}/toggle")
        self._step("toggle")
        if plugin.served is None:
            assert answer.status == 404, answer
            return
        assert answer.status == 200, answer
        plugin.active = not plugin.active
        plugin.generation += 1
        assert answer.json["status"] == ("active" if plugin.active else "inactive")

    @rule(slot=SLOTS)
    def reload(self, slot: int) -> None:
        """Reload over REST: what is in the folder is published, whether it changed or not."""
        plugin = self.plugins[slot]
        answer = self.world.server.post(f"/plugins/{plugin.name}/reload")
        self._step("reload")
        if plugin.source is None:
            assert answer.status == 404, answer
        elif plugin.broken:
            assert 400 <= answer.status < 500, answer
        else:
            assert answer.status == 202, answer
            plugin.served = plugin.source
            plugin.generation += 1

    @rule(slot=SLOTS)
    def raise_generation(self, slot: int) -> None:
        """Raise the generation in psql, by far or by one; or try to lower it."""
        plugin = self.plugins[slot]
        self._step("psql generation")
        by = 1 + plugin.generation % 3
        self._sql("generation = generation + %s", by, plugin)
        if plugin.served is not None:
            plugin.generation += by

    @rule(slot=SLOTS, active=st.booleans())
    def set_status(self, slot: int, active: bool) -> None:
        """Set the status in psql; what it is already is no change."""
        plugin = self.plugins[slot]
        self._step("psql status")
        self._sql("status = %s", "active" if active else "inactive", plugin)
        if plugin.served is not None and plugin.active != active:
            plugin.active = active
            plugin.generation += 1

    @rule(slot=SLOTS, which=st.integers(0, 5))
    def roll_back(self, slot: int, which: int) -> None:
        """Set binary_path to an earlier archive in psql."""
        plugin = self.plugins[slot]
        others = [n for n in plugin.paths if n != plugin.served]
        if plugin.served is None or not others:
            return
        self._step("psql binary_path")
        number = others[which % len(others)]
        self._sql("binary_path = %s", plugin.paths[number], plugin)
        plugin.served = number
        plugin.generation += 1

    @rule(holder=st.booleans())
    def kill_worker(self, holder: bool) -> None:
        """Kill -9 the worker that watches, or the one that does not."""
        self._step("kill worker")
        server = self.world.server
        watching = int((server.artifacts / ".watch.lock").read_text() or 0)
        found = [pid for pid in server.workers() if (pid == watching) == holder]
        for pid in found[:1]:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda p=pid: p not in server.workers(), "it is gone")

    @rule()
    def terminate_listeners(self) -> None:
        """Terminate the listeners' backends."""
        self._step("terminate listeners")
        self.world.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'benana-listener'"
        )

    @precondition(lambda self: self.calm)
    @rule()
    def restart_postgresql(self) -> None:
        """Restart PostgreSQL."""
        self._step("restart PostgreSQL")
        self.calm = False
        self.world.postgres.stop()
        self.world.postgres.start()
        # REST calls answer 503 until then, and the model knows of none.
        wait_until(lambda: self.world.server.get("/plugins").status == 200, "it is back", SECONDS)

    # --- what must hold ----------------------------------------------------------------------

    @invariant()
    def every_worker_serves_what_the_rows_say(self) -> None:
        """Rows as the model has them, served by every worker; within the bound."""
        if not self.plugins:
            return
        began = time.monotonic()
        server = self.world.server
        wait_until(lambda: len(server.workers()) == WORKERS, "all workers are there")
        while True:
            try:
                last = self._difference()
            except (OSError, http.client.HTTPException, psycopg2.Error) as error:
                last = error
            if last is None or time.monotonic() > began + SECONDS:
                break
            time.sleep(0.01)
        # A killed worker's successor starts within it as well.
        assert last is None, f"{last}; model: {self.plugins}\n{server.log()[-6000:]}"
        self.world.slowest = max(self.world.slowest, time.monotonic() - began)

    def _difference(self) -> object:
        server = self.world.server
        with session(server) as run:
            for plugin in self.plugins:
                rows = run(
                    "SELECT generation, status, version, binary_path, error IS NOT NULL"
                    " FROM plugins WHERE name = %s",
                    plugin.name,
                )
                if plugin.served is None:
                    if rows:
                        return ("a row that should not be", plugin.name, rows)
                    continue
                if not rows:
                    return ("no row", plugin.name)
                generation, status, version, path, has_error = rows[0]
                plugin.paths.setdefault(int(version), path)
                told = (plugin.generation, "active" if plugin.active else "inactive")
                if (generation, status) != told:
                    return ("row", plugin.name, rows[0], told)
                if path != plugin.paths.get(plugin.served, path):
                    return ("path", plugin.name, rows[0], plugin.served)
                if has_error != plugin.broken:
                    return ("error", plugin.name, rows[0], plugin.broken)
        for plugin in self.plugins:
            served = plugin.active and plugin.served is not None
            expected = (plugin.served, plugin.generation) if served else None
            with server.each_worker() as workers:
                if workers.keys() != server.workers():
                    return ("workers", set(workers), server.workers())
                for pid, connection in workers.items():
                    answer = ask(connection, "GET", f"/{plugin.name}")
                    found = None
                    if answer.status == 200:
                        found = (answer.json["number"], answer.json["generation"])
                        if served:  # else it is the last of a row that is gone
                            floor = self.floor.get((pid, plugin.name), 0)
                            assert found[1] >= floor, f"{pid}: {found} after generation {floor}"
                            self.floor[pid, plugin.name] = found[1]
                    elif answer.status != 404:
                        return ("status", plugin.name, pid, answer)
                    if found != expected:
                        return ("served", plugin.name, pid, found, expected)
        return None

    def teardown(self) -> None:
        """Take this example's plugins away."""
        for plugin in self.plugins:
            shutil.rmtree(self.world.server.plugins / plugin.name, ignore_errors=True)

    # --- small things ------------------------------------------------------------------------

    def _step(self, what: str) -> None:
        self.world.steps[what] += 1
        self.calm = True

    def _write(self, plugin: Plugin) -> None:
        number = next(plugin.numbers)
        self.world.server.write(plugin.name, counting(plugin.name, number))
        plugin.source, plugin.broken, plugin.served = number, False, number
        plugin.generation += 1

    def _sql(self, assignment: str, value: object, plugin: Plugin) -> None:
        self.world.server.sql(
            f"UPDATE plugins SET {assignment} WHERE name = %s", value, plugin.name
        )

    def _forget_floor(self, plugin: Plugin) -> None:
        self.floor = {key: floor for key, floor in self.floor.items() if key[1] != plugin.name}


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(2, 12, id="2 x 12"),
        pytest.param(12, 30, id="12 x 30", marks=pytest.mark.soak),
    ],
)
def test_the_invariants_hold_after_every_step(world: World, examples: int, steps: int) -> None:
    began = time.monotonic()
    machine = type("Machine", (Machine,), {"world": world})
    world.steps.clear()
    try:
        run_state_machine_as_test(
            seed(SEED)(machine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # Shrinking a failure would take an hour, and the log shows the steps.
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        print(
            f"\nseed {SEED}, {world.examples} examples, {sum(world.steps.values())} steps in "
            f"{time.monotonic() - began:.0f} s: {dict(world.steps)}; settled after at most "
            f"{world.slowest:.2f} s",
            file=sys.stderr,
        )
