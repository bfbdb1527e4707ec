"""Have a version rehearsed in a process that may die: does it go live beside its older one?"""

import json
import re
import signal
import threading
from pathlib import Path
from typing import IO, Any

from app.errors import RehearsalError
from app.publishing.trials.parcel import memory_file, temporary_folder
from app.publishing.trials.rehearsal import OWN_REGISTRY, Rehearsal
from app.publishing.trials.trial_process import Answer, TrialProcess
from app.records import FRESH, Artifact, Reload

LOADS = 4
"""How many loads a rehearsal makes at most: one of the version before, three of the version."""

START_SECONDS = 20.0
"""How long its process may take to begin, on a machine that has much to do."""

LOOK_SECONDS = 15.0
"""How long it may look at what is in memory, all in all."""

_PHASE = re.compile(r"^@(?P<phase>load (?P<generation>\d+)|look)$", re.MULTILINE)


class Rehearser:
    """Rehearses versions in children of the trials' server process; see `rehearsal`.

    Safe to use from several threads at once.
    """

    def __init__(
        self,
        process: TrialProcess,
        database_url: str | None,
        plugins_dir: Path,
        artifacts_dir: Path,
        seconds: float,
        memory_bytes: int,
    ) -> None:
        """Make it.

        Args:
            process: what forks the children.
            database_url: what `context.database` connects to; None for nothing.
            plugins_dir: the plugins' root, which nothing is imported from.
            artifacts_dir: where versions are unpacked.
            seconds: the wall clock of one load.
            memory_bytes: how much memory it may take.
        """
        self._process = process
        self._database_url = database_url
        self._plugins_dir = plugins_dir
        self._artifacts_dir = artifacts_dir
        self._seconds = seconds
        self._memory_bytes = memory_bytes

    def rehearse(self, older: Artifact | None, newer: Artifact, generation: int) -> Rehearsal:
        """Find out how what comes after a version can go live.

        Args:
            older: the version before it; None where there is none, or the same.
            newer: the version.
            generation: the version's number, for the sentence.

        Raises:
            RehearsalError: it cannot be told; not now, or not here.
            SupersededError: this process stops.
        """
        plugin = newer.plugin
        if older is not None and older.digest == newer.digest:
            older = None
        try:
            with (
                memory_file("benana-older") as before,
                memory_file("benana-newer") as archive,
                temporary_folder(plugin) as folder,
            ):
                before.write(older.archive if older is not None else b"")
                archive.write(newer.archive)
                before.flush()
                archive.flush()
                seconds = self._seconds * LOADS + LOOK_SECONDS
                request = {
                    "compile_seconds": START_SECONDS,
                    "seconds": seconds,
                    "memory_bytes": self._memory_bytes,
                    "folder": folder,
                    "artifacts_dir": str(self._artifacts_dir),
                    "plugins_dir": str(self._plugins_dir),
                    "source_folder": str(self._plugins_dir / plugin),
                    "database_url": self._database_url,
                    "rehearse": {
                        "plugin": plugin,
                        "generation": generation,
                        "newer": [newer.digest, newer.sha256],
                        "older": [older.digest, older.sha256] if older is not None else None,
                    },
                }
                answer = self._ask(request, (before, archive), START_SECONDS + seconds)
        except OSError as error:
            raise RehearsalError(plugin, str(error), outside=True) from None
        first = generation if older is None else generation - 1
        return _judge(plugin, answer, first, seconds)

    def _ask(
        self, request: dict[str, Any], files: tuple[IO[bytes], IO[bytes]], seconds: float
    ) -> Answer:
        """Have it done, once more where the server of the children was lost meanwhile."""
        answer = self._process.ask(request, files, seconds, threading.Event())
        if answer.end is None:
            answer = self._process.ask(request, files, seconds, threading.Event())
        return answer


def _judge(plugin: str, answer: Answer, first: int, seconds: float) -> Rehearsal:
    if answer.end is None:
        raise RehearsalError(plugin, "its process was lost", outside=True)
    report = _report_of(answer.report)
    if report is not None and "failed" in report:
        raise RehearsalError(plugin, report["failed"], trace=report.get("trace", ""))
    if report is not None:
        return Rehearsal(Reload(**report["reload"]), tuple(report["left"]))
    phases = [match["generation"] for match in _PHASE.finditer(answer.report)]
    if not phases or phases[-1] in {None, str(first)}:
        # The first load, or the look: that says nothing of the version.
        raise RehearsalError(plugin, f"it {_how_it_ended(answer.end, seconds)}")
    why = f"loaded beside its older version, it {_how_it_ended(answer.end, seconds)}"
    return Rehearsal(Reload(FRESH, why, OWN_REGISTRY))


def _report_of(text: str) -> dict[str, Any] | None:
    lines = text.splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None


def _how_it_ended(end: dict[str, Any], seconds: float) -> str:
    code = end["code"]
    if end["timed_out"] or code == -signal.SIGXCPU:
        return f"does not end within {seconds:g} s"
    if code < 0:
        return f"ends its process with {signal.Signals(-code).name}"
    return f"ends its process with exit code {code}"
