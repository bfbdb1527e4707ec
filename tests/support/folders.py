"""Folders for what another user is to reach."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can reach, and remove it at the end.

    For an embedded PostgreSQL of root's: where its own user cannot reach the data folder, as in
    pytest's own folders, the cluster is put into `/var/lib/benana` and stays there.
    """
    with tempfile.TemporaryDirectory(prefix="benana-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder).resolve()
