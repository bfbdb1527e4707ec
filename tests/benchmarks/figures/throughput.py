"""Requests a second under gunicorn, by wrk over kept-alive connections."""

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean

import psutil
import psycopg2

from tests.benchmarks.figures.edits import PLUGINS, Editor, warm_server
from tests.benchmarks.generator import write_plugins
from tests.benchmarks.measure import Figure, flat, in_turns, median, short, spread
from tests.benchmarks.servers import BenchServer, Peer, Rig

WORKERS = 2
THREADS = 8
CONNECTIONS = 16
FEWEST_CONNECTIONS = 6
MOST_TRIES = 100
LONG_SECONDS, SHORT_SECONDS = 3, 1
"""With the same server and nothing else, one run gives 7,000 requests a second and the next one
10,000: by how the connections fell to the threads, whatever turns are taken while they last. Many
short runs tell more than few long ones; reloads take a while to show."""

QUIET_RUNS, RELOAD_RUNS, REPORTED_RUNS = 150, 30, 10
"""How often each side runs. The runs of one side differ by 15 % (one standard deviation), so 60 of
a second tell a ratio to 0.027, and these to 0.017."""

REQUESTS_A_RELOAD = 1200
"""How many requests plain Falcon answers in the time between two reloads: so often are there ten a
second on a machine where it answers 12,000, and a slower one is asked for less of both."""

COMPUTING_A_SECOND = 10
COMPUTING_MS = 5.7
"""What a reload by row took of each worker's processor time there, measured without requests."""

ASKED = "/p0000"
"""A route of a plugin that is never reloaded, because `Editor` spares it."""

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Load:
    """What one run of wrk found; `p99` in milliseconds."""

    rate: float
    p99: float
    failed: int


def wrk(server: BenchServer | Peer, seconds: float) -> Load:
    """Ask one path as fast as it goes.

    Whichever worker wakes first accepts, so now and then one gets many more connections than the
    other, or all of them: on both sides such a run is made again.
    """
    if shutil.which("wrk") is None:
        raise AssertionError("wrk is not installed: apt-get install wrk")
    url = f"http://127.0.0.1:{server.port}{ASKED}"
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    for _ in range(MOST_TRIES):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if min(_all_connections(server)) < FEWEST_CONNECTIONS:
                process.kill()
                continue
            return _read(process.stdout.read())
    raise AssertionError(f"{url}: one worker gets all connections, {MOST_TRIES} times")


def _all_connections(server: BenchServer | Peer) -> list[int]:
    """Wait until every connection is accepted, 1 s at most; return how many each worker has."""
    deadline = time.monotonic() + 1.0
    while sum(held := _connections(server)) < CONNECTIONS and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def _connections(server: BenchServer | Peer) -> list[int]:
    """Return how many connections each worker holds."""
    assert server.process is not None
    held = [
        sum(
            c.laddr.port == server.port and c.status == "ESTABLISHED"
            for c in child.net_connections()
        )
        for child in psutil.Process(server.process.pid).children()
        if "gunicorn" in child.cmdline()
    ]
    assert len(held) == WORKERS, held
    return held


def _read(text: str) -> Load:
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    p99 = re.search(r"99%\s*([\d.]+)(us|ms|s)", text)
    assert rate, text
    assert p99, text
    failed = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    for line in re.findall(r"Socket errors:(.*)", text):
        failed += sum(int(n) for n in re.findall(r"\d+", line))
    return Load(float(rate[1]), float(p99[1]) * _UNITS[p99[2]], failed)


def measure(rig: Rig) -> list[Figure]:
    """Measure against plain Falcon, and while one of the plugins is reloaded again and again."""
    server = warm_server(rig, PLUGINS, WORKERS, BENANA_THREADS=str(THREADS))
    peer = Peer("gunicorn", rig.home("peer"), WORKERS, THREADS)
    write_plugins(peer.plugins, PLUGINS)
    long_seconds = rig.pick(SHORT_SECONDS, LONG_SECONDS)
    loads: dict[str, list[Load]] = {}

    def run(
        label: str,
        asked: BenchServer | Peer,
        meanwhile: Callable[[], object] = contextlib.nullcontext,
        seconds: float = long_seconds,
    ) -> Callable[[], list[float]]:
        def once() -> list[float]:
            with meanwhile() as _:  # type: ignore[attr-defined]
                load = wrk(asked, seconds)
            loads.setdefault(label, []).append(load)
            time.sleep(0.2)
            return [load.rate]

        return once

    def turns(runs: int, sides: dict[str, Callable[[], list[float]]]) -> dict[str, list[float]]:
        return {label: flat(r) for label, r in in_turns(rig.pick(2, runs), sides).items()}

    with server.running(), peer.running():
        for side in (server, peer):
            wrk(side, 1)
        quiet = {
            "ours": run("ours", server, seconds=SHORT_SECONDS),
            "plain Falcon": run("plain Falcon", peer, seconds=SHORT_SECONDS),
        }
        found = turns(QUIET_RUNS, quiet)
        rate = mean(found["plain Falcon"]) / REQUESTS_A_RELOAD
        by_row = {
            "without reloads": run("without reloads", server),
            "by row": run("by row", server, lambda: _by_row(server, rate)),
        }
        by_edit = {
            "without edits": run("without edits", server),
            "by edit": run("by edit", server, lambda: _by_edit(server, rate)),
        }
        found |= turns(RELOAD_RUNS, by_row) | turns(REPORTED_RUNS, by_edit)
    busy = Peer("gunicorn", rig.home("peer"), WORKERS, THREADS, compute=COMPUTING_MS)
    write_plugins(busy.plugins, PLUGINS)
    with peer.running(), busy.running():
        for side in (peer, busy):
            wrk(side, 1)
        floor = {
            "idle": run("idle", peer),
            "computing": run("computing", busy),
        }
        found |= turns(REPORTED_RUNS, floor)
    note = f"{WORKERS} workers × {THREADS} threads, {CONNECTIONS} connections"
    short_note, note = (f"{note}, {n} s a run" for n in (SHORT_SECONDS, long_seconds))
    figures = _compare("throughput", found, loads, ("ours", "plain Falcon"), 0.98, 1.1, short_note)
    # An edit is compiled, tried and saved on the same two cores; its goal is in `edit`.
    for label, without, goal in (
        ("by row", "without reloads", 0.85),
        ("by edit", "without edits", None),
    ):
        name = f"throughput, {short(rate, 2)} reloads/s {label}"
        sides = (label, without)
        figures += _compare(name, found, loads, sides, goal, None, note)
    name = f"plain Falcon, computing {COMPUTING_A_SECOND} × {COMPUTING_MS} ms a second"
    figures += _compare(name, found, loads, ("computing", "idle"), None, None, note)
    return figures


def _compare(
    name: str,
    found: dict[str, list[float]],
    loads: dict[str, list[Load]],
    sides: tuple[str, str],
    goal: float | None,
    p99_goal: float | None,
    note: str,
) -> list[Figure]:
    ours, peer = sides
    ratios = [a / b for a, b in zip(found[ours], found[peer], strict=True)]
    # All requests of a side by all of its time: it tells a ratio better than medians do.
    rates = [mean(found[side]) for side in sides]
    ratio = rates[0] / rates[1]
    failed = sum(load.failed for load in loads[ours])
    p99 = [median([load.p99 for load in loads[side]]) for side in sides]
    held = None if goal is None else ratio >= goal and failed == 0
    aim = "reported, 0 failed" if goal is None else f"ratio ≥ {goal}, 0 failed"
    samples = {name: found[ours], peer: found[peer]}
    rate = Figure(
        *(name, rates[0], "req/s", peer, rates[1], ratio),
        *(aim, held, f"ratio {spread(ratios)}"),
        f"{note}, {len(ratios)} runs; {failed} failed",
        samples,
    )
    tail = Figure(
        *(f"{name}, p99", p99[0], "ms", peer, p99[1], p99[0] / p99[1]),
        "reported" if p99_goal is None else f"ratio ≤ {p99_goal}",
        None if p99_goal is None else p99[0] / p99[1] <= p99_goal,
        f"{short(min(x.p99 for x in loads[ours]))}–{short(max(x.p99 for x in loads[ours]))}",
        "",
        {name: [x.p99 for x in loads[ours]], peer: [x.p99 for x in loads[peer]]},
    )
    return [rate, tail]


@contextlib.contextmanager
def _again_and_again(act: Callable[[], None], rate: float) -> Iterator[None]:
    """Act so many times a second, for the length of a `with` block."""
    stop = threading.Event()

    def run() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            act()
            due += 1 / rate

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _by_row(server: BenchServer, rate: float) -> Iterator[None]:
    connection = psycopg2.connect(server.database_url or "")
    connection.autocommit = True

    def act() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE plugins SET generation = generation + 1 WHERE name = %s", ("p0001",)
            )

    with contextlib.closing(connection), _again_and_again(act, rate):
        yield


_editors: dict[str, Editor] = {}


@contextlib.contextmanager
def _by_edit(server: BenchServer, rate: float) -> Iterator[None]:
    editor = _editors.setdefault(str(server.plugins), Editor(server.plugins))

    def act() -> None:
        folder, text, _, _ = editor.next()
        (folder / "main.py").write_text(text)

    with _again_and_again(act, rate):
        yield
