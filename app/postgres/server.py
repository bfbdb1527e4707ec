"""The PostgreSQL that comes along: started by the gunicorn master where there is no DATABASE_URL.

The server itself only starts a supervisor (`supervisor.py`) and waits for it, so that
PostgreSQL is looked after by a process that has nothing else to do, and that ends with the
server, however the server ends.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

from app.errors import EmbeddedDatabaseError
from app.postgres.binaries import find_install
from app.postgres.keeper import Keeper, SupervisorProcess
from app.postgres.shared_folder import SHARED_DIR
from app.postgres.sockets import accepts_connections, socket_folder
from app.postgres.users import NAME

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
        self._supervisor: SupervisorProcess | None = None
        self._keeper: Keeper | None = None
        self._owner = os.getpid()

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
        supervisor = self._supervisor
        if supervisor is None or self._owner != os.getpid() or not supervisor.read_report(0.0):
            install = find_install()
            self.stop()
            self._owner = os.getpid()
            arguments = [self._data_dir, install, self._shared_dir]
            supervisor = self._supervisor = SupervisorProcess([str(path) for path in arguments])
            supervisor.start()
        try:
            self._await_ready(supervisor, deadline, timeout)
        except BaseException:
            self.stop()
            raise
        return self.uri

    @property
    def supervisor(self) -> int | None:
        """The process id of the supervisor that was started here, None while there is none."""
        return None if self._supervisor is None else self._supervisor.pid

    def keep(self) -> None:
        """Start the supervisor again whenever it ends, from a thread, until `stop`.

        To be called once, after `start`. The process may go on forking.
        """
        if self._supervisor is not None:
            self._keeper = Keeper(self._supervisor)
            self._keeper.start()

    def stop(self) -> None:
        """Stop what `start` has started: within seconds, and in the process that started it.

        PostgreSQL stops with a fast shutdown, unless it is another server's.
        """
        supervisor, keeper = self._supervisor, self._keeper
        if supervisor is None or self._owner != os.getpid():
            return
        self._supervisor = self._keeper = None
        if keeper is not None:
            keeper.stop()
        supervisor.stop()

    def _await_ready(self, supervisor: SupervisorProcess, deadline: float, timeout: float) -> None:
        while True:
            lines = supervisor.said.splitlines()
            running = b"failed" not in lines and bool({b"ready", b"waiting"} & {*lines})
            if running and self.answers():
                return
            now = time.monotonic()
            if now >= deadline:
                raise EmbeddedDatabaseError(self._too_late(b"waiting" in lines, timeout))
            until = min(deadline, now + POLL_INTERVAL) if running else deadline
            if not supervisor.read_report(until):
                raise EmbeddedDatabaseError(supervisor.reason or self._killed())

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

    def _killed(self) -> str:
        return (
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
