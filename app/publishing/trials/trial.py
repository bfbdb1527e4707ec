"""Compile a source and load it once, in a process that may die."""

import errno
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from app.errors import (
    BenanaError,
    LoadError,
    SupersededError,
    TrialError,
)
from app.package.version_folders import VersionFolders
from app.publishing.compiler import MAX_ARCHIVE_BYTES
from app.publishing.trials.parcel import memory_file, temporary_folder, write_parcel
from app.publishing.trials.rehearser import Rehearser
from app.publishing.trials.trial_memory import MIB
from app.publishing.trials.trial_process import Answer, TrialProcess
from app.publishing.trials.trial_verdict import ENDED_WELL, has_ended_well, judge
from app.records import Artifact, PluginSource, TrialReport
from app.settings import Settings

TRIAL_SECONDS = 5.0
COMPILE_SECONDS = 20.0
"""The wall clock of compiling, which has a clock of its own: a table of 4 MB takes 5 s and more."""

TRANSIENT_PAUSES = (0.2, 0.4, 0.8)
"""How long to wait, in seconds, before a trial that failed for a reason that passes is repeated."""


def _remedy(error: OSError) -> str:
    """Return what to do about an error of the system that keeps a plugin from being tried."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "raise the limit of open files (ulimit -n, LimitNOFILE of systemd)"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"let the server's user run {sys.executable} and write to {tempfile.gettempdir()}"
    return "make room for temporary files, or set TMPDIR to a folder that has some"


Reported = Callable[[Artifact, TrialReport], object]


class TrialRunner:
    """Compiles and tries sources in children of a small server process, started when needed.

    Safe to use from several threads at once.
    """

    def __init__(
        self,
        database_url: str | None,
        seconds: float = TRIAL_SECONDS,
        plugins_dir: Path | None = None,
        *,
        compile_seconds: float = COMPILE_SECONDS,
        memory_mb: int = Settings.trial_memory_mb,
        artifacts_dir: Path | None = None,
    ) -> None:
        """Make a runner.

        Args:
            database_url: what `context.database` connects to in a trial; None for nothing.
            seconds: the wall clock of one trial, after it is compiled.
            plugins_dir: the plugins' root, which nothing is imported from; None for the folder
                that a plugin's folder lies in.
            compile_seconds: the wall clock of the compiling before it.
            memory_mb: how much memory either may take, in MiB.
            artifacts_dir: where versions are unpacked for those who serve them; None to unpack
                each for its trial only.
        """
        self._artifacts_dir = artifacts_dir
        self._plugins_dir = plugins_dir
        self._database_url = database_url
        self._seconds = seconds
        self._compile_seconds = compile_seconds
        self._memory_mb = memory_mb
        self._process = TrialProcess()

    def run(
        self,
        source: PluginSource,
        superseded: threading.Event | None = None,
        former: tuple[str, str] | None = None,
        reported: Reported | None = None,
    ) -> tuple[Artifact, TrialReport]:
        """Compile a source and try it: import, factory, metadata, initialize, routes and cleanup.

        Args:
            source: what to try.
            superseded: gives a trial up that has taken a second already, once it is set; a quick
                one is let end, so that a source that changes all the time is published too.
            former: the digest and the SHA-256 of an earlier version's archive: what it has compiled
                of the same modules is not compiled again.
            reported: is given what is returned as soon as the trial says it, while its process
                ends; by that end it may still fail, and be made once more. Not where something is
                in use.

        Raises:
            CompileError: a module does not compile, or not within time and memory.
            LoadError: the plugin failed, ended its process or ran out of time or memory.
            DiscoveryError: the manifest names another version than the plugin.
            TrialError: the trial could not be made.
            DatabaseUnavailableError: the plugin needed the database and it was away.
            SupersededError: the trial was given up.
        """
        give_up = superseded or threading.Event()
        for pause in TRANSIENT_PAUSES:
            try:
                return self._run(source, give_up, former, reported)
            except LoadError as error:
                if not error.transient:
                    raise
            give_up.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
        return self._run(source, give_up, former, reported)

    def _run(
        self,
        source: PluginSource,
        give_up: threading.Event,
        former: tuple[str, str] | None,
        reported: Reported | None,
    ) -> tuple[Artifact, TrialReport]:
        limits = self._compile_seconds, self._seconds
        found: tuple[Artifact, TrialReport] | None = None

        def report(text: str, archive: bytes) -> None:
            nonlocal found
            try:
                found = judge(source, text, ENDED_WELL, archive, limits)
            except BenanaError:
                return  # it is raised once the process has ended
            if reported is not None and found[1].in_use is None:
                reported(*found)

        for _ in range(2):
            found = None
            try:
                (text, end), archive = self._try(source, give_up, former, report)
            except OSError as error:
                if self._process.is_stopped:
                    raise SupersededError("the server stops") from None
                text = f"it cannot be tried: {error.strerror or error}; {_remedy(error)}"
                raise TrialError(source.name, text, outside=True) from None
            if end is not None:
                if found is not None and has_ended_well(end):
                    return found
                try:
                    return judge(source, text, end, archive, limits)
                except BenanaError:
                    if self._artifacts_dir is not None:
                        # The folder of a version that did not pass: nobody is to serve it.
                        VersionFolders(self._artifacts_dir).tidy(source.name)
                    raise
        raise TrialError(source.name, "the trial's own process ended twice", outside=True)

    def rehearser(self, plugins_dir: Path, artifacts_dir: Path) -> Rehearser:
        """Return what rehearses versions in children of the same server process."""
        return Rehearser(
            self._process,
            self._database_url,
            plugins_dir,
            artifacts_dir,
            self._seconds,
            self._memory_mb * MIB,
        )

    def prepare(self) -> None:
        """Start the server process now, so that the first trial does not wait for it."""
        self._process.prepare()

    def stop(self) -> None:
        """End the server process for good: trials under way are given up, and say nothing."""
        self._process.stop()

    def close(self) -> None:
        """End the server process and with it all trials; the next run starts a new one."""
        self._process.close()

    def _try(
        self,
        source: PluginSource,
        give_up: threading.Event,
        former: tuple[str, str] | None,
        report: Callable[[str, bytes], object],
    ) -> tuple[Answer, bytes]:
        """Return the answer and the archive; both are given to `report` once they are whole."""
        with (
            memory_file("benana-source") as parcel,
            memory_file("benana-archive") as archive,
            temporary_folder(source.name) as folder,
        ):
            write_parcel(source, parcel)
            request = {
                "compile_seconds": self._compile_seconds,
                "seconds": self._seconds,
                "memory_bytes": self._memory_mb * MIB,
                "folder": folder,
                "artifacts_dir": str(self._artifacts_dir or Path(folder) / "artifacts"),
                "plugins_dir": str(self._plugins_dir or source.folder.parent),
                "database_url": self._database_url,
                "former": former,
            }
            seconds = self._compile_seconds + self._seconds

            @cache
            def compiled() -> bytes:
                archive.seek(0)
                return archive.read(MAX_ARCHIVE_BYTES)

            answer = self._process.ask(
                request,
                (parcel, archive),
                seconds,
                give_up,
                lambda text: report(text, compiled()),
            )
            return answer, compiled()
