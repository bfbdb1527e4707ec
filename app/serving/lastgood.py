"""What this host served last, beside its archives: enough to start without the database."""

import json
from contextlib import suppress
from pathlib import Path

from app.records import ACTIVE, ServedRow, is_plugin_name
from app.serving.artifacts import write_whole


class LastGood:
    """One small file for each plugin that is served: its row and its archive's hash."""

    def __init__(self, artifacts_dir: Path) -> None:
        self._folder = artifacts_dir / ".served"

    def remember(self, row: ServedRow, sha256: str) -> None:
        """Note that a row is served; OSError if the folder cannot be written to."""
        path = self._folder / row.name
        text = json.dumps([row.id, row.generation, row.binary_path, sha256])
        with suppress(OSError):
            if path.read_text() == text:
                return  # another worker was first
        write_whole(path, text.encode())

    def forget(self, name: str) -> None:
        """Note that a plugin is not served any more."""
        with suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    def rows(self) -> list[tuple[ServedRow, str]]:
        """Return what was served last, with the archives' hashes, by name."""
        try:
            names = sorted(p.name for p in self._folder.iterdir() if is_plugin_name(p.name))
        except OSError:
            return []
        found = []
        for name in names:
            # A file that cannot be read costs one plugin its head start, and nothing else.
            with suppress(OSError, ValueError, TypeError):
                row_id, generation, binary_path, sha256 = json.loads(
                    (self._folder / name).read_text()
                )
                found.append((ServedRow(row_id, name, generation, ACTIVE, binary_path), sha256))
        return found
