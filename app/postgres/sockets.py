"""The Unix socket of the embedded PostgreSQL: its private folder, and whether it answers there."""

import hashlib
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.users import NAME, Account, user_name

SOCKET_NAME = ".s.PGSQL.5432"


def socket_folder(data_dir: Path) -> Path:
    """Return the folder of the Unix socket for a data folder (an absolute real path).

    It lies directly in /tmp, and not where TMPDIR or XDG_RUNTIME_DIR point: a socket's path has
    at most 103 bytes on macOS and 107 on Linux, and a shell, a cron job and a service of one
    user must come to the same answer.
    """
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(f"/tmp/benana-{os.geteuid()}-{digest}")  # noqa: S108  # made by make_socket_folder


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


def _foreign_socket_folder(folder: Path) -> str:
    return (
        f"{folder} is not a folder of the user {user_name(os.geteuid())} "
        f"(it belongs to {user_name(folder.lstat().st_uid)}). Remove it, and start again."
    )
