"""The serving half of one worker in a process of its own, asked over pipes.

`python -m tests.benchmarks.worker URL ARTIFACTS DATA` answers each line of JSON with one.
Everything is what a gunicorn worker runs, built as `app.manager` builds it, without HTTP.
"""

import gc
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2

from app.conditions import Conditions
from app.database.events import ChangeListener
from app.database.pool import Database
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.database.workers import WorkerRepository
from app.loading.context import make_context_factory
from app.package.finder import generations_alive
from app.routing.application import LiveApp
from app.serving.comparison import Comparison
from app.serving.exclusive.cluster_lock import ClusterLock
from app.serving.exclusive.plugins import ExclusivePlugins
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import LivePlugins
from app.serving.load_queue import LoadQueue
from app.serving.reclaimer import Reclaimer
from app.serving.reconciler import Reconciler
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.worker_records import WorkerReport
from tests.support.checkout import CHECKOUT


class Worker:
    """Answers the commands; every public method is one, its return value the answer."""

    def __init__(self, url: str, artifacts: Path, data: Path) -> None:
        gc.collect()
        gc.freeze()  # as `gunicorn.conf.py` does
        self._url = url
        database = Database(url)
        self._app = LiveApp()
        self._reclaimer = Reclaimer(self._app.running)
        live = LivePlugins(self._app, self._reclaimer)
        last_known_good = LastKnownGood(artifacts)
        self._recorder = Recorder(
            WorkerRepository(database), last_known_good, lambda: WorkerReport(generations_alive())
        )
        repository = Repository(database)
        self._loading = LoadQueue(
            repository,
            make_context_factory(data, lambda _: database.connection),
            artifacts,
            lambda name: self._reconciler.mark([name]),
            lambda plugin: live.retire([plugin]),
        )
        upkeep = Upkeep(database, Conditions(), lambda: self._reconciler.mark(None))
        self._comparison = Comparison(
            repository,
            live,
            self._loading,
            self._recorder,
            last_known_good,
            upkeep,
            Regressions(repository, last_known_good, 20),
            ExclusivePlugins(
                artifacts,
                self._app,
                last_known_good,
                5.0,
                lambda name: ClusterLock(name, url, WorkerRepository(database)),
                Conditions(),
                lambda name, again: self._reconciler.mark([name], again=again),
            ),
            Conditions(),
        )
        self._reconciler = Reconciler(repository, self._comparison, upkeep, Conditions())
        self._admin = psycopg2.connect(url)
        self._admin.autocommit = True
        self._reclaimer.start()
        self._recorder.start()

    def load(self) -> dict[str, float]:
        """Load everything; return the milliseconds, and the resident set in KB."""
        began = time.perf_counter()
        self._comparison.follow(None)
        self._reclaimer.freeze()  # as the manager does after the first pass
        return {"ms": (time.perf_counter() - began) * 1000, **self.memory()}

    def reload(self, name: str, times: int) -> list[float]:
        """Raise a plugin's generation and reconcile, again and again; milliseconds of each pass."""
        found = []
        for _ in range(times):
            self.touch(name)
            began = time.perf_counter()
            self._comparison.follow({name})
            found.append((time.perf_counter() - began) * 1000)
        return found

    def touch(self, name: str) -> None:
        """Raise a plugin's generation."""
        with self._admin.cursor() as cursor:
            cursor.execute(
                "UPDATE plugins SET generation = generation + 1 WHERE name = %s", (name,)
            )

    def memory(self) -> dict[str, float]:
        """Return the resident set in KB, after all retired generations are gone."""
        deadline = time.monotonic() + 10.0
        while self._reclaimer.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"rss": pages * 4.0, "alive": float(generations_alive())}

    def listen(self) -> None:
        """Follow the rows from now on, as a worker does."""
        self._reconciler.start()
        self._reconciler.attempted.wait()
        listener = ChangeListener(self._url, self._reconciler.mark)
        listener.start()
        while not listener.connected:
            time.sleep(0.01)
        time.sleep(0.5)  # the comparison that follows every connect
        self._number = self._app.table.number

    def until_empty(self) -> dict[str, float]:
        """Wait until nothing is routed; return the moment and the swaps since `listen`."""
        while self._app.table.owned:
            time.sleep(0.001)
        ended = time.monotonic()
        time.sleep(1.0)  # a second swap would come late
        return {"ended": ended, "swaps": self._app.table.number - self._number}


class WorkerProcess:
    """The asking side."""

    def __init__(self, url: str, artifacts: Path, data: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", url, str(artifacts), str(data)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def send(self, command: str, *arguments: Any) -> None:
        """Ask without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """Read the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the worker ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, command: str, *arguments: Any) -> Any:
        """Ask and wait."""
        self.send(command, *arguments)
        return self.receive()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Answer until the standard input is closed."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    worker = Worker(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, command)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
