"""What an earlier PostgreSQL of a cluster may have left: processes, and lock files.

Whoever clears them holds the data folder's lock, so nobody looks after those processes any more.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.postgres.processes import Watch, command_line, is_alive, kill_processes_in
from app.postgres.sockets import SOCKET_NAME
from app.postgres.users import Account

log = logging.getLogger(__name__)

# PostgreSQL's fast shutdown, its immediate shutdown, and the end, with seconds to wait for each.
# Short ones, because workers wait for the database; a recovery is no loss, only slower.
SHUTDOWN = (
    (signal.SIGINT, 1.0),
    (signal.SIGQUIT, 0.3),
    (signal.SIGKILL, 3.0),
)


class Leftovers:
    """The processes and lock files of a cluster whose supervisor has gone; `clear` removes them."""

    def __init__(self, cluster: Path, sockets: Path, account: Account | None, watch: Watch) -> None:
        """Look at a cluster (a real path), its socket's folder, and its processes' account.

        `watch` ends the waits.
        """
        self._cluster = cluster
        self._sockets = sockets
        self._account = account
        self._watch = watch

    def clear(self) -> None:
        """Stop what still runs, and take over the lock files that would stop a new PostgreSQL."""
        files = (self._cluster / "postmaster.pid", self._sockets / f"{SOCKET_NAME}.lock")
        for path in files:
            pid = _process_in(path)
            if pid and self._is_our_postmaster(pid):
                self._stop_postmaster(pid)
        self._kill_backends()
        for path in files:
            self._take_over(path)

    def _stop_postmaster(self, pid: int) -> None:
        for number, seconds in SHUTDOWN:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if self._wait(lambda: not self._is_our_postmaster(pid), seconds):
                return
            log.warning(
                "PostgreSQL (pid %d) did not end within %g s of %s", pid, seconds, number.name
            )

    def _kill_backends(self) -> None:
        """Kill what has lost its postmaster, and would hold its memory for as long as it computes.

        An idle backend notices at once that it is alone, a busy one at the end of its statement;
        and no new PostgreSQL starts before. What they did is undone by the recovery anyway.
        """

        def none_left() -> bool:
            return kill_processes_in(self._cluster, "postgres")

        account = self._account
        self._wait(none_left if account is None else lambda: account.can(none_left), 3.0)

    def _take_over(self, path: Path) -> None:
        """Deal with a lock file whose process lives, which makes PostgreSQL refuse to start.

        It is a process that has got the number by chance: the file is changed to say our own,
        which PostgreSQL as our child takes for stale. Removing it would also remove the key of
        the shared memory, by which PostgreSQL sees whether old backends are still alive.
        """
        pid = _process_in(path)
        if pid == 0:  # written by a process that was killed at once; PostgreSQL refuses it
            path.unlink()
        elif pid is not None and is_alive(pid) and not self._is_our_postmaster(pid):
            rest = path.read_bytes().partition(b"\n")[2]
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"%d\n%s" % (os.getpid(), rest))

    def _is_our_postmaster(self, pid: int) -> bool:
        command = command_line(pid)
        ours = (f" -D {self._cluster} ", f" unix_socket_directories={self._sockets} ")
        return "/bin/postgres " in command and any(part in command for part in ours)

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= deadline:
                return False
            self._watch.pause(0.02)  # they are not our children, so nothing tells us
        return True


def _process_in(path: Path) -> int | None:
    """Return the process id in a lock file, 0 if there is none in it, None without a file."""
    try:
        return abs(int(path.read_bytes().partition(b"\n")[0]))
    except FileNotFoundError:
        return None
    except ValueError:
        return 0
