"""From the write of a file until every worker answers anew: against a floor, and against peers."""

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.fleet import Fleet
from tests.benchmarks.floor import Floor
from tests.benchmarks.generator import revise, write_plugins
from tests.benchmarks.measure import Figure, flat, in_turns, median, percentile, short, spread
from tests.benchmarks.pinned import ask_all, find_workers, until_everywhere, until_new_workers
from tests.benchmarks.servers import BenchServer, Peer, Prober, Rig
from tests.benchmarks.speed import within

WORKERS = 4
PLUGINS = 100
PEERS = ("gunicorn --reload", "kill -HUP", "uvicorn --reload", "jurigged")
SOONEST_SECONDS = 0.02
"""Where a plugin is not told that it is over nobody is asked before, for the asking takes the
cores: jurigged waits for 50 ms of quiet."""

SOONEST_SHARE = 0.7
"""Nor before this share of what most edits took so far: to ask four workers every 3 ms takes a
third of two slow cores. An edit that was faster counts as late as it was asked for."""

PAUSE_SECONDS = 0.1, 0.5
"""How long nothing happens before an edit, on either side: after it a processor's caches hold
other things, and it has to wake."""

BYSTANDER = "/p0000"
"""The route that the prober asks; its plugin is never edited."""


def warm_server(rig: Rig, count: int, workers: int = WORKERS, **environment: str) -> BenchServer:
    """Return a server, not started, with `count` plugins registered."""
    home = rig.home("benana")
    fleet = Fleet(home, count)
    url = rig.database()
    fleet.register(url)
    return BenchServer(home, url, WEB_CONCURRENCY=str(workers), **environment)


class Editor:
    """Edits one plugin after the other, each to a revision that never was before."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = [f"p{n:04d}" for n in range(1, PLUGINS)]
        self._chance = random.Random(3)
        self._revision = 0

    def next(self) -> tuple[Path, str, str, bytes]:
        """Return the folder, its new text, the path to ask and what the answer then holds."""
        self._revision += 1
        name = self._chance.choice(self._names)
        folder = self._root / name
        mark = f'"revision": {self._revision},'.encode()
        return folder, revise(folder, self._revision), f"/{name}", mark


def edit_live(
    port: int, editor: Editor, count: int, workers: int = WORKERS, *, told: bool = True
) -> list[float]:
    """Edit files under a server that keeps its processes; milliseconds until the last worker.

    Args:
        port: the server's.
        editor: makes the edits.
        count: how many.
        workers: how many processes are asked, each by itself.
        told: whether a plugin is told that it is over (`PluginContext.cancelled`). Its answer to
            that is waited for, and only then it is asked what it serves; else it is asked again and
            again.
    """
    found: list[float] = []
    connections = find_workers(port, workers)
    for _ in range(count):
        folder, text, path, mark = editor.next()
        if told:
            ask_all(connections, f"{path}/over")
        time.sleep(random.uniform(*PAUSE_SECONDS))
        soonest = max(SOONEST_SECONDS, SOONEST_SHARE * median(found) / 1000 if found else 0.0)
        began = time.monotonic()
        (folder / "main.py").write_text(text)
        ended = until_everywhere(
            connections,
            path,
            lambda _, body: mark in body,
            after=began + soonest,
            asked=told,
        )
        found.append((ended - began) * 1000)
    for connection in connections.values():
        connection.close()
    return found


def measure(rig: Rig) -> list[Figure]:
    """Measure Benana and the floor in turns."""
    server = warm_server(rig, PLUGINS)
    floor_root = rig.home("floor")
    write_plugins(floor_root, PLUGINS)
    floor = Floor(rig.database(), floor_root)
    editor, floor_editor = Editor(server.plugins), Editor(floor_root)
    count = rig.pick(5, 20)

    def edit_floor() -> list[float]:
        found = []
        for _ in range(count):
            time.sleep(random.uniform(*PAUSE_SECONDS))
            folder, text, _, _ = floor_editor.next()
            found.append(floor.edit(folder, text))
        return found

    with server.running(), contextlib.closing(floor):
        edit_live(server.port, editor, 3)  # the first starts the trials' helper
        edit_floor()
        found = in_turns(
            rig.pick(2, 8),
            {"ours": lambda: edit_live(server.port, editor, count), "floor": edit_floor},
        )
    ours, low = flat(found["ours"]), flat(found["floor"])
    samples = {"ours": ours, "floor": low}
    p50, p99, floor50 = median(ours), percentile(ours, 0.99), median(low)
    name = f"edit → served by {WORKERS} workers"
    note = (
        f"{len(ours)} edits, one of {PLUGINS} plugins each; each worker is asked once the version "
        "before says that it is over there"
    )
    low99 = percentile(low, 0.99)
    (goal50, held50), (goal99, held99) = within(p50, 50, "ms"), within(p99, 150, "ms")
    return [
        Figure(
            *(f"{name}, p50", p50, "ms", "floor", floor50, p50 / floor50),
            *(f"{goal50}, ≤ 3 × floor", held50 and p50 <= 3 * floor50),
            *(spread(ours), note, samples),
        ),
        Figure(
            *(f"{name}, p99", p99, "ms", "floor", low99, p99 / low99),
            *(goal99, held99, f"max {short(max(ours))}"),
        ),
    ]


def _edit_restarting(peer: Peer, editor: Editor, count: int) -> list[float]:
    """Edit files under a server that replaces its processes."""
    found = []
    for _ in range(count):
        time.sleep(random.uniform(0.3, 0.8))
        folder, text, path, mark = editor.next()
        began = time.monotonic()
        (folder / "main.py").write_text(text)
        if peer.kind == "kill -HUP":
            peer.hang_up()
        ended = until_new_workers(peer.port, peer.workers, path, lambda _, body: mark in body)
        found.append((ended - began) * 1000)
    time.sleep(1.0)  # the old processes end
    return found


def measure_peers(rig: Rig) -> list[Figure]:
    """Measure Benana and what people use instead, in turns, each with the same plugins."""
    server = warm_server(rig, PLUGINS)
    count = rig.pick(1, 4)
    failed: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    sides: dict[str, Callable[[], list[float]]] = {}

    def side(label: str, port: int, edit: Callable[[], list[float]]) -> None:
        def run() -> list[float]:
            prober = Prober(port, BYSTANDER)
            took = edit()
            answers = prober.end()
            failed[label][0] += answers["failed"]
            failed[label][1] += answers["asked"]
            return took

        sides[label] = run

    with contextlib.ExitStack() as stack:
        stack.enter_context(server.running())
        ours = Editor(server.plugins)
        edit_live(server.port, ours, 2)
        side("ours", server.port, lambda: edit_live(server.port, ours, count))
        for kind in PEERS:
            peer = Peer(kind, rig.home("peer"), WORKERS)
            write_plugins(peer.plugins, PLUGINS)
            stack.enter_context(peer.running())
            side(kind, peer.port, _peer_edits(peer, Editor(peer.plugins), count))
        found = {label: flat(r) for label, r in in_turns(rig.pick(1, 2), sides).items()}
    figures = []
    for kind in PEERS:
        mine, theirs = median(found["ours"]), median(found[kind])
        goal = 1.0 if kind == "jurigged" else 10.0
        lost, lost_ours = failed[kind], failed["ours"]
        figures.append(
            Figure(
                *(f"edit → served, {kind}", mine, "ms", kind, theirs, mine / theirs),
                "faster" if goal == 1.0 else "≥ 10 × faster",
                theirs / mine >= goal and not lost_ours[0],
                f"{spread(found['ours'])} / {spread(found[kind])}",
                f"failed requests meanwhile: ours {lost_ours[0]} of {lost_ours[1]}, "
                f"{kind} {lost[0]} of {lost[1]}; {len(found[kind])} edits",
                {"ours": found["ours"], kind: found[kind]},
            )
        )
    return figures


def _peer_edits(peer: Peer, editor: Editor, count: int) -> Callable[[], list[float]]:
    if peer.kind == "jurigged":
        return lambda: edit_live(peer.port, editor, count, peer.workers, told=False)
    return lambda: _edit_restarting(peer, editor, count)
