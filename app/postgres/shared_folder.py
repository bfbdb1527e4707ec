"""The folder in which root keeps what PostgreSQL's own user cannot reach elsewhere."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_DIR = Path("/var/lib/benana")


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
