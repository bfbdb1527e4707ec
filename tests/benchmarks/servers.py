"""Starts what is measured: a PostgreSQL, Benana, and the peers with the same plugins."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from app.postgres.server import EmbeddedPostgres
from tests.benchmarks.pinned import fetch, find_workers
from tests.support.checkout import CHECKOUT
from tests.support.plugins import WHOAMI
from tests.support.server import Server, free_port

__all__ = ["WHOAMI", "BenchServer", "Peer", "Rig"]


class Rig:
    """What all figures share: a scratch folder, a PostgreSQL, and how long to measure.

    `quick` asks for the least that runs end to end.
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.folder = Path(tempfile.mkdtemp(prefix="benana-bench-"))
        self.folder.chmod(0o755)
        self._numbers = itertools.count(1)
        self._postgres: EmbeddedPostgres | None = None
        self._url = os.environ.get("TEST_DATABASE_URL", "")

    def pick(self, quick: Any, full: Any) -> Any:
        """Return the amount for a quick run or for a full one."""
        return quick if self.quick else full

    def home(self, label: str) -> Path:
        """Make an empty folder."""
        made = self.folder / f"{label}{next(self._numbers)}"
        made.mkdir()
        return made

    def database(self) -> str:
        """Make an empty database and return its URL; PostgreSQL starts with the first."""
        if not self._url:
            self._postgres = EmbeddedPostgres(self.home("postgres"))
            self._url = self._postgres.start()
        name = f"benana_bench_{os.getpid()}_{next(self._numbers)}"
        connection = psycopg2.connect(self._url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"

    def close(self) -> None:
        """Stop PostgreSQL and remove everything."""
        if self._postgres is not None:
            self._postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class BenchServer(Server):
    """Benana under its own gunicorn settings."""

    def started(self, seconds: float = 600.0) -> float:
        """Start it and wait until all workers answer; return the seconds that it took."""
        began = time.monotonic()
        self.start(wait=False)
        while time.monotonic() - began < seconds:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if self._answers():
                    return time.monotonic() - began
            time.sleep(0.005)
        raise AssertionError(f"it did not start:\n{self.log()[-3000:]}")

    def _answers(self) -> bool:
        expected = int(self.environment["WEB_CONCURRENCY"])
        if fetch(self.port, "/whoami")[0] != 200:
            return False
        return len(find_workers(self.port, expected, 10.0)) == expected

    @contextlib.contextmanager
    def running(self) -> Iterator["BenchServer"]:
        """Run it for the length of a block."""
        self.started()
        try:
            yield self
        finally:
            self.stop()


class Peer:
    """The same plugins in a plain Falcon application, under a server that people use.

    Args:
        kind: `gunicorn` (no reloading, or by HUP), `gunicorn --reload`, `uvicorn --reload` or
            `jurigged`.
        home: an empty folder.
        workers: how many processes; uvicorn reloads with one only.
        threads: how many threads in each.
        compute: milliseconds that a thread of each worker computes, ten times a second.
    """

    def __init__(
        self, kind: str, home: Path, workers: int, threads: int = 8, compute: float = 0.0
    ) -> None:
        self.kind = kind
        self.home = home
        self.plugins = home / "plugs"
        self.plugins.mkdir()
        (self.plugins / "__init__.py").touch()
        self.workers = 1 if kind.startswith("uvicorn") else workers
        self.port = free_port()
        self.log_file = home / "peer.log"
        self._reload = {"gunicorn --reload": "gunicorn", "jurigged": "jurigged"}.get(kind, "")
        self._threads = threads
        self._compute = compute
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return how it is started."""
        if self.kind.startswith("uvicorn"):
            line = "-m uvicorn --interface wsgi --reload --log-level error --no-access-log"
            return [
                *(sys.executable, *line.split(), "--port", str(self.port)),
                *("--reload-dir", str(self.plugins), "tests.benchmarks.static_app:app"),
            ]
        config = CHECKOUT / "tests/benchmarks/static_gunicorn.py"
        return [sys.executable, "-m", "gunicorn", "-c", str(config)]

    def started(self, seconds: float = 600.0) -> float:
        """Start it and wait until all workers answer; return the seconds that it took."""
        began = time.monotonic()
        environment = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "STATIC_ROOT": str(self.home),
            "STATIC_PORT": str(self.port),
            "STATIC_WORKERS": str(self.workers),
            "STATIC_THREADS": str(self._threads),
            "STATIC_RELOAD": self._reload,
            "STATIC_COMPUTE": str(self._compute or ""),
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=CHECKOUT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,  # as Benana: the kernel shares the cores by session
            )
        while time.monotonic() - began < seconds and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if len(find_workers(self.port, self.workers, 5.0)) == self.workers:
                    return time.monotonic() - began
            time.sleep(0.005)
        raise AssertionError(f"{self.kind} did not start:\n{self.log_file.read_text()[-3000:]}")

    def hang_up(self) -> None:
        """Send HUP: gunicorn starts new workers and ends the old ones."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator["Peer"]:
        """Run it for the length of a block."""
        self.started()
        try:
            yield self
        finally:
            self.stop()


class Prober:
    """A process that asks 100 times a second over new connections, and counts what fails."""

    def __init__(self, port: int, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.prober", str(port), path],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def end(self) -> dict[str, Any]:
        """End it; return `asked`, `failed`, `slowest` (milliseconds) and `faults`."""
        out, _ = self._process.communicate(b"", timeout=30.0)
        found: dict[str, Any] = json.loads(out)
        return found


def port_is_free(port: int) -> bool:
    """Tell whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
