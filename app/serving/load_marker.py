"""What this process is loading, and what it cleans up, noted where others find it.

The file is locked as long as its process lives (the kernel frees the lock, however the process
ends) and survives it: see `crashes`, which makes something of those of dead processes.
"""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path
from typing import Any

from app.records import ServedRow
from app.serving.host_files import MARKERS, HostFiles
from app.serving.last_words import last_words

RECENT_SECONDS = 10.0
"""How long a load is remembered after its end: longer than it is taken for a cause."""

FOLDER = ".loading"
"""Where they are, within the host's own folder."""


class LoadMarker:
    """What this process is loading, where others find it should the process die of it."""

    def __init__(
        self,
        artifacts_dir: Path,
        files: HostFiles | None = None,
        is_suspect: Callable[[ServedRow], bool] = lambda _row: False,
    ) -> None:
        """Make it; the file is made with the first load.

        Args:
            artifacts_dir: the host's own folder.
            files: is told whether it can be written.
            is_suspect: tells of a row that is loaded at the start whether it may have ended a
                process before; of all others of so many none can be told.
        """
        self._is_suspect = is_suspect
        self._files = files or HostFiles(artifacts_dir)
        self._folder = artifacts_dir / FOLDER
        self._lock = threading.Lock()
        self._loads: list[ServedRow] = []
        self._cleaning: list[ServedRow] = []
        self._recent: list[tuple[float, str]] = []
        """When what was loaded in the last seconds, in seconds since the epoch, and how that stands
        in the marker: it is written four times for each generation."""
        self._starting = True
        """Whether all that is registered is being loaded."""
        self._file = -1
        self._length = 0
        self._path: Path | None = None

    def record_faults(self) -> None:
        """Have this process write beside the marker who ends it, and where that was."""
        with self._lock, suppress(OSError):
            path = self._open().with_suffix(".fault")
            fault = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            last_words.watch(fault)

    @contextmanager
    def loading(self, row: ServedRow) -> Iterator[None]:
        """Mark that a row's generation is being loaded, for the length of a `with` block."""
        self._change([row], [])
        try:
            yield
        finally:
            self._change([], [row])
            last_words.record_faults()  # which the plugin may have sent elsewhere

    @contextmanager
    def cleaning(self, row: ServedRow) -> Iterator[None]:
        """Mark that a retired generation is cleaned up, for the length of a `with` block."""
        with self._lock:
            self._cleaning.append(row)
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._cleaning.remove(row)
                self._write()

    def forget(self, row: ServedRow) -> None:
        """Note that nobody waits for a load any more: if the process ends, it is not blamed."""
        with self._lock:
            self._loads = [load for load in self._loads if load != row]
            self._write()

    def started(self) -> None:
        """Note that what is registered is loaded: from now on a load stands for one change."""
        with self._lock:
            self._starting = False

    def close(self) -> None:
        """Take the marker away: this process ends, and not by a plugin."""
        with self._lock:
            last_words.unwatch()
            if self._path is not None:
                for path in (self._path.with_suffix(".fault"), self._path):
                    with suppress(OSError):  # the folder may be another thing by now
                        path.unlink()
                self._path = None

    def _change(self, begun: list[ServedRow], ended: list[ServedRow]) -> None:
        with self._lock:
            done = [row for row in ended if row in self._loads]
            self._loads = [row for row in self._loads if row not in ended] + begun
            now = time.time()
            kept = [(at, text) for at, text in self._recent if now - at < RECENT_SECONDS]
            new = [row for row in done if not self._starting or self._is_suspect(row)]
            self._recent = kept + [(now, dumps((now, *_listed(row)))) for row in new]
            self._write()

    def _write(self) -> None:
        loads, cleaning = (dumps(list(map(_listed, x))) for x in (self._loads, self._cleaning))
        recent = ",".join(text for _, text in self._recent)
        text = (
            f'{{"pid":{os.getpid()},"loads":{loads},"recent":[{recent}],"cleaning":{cleaning}}}'
        ).encode()
        try:
            self._open()
            # One write, because it is made before every load; no fsync: the file is to survive
            # the process and not the machine.
            os.pwrite(self._file, text.ljust(self._length), 0)
            self._length = max(self._length, len(text))
        except OSError as error:
            self._files.lacks(MARKERS, error)
        else:
            self._files.has(MARKERS)

    def _open(self) -> Path:
        if self._path is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Under its name only once it is locked: who finds it unlocked takes us for dead.
            path = self._folder / uuid.uuid4().hex
            draft = path.with_suffix(".tmp")
            self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # A lock of the process, which children do not inherit.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(path)
            self._path = path
        return self._path


def _listed(row: ServedRow) -> tuple[Any, ...]:
    return (row.id, row.name, row.generation, row.status, row.binary_path, row.archive_sha256)
