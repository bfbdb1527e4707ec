"""A real gunicorn on real files and a real PostgreSQL, and ways to ask each of its workers."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from tests.support.checkout import CHECKOUT
from tests.support.plugins import WHOAMI
from tests.support.waiting import wait_until

PAUSE_SECONDS = 0.005
"""Between two looks at what is waited for: who brings it about needs the processor."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Answer:
    """A response, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def says(self) -> str | None:
        """What the plugin of `source` says, None if it was not the one that answered."""
        return self.json.get("says") if self.status == 200 else None


class Server:
    """One gunicorn with folders of its own below `home`."""

    def __init__(self, home: Path, database_url: str | None, **environment: str) -> None:
        self.home = home
        self.plugins = home / "plugins"
        self.artifacts = home / "bin" / "plugins"
        self.port = free_port()
        self.database_url = database_url
        self.log_file = home / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.program = [sys.executable, "-m", "gunicorn"]
        self.config = CHECKOUT / "gunicorn.conf.py"
        self.folder = CHECKOUT
        self.arguments: list[str] = []
        self.plugins.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "BENANA_PLUGINS_DIR": str(self.plugins),
            "BENANA_ARTIFACTS_DIR": str(self.artifacts),
            "BENANA_DATA_DIR": str(home / "var"),
            "BENANA_BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": "2",
            **({"DATABASE_URL": database_url} if database_url else {}),
            **environment,
        }

    # --- life ------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> "Server":
        """Start gunicorn; with `wait`, until all its workers answer."""
        self.write("whoami", WHOAMI)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BENANA_", "DATABASE_"))}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "-c", str(self.config), *self.arguments],
                cwd=self.folder,
                env={**kept, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            wait_until(self._is_up, f"the server is up\n{self.log()}", 30.0)
        return self

    def refused(self) -> str:
        """Start gunicorn, which is to end at once, and return what it said."""
        self.start(wait=False)
        assert self.process is not None
        assert self.process.wait(20.0) != 0
        assert "Traceback" not in self.log()
        return self.log()

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"gunicorn ended with {self.process.returncode}:\n{self.log()}")
        try:
            return len(self.ask_all("/whoami")) == int(self.environment["WEB_CONCURRENCY"])
        except OSError:
            return False

    def stop(self) -> None:
        """Stop gunicorn gracefully."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40.0)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """Kill gunicorn and all its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def log(self) -> str:
        """Return what the server has logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def workers(self) -> set[int]:
        """Return the workers' process ids."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = {int(pid) for pid in tasks.read_text().split()}
        return {pid for pid in pids if b"gunicorn" in _command(pid)}

    # --- files -----------------------------------------------------------------------------

    def write(self, name: str, text: str, file: str = "main.py") -> Path:
        """Write a file of a plugin in place, as a careless editor does."""
        path = self.plugins / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    # --- HTTP ------------------------------------------------------------------------------

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path over a new connection."""
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """POST to a path over a new connection; what is no bytes is sent as JSON."""
        return self.call("POST", path, body, headers)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Make one request over a new connection."""
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, method, path, body, headers)

    def plugin(self, name: str) -> Any:
        """Return a plugin as the admin API shows it, None if it is not registered.

        Without `workers` and `reasons`, which the processes report a moment after they serve.
        """
        answer = self.get(f"/plugins/{name}")
        if answer.status != 200:
            return None
        reported = {"workers", "reasons"}
        return {key: value for key, value in answer.json.items() if key not in reported}

    def ask_all(self, path: str) -> dict[int, Answer]:
        """GET a path from every worker; return the answers by process id."""
        with self.each_worker() as connections:
            return {pid: ask(connection, "GET", path) for pid, connection in connections.items()}

    @contextlib.contextmanager
    def each_worker(self) -> Iterator[dict[int, http.client.HTTPConnection]]:
        """Give a kept-alive connection to each worker, by process id."""
        found: dict[int, http.client.HTTPConnection] = {}
        spare: list[http.client.HTTPConnection] = []
        deadline = time.monotonic() + 10.0
        try:
            while not self.workers() <= found.keys() and time.monotonic() < deadline:
                connection = self.connect()
                spare.append(connection)
                answer = ask(connection, "GET", "/whoami")
                if answer.status != 200:
                    raise OSError(f"/whoami answered {answer.status}")
                found.setdefault(answer.json["pid"], connection)
                # Workers are met by chance, in a burst: idle ones might leave all to the first.
                if len(spare) % 16 == 0:
                    time.sleep(4 * PAUSE_SECONDS)  # one may still be starting
            yield {pid: found[pid] for pid in self.workers() & found.keys()}
        finally:
            for connection in spare:
                connection.close()

    def wait_everywhere(
        self, path: str, expected: Callable[[Answer], bool], seconds: float = 15.0
    ) -> float:
        """Wait until every worker's answer is as expected; return the seconds that it took."""
        began = time.monotonic()
        with self.each_worker() as connections:
            assert connections.keys() == self.workers()
            left = dict(connections)
            while left:
                last = {}
                for pid, connection in list(left.items()):
                    last[pid] = ask(connection, "GET", path)
                    if expected(last[pid]):
                        del left[pid]
                if time.monotonic() - began > seconds:
                    raise AssertionError(
                        f"{path} is not as expected within {seconds} s: {last}\n{self.log()}"
                    )
                if left:
                    time.sleep(PAUSE_SECONDS)
        return time.monotonic() - began

    def wait_says(self, name: str, says: str, seconds: float = 15.0) -> float:
        """Wait until `GET /<name>` says something on every worker."""
        return self.wait_everywhere(f"/{name}", lambda answer: answer.says == says, seconds)

    def wait_gone(self, name: str, seconds: float = 15.0) -> float:
        """Wait until `GET /<name>` answers 404 on every worker."""
        return self.wait_everywhere(f"/{name}", lambda answer: answer.status == 404, seconds)

    # --- SQL -------------------------------------------------------------------------------

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own."""
        assert self.database_url is not None
        connection = psycopg2.connect(self.database_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


MakeServer = Callable[..., Server]
"""What the fixture `make_server` is: takes settings by the names of their variables."""


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Make one request over a connection that stays open; OSError where it is lost."""
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    try:
        raw = response.read()
    except http.client.IncompleteRead as error:
        raise ConnectionResetError(str(error)) from error
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, raw)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
