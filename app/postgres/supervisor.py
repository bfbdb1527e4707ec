"""The small process that keeps one PostgreSQL running for as long as its server lives.

`keeper.py` starts it as `python -m app.postgres.supervisor`. It holds an exclusive
lock on the data folder, so there is one PostgreSQL for any number of servers on that folder; who
does not get the lock waits for it and takes over. Its standard input is a pipe from the server:
a byte or its end means stop. Its standard output is a pipe back: one line `waiting`, `ready` or
`failed`, and after `failed` the reason. A line `log LEVEL …` is one for the server's log.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.account import admit, choose_account, give
from app.postgres.binaries import reachable_install, server_version
from app.postgres.clusters import discard_new_cluster, find_cluster, new_cluster_folder
from app.postgres.leftovers import Leftovers
from app.postgres.log_file import LogFile
from app.postgres.processes import FolderLock, Watch
from app.postgres.programs import Programs
from app.postgres.reports import ServerLog, report
from app.postgres.restarts import Restarts
from app.postgres.sockets import accepts_connections, make_socket_folder, socket_folder
from app.postgres.users import NAME, owner_of, user_name

log = logging.getLogger(__name__)

FAST_SHUTDOWN = 8.0  # seconds for a shutdown with a checkpoint
IMMEDIATE_SHUTDOWN = 3.0  # seconds for one without
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "huge_pages": "off",
    # Parallel queries take their memory from /dev/shm, of which a container has 64 MB.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
}
if sys.platform == "linux":
    # One call before a recovery instead of one for each of a thousand files.
    SETTINGS["recovery_init_sync_method"] = "syncfs"

# PostgreSQL's fast shutdown, its immediate shutdown, and the end, with seconds to wait for each.
SHUTDOWN = (
    (signal.SIGINT, FAST_SHUTDOWN),
    (signal.SIGQUIT, IMMEDIATE_SHUTDOWN),
    (signal.SIGKILL, IMMEDIATE_SHUTDOWN),
)


class Supervisor:
    """One cluster: made if it is missing, started, started again when it dies, stopped."""

    def __init__(
        self, data_dir: Path, install: Path, shared_dir: Path, watch: Watch, *, again: bool = False
    ) -> None:
        """Look after the cluster of a data folder; `again` says that there is one."""
        self._again = again
        self._data_dir = data_dir
        self._install = install
        self._shared_dir = shared_dir
        self._watch = watch
        self._sockets = socket_folder(data_dir)
        self._has_sockets = False
        self._log = LogFile(data_dir)
        self._lock = FolderLock(data_dir / "postgres.lock", watch)
        self.retries = False  # whether a failure to start is tried again, and not reported

    def run(self) -> None:
        """Serve until told to stop, which is SystemExit.

        Raises EmbeddedDatabaseError and OSError if PostgreSQL cannot be started.
        """
        self._find_cluster()  # somebody else's is refused before anything is touched
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self.retries = self._lock.take(lambda: report("waiting"))
        try:
            self._prepare()
            self._serve()
        finally:
            # Not another user's folder, nor one that is a later supervisor's already.
            if self._has_sockets and self._lock.is_held():
                with suppress(OSError):
                    self._sockets.rmdir()

    def _find_cluster(self) -> Path | None:
        cluster = find_cluster(self._data_dir)
        if cluster is None and self._again:
            raise EmbeddedDatabaseError(
                f"The database {self._data_dir / 'postgres'} is gone. Bring it back, or start "
                f"Benana again to begin with an empty one."
            )
        return cluster

    def _prepare(self) -> None:
        cluster = self._find_cluster()
        self._account = choose_account(cluster, self._data_dir, self._shared_dir)
        self._install = reachable_install(self._install, self._account, self._shared_dir)
        self._programs = Programs(self._install, self._account, self._log, self._watch)
        self._cluster = cluster or self._data_dir / "postgres"
        # First of all, because a PostgreSQL whose data folder was removed under it still writes
        # its pg_control to that path, and would ruin the new cluster there.
        self._clear_leftovers()
        if cluster is None:
            self._cluster = self._create_cluster()
        elif self._account is not None and self._account.uid != cluster.stat().st_uid:
            give(self._cluster, self._sockets, self._account)
        self._check_version()

    def _create_cluster(self) -> Path:
        """Run initdb in a folder aside and publish it whole; return the cluster's real path."""
        folder = new_cluster_folder(self._data_dir, self._account, self._shared_dir)
        try:
            self._programs.run(
                "initdb", "-D", folder, "-U", NAME, "--auth-local=peer", "--auth-host=reject",
                "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions",
            )  # fmt: skip
            self._programs.run(
                "postgres", "--single", "-F", "-c", "exit_on_error=on", "-D", folder, "postgres",
                text=f"CREATE DATABASE {NAME}\n",
            )  # fmt: skip
        except BaseException:
            discard_new_cluster(self._data_dir, self._shared_dir)
            raise
        published = self._data_dir / "postgres"
        (self._data_dir / "postgres.new").rename(published)
        return published.resolve()

    def _check_version(self) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        ours = server_version(self._install)
        if made_by != ours.partition(".")[0]:
            raise EmbeddedDatabaseError(
                f"The database {self._cluster} was made by PostgreSQL {made_by}, and the embedded "
                f"one is {ours}. Dump it with the old version and load it into the new one "
                f"(pg_dump, psql), or set BENANA_DATA_DIR to another folder."
            )

    def _serve(self) -> None:
        """Keep PostgreSQL running until told to stop, or until the data folder is removed."""
        restarts = Restarts()
        told = ""
        while True:
            restarts.started()
            failure = f"PostgreSQL ended; see {self._log.path}"
            try:
                self._run_once()
            except (EmbeddedDatabaseError, OSError) as error:
                if not self.retries:
                    raise
                failure = str(error)
            if not self._lock.is_held():
                log.warning(
                    "%s was removed while PostgreSQL ran: not started again", self._data_dir
                )
                return
            if restarts.ended() or failure != told:
                told = failure
                log.warning("starting PostgreSQL again: %s", failure)
            self._watch.pause(restarts.pause)

    def _run_once(self) -> None:
        """Run PostgreSQL until it ends; raise EmbeddedDatabaseError if it never was ready."""
        mark = self._log.size
        process = self._launch()
        try:
            ready = self._until_ready(process)
            if ready:
                report("ready")
                self.retries = True
                while not self._watch.until_exit(process, 60.0):
                    self._log.bound()
        finally:
            self._stop(process)
        # Backends of a killed postmaster hold its memory until they notice, which is transient.
        if not ready and b"is still in use" not in self._log.since(mark):
            raise EmbeddedDatabaseError(self._log.failure("PostgreSQL did not start", mark))

    def _launch(self) -> subprocess.Popen[bytes]:
        self._clear_leftovers()
        settings = SETTINGS | {"unix_socket_directories": str(self._sockets)}
        settings |= admit(self._cluster, self._account)
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        # SIGINT is PostgreSQL's fast shutdown.
        return self._programs.spawn("postgres", ["-D", self._cluster, *options], signal.SIGINT)

    def _clear_leftovers(self) -> None:
        # The owner is not yet the account where the cluster is to be given away.
        owner = owner_of(self._cluster) if self._cluster.exists() else self._account
        make_socket_folder(self._sockets, self._account, owner)
        self._has_sockets = True
        Leftovers(
            self._cluster, self._sockets, owner if self._account else None, self._watch
        ).clear()

    def _until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until PostgreSQL accepts connections; return False if it has ended instead."""
        while process.poll() is None:
            if accepts_connections(self._sockets):
                return True
            self._watch.wait(0.02)  # PostgreSQL has no event to wait for; pg_ctl polls as well
        return False

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        for number, seconds in SHUTDOWN:
            if process.poll() is None:
                process.send_signal(number)
                self._watch.until_exit(process, seconds)


def unusable(data_dir: Path, error: OSError) -> str:
    """Return the sentence for an operating system error in the data folder."""
    folder = data_dir
    while not os.path.exists(folder):  # noqa: PTH110  # Path.exists raises in a closed folder
        folder = folder.parent
    return (
        f"The embedded PostgreSQL cannot use the data folder {data_dir}: {error.strerror} "
        f"({error.filename}). {folder} belongs to {user_name(folder.stat().st_uid)} and Benana "
        f"runs as {user_name(os.geteuid())}: make it writable, free some space, or set "
        f"BENANA_DATA_DIR or DATABASE_URL."
    )


def main(arguments: Sequence[str]) -> int:
    """Run the supervisor: data folder, install folder, shared folder, process id of the server.

    A fifth argument, `again`, says that it takes the place of one that has ended.
    Returns the exit code: 1 if PostgreSQL could not be started.
    """
    data_dir, install, shared_dir = map(Path, arguments[:3])
    os.setsid()  # a terminal's Ctrl-C is for the server, which stops us after its workers
    os.chdir("/")
    os.set_blocking(sys.stdout.fileno(), False)
    logging.basicConfig(level=logging.INFO, handlers=[ServerLog()])
    watch = Watch(int(arguments[3]))
    again = "again" in arguments[4:]
    supervisor = Supervisor(data_dir, install, shared_dir, watch, again=again)
    try:
        supervisor.run()
    except EmbeddedDatabaseError as error:
        failure = str(error)
    except OSError as error:
        failure = unusable(data_dir, error)
    else:
        return 0
    if not report(f"failed\n{failure}"):
        log.error("%s", failure)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
