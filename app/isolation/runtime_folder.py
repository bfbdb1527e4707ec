"""Where the processes of a host meet: a private folder of short paths, gone with the machine.

It is in memory (`/dev/shm`), as gunicorn's own files are: it can be written to where no disk can,
and nothing in it outlives what it tells of. The name follows from the artifacts folder, which is
what makes processes a host's (as in the election of who watches). The path of a Unix socket has at
most 107 bytes, so plugins' names are hashed.
"""

import hashlib
import os
import socket
from pathlib import Path

from app.errors import SettingsError
from app.processes import uid_of_unix_peer


class RuntimeFolder:
    """The folder, and the paths in it; `make` it before the first use."""

    def __init__(self, artifacts_dir: Path) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - `make` looks whose the folder in it is
        base = memory if memory.is_dir() else Path("/tmp")  # noqa: S108
        self.path = base / f"benana-x-{os.geteuid()}-{_hash(os.path.realpath(artifacts_dir))}"

    def make(self) -> None:
        """Make the folder, for this user alone.

        Raises:
            SettingsError: it cannot be made, or is somebody else's: anybody can create names there.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            status = self.path.lstat()
            if not self.path.is_dir() or self.path.is_symlink() or status.st_uid != os.geteuid():
                raise SettingsError(f"{self.path} is not a folder of this user; remove it")
            self.path.chmod(0o700)
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be made: {error.strerror}") from None

    def lock(self, plugin: str) -> Path:
        """Return the file that is locked by the process which runs a plugin."""
        return self.path / f"{_hash(plugin)}.lock"

    def socket(self, plugin: str) -> Path:
        """Return where the process that runs a plugin takes requests."""
        return self.path / f"{_hash(plugin)}.sock"

    def board(self, plugin: str) -> Path:
        """Return the file in which the process that runs a plugin tells of it."""
        return self.path / f"{_hash(plugin)}.json"


def is_ours(connection: socket.socket) -> bool:
    """Tell whether the process at the other end of a Unix socket is of our own user, or root's.

    Where the system does not tell (macOS), the folder's mode has kept everybody else out.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    return uid_of_unix_peer(connection) in {0, os.geteuid()}


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
