"""What a plugin costs in memory, and what a reload leaves behind."""

import itertools
import json
import subprocess
import sys

from tests.benchmarks.figures.boot import plain_root
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.measure import Figure, median, short
from tests.benchmarks.servers import Rig
from tests.benchmarks.worker import WorkerProcess
from tests.support.checkout import CHECKOUT


def measure(rig: Rig) -> list[Figure]:
    """Measure resident sets."""
    return [_idle(rig), _reloads(rig)]


def _idle(rig: Rig) -> Figure:
    count = rig.pick(50, 1000)
    home = rig.home("memory")
    fleet = Fleet(home, count)
    url = rig.database()
    fleet.register(url)
    worker = WorkerProcess(url, fleet.artifacts, home / "data")
    before = worker.ask("memory")["rss"]
    ours = (worker.ask("load")["rss"] - before) / count
    worker.end()
    root = plain_root(rig, fleet.plugins)
    command = [sys.executable, "-m", "tests.benchmarks.plain_import", str(root), "routes"]
    for _ in range(2):  # the first writes the bytecode
        out = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
        found = json.loads(out)
    plain = (found["after"] - found["before"]) / count
    return Figure(
        *("memory of an idle plugin", ours, "KB", "plain import", plain, ours / plain),
        *("reported", None, "", f"the mean of {count:,}; its archive stays in memory"),
    )


def _reloads(rig: Rig) -> Figure:
    warm, total, steps = rig.pick((20, 60, 2), (2500, 7500, 20))
    home = rig.home("reloads")
    fleet = Fleet(home, 10)
    url = rig.database()
    fleet.register(url)
    worker = WorkerProcess(url, fleet.artifacts, home / "data")
    worker.ask("load")
    worker.ask("reload", "p0000", warm)
    curve = [worker.ask("memory")["rss"]]
    for _ in range(steps):
        worker.ask("reload", "p0000", (total - warm) // steps)
        found = worker.ask("memory")
        curve.append(found["rss"])
    worker.end()
    # Until some 2,000 reloads the allocator's arenas fill, and nothing of Python's does.
    # Then arenas of a megabyte come and go; what every reload left behind would be in every step.
    grown = [after - before for before, after in itertools.pairwise(curve)]
    per_reload = median(grown) * steps / (total - warm)
    return Figure(
        *("memory per reload", per_reload, "KB", "", None, None),
        *("≤ 0.1 KB", per_reload <= 0.1, f"{short(min(curve))}–{short(max(curve))} KB resident"),
        f"the median of {steps} steps; the whole: {curve[-1] - curve[0]:+,.0f} KB over "
        f"{total:,} reloads, the first {warm:,} not counted; {found['alive']:.0f} generations "
        "alive at the end, of 10 plugins",
        {"resident KB": curve},
    )
