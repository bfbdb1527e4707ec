"""Generations that failed in a process which had loaded nothing else of their plugin.

Such a process cannot load the version before either, where the plugin's libraries keep what they
were given. So it is noted for the other processes of the host: they load the version before at
once. A new generation, as a reload makes one, is tried anew.
"""

import json
import logging
from pathlib import Path
from typing import Any

from app.errors import LoadError, PluginError
from app.files import write_whole
from app.records import ServedRow

log = logging.getLogger(__name__)


class FailedLoads:
    """The notes of a host: one small file for each plugin."""

    def __init__(self, artifacts_dir: Path) -> None:
        self._folder = artifacts_dir / ".failed"

    def note(self, row: ServedRow, error: PluginError) -> None:
        """Note why a row's generation cannot be loaded; said in the log where that is not kept."""
        try:
            text = json.dumps({"of": _key(row), "error": error.as_record()})
            write_whole(self._folder / row.name, text.encode())
        except OSError as fault:
            log.warning(
                "%s: that generation %d cannot be loaded is not noted for the other workers, each "
                "tries it: %s",
                row.name,
                row.generation,
                fault.strerror,
            )

    def find(self, row: ServedRow) -> LoadError | None:
        """Return why a row's generation cannot be loaded, None if that is not known."""
        try:
            note = json.loads((self._folder / row.name).read_bytes())
            if note["of"] != _key(row):
                return None
            error = note["error"]
            return LoadError(
                row.name,
                error["message"],
                phase=error["phase"],
                file=error["file"],
                line=error["line"],
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None  # none, or none that can be read: it is tried once more


def _key(row: ServedRow) -> list[Any]:
    return [row.id, row.generation, row.binary_path]
