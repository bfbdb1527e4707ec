"""Loads that ended their process: noted before they begin, found by whoever comes after.

A trial does not see everything: a plugin may end its process only in a worker. What a process is
loading therefore stands in a small file of its own, which is locked as long as the process lives
(the kernel frees the lock, however the process ends) and survives it. Whoever finds the file of a
dead process turns it into a crash of that plugin's generation, and no process of this host loads
that generation again.
"""

import faulthandler
import fcntl
import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.files import write_whole
from app.package.archive import path_within
from app.records import ServedRow, is_plugin_name
from app.serving.host_files import MARKERS, HostFiles

ROUND_SECONDS = 2.0
"""Processes that die within so many seconds of the first of them die of one cause."""

SETTLE_SECONDS = 5.0
"""How long after its load a generation may still be what ended its process: it may have left a
thread or a timer behind."""

_OWN_SIGNALS = frozenset(
    signal.Signals[name].name
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")
    if name in signal.Signals.__members__
)

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended: `how` for a person; `by_itself` if nobody else can have ended it."""

    how: str
    by_itself: bool


UNKNOWN_END = ProcessEnd("its end is not known", by_itself=False)


def end_of(code: int) -> ProcessEnd:
    """Return how a process ended, from its exit code, negative for a signal's number."""
    if code >= 0:
        return ProcessEnd(f"exit code {code}", by_itself=True)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return ProcessEnd(name, by_itself=name in _OWN_SIGNALS)


@dataclass(frozen=True, slots=True)
class Crash:
    """A generation whose load ended its process.

    `rounds` counts the occasions: a process that was killed from outside was perhaps only
    unlucky, so that one counts for nothing yet. `round_at` is when the last one began.
    """

    id: str
    generation: int
    binary_path: str | None
    how: str
    rounds: int
    round_at: float
    proven: bool
    file: str | None = None
    line: int | None = None

    def is_of(self, row: ServedRow) -> bool:
        """Tell whether it is a row's generation that crashed."""
        return (self.id, self.generation, self.binary_path) == (
            row.id,
            row.generation,
            row.binary_path,
        )

    @property
    def blocks(self) -> bool:
        """Whether the generation is not to be loaded again."""
        return self.proven or self.rounds > 1


class LoadMarker:
    """What this process is loading, where others find it should the process die of it."""

    def __init__(self, artifacts_dir: Path, files: HostFiles | None = None) -> None:
        self._files = files or HostFiles(artifacts_dir)
        self._folder = artifacts_dir / ".loading"
        self._lock = threading.Lock()
        self._loads: list[ServedRow] = []
        self._last: ServedRow | None = None
        """What was loaded last."""
        self._starting = True
        """Whether all that is registered is being loaded: of so many none can be told."""
        self._file = -1
        self._length = 0
        self._path: Path | None = None

    def record_faults(self) -> None:
        """Have the interpreter write beside the marker where it was when it crashed."""
        with self._lock, suppress(OSError):
            path = self._open().with_suffix(".fault")
            fault = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            faulthandler.enable(fault, all_threads=False)

    @contextmanager
    def loading(self, row: ServedRow) -> Iterator[None]:
        """Mark that a row's generation is being loaded, for the length of a `with` block."""
        self._change([row], [])
        try:
            yield
        finally:
            self._change([], [row])

    def started(self) -> None:
        """Note that what is registered is loaded: from now on a load stands for one change."""
        with self._lock:
            self._starting, self._last = False, None
            self._write()

    def close(self) -> None:
        """Take the marker away: this process ends, and not by a plugin."""
        with self._lock:
            if self._path is not None:
                for path in (self._path.with_suffix(".fault"), self._path):
                    path.unlink(missing_ok=True)
                self._path = None

    def _change(self, begun: list[ServedRow], ended: list[ServedRow]) -> None:
        with self._lock:
            self._loads = [row for row in self._loads if row not in ended] + begun
            if ended and not self._starting:
                self._last = ended[-1]
            self._write()

    def _write(self) -> None:
        last = [] if self._last is None else [_listed(self._last)]
        loads = [_listed(row) for row in self._loads]
        marker = {"pid": os.getpid(), "loads": loads, "last": last, "at": time.time()}
        text = json.dumps(marker).encode()
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


class CrashedLoads:
    """The generations that this host does not load again: one small file for each plugin."""

    def __init__(self, artifacts_dir: Path, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Read and write the notes of a host.

        Args:
            artifacts_dir: the host's own folder.
            settle_seconds: how long after its load a generation may still have ended its process.
        """
        self._settle_seconds = settle_seconds
        self._markers = artifacts_dir / ".loading"
        self._folder = artifacts_dir / ".crashed"

    def find(self, row: ServedRow) -> Crash | None:
        """Return the crash for which a row is not to be loaded, None if there is none."""
        crash = self._read(row.name)
        return crash if crash is not None and crash.is_of(row) and crash.blocks else None

    def collect(
        self,
        ends: Mapping[int, ProcessEnd] | None = None,
        later: Collection[int] = (),
        busy: Collection[int] = (),
    ) -> list[str]:
        """Turn the markers of dead processes into crashes.

        Args:
            ends: how processes ended, by process id, as far as it is known.
            later: processes whose end, should they be dead already, will be known later.
            busy: processes that answered a request when they ended: that is the likelier cause.

        Returns:
            A sentence for each, for the log.
        """
        sentences = []
        for path in self._dead():
            try:
                marker = json.loads(path.read_bytes())
                loads = [ServedRow(*load) for load in marker["loads"]]
                last = [ServedRow(*load) for load in marker["last"]]
                pid, since = int(marker["pid"]), time.time() - float(marker["at"])
            except (OSError, ValueError, TypeError, KeyError):
                loads, last, pid, since = [], [], 0, 0.0  # it died while it wrote
            if pid in later:
                continue
            end = (ends or {}).get(pid, UNKNOWN_END)
            if not loads and end.by_itself and pid not in busy and since < self._settle_seconds:
                loads, end = last, ProcessEnd(f"{end.how}, moments after it", by_itself=True)
            fault = path.with_suffix(".fault")
            trace = fault.read_text(errors="replace") if fault.is_file() else ""
            sentences += [self._record(row, end, trace) for row in loads]
            path.unlink(missing_ok=True)
            fault.unlink(missing_ok=True)
        return sentences

    def _dead(self) -> Iterable[Path]:
        try:
            paths = [path for path in self._markers.iterdir() if not path.suffix]
        except OSError:
            return
        for path in paths:
            with suppress(OSError), path.open("rb+") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # its process lives
                yield path

    def _record(self, row: ServedRow, end: ProcessEnd, trace: str) -> str:
        known = self._read(row.name)
        now = time.time()
        rounds, round_at, proven = 1, now, end.by_itself
        if known is not None and known.is_of(row):
            # Counted from its beginning: workers that are started again and end again, many times
            # in a second, are no one round without end.
            same = now - known.round_at <= ROUND_SECONDS
            rounds, round_at = (known.rounds, known.round_at) if same else (known.rounds + 1, now)
            if known.proven:
                proven, end = True, ProcessEnd(known.how, by_itself=True)
        file, line = _place_in(trace, row)
        crash = Crash(
            row.id, row.generation, row.binary_path, end.how, rounds, round_at, proven, file, line
        )
        consequence = "it is not loaded again" if crash.blocks else "it is tried once more"
        try:
            write_whole(self._folder / row.name, json.dumps(asdict(crash)).encode())
        except OSError as error:
            consequence = f"{self._folder} cannot be written ({error.strerror}): it is tried again"
        place = f" at {file}:{line}" if file else ""
        return (
            f"{row.name}: loading generation {row.generation} ended a worker "
            f"({end.how}{place}); {consequence}"
        )

    def _read(self, name: str) -> Crash | None:
        if not is_plugin_name(name):
            return None
        try:
            return Crash(**json.loads((self._folder / name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None  # none, or none that can be read: it costs one more crash


def _place_in(trace: str, row: ServedRow) -> tuple[str | None, int | None]:
    """Return the plugin's innermost file and line in what faulthandler wrote."""
    if row.digest is not None:
        for match in _FRAME.finditer(trace):
            path = path_within(row.name, row.digest, match["file"])
            if path is not None:
                return path, int(match["line"])
    return None, None
