"""What follows from a changed row: psql → 404, a reconcile pass, a storm of notifications."""

import contextlib
import random
import select
import time
from functools import partial

import psycopg2

from tests.benchmarks.figures.edits import PLUGINS, WORKERS, warm_server
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.measure import Figure, flat, in_turns, median, percentile, short, spread
from tests.benchmarks.pinned import ask_all, find_workers, until_everywhere
from tests.benchmarks.servers import Rig
from tests.benchmarks.speed import within
from tests.benchmarks.worker import WorkerProcess

SMALL = (100, 200)
"""The lines of a plugin where 10,000 of them are loaded."""


class BareNotify:
    """Two psycopg2 connections: one notifies, one listens."""

    def __init__(self, url: str) -> None:
        self._writer, self._reader = psycopg2.connect(url), psycopg2.connect(url)
        self._writer.autocommit = self._reader.autocommit = True
        self._reader.cursor().execute("LISTEN bare")

    def round_trip(self) -> float:
        """Return the milliseconds of one NOTIFY, from its sending to its arrival."""
        began = time.monotonic()
        with self._writer.cursor() as cursor:
            cursor.execute("NOTIFY bare")
        self._reader.poll()
        while not self._reader.notifies:
            select.select([self._reader], [], [], 10.0)
            self._reader.poll()
        self._reader.notifies.clear()
        return (time.monotonic() - began) * 1000

    def close(self) -> None:
        """Close both."""
        self._writer.close()
        self._reader.close()


def measure_update(rig: Rig) -> list[Figure]:
    """UPDATE … SET status = 'inactive' until the last worker's 404, against a bare NOTIFY."""
    server = warm_server(rig, PLUGINS)
    count = rig.pick(5, 20)
    with server.running():
        assert server.database_url is not None
        admin = psycopg2.connect(server.database_url)
        admin.autocommit = True
        bare = BareNotify(server.database_url)

        def switch() -> list[float]:
            found = []
            workers = find_workers(server.port, WORKERS)
            for _ in range(count):
                path = f"/p{random.randrange(PLUGINS):04d}"
                ask_all(workers, f"{path}/over")
                time.sleep(random.uniform(0.05, 0.3))
                with admin.cursor() as cursor:
                    began = time.monotonic()
                    cursor.execute(
                        "UPDATE plugins SET status = 'inactive' WHERE name = %s", (path[1:],)
                    )
                    ended = until_everywhere(
                        workers, path, lambda status, _: status == 404, asked=True
                    )
                    found.append((ended - began) * 1000)
                    cursor.execute(
                        "UPDATE plugins SET status = 'active' WHERE name = %s", (path[1:],)
                    )
                until_everywhere(workers, path, lambda status, _: status == 200)
            return found

        def notify() -> list[float]:
            found = []
            for _ in range(count):
                time.sleep(0.01)
                found.append(bare.round_trip())
            return found

        with contextlib.closing(bare), contextlib.closing(admin):
            switch()
            found = in_turns(rig.pick(2, 8), {"ours": switch, "floor": notify})
    ours, floor = flat(found["ours"]), flat(found["floor"])
    p50, low = median(ours), median(floor)
    return [
        Figure(
            *(f"psql UPDATE → 404 on {WORKERS} workers, p50", p50, "ms"),
            *("bare NOTIFY", low, p50 / low, *within(p50, 10, "ms"), spread(ours)),
            f"{len(ours)} updates, from the sending of the UPDATE; each worker is asked once the "
            f"plugin says that it is over there; p99 {short(percentile(ours, 0.99))} ms",
            {"ours": ours, "bare NOTIFY": floor},
        )
    ]


def measure_reload(rig: Rig) -> list[Figure]:
    """A reconcile pass of one plugin among ever more, a process for each number, in turns."""
    sizes: list[int] = rig.pick([10, 100], [10, 100, 1000, 10_000])
    home = rig.home("reload")
    fleet = Fleet(home, sizes[-1], SMALL)
    workers: dict[str, WorkerProcess] = {}
    try:
        for size in sizes:
            url = rig.database()
            fleet.register(url, 0, size)
            worker = WorkerProcess(url, fleet.artifacts, home / f"data{size}")
            workers[str(size)] = worker
            worker.ask("load")
            worker.ask("reload", "p0000", 20)
        times = rig.pick(10, 25)
        found = in_turns(
            rig.pick(2, 16),
            {
                size: partial(worker.ask, "reload", "p0000", times)
                for size, worker in workers.items()
            },
        )
    finally:
        for worker in workers.values():
            worker.end()
    samples = {size: flat(rounds) for size, rounds in found.items()}
    first = median(samples[str(sizes[0])])
    figures = []
    for size in sizes[1:]:
        ours = median(samples[str(size)])
        figures.append(
            Figure(
                *(f"reload of one among {size:,}", ours, "ms", f"among {sizes[0]}", first),
                *(ours / first, "ratio ≤ 1.3", ours / first <= 1.3, spread(samples[str(size)])),
                f"{len(samples[str(size)])} reconcile passes each",
                samples,
            )
        )
    return figures


def measure_storm(rig: Rig) -> list[Figure]:
    """All rows changed in one transaction: until nothing of them is routed in any process."""
    count, processes = rig.pick(200, 10_000), 2
    home = rig.home("storm")
    fleet = Fleet(home, count, SMALL)
    url = rig.database()
    fleet.register(url)
    workers = [WorkerProcess(url, fleet.artifacts, home / "data") for _ in range(processes)]
    took, swaps = [], []
    try:
        for worker in workers:
            worker.send("load")
        for worker in workers:
            worker.receive()
        admin = psycopg2.connect(url)
        admin.autocommit = True
        for worker in workers:
            worker.ask("listen")
        for worker in workers:
            worker.send("until_empty")
        time.sleep(0.2)
        with admin.cursor() as cursor:
            began = time.monotonic()
            cursor.execute("UPDATE plugins SET status = 'inactive'")
            committed = time.monotonic()
        for worker in workers:
            found = worker.receive()
            took.append(found["ended"] - began)
            swaps.append(found["swaps"])
        admin.close()
    finally:
        for worker in workers:
            worker.end()
    goal, held = within(max(took), 3, "s")
    return [
        Figure(
            *(f"NOTIFY storm, {count:,} rows in one transaction", max(took), "s"),
            *("the UPDATE itself", committed - began, max(took) / (committed - began)),
            *(f"{goal}, one swap a worker", held and set(swaps) == {1}),
            " ".join(short(t) for t in took),
            f"swaps: {swaps}; {processes} processes, from the sending of the UPDATE",
            {"ours": took},
        )
    ]
