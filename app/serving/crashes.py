"""Loads that ended their process: noted before they begin, found by whoever comes after.

A trial does not see everything: a plugin may end its process only in a worker. What a process is
loading therefore stands in a small file (`load_marker`). Whoever finds the file of a dead process
turns it into a crash of that plugin's generation, and no process of this host loads that generation
again.
"""

import fcntl
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from app.records import ServedRow
from app.serving.crash_notes import (
    LATE_OCCASIONS,
    LOOP_SECONDS,
    UNKNOWN_END,
    Crash,
    CrashNotes,
    ProcessEnd,
)
from app.serving.last_known_good import LastKnownGood
from app.serving.last_words import (
    ends_told,
    is_of_request,
    may_be_load,
    named_in,
    place_in,
    plugins_in,
)
from app.serving.load_errors import crashed_error
from app.serving.load_marker import FOLDER

ROUND_SECONDS = 2.0
"""Processes that die within so many seconds of the first of them die of one cause."""

SETTLE_SECONDS = 5.0
"""How long after its load a generation may still be what ended its process: it may have left a
thread or a timer behind."""


class CrashedLoads:
    """The generations that this host does not load again: one small file for each plugin."""

    def __init__(self, artifacts_dir: Path, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Read and write the notes of a host.

        Args:
            artifacts_dir: the host's own folder.
            settle_seconds: how long after its load a generation may still have ended its process.
        """
        self._settle_seconds = settle_seconds
        self._served = LastKnownGood(artifacts_dir)
        self.on_held_back: Callable[[], object] = lambda: None
        """Called when a generation is held back that other processes serve still."""
        self._markers = artifacts_dir / FOLDER
        self._notes = CrashNotes(artifacts_dir / ".crashed")

    def find(self, row: ServedRow) -> Crash | None:
        """Return the crash for which a row is not to be loaded, None if there is none."""
        crash = self._notes.find(row)
        return crash if crash is not None and crash.blocks else None

    def collect(
        self,
        ends: Mapping[int, ProcessEnd] | None = None,
        later: Collection[int] = (),
        busy: Mapping[int, Collection[str]] | None = None,
        told: Collection[int] = (),
    ) -> list[str]:
        """Turn the markers of dead processes into crashes.

        Args:
            ends: how processes ended, by process id, as far as it is known.
            later: processes whose end, should they be dead already, will be known later.
            busy: the plugins whose requests a process answered when it ended, by process id:
                that is the likelier cause.
            told: processes that were told to end; others have noted it themselves.

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
            end, answered = (ends or {}).get(pid, UNKNOWN_END), (busy or {}).get(pid, ())
            fault = path.with_suffix(".fault")
            words = fault.read_text(errors="replace") if fault.is_file() else ""
            named = plugins_in(words)
            alone = end.by_itself and not answered
            cleaned = {row.name for row in cleaning}
            if named and is_of_request(words, busy=bool(answered)):
                loads = [row for row in loads if may_be_load(words, row)]
            elif not named and not end.by_itself and (pid in told or ends_told(words)):
                loads = []  # it was killed because it did not end in time, whatever it loaded
            elif answered and not named:
                # Who calls may be anybody, and have had it ended. If it was a load, the next
                # worker's ends, too, before that one answers anybody.
                loads = []
            elif named and cleaned.isdisjoint(named) and named_in(words, loads) is None:
                if not set(named).intersection(answered):  # else one of them waited for its thread
                    sentences += self._ended_by_thread(named, recent, end, words)
                loads = []  # of these none did it
            elif cleaning and alone and not any(place_in(words, row).file for row in loads):
                # The version after it is as good as it was; what loads just now is tried once more.
                sentences += [_ended_by_cleanup(row, end) for row in cleaning]
                end = ProcessEnd(end.how, by_itself=False)
            elif not loads and alone:
                sentences += self._suspect(recent, end, words)
            sentences += [self._record(row, end, words) for row in loads]
            path.unlink(missing_ok=True)
            fault.unlink(missing_ok=True)
        return sentences

    def is_noted(self, row: ServedRow) -> bool:
        """Tell whether a row's generation has ended a process, or may have."""
        return self._notes.find(row) is not None

    def is_suspect(self, row: ServedRow) -> bool:
        """Tell whether a row's generation may have ended a process, and is loaded again."""
        crash = self._notes.find(row)
        return crash is not None and not crash.blocks

    def absolve(self, row: ServedRow) -> None:
        """Note that a row's generation has been served for a while: it was another one."""
        crash = self._notes.find(row)
        if crash is not None and not crash.blocks and not crash.late:
            with suppress(OSError):
                (self._notes.folder / row.name).unlink()

    def _ended_by_thread(
        self,
        named: Sequence[str],
        recent: Sequence[tuple[float, ServedRow]],
        end: ProcessEnd,
        words: str,
    ) -> list[str]:
        """Note that a thread or a timer of a plugin has ended a process."""
        served = filter(None, map(self._served.find, named))
        row = named_in(words, [*(row for _, row in reversed(recent)), *served])
        if row is None:
            return [
                f"{named[0]}: a worker ended ({end.how}) by a thread that a generation has left "
                "which is served no more: end such threads in `cleanup`"
            ]
        end = ProcessEnd(end.how, by_itself=True)  # it says so itself, also of SIGKILL
        if any(row == new and time.time() - at < self._settle_seconds for at, new in recent):
            return self._suspect([load for load in recent if load[1] == row], end, words)
        return [self._record_late(row, end, words)]

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
            crash = self._notes.find(row)
            if crash is not None:
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
        known = self._notes.find(row)
        now = time.time()
        rounds, round_at, proven = 1, now, end.by_itself
        if known is not None:
            # Counted from its beginning: workers that are started again and end again, many times
            # in a second, are no one round without end.
            same = now - known.round_at <= ROUND_SECONDS
            again = (known.rounds + 1, now)
            rounds, round_at = (known.rounds, known.round_at) if same or not counts else again
            after = known.after
            if known.proven:
                proven, end = True, ProcessEnd(known.how, by_itself=True)
        place = place_in(trace, row)
        crash = Crash(
            *(row.id, row.generation, row.binary_path, end.how, rounds, round_at, proven),
            *(place.file, place.line, after),
        )
        consequence = "it is not loaded again" if crash.blocks else "it is tried once more"
        consequence = self._notes.write(row, crash) or consequence
        did = "ended" if end.by_itself or not end.how.endswith("others") else "may have ended"
        return (
            f"{row.name}: loading generation {row.generation} {did} a worker "
            f"({end.how}{place}); {consequence}"
        )

    def _record_late(self, row: ServedRow, end: ProcessEnd, words: str) -> str:
        """Note that a generation ended a process in which it was served already."""
        known = self._notes.find(row)
        place = place_in(words, row)
        now = time.time()
        crash = Crash(
            *(row.id, row.generation, row.binary_path, end.how, 1, now, False),
            *(place.file, place.line),
            late=True,
        )
        if known is not None:
            if known.blocks:
                crash = known
            elif known.late and now - known.round_at <= ROUND_SECONDS:
                crash = replace(crash, rounds=known.rounds, round_at=known.round_at)
            elif known.late and now - known.round_at <= LOOP_SECONDS:
                crash = replace(crash, rounds=known.rounds + 1)
        before = self._served.find_before(row, crashed_error(row, crash))
        consequence = f"once it has done so {LATE_OCCASIONS} times in a row, it is held back"
        if crash.blocks:
            other = "nothing of it" if before is None else f"generation {before.generation}"
            consequence = f"that was {crash.rounds} times in a row: {other} is served"
        consequence = self._notes.write(row, crash) or consequence
        if before is not None and crash.blocks and crash is not known:
            self.on_held_back()  # once: of what drains still, more may end so
        return (
            f"{row.name}: a thread or a timer of generation {row.generation} ended a worker "
            f"({end.how}{place}); {consequence}"
        )


def _ended_by_cleanup(row: ServedRow, end: ProcessEnd) -> str:
    return (
        f"{row.name}: a worker ended ({end.how}) while generation {row.generation} was cleaned up "
        "in it: look at its `cleanup`; new workers load what comes after it"
    )
