"""How long a start takes with ever more plugins, and their first publish."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from app.conditions import Conditions
from app.database.pool import Database
from app.database.repository import Repository
from app.publishing.publisher import Publisher
from app.publishing.refusals import Refusals
from app.publishing.trials.trial import TrialRunner
from tests.benchmarks.figures.rows import SMALL
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.generator import write_plugins
from tests.benchmarks.measure import Figure, flat, in_turns, median, short, spread
from tests.benchmarks.servers import BenchServer, Rig
from tests.support.checkout import CHECKOUT
from tests.support.plugins import WHOAMI


def plain_root(rig: Rig, plugins: Path) -> Path:
    """Copy plugins into a package that plain Python can import; return its parent."""
    root = rig.home("plain")
    shutil.copytree(plugins, root / "plugs", ignore=shutil.ignore_patterns("whoami"))
    (root / "plugs" / "__init__.py").touch()
    return root


def plain_import(root: Path) -> float:
    """Return the seconds of a process that imports and wires all plugins."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.benchmarks.plain_import", str(root)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    return time.monotonic() - began


def measure(rig: Rig) -> list[Figure]:
    """Start until the one worker answers, against the import of the same modules."""
    return [_boot(rig, size) for size in rig.pick([0, 50], [0, 100, 1000])]


def measure_many(rig: Rig) -> list[Figure]:
    """The same with 10,000 plugins, which takes minutes a start."""
    return [_boot(rig, rig.pick(100, 10_000))]


def _boot(rig: Rig, size: int) -> Figure:
    home = rig.home("boot")
    fleet = Fleet(home, size, SMALL)
    url = rig.database()
    fleet.register(url)
    root = plain_root(rig, fleet.plugins)
    server = BenchServer(home, url, WEB_CONCURRENCY="1")
    server.write("whoami", WHOAMI)

    def start() -> list[float]:
        took = server.started()
        server.kill()  # a graceful stop of 10,000 plugins is not what is measured
        return [took]

    start()
    plain_import(root)  # writes the bytecode
    rounds = rig.pick(1, 1 if size > 1000 else 3)
    found = in_turns(rounds, {"ours": start, "plain": lambda: [plain_import(root)]})
    ours, plain = flat(found["ours"]), flat(found["plain"])
    ratio = median(ours) / median(plain)
    return Figure(
        *(f"boot with {size:,} plugins, warm", median(ours), "s"),
        *("plain import", median(plain), ratio, "ratio ≤ 1.5", ratio <= 1.5),
        f"{spread(ours)} / {spread(plain)}",
        f"1 worker, {rounds} starts; plugins of {SMALL[0]} to {SMALL[1]} lines",
        {"ours": ours, "plain import": plain},
    )


def measure_publish(rig: Rig) -> list[Figure]:
    """First publish of everything, cold, against `compileall` of the same files."""
    size = rig.pick(30, 1000)
    home = rig.home("publish")
    write_plugins(home / "plugins", size)

    def publish() -> list[float]:
        url = rig.database()
        artifacts = rig.home("artifacts")
        trial = TrialRunner(url)
        refusals = Refusals(Conditions())
        repository = Repository(Database(url))
        publisher = Publisher(home / "plugins", artifacts, repository, trial, refusals)
        began = time.monotonic()
        publisher.scan(at_start=True)
        took = time.monotonic() - began
        trial.close()
        found = len(Repository(Database(url)).served_rows())
        assert found == size, f"{found} of {size} published"
        return [took]

    def compile_all() -> list[float]:
        began = time.monotonic()
        command = [sys.executable, "-m", "compileall", "-q", "-f", str(home / "plugins")]
        subprocess.run(command, check=True)
        return [time.monotonic() - began]

    rounds = 1
    found = in_turns(rounds, {"ours": publish, "compileall": compile_all})
    ours, peer = flat(found["ours"]), flat(found["compileall"])
    return [
        Figure(
            *(f"first publish of {size:,} plugins, cold", median(ours), "s"),
            *("compileall", median(peer), median(ours) / median(peer), "reported", None),
            f"{spread(ours)} / {spread(peer)}",
            f"{short(median(ours) / size * 1000)} ms a plugin, its trial included; {rounds} rounds",
            {"ours": ours, "compileall": peer},
        )
    ]
