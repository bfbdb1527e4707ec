"""What is noted of a generation that has ended a process: one small file for each plugin."""

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from app.files import write_whole
from app.records import ServedRow, is_plugin_name
from app.serving.last_words import CRASHES

LATE_OCCASIONS, LOOP_SECONDS = 3, 300.0
"""So often a generation has to end a process later than that, each time within so many seconds of
the time before, to be held back: once in a while is not what the version before is better at."""


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
    return ProcessEnd(name, by_itself=name in {crash.name for crash in CRASHES})


def end_of_child(pid: int) -> ProcessEnd:
    """Return how a child ended, and leave it to be reaped; `UNKNOWN_END` if it lives."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return UNKNOWN_END
    try:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return UNKNOWN_END
    if status is None:
        return UNKNOWN_END
    exited = status.si_code == os.CLD_EXITED
    return end_of(status.si_status if exited else -status.si_status)


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
    late: bool = False
    """Whether it ended processes in which it was served already, by a thread or a timer."""

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
        return self.proven or self.rounds >= (LATE_OCCASIONS if self.late else 2)


class CrashNotes:
    """The notes of a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, row: ServedRow) -> Crash | None:
        """Return the note of a row's generation, None if there is none."""
        crash = self._read(row.name)
        return crash if crash is not None and crash.is_of(row) else None

    def write(self, row: ServedRow, crash: Crash) -> str:
        """Write a note; return what follows where that cannot be done, else an empty text."""
        try:
            write_whole(self.folder / row.name, json.dumps(asdict(crash)).encode())
        except OSError as error:
            return f"{self.folder} cannot be written ({error.strerror}): it is tried again"
        return ""

    def _read(self, name: str) -> Crash | None:
        if not is_plugin_name(name):
            return None
        try:
            return Crash(**json.loads((self.folder / name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None  # none, or none that can be read: it costs one more crash
