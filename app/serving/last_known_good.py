"""What this host served last, beside its archives: enough to start without the database."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from json import dumps, loads
from pathlib import Path

from app.errors import CrashedLoadError, PluginError
from app.files import read_whole, write_whole
from app.records import ACTIVE, ServedRow, is_plugin_name
from app.serving.host_files import LAST_KNOWN_GOOD, HostFiles

log = logging.getLogger(__name__)

_KEPT = ("id", "name", "generation", "status", "binary_path", "archive_sha256")
"""What a file holds of a row, by name."""

_KEPT_OF_EXCLUSIVE = (*_KEPT, "exclusive", "endpoints")
"""The same, of a plugin that runs in one process. An older Benana cannot read it, nor run it."""

_LISTED = ("id", "generation", "binary_path", "archive_sha256")
"""What a file of an older Benana lists. It is read, too, so that the first start of a new version
needs no database either; the next swap replaces it. An older Benana refuses an object of six."""


class LastKnownGood:
    """One small file for each plugin that is served: its row and its archive's hash.

    What changes is noted at once and written later, all of it by `write`: a swap has better things
    to do than to wait for a disk, and of many changes only the last one is written.
    """

    def __init__(
        self,
        artifacts_dir: Path,
        files: HostFiles | None = None,
        on_settled: Callable[[ServedRow], None] = lambda _row: None,
    ) -> None:
        """Make it.

        Args:
            artifacts_dir: the host's own folder.
            files: is told whether it can be written.
            on_settled: is told each row that has been served for as long as `write` was given.
        """
        self._on_settled = on_settled
        self._folder = artifacts_dir / ".served"
        self._replaced = self._folder / ".replaced"
        self._changed: dict[str, tuple[ServedRow | None, float]] = {}
        """What is to be written, and when it was noted, in monotonic seconds."""
        self._lock = threading.Lock()
        self._files = files or HostFiles(artifacts_dir)

    def remember(self, row: ServedRow) -> None:
        """Note that a row is served."""
        with self._lock:
            self._changed[row.name] = row, time.monotonic()

    def forget(self, name: str) -> None:
        """Note that a plugin is not served any more."""
        with self._lock:
            self._changed[name] = None, -math.inf

    def write(self, served_for: float = 0.0) -> None:
        """Write what was noted since; what cannot be written stays noted.

        Args:
            served_for: for how many seconds it has to be served: until then it may still end its
                process, and what was served before is to be found.
        """
        with self._lock:
            before = time.monotonic() - served_for
            changed = {name: noted for name, noted in self._changed.items() if noted[1] <= before}
            for name in changed:
                del self._changed[name]
        for name in list(changed):
            try:
                self._write(name, changed[name][0])
            except OSError as error:
                changed[name] = changed.pop(name)  # the others have their turn before it
                with self._lock:
                    self._changed = {**changed, **self._changed}
                self._files.lacks(LAST_KNOWN_GOOD, error)
                return
            row, _ = changed.pop(name)
            if row is not None and served_for:
                self._on_settled(row)
        self._files.has(LAST_KNOWN_GOOD)

    def write_one(self, name: str, served_for: float) -> None:
        """Write what was noted of one plugin now: its next load may end the process.

        What was served for less time than `served_for` seconds takes no place: it may be what will
        end the process.
        """
        with self._lock:
            if name not in self._changed:
                return
            young = self._changed[name][1] > time.monotonic() - served_for
            if young and (self._folder / name).exists():
                return
            noted = self._changed.pop(name)
        try:
            self._write(name, noted[0])
        except OSError:
            with self._lock:  # `write` tries again, and says so
                self._changed.setdefault(name, noted)

    def _write(self, name: str, row: ServedRow | None) -> None:
        path = self._folder / name
        if row is None:
            path.unlink(missing_ok=True)
            (self._replaced / name).unlink(missing_ok=True)
            return
        kept = _KEPT if row.exclusive is None else _KEPT_OF_EXCLUSIVE
        text = dumps({name: getattr(row, name) for name in kept}).encode()
        with suppress(OSError):
            if (known := read_whole(path)) == text:
                return  # another worker was first
            self._keep_replaced(path, known, row)
        write_whole(path, text)

    def _keep_replaced(self, path: Path, known: bytes, row: ServedRow) -> None:
        """Keep the note of the version that a newer one replaces."""
        before = _parsed(row.name, known)
        if before is None or before.binary_path == row.binary_path:
            return
        if before.id == row.id and before.generation < row.generation:
            kept = self._replaced / row.name
            self._replaced.mkdir(exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(path, kept)  # `write_whole` leaves this file as it is

    def rows(self) -> list[ServedRow]:
        """Return what was served last, by name."""
        try:
            names = sorted(p.name for p in self._folder.iterdir() if is_plugin_name(p.name))
        except OSError:
            return []
        return [row for row in map(self.find, names) if row is not None]

    def find_before(self, row: ServedRow, error: PluginError | None = None) -> ServedRow | None:
        """Return what was served last of a row that is newer, None if nothing is known.

        Args:
            row: what is to be served.
            error: why it is not. What ends its processes was served itself, before it was known:
                then it is what that had replaced.
        """
        before = self.find(row.name)
        crashed = isinstance(error, CrashedLoadError)
        if crashed and before is not None and before.generation >= row.generation:
            before = self._find(self._replaced / row.name)
        older = before is not None and before.id == row.id and before.generation < row.generation
        return before if older else None

    def find(self, name: str) -> ServedRow | None:
        """Return what was served last of a plugin, None if nothing is known."""
        return self._find(self._folder / name)

    def _find(self, path: Path) -> ServedRow | None:
        try:
            raw = read_whole(path)
        except OSError:
            return None
        row = _parsed(path.name, raw)
        if row is None:  # costs one plugin its head start, nothing else
            log.warning(
                "%s is left out (it is no note of %s): without the database that is not served; "
                "the file is written again when it is",
                path,
                path.name,
            )
        return row


def _parsed(name: str, raw: bytes) -> ServedRow | None:
    """Return the row that a file holds, None if it is not what was written."""
    try:
        kept = loads(raw)
        if isinstance(kept, list):
            kept = {"name": name, "status": ACTIVE, **dict(zip(_LISTED, kept, strict=True))}
        row = ServedRow(**kept)
    except (ValueError, TypeError):
        return None
    return row if row.name == name else None
