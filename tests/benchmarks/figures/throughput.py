"""Requests a second under gunicorn, by wrk over kept-alive connections."""

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg2

from tests.benchmarks.figures.edits import PLUGINS, Editor, warm_server
from tests.benchmarks.generator import write_plugins
from tests.benchmarks.measure import Figure, flat, in_turns, median, short, spread
from tests.benchmarks.servers import BenchServer, Peer, Rig

WORKERS = 2
THREADS = 8
CONNECTIONS = 16
RELOADS_A_SECOND = 10
ASKED = "/p0000"
"""A route of a plugin that is never reloaded, because `Editor` spares it."""

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Load:
    """What one run of wrk found; `p99` in milliseconds."""

    rate: float
    p99: float
    failed: int


def wrk(port: int, seconds: int) -> Load:
    """Ask one path as fast as it goes."""
    if shutil.which("wrk") is None:
        raise AssertionError("wrk is not installed: apt-get install wrk")
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    url = f"http://127.0.0.1:{port}{ASKED}"
    text = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
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
    seconds, rounds = rig.pick(1, 5), rig.pick(2, 5)
    loads: dict[str, list[Load]] = {}

    def run(label: str, port: int, meanwhile: Callable[[], object]) -> Callable[[], list[float]]:
        def once() -> list[float]:
            with meanwhile() as _:  # type: ignore[attr-defined]
                load = wrk(port, seconds)
            loads.setdefault(label, []).append(load)
            time.sleep(0.5)
            return [load.rate]

        return once

    with server.running(), peer.running():
        for port in (server.port, peer.port):
            wrk(port, 1)
        sides = {
            "ours": run("ours", server.port, contextlib.nullcontext),
            "plain Falcon": run("plain Falcon", peer.port, contextlib.nullcontext),
            "reloads": run("reloads", server.port, lambda: _by_row(server)),
            "edits": run("edits", server.port, lambda: _by_edit(server)),
        }
        found = {label: flat(r) for label, r in in_turns(rounds, sides).items()}
    note = (
        f"{WORKERS} workers × {THREADS} threads, {CONNECTIONS} connections, {rounds} × {seconds} s"
    )
    figures = _compare("throughput", found, loads, ("ours", "plain Falcon"), 0.98, 1.1, note)
    for label, how in (("reloads", "by row"), ("edits", "by edit")):
        name = f"throughput, {RELOADS_A_SECOND} reloads/s {how}"
        figures += _compare(name, found, loads, (label, "ours"), 0.85, None, note)
    return figures


def _compare(
    name: str,
    found: dict[str, list[float]],
    loads: dict[str, list[Load]],
    sides: tuple[str, str],
    goal: float,
    p99_goal: float | None,
    note: str,
) -> list[Figure]:
    ours, peer = sides
    peer_name = "without reloads" if peer == "ours" else peer
    ratios = [a / b for a, b in zip(found[ours], found[peer], strict=True)]
    failed = sum(load.failed for load in loads[ours])
    p99 = [median([load.p99 for load in loads[side]]) for side in sides]
    held = median(ratios) >= goal and failed == 0
    samples = {name: found[ours], peer_name: found[peer]}
    rate = Figure(
        *(name, median(found[ours]), "req/s", peer_name, median(found[peer]), median(ratios)),
        *(f"ratio ≥ {goal}, 0 failed", held, f"ratio {spread(ratios)}"),
        f"{note}; {failed} failed",
        samples,
    )
    tail = Figure(
        *(f"{name}, p99", p99[0], "ms", peer_name, p99[1], p99[0] / p99[1]),
        "reported" if p99_goal is None else f"ratio ≤ {p99_goal}",
        None if p99_goal is None else p99[0] / p99[1] <= p99_goal,
        f"{short(min(x.p99 for x in loads[ours]))}–{short(max(x.p99 for x in loads[ours]))}",
        "",
        {name: [x.p99 for x in loads[ours]], peer_name: [x.p99 for x in loads[peer]]},
    )
    return [rate, tail]


@contextlib.contextmanager
def _again_and_again(act: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            act()
            due += 1 / RELOADS_A_SECOND

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _by_row(server: BenchServer) -> Iterator[None]:
    connection = psycopg2.connect(server.database_url or "")
    connection.autocommit = True

    def act() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE plugins SET generation = generation + 1 WHERE name = %s", ("p0001",)
            )

    with contextlib.closing(connection), _again_and_again(act):
        yield


_editors: dict[str, Editor] = {}


@contextlib.contextmanager
def _by_edit(server: BenchServer) -> Iterator[None]:
    editor = _editors.setdefault(str(server.plugins), Editor(server.plugins))

    def act() -> None:
        folder, text, _, _ = editor.next()
        (folder / "main.py").write_text(text)

    with _again_and_again(act):
        yield
