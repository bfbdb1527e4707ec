"""PostgreSQL clusters that are copied, because making one takes seconds of a processor."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from app.postgres.server import EmbeddedPostgres

NewPostgres = Callable[[Path], EmbeddedPostgres]
"""What the fixture `new_postgres` is: makes the PostgreSQL of a new data folder, not started."""


def make_cluster(data_dir: Path) -> Path:
    """Have a cluster made in a data folder, stop its PostgreSQL, and return the folder."""
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    postgres.stop()
    return data_dir


def copy_cluster(made: Path, data_dir: Path) -> None:
    """Put a copy of a stopped cluster into another data folder, with the same owner."""
    data_dir.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", made / "postgres", data_dir / "postgres"], check=True)
