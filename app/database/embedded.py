"""The PostgreSQL that comes along: started by the gunicorn master where there is no DATABASE_URL.

The server itself only starts a supervisor (`postgres_supervisor.py`) and waits for it, so that
PostgreSQL is looked after by a process that has nothing else to do, and that ends with the
server, however the server ends.
"""

import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

from app.database.postgres_host import (
    NAME,
    SHARED_DIR,
    accepts_connections,
    find_install,
    socket_folder,
)
from app.errors import EmbeddedDatabaseError

SUPERVISOR = "app.database.postgres_supervisor"
STOP_TIMEOUT = 16.0  # seconds, a little more than the supervisor's own three steps take
POLL_INTERVAL = 0.05  # seconds between two looks at another server's PostgreSQL


class EmbeddedPostgres:
    """The PostgreSQL of one data folder.

    Several servers may have one each for the same folder: the first runs PostgreSQL, the others
    use it, and one of them takes over when the first goes away. To be called from one thread.

    `data_dir` is the data folder; `shared_dir` is where root puts what PostgreSQL's own user
    cannot reach in `data_dir` or in the virtual environment.
    """

    def __init__(self, data_dir: Path, *, shared_dir: Path = SHARED_DIR) -> None:
        self._data_dir = Path(os.path.realpath(data_dir))
        self._shared_dir = shared_dir.absolute()
        self._socket_folder = socket_folder(self._data_dir)
        # A bare process id: gunicorn reaps all children of its master, and a Popen object would
        # complain in every worker that its process still runs.
        self._supervisor: int | None = None
        self._owner = os.getpid()
        self._lifeline = self._reports = -1  # our ends of the supervisor's two pipes
        self._report = b""

    @property
    def uri(self) -> str:
        """The libpq URI; it follows from the data folder and the user alone."""
        return f"postgresql:///{NAME}?{urlencode({'host': self._socket_folder, 'user': NAME})}"

    def start(self, timeout: float = 30.0) -> str:
        """Start PostgreSQL, or find it running; return the URI once it accepts connections.

        `timeout` is in seconds. Raises EmbeddedDatabaseError, with what PostgreSQL said and what
        can be done, if it does not start.
        """
        deadline = time.monotonic() + timeout
        ours = self._supervisor is not None and self._owner == os.getpid()
        if not (ours and self._read_report(0.0)):
            self._spawn()
        try:
            self._await_ready(deadline, timeout)
        except BaseException:
            self.stop()
            raise
        return self.uri

    def stop(self) -> None:
        """Stop what `start` has started: within seconds, and in the process that started it.

        PostgreSQL stops with a fast shutdown, unless it is another server's.
        """
        supervisor = self._supervisor
        if supervisor is None or self._owner != os.getpid():
            return
        self._supervisor = None
        # A byte, because workers may still hold the pipe open; and no signal, because gunicorn
        # may have reaped the supervisor, and the number may be another process's by now.
        with suppress(BrokenPipeError):
            os.write(self._lifeline, b"q")
        deadline = time.monotonic() + STOP_TIMEOUT
        ended = False
        while not ended and time.monotonic() < deadline:
            ended = not self._read_report(deadline)
        if not ended:  # so it was not reaped; PostgreSQL is told by the kernel or the next start
            os.kill(supervisor, signal.SIGKILL)
        os.close(self._lifeline)
        os.close(self._reports)
        with suppress(ChildProcessError):
            os.waitpid(supervisor, 0)

    def _spawn(self) -> None:
        install = find_install()
        self.stop()  # closes the pipes of a supervisor that was killed
        self._owner = os.getpid()
        self._report = b""
        arguments = [self._data_dir, install, self._shared_dir, str(self._owner)]
        command = [sys.executable, "-P", "-m", SUPERVISOR, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        stdin, self._lifeline = os.pipe()
        self._reports, stdout = os.pipe()
        pipes = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        try:
            self._supervisor = os.posix_spawn(
                sys.executable, command, environment, file_actions=pipes
            )
        finally:
            os.close(stdin)
            os.close(stdout)

    def _await_ready(self, deadline: float, timeout: float) -> None:
        while True:
            lines = self._report.splitlines()
            running = b"failed" not in lines and bool({b"ready", b"waiting"} & {*lines})
            if running and self.answers():
                return
            now = time.monotonic()
            if now >= deadline:
                raise EmbeddedDatabaseError(self._too_late(b"waiting" in lines, timeout))
            until = min(deadline, now + POLL_INTERVAL) if running else deadline
            if not self._read_report(until):
                raise EmbeddedDatabaseError(self._last_words())

    def _read_report(self, deadline: float) -> bool:
        """Read what the supervisor says, until `deadline`; return False if it has ended."""
        if select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))[0]:
            said = os.read(self._reports, 4096)
            self._report += said
            return bool(said)
        return True

    def answers(self) -> bool:
        """Return whether PostgreSQL answers, and not somebody who was first to make the folder."""
        with suppress(OSError):
            owner = (self._data_dir / "postgres").stat().st_uid
            return self._socket_folder.lstat().st_uid == owner and accepts_connections(
                self._socket_folder
            )
        return False

    def _too_late(self, waiting: bool, timeout: float) -> str:
        log = self._data_dir / "postgres.log"
        if waiting:
            return (
                f"Another server uses the data folder {self._data_dir}, but its PostgreSQL did "
                f"not answer at {self._socket_folder} within {timeout:g} s. See {log}; if that "
                f"server is another user's, run Benana as that user or set BENANA_DATA_DIR."
            )
        return (
            f"The embedded PostgreSQL did not accept connections within {timeout:g} s. See "
            f"{log}; if it is still recovering there, start again and give it more time."
        )

    def _last_words(self) -> str:
        _, _, reason = self._report.decode(errors="replace").partition("failed\n")
        return reason.strip() or (
            f"The supervisor of the embedded PostgreSQL ended unexpectedly. See standard error "
            f"and {self._data_dir / 'postgres.log'}, or set DATABASE_URL."
        )


def find_psql() -> Path | None:
    """Return the psql of the system, else the one of the `embedded` extra, else None."""
    on_path = shutil.which("psql")
    if on_path is not None:
        return Path(on_path)
    try:
        return find_install() / "bin" / "psql"
    except EmbeddedDatabaseError:
        return None
