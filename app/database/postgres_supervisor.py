"""The small process that keeps one PostgreSQL running for as long as its server lives.

`embedded.py` starts it as `python -m app.database.postgres_supervisor`. It holds an exclusive
lock on the data folder, so there is one PostgreSQL for any number of servers on that folder; who
does not get the lock waits for it and takes over. Its standard input is a pipe from the server:
a byte or its end means stop. Its standard output is a pipe back: one line `waiting`, `ready` or
`failed`, and after `failed` the reason.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app.database.postgres_host import (
    NAME,
    SOCKET_NAME,
    accepts_connections,
    choose_account,
    discard_new_cluster,
    find_cluster,
    make_socket_folder,
    new_cluster_folder,
    reachable_install,
    server_version,
    socket_folder,
    user_name,
)
from app.database.processes import (
    FolderLock,
    Watch,
    command_line,
    die_with_parent,
    is_alive,
    log,
)
from app.errors import EmbeddedDatabaseError

LOG_LIMIT = 8 << 20  # bytes of postgres.log before it becomes postgres.log.1
FAST_SHUTDOWN = 8.0  # seconds for a shutdown with a checkpoint
IMMEDIATE_SHUTDOWN = 3.0  # seconds for one without
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between two attempts to start
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
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

# PostgreSQL's fast shutdown, its immediate shutdown, and the end, with seconds to wait for each.
SHUTDOWN = (
    (signal.SIGINT, FAST_SHUTDOWN),
    (signal.SIGQUIT, IMMEDIATE_SHUTDOWN),
    (signal.SIGKILL, IMMEDIATE_SHUTDOWN),
)


class Supervisor:
    """One cluster: made if it is missing, started, started again when it dies, stopped."""

    def __init__(self, data_dir: Path, install: Path, shared_dir: Path, watch: Watch) -> None:
        self._data_dir = data_dir
        self._install = install
        self._shared_dir = shared_dir
        self._watch = watch
        self._sockets = socket_folder(data_dir)
        self._has_sockets = False
        self._log = data_dir / "postgres.log"
        self._lock = FolderLock(data_dir / "postgres.lock", watch)
        self.patient = False  # whether a failure to start is tried again, and not reported

    def run(self) -> None:
        """Serve until told to stop, which is SystemExit.

        Raises EmbeddedDatabaseError and OSError if PostgreSQL cannot be started.
        """
        find_cluster(self._data_dir)  # somebody else's is refused before anything is touched
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self.patient = self._lock.take(lambda: report("waiting"))
        try:
            self._prepare()
            self._serve()
        finally:
            # Not another user's folder, nor one that is a later supervisor's already.
            if self._has_sockets and self._lock.is_held():
                with suppress(OSError):
                    self._sockets.rmdir()

    def _prepare(self) -> None:
        cluster = find_cluster(self._data_dir)
        self._account = choose_account(cluster)
        self._install = reachable_install(self._install, self._account, self._shared_dir)
        self._cluster = cluster or self._data_dir / "postgres"
        # First of all, because a PostgreSQL whose data folder was removed under it still writes
        # its pg_control to that path, and would ruin the new cluster there.
        self._settle_lock_files()
        if cluster is None:
            self._cluster = self._create_cluster()
        self._check_version()

    def _create_cluster(self) -> Path:
        """Run initdb in a folder aside and publish it whole; return the cluster's real path."""
        folder = new_cluster_folder(self._data_dir, self._account, self._shared_dir)
        try:
            self._run_tool(
                "initdb", "-D", folder, "-U", NAME, "--auth=trust", "--encoding=UTF8",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                "--no-sync", "--no-instructions",
            )  # fmt: skip
            self._run_tool(
                "postgres", "--single", "-F", "-c", "exit_on_error=on", "-D", folder, "postgres",
                text=f"CREATE DATABASE {NAME}\n",
            )  # fmt: skip
        except BaseException:
            discard_new_cluster(self._data_dir, self._shared_dir)
            raise
        published = self._data_dir / "postgres"
        (self._data_dir / "postgres.new").rename(published)
        return published.resolve()

    def _run_tool(self, name: str, *arguments: str | Path, text: str = "") -> None:
        mark = self._log_size()
        reader, writer = os.pipe()
        try:
            with os.fdopen(writer, "w") as file:
                file.write(text)  # far less than a pipe holds: this does not block
            tool = self._spawn(name, arguments, signal.SIGKILL, stdin=reader)
        finally:
            os.close(reader)
        try:
            self._watch.until_exit(tool)
        finally:
            tool.kill()
            tool.wait()
        if tool.returncode != 0:
            raise EmbeddedDatabaseError(self._failure(f"`{name}` failed", mark))

    def _check_version(self) -> None:
        found = (self._cluster / "PG_VERSION").read_text().strip()
        ours = server_version(self._install)
        if found != ours.partition(".")[0]:
            raise EmbeddedDatabaseError(
                f"The database {self._cluster} was made by PostgreSQL {found}, and the embedded "
                f"one is {ours}. Dump it with the old version and load it into the new one "
                f"(pg_dump, psql), or set BENANA_DATA_DIR to another folder."
            )

    def _serve(self) -> None:
        """Keep PostgreSQL running until told to stop, or until the data folder is removed."""
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                self._run_once()
            except (EmbeddedDatabaseError, OSError) as error:
                if not self.patient:
                    raise
                log(str(error))
            if not self._lock.is_held():
                log(f"{self._data_dir} was removed while PostgreSQL ran: not started again")
                return
            log(f"PostgreSQL ended, starting it again; see {self._log}")
            self._watch.pause(pause)
            lived = time.monotonic() - started
            pause = FIRST_PAUSE if lived > 10.0 else min(pause * 2, LONGEST_PAUSE)

    def _run_once(self) -> None:
        """Run PostgreSQL until it ends; raise EmbeddedDatabaseError if it never was ready."""
        mark = self._log_size()
        process = self._launch()
        try:
            ready = self._until_ready(process)
            if ready:
                report("ready")
                self.patient = True
                while not self._watch.until_exit(process, 60.0):
                    self._bound_log()
        finally:
            self._stop(process)
        # Backends of a killed postmaster hold its memory until they notice: that passes.
        if not ready and b"is still in use" not in self._log_since(mark):
            raise EmbeddedDatabaseError(self._failure("PostgreSQL did not start", mark))

    def _launch(self) -> subprocess.Popen[bytes]:
        self._settle_lock_files()
        settings = SETTINGS | {"unix_socket_directories": str(self._sockets)}
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        # SIGINT is PostgreSQL's fast shutdown.
        return self._spawn("postgres", ["-D", self._cluster, *options], signal.SIGINT)

    def _spawn(
        self,
        name: str,
        arguments: Sequence[str | Path],
        death_signal: signal.Signals,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        account = self._account
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [self._install / "bin" / name, *arguments],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd="/",
                env=ENVIRONMENT,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=die_with_parent(death_signal),  # runs after the change of user
            )

    def _settle_lock_files(self) -> None:
        make_socket_folder(self._sockets, self._account)
        self._has_sockets = True
        self._settle_lock_file(self._cluster / "postmaster.pid")
        self._settle_lock_file(self._sockets / f"{SOCKET_NAME}.lock")

    def _settle_lock_file(self, path: Path) -> None:
        """Deal with a lock file whose process lives, which makes PostgreSQL refuse to start.

        We hold the lock, so a postmaster of this cluster has lost its supervisor (on macOS it
        lives on then, on Linux it is just shutting down): it is stopped. Any other process has
        got the number by chance: the file is changed to say our own, which PostgreSQL as our
        child takes for stale. Removing it would also remove the key of the shared memory, by
        which PostgreSQL sees whether old backends are still alive.
        """
        try:
            first, _, rest = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return
        if not first:  # written by a process that was killed at once; PostgreSQL refuses it
            path.unlink()
            return
        pid = abs(int(first))
        if self._is_our_postmaster(pid):
            self._stop_orphan(pid)
        if is_alive(pid) and not self._is_our_postmaster(pid) and path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"%d\n%s" % (os.getpid(), rest))

    def _stop_orphan(self, pid: int) -> None:
        log(f"stopping PostgreSQL (pid {pid}), which its supervisor has left behind")
        for number, seconds in SHUTDOWN:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while self._is_our_postmaster(pid) and time.monotonic() < deadline:
                self._watch.pause(0.02)  # it is not our child, so nothing tells us

    def _is_our_postmaster(self, pid: int) -> bool:
        command = command_line(pid)
        ours = (f" -D {self._cluster} ", f" unix_socket_directories={self._sockets} ")
        return "/bin/postgres " in command and any(part in command for part in ours)

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

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_since(self, mark: int) -> bytes:
        with self._log.open("rb") as file:
            file.seek(mark)
            return file.read()

    def _bound_log(self) -> None:
        """Begin the log anew where it has grown long; PostgreSQL goes on appending to it."""
        if self._log_size() > LOG_LIMIT:
            shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
            os.truncate(self._log, 0)

    def _failure(self, what: str, mark: int) -> str:
        lines = self._log_since(mark).decode(errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-8:])
        return (
            f"{what} (data folder {self._data_dir}). It said:\n"
            f"{tail or '  nothing, as if the disk were full'}\n"
            f"Mend that (all of it is in {self._log}), set BENANA_DATA_DIR to another folder, "
            f"or set DATABASE_URL."
        )


def report(text: str) -> None:
    """Tell the server, which may have gone or may not read any more."""
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())


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

    Returns the exit code: 1 if PostgreSQL could not be started.
    """
    data_dir, install, shared_dir = map(Path, arguments[:3])
    os.setsid()  # a terminal's Ctrl-C is for the server, which stops us after its workers
    os.chdir("/")
    os.set_blocking(sys.stdout.fileno(), False)
    supervisor = Supervisor(data_dir, install, shared_dir, Watch(int(arguments[3])))
    try:
        supervisor.run()
    except EmbeddedDatabaseError as error:
        failure = str(error)
    except OSError as error:
        failure = unusable(data_dir, error)
    else:
        return 0
    report(f"failed\n{failure}")
    if supervisor.patient:  # the server has long been told `ready` or `waiting`
        log(failure)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
