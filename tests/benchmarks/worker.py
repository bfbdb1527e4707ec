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
from app.package.finder import generations_alive
from app.routing.application import LiveApp
from app.serving.half import ServingHalf
from app.settings import Settings
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
        settings = Settings(artifacts_dir=artifacts, data_dir=data, database_url=url)
        self._half = ServingHalf(
            settings,
            self._app,
            database,
            database,
            url,
            Conditions(),
            lambda: WorkerReport(generations_alive()),
            lambda: self._half.mark(None),
        )
        self._admin = psycopg2.connect(url)
        self._admin.autocommit = True
        self._half.reclaimer.start()
        self._half.recorder.start()

    def load(self) -> dict[str, float]:
        """Load everything; return the milliseconds, and the resident set in KB."""
        began = time.perf_counter()
        self._half.comparison.follow(None)
        self._half.reclaimer.freeze()  # as the manager does after the first pass
        return {"ms": (time.perf_counter() - began) * 1000, **self.memory()}

    def reload(self, name: str, times: int) -> list[float]:
        """Raise a plugin's generation and reconcile, again and again; milliseconds of each pass."""
        found = []
        for _ in range(times):
            self.touch(name)
            began = time.perf_counter()
            self._half.comparison.follow({name})
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
        while self._half.reclaimer.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"rss": pages * 4.0, "alive": float(generations_alive())}

    def listen(self) -> None:
        """Follow the rows from now on, as a worker does."""
        self._half.reconciler.start()
        self._half.reconciler.attempted.wait()
        listener = ChangeListener(self._url, self._half.mark)
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
