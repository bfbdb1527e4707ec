"""The server's side of the supervisor: the process, the two pipes to it, and who starts it again.

The server's master is the only process that lives as long as the server does, so it is the one
that notices when the supervisor is gone: a second process that watched the first would have to
be watched as well.
"""

import logging
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from app.postgres.restarts import Restarts
from app.threads import STOP_SECONDS, OwnThread

log = logging.getLogger(__name__)

SUPERVISOR = "app.postgres.supervisor"
STOP_TIMEOUT = 16.0  # seconds, a little more than the supervisor's own three steps take

# Held while a keeper works, and during every fork of this process: so no child inherits a lock
# that the keeper's thread holds, nor the supervisor's end of a pipe, which would hide its end.
_no_fork = threading.Lock()
_guarded: list[int] = []  # the process whose forks wait for the lock; its children inherit that


class SupervisorProcess:
    """One supervisor as its server sees it; `start` may be called again when it has ended.

    `arguments` are the supervisor's own, without the server's process id.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        # Made here and not in `start`, which may run beside a thread that changes os.environ.
        self._environment: Mapping[str, str] = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self._command = [
            sys.executable, "-P", "-m", SUPERVISOR, *arguments, str(os.getpid())
        ]  # fmt: skip
        # A bare process id: gunicorn reaps all children of its master, and a Popen object would
        # complain in every worker that its process still runs.
        self.pid: int | None = None
        self.said = b""
        self._rest = b""  # of a line that is not complete
        self._lifeline = self._reports = -1  # our ends of the two pipes

    def start(self, *, again: bool = False) -> None:
        """Start the supervisor; raise OSError where the system has no process for it.

        `again` says that a database is there: a missing one is a disk that is not mounted, or a
        folder that was removed, and must not become an empty database.
        """
        self._close()  # the pipes of one that was killed
        self.said = self._rest = b""
        with ExitStack() as theirs:
            stdin, self._lifeline = os.pipe()
            theirs.callback(os.close, stdin)
            self._reports, stdout = os.pipe()
            theirs.callback(os.close, stdout)
            self.pid = os.posix_spawn(
                sys.executable,
                [*self._command, *(["again"] if again else [])],
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, stdin, 0),
                    (os.POSIX_SPAWN_DUP2, stdout, 1),
                ],
                setsigmask=[],  # the keeper's thread blocks every signal
            )

    def read_report(self, deadline: float, wake: int = -1) -> bool:
        """Read what the supervisor says, until `deadline`; return False if it has ended.

        Its log lines become ours, all else is added to `said`.

        `deadline` is of `time.monotonic`; `wake` is a file that ends the wait as well.
        """
        if self._reports < 0:
            return False
        if _first_readable(deadline, self._reports, wake) == self._reports:
            said = os.read(self._reports, 4096)
            *lines, self._rest = (self._rest + said).split(b"\n")
            for line in lines:
                if line.startswith(b"log "):
                    self._log(line.decode(errors="replace"))
                else:
                    self.said += line + b"\n"
            return bool(said)
        return True

    def _log(self, line: str) -> None:
        _, level, text = line.split(" ", 2)
        with _no_fork:
            log.log(
                logging.getLevelNamesMapping().get(level, logging.WARNING),
                "the embedded PostgreSQL's supervisor (pid %s): %s",
                self.pid,
                text,
            )

    @property
    def reason(self) -> str:
        """Why it could not start PostgreSQL, in its own words; empty where it said nothing."""
        return self.said.decode(errors="replace").partition("failed\n")[2].strip()

    def stop(self) -> None:
        """Have PostgreSQL stopped, unless it is another server's, and the supervisor end."""
        if self.pid is None:
            return
        # A byte, because workers may still hold the pipe open; and no signal, because gunicorn
        # may have reaped the supervisor, and the number may be another process's by now.
        with suppress(BrokenPipeError):
            os.write(self._lifeline, b"q")
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.read_report(deadline):
            if time.monotonic() >= deadline:
                # It was not reaped; PostgreSQL is told by the kernel or the next start.
                os.kill(self.pid, signal.SIGKILL)
                break
        self._close()

    def _close(self) -> None:
        for end in (self._lifeline, self._reports):
            if end >= 0:
                os.close(end)
        self._lifeline = self._reports = -1
        pid, self.pid = self.pid, None
        if pid is not None:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


class Keeper(OwnThread):
    """Starts the supervisor again whenever it ends, in the thread `benana-postgres`.

    The first time at once, then in rising intervals until one lives for a while; and with one
    line in the log for all of that, unless the reason changes.
    """

    def __init__(self, supervisor: SupervisorProcess, restarts: Restarts | None = None) -> None:
        """Make it for a supervisor that was started; `restarts` says how long it waits."""
        super().__init__("benana-postgres")
        self._supervisor = supervisor
        self._restarts = restarts or Restarts()
        self._wake_read, self._wake_write = os.pipe()

    def start(self) -> None:
        """Start the thread, in the process that has started the supervisor."""
        if not _guarded:
            _guarded.append(os.getpid())
            os.register_at_fork(
                before=_no_fork.acquire,
                after_in_parent=_no_fork.release,
                after_in_child=_no_fork.release,
            )
        super().start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Leave the supervisor as it is from now on."""
        with self._lock:
            self._stopped = True
        os.write(self._wake_write, b"x")
        super().stop(timeout)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        # Signals are for the main thread: gunicorn would see one that came here a second late.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        restarts = self._restarts
        failure = told = ""
        while self._has_ended():
            reason = failure or self._supervisor.reason or "it was killed"
            if restarts.ended() or reason != told:
                told = reason
                with _no_fork:
                    log.warning("the embedded PostgreSQL's supervisor is started again: %s", reason)
            if _first_readable(time.monotonic() + restarts.pause, self._wake_read) is not None:
                return
            restarts.started()
            failure = self._start()

    def _has_ended(self) -> bool:
        """Wait until the supervisor has ended; return False if we are to stop before it has."""
        while self._supervisor.read_report(math.inf, self._wake_read):
            if self._stopped:
                return False
        return not self._stopped

    def _start(self) -> str:
        """Start the supervisor again; return why that failed, if it did."""
        with _no_fork:
            try:
                self._supervisor.start(again=True)
            except OSError as error:
                return f"{sys.executable} cannot be run: {error.strerror}"
        return ""


def _first_readable(deadline: float, *files: int) -> int | None:
    """Return the first of the files that can be read, None if none can until `deadline`."""
    poll = select.poll()
    for file in files:
        if file >= 0:
            poll.register(file, select.POLLIN)
    while True:
        seconds = deadline - time.monotonic()
        ready = dict(poll.poll(None if deadline == math.inf else max(0.0, seconds) * 1000))
        if ready or seconds <= 0:
            return next((file for file in files if file in ready), None)
