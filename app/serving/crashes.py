"""Loads that ended their process: noted before they begin, found by whoever comes after.

A trial does not see everything: a plugin may end its process only in a worker. What a process is
loading therefore stands in a small file (`load_marker`). Whoever finds the file of a dead process
turns it into a crash of that plugin's generation, and no process of this host loads that generation
again.
"""

import fcntl
import json
import re
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from app.files import write_whole
from app.package.archive import path_within
from app.records import ServedRow, is_plugin_name
from app.serving.load_marker import FOLDER

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
    after: float = 0.0
    """How many seconds after its load the process ended, when that was noted first."""

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


class CrashedLoads:
    """The generations that this host does not load again: one small file for each plugin."""

    def __init__(self, artifacts_dir: Path, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Read and write the notes of a host.

        Args:
            artifacts_dir: the host's own folder.
            settle_seconds: how long after its load a generation may still have ended its process.
        """
        self._settle_seconds = settle_seconds
        self._markers = artifacts_dir / FOLDER
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
                recent = [(float(at), ServedRow(*load)) for at, *load in marker.get("recent", [])]
                cleaning = [ServedRow(*load) for load in marker.get("cleaning", [])]
                pid = int(marker["pid"])
            except (OSError, ValueError, TypeError, KeyError):
                loads, recent, cleaning, pid = [], [], [], 0  # it died while it wrote
            if pid in later:
                continue
            end = (ends or {}).get(pid, UNKNOWN_END)
            fault = path.with_suffix(".fault")
            trace = fault.read_text(errors="replace") if fault.is_file() else ""
            alone = end.by_itself and pid not in busy
            if cleaning and alone and not any(_place_in(trace, row)[0] for row in loads):
                # The version after it is as good as it was; what loads just now is tried once more.
                sentences += [_ended_by_cleanup(row, end) for row in cleaning]
                end = ProcessEnd(end.how, by_itself=False)
            elif not loads and alone:
                sentences += self._suspect(recent, end, trace)
            sentences += [self._record(row, end, trace) for row in loads]
            path.unlink(missing_ok=True)
            fault.unlink(missing_ok=True)
        return sentences

    def is_suspect(self, row: ServedRow) -> bool:
        """Tell whether a row's generation may have ended a process, and is loaded again."""
        crash = self._read(row.name)
        return crash is not None and crash.is_of(row) and not crash.blocks

    def absolve(self, row: ServedRow) -> None:
        """Note that a row's generation has been served for a while: it was another one."""
        if self.is_suspect(row):
            with suppress(OSError):
                (self._folder / row.name).unlink()

    def _suspect(
        self, recent: Iterable[tuple[float, ServedRow]], end: ProcessEnd, trace: str
    ) -> list[str]:
        """Note what may have ended a process after its load, by a timer or a thread that it left.

        What alone was loaded moments ago did it. Of several one may have, and all are loaded once
        more: next time it is the one whose process ended as long after its load as the first time.
        """
        now = time.time()
        rows = {row: now - at for at, row in recent if now - at < self._settle_seconds}
        if len(rows) == 1:
            end = ProcessEnd(f"{end.how}, moments after it", by_itself=True)
            return [self._record(row, end, trace) for row in rows]
        end = ProcessEnd(f"{end.how}, moments after it and others", by_itself=False)
        newest: dict[str, ServedRow] = {}  # there is one note for each plugin, and no other is
        for row in rows:  # loaded again
            if row.name not in newest or newest[row.name].generation < row.generation:
                newest[row.name] = row
        differs = {}
        for row in newest.values():
            crash = self._read(row.name)
            if crash is not None and crash.is_of(row):
                differs[row] = abs(crash.after - rows[row])
        likeliest = min(differs, key=lambda row: differs[row], default=None)
        return [
            self._record(row, end, trace, after=rows[row], counts=row == likeliest)
            for row in newest.values()
        ]

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

    def _record(
        self,
        row: ServedRow,
        end: ProcessEnd,
        trace: str,
        *,
        after: float = 0.0,
        counts: bool = True,
    ) -> str:
        """Note that a load ended a process; where it does not count, only that it may have."""
        known = self._read(row.name)
        now = time.time()
        rounds, round_at, proven = 1, now, end.by_itself
        if known is not None and known.is_of(row):
            # Counted from its beginning: workers that are started again and end again, many times
            # in a second, are no one round without end.
            same = now - known.round_at <= ROUND_SECONDS
            again = (known.rounds + 1, now)
            rounds, round_at = (known.rounds, known.round_at) if same or not counts else again
            after = known.after
            if known.proven:
                proven, end = True, ProcessEnd(known.how, by_itself=True)
        file, line = _place_in(trace, row)
        crash = Crash(
            *(row.id, row.generation, row.binary_path, end.how, rounds, round_at, proven),
            *(file, line, after),
        )
        consequence = "it is not loaded again" if crash.blocks else "it is tried once more"
        try:
            write_whole(self._folder / row.name, json.dumps(asdict(crash)).encode())
        except OSError as error:
            consequence = f"{self._folder} cannot be written ({error.strerror}): it is tried again"
        place = f" at {file}:{line}" if file else ""
        did = "ended" if end.by_itself or not end.how.endswith("others") else "may have ended"
        return (
            f"{row.name}: loading generation {row.generation} {did} a worker "
            f"({end.how}{place}); {consequence}"
        )

    def _read(self, name: str) -> Crash | None:
        if not is_plugin_name(name):
            return None
        try:
            return Crash(**json.loads((self._folder / name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None  # none, or none that can be read: it costs one more crash


def _ended_by_cleanup(row: ServedRow, end: ProcessEnd) -> str:
    return (
        f"{row.name}: a worker ended ({end.how}) while generation {row.generation} was cleaned up "
        "in it: look at its `cleanup`; new workers load what comes after it"
    )


def _place_in(trace: str, row: ServedRow) -> tuple[str | None, int | None]:
    """Return the plugin's innermost file and line in what faulthandler wrote."""
    if row.digest is not None:
        for match in _FRAME.finditer(trace):
            path = path_within(row.name, row.digest, match["file"])
            if path is not None:
                return path, int(match["line"])
    return None, None
