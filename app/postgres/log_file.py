"""`postgres.log`: what the embedded PostgreSQL writes, kept short, and quoted where it fails."""

import os
import shutil
from pathlib import Path
from typing import IO

from app.files import make_private

LIMIT = 8 << 20  # bytes of postgres.log before it becomes postgres.log.1


class LogFile:
    """The log of one data folder.

    `size` before a program starts is the mark from which `failure` quotes what it said.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.path = data_dir / "postgres.log"

    def open(self) -> IO[bytes]:
        """Return it to append to; only its owner may read it: it holds statements and values."""
        file = self.path.open("ab")
        make_private(file.fileno())
        return file

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, mark: int) -> bytes:
        """Return what was written after a mark."""
        with self.path.open("rb") as file:
            file.seek(mark)
            return file.read()

    def bound(self) -> None:
        """Begin it anew where it has grown long; PostgreSQL goes on appending to it."""
        if self.size > LIMIT:
            shutil.copy(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)

    def failure(self, what: str, mark: int) -> str:
        """Return the sentence for what has failed, with the last lines since a mark."""
        lines = self.since(mark).decode(errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-8:])
        return (
            f"{what} (data folder {self._data_dir}). It said:\n"
            f"{tail or '  nothing, as if the disk were full'}\n"
            f"Mend that (all of it is in {self.path}), set BENANA_DATA_DIR to another folder, "
            f"or set DATABASE_URL."
        )
