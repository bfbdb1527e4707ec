"""What this host last looked at: one small file for each plugin, beside the artifacts.

A host publishes a folder because that folder changed since it last looked, never merely because
the row differs; so a row that was set back stays so, and two hosts with different folders do not
overwrite each other for ever.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


class SeenSources:
    """The digests of the sources that this host published last, by plugin."""

    def __init__(self, artifacts_dir: Path) -> None:
        self._folder = artifacts_dir / ".seen"
        self._start = self._folder / ".start"

    def digest_of(self, plugin: str) -> str | None:
        """Return the digest that was last published from this host's folder, None if none was."""
        try:
            return (self._folder / plugin).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None

    def record(self, plugin: str, digest: str) -> None:
        """Note a digest; OSError if the folder cannot be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(digest)
            Path(temporary).replace(self._folder / plugin)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def forget(self, plugin: str) -> None:
        """Forget a plugin whose folder is gone."""
        with suppress(OSError):
            (self._folder / plugin).unlink(missing_ok=True)

    def plugins(self) -> set[str]:
        """Return the names of all plugins that were published from this host's folders."""
        try:
            with os.scandir(self._folder) as entries:
                return {entry.name for entry in entries if not entry.name.startswith(".")}
        except OSError:
            return set()

    def begin_start(self) -> bool:
        """Note that the scan of the server's start is to be made; always true."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._start.touch()
        return True

    def start_is_pending(self) -> bool:
        """Tell whether the scan of the server's start was never completed."""
        return self._start.exists()

    def end_start(self) -> None:
        """Note that the scan of the server's start is complete."""
        with suppress(OSError):
            self._start.unlink(missing_ok=True)
