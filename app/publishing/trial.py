"""Compile a source and load it once, in a process that may die."""

import json
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import (
    BenanaError,
    LoadError,
    SupersededError,
    TrialError,
)
from app.package.version_folders import VersionFolders
from app.publishing.compiler import MAX_ARCHIVE_BYTES
from app.publishing.parcel import memory_file, temporary_folder, write_parcel
from app.publishing.trial_memory import MIB
from app.publishing.trial_verdict import judge
from app.records import Artifact, PluginSource, TrialReport
from app.settings import Settings

TRIAL_SECONDS = 5.0
COMPILE_SECONDS = 20.0
"""The wall clock of compiling, which has a clock of its own: a table of 4 MB takes 5 s and more."""

START_SECONDS = 20.0
"""How much later than its own deadline a trial's server may answer, before it counts as lost."""

COMMITTED_SECONDS = 1.0
"""A trial that has taken less goes on, though its source has changed again."""

LOOK_SECONDS = 0.1
"""How often a waiting thread looks whether its trial is superseded."""

TRANSIENT_PAUSES = (0.2, 0.4, 0.8)
"""How long to wait, in seconds, before a trial that failed for a reason that passes is repeated."""

MAX_REPORT_BYTES = 8 * 1024 * 1024

Process = subprocess.Popen[bytes] | None


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
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(
        self, source: PluginSource, superseded: threading.Event | None = None
    ) -> tuple[Artifact, TrialReport]:
        """Compile a source and try it: import, factory, metadata, initialize, routes and cleanup.

        Args:
            source: what to try.
            superseded: gives a trial up that has taken a second already, once it is set; a quick
                one is let end, so that a source that changes all the time is published too.

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
                return self._run(source, give_up)
            except LoadError as error:
                if not error.transient:
                    raise
            give_up.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
        return self._run(source, give_up)

    def _run(self, source: PluginSource, give_up: threading.Event) -> tuple[Artifact, TrialReport]:
        for _ in range(2):
            try:
                text, end, archive, process = self._try(source, give_up)
            except OSError as error:
                if self._stopped:
                    raise SupersededError("the server stops") from None
                raise TrialError(
                    source.name,
                    f"it cannot be tried: {error.strerror or error}; make room for temporary "
                    "files, or set TMPDIR to a folder that has some",
                    outside=True,
                ) from None
            if end:
                limits = self._compile_seconds, self._seconds
                said = text.decode(errors="replace")
                try:
                    return judge(source, said, json.loads(end), archive, limits)
                except BenanaError:
                    if self._artifacts_dir is not None:
                        # The folder of a version that did not pass: nobody is to serve it.
                        VersionFolders(self._artifacts_dir).tidy(source.name)
                    raise
            if self._stopped:
                raise SupersededError("the server stops")
            self._drop(process)  # it was killed, or hangs: that says nothing of the plugin
        raise TrialError(source.name, "the trial's own process ended twice", outside=True)

    def prepare(self) -> None:
        """Start the server process now, so that the first trial does not wait for it."""
        with self._lock:
            if self._control is None and not self._stopped:
                self._start()

    def stop(self) -> None:
        """End the server process for good: trials under way are given up, and say nothing."""
        with self._lock:
            self._stopped = True
        self.close()

    def _try(
        self, source: PluginSource, give_up: threading.Event
    ) -> tuple[bytes, bytes, bytes, Process]:
        """Return the report, how the process ended, the archive and which server it was."""
        temporary = temporary_folder(source.name)
        report_read, report_write = os.pipe()
        status_read, status_write = os.pipe()
        with (
            memory_file("benana-source") as parcel,
            memory_file("benana-archive") as archive,
            temporary as folder,
            os.fdopen(report_read, "rb") as report,
            os.fdopen(status_read, "rb") as status,
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
            }
            try:
                self._send(request, [parcel.fileno(), archive.fileno(), report_write, status_write])
            finally:
                os.close(report_write)
                os.close(status_write)
            deadline = time.monotonic() + self._compile_seconds + self._seconds + START_SECONDS
            process = self._process
            texts = _read_both(report.fileno(), status.fileno(), deadline, give_up)
            archive.seek(0)
            return *texts, archive.read(MAX_ARCHIVE_BYTES), process

    def _drop(self, process: Process) -> None:
        """Close what a trial was lost with, unless another thread has started anew already."""
        with self._lock:
            if self._process is not process:
                return
        self.close()

    def close(self) -> None:
        """End the server process and with it all trials; the next run starts a new one."""
        with self._lock:
            control, self._control = self._control, None
            process, self._process = self._process, None
        if control is not None:
            # A child that a plugin has forked holds a copy, which closing does not end.
            with suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        if process is not None:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _send(self, request: dict[str, Any], fds: list[int]) -> None:
        message = json.dumps(request).encode()
        for attempt in (1, 2):
            with self._lock:
                if self._stopped:
                    raise SupersededError("the server stops")
                if self._control is None:
                    self._start()
                assert self._control is not None  # noqa: S101 - for the type checker
                try:
                    socket.send_fds(self._control, [message], fds)
                    return
                except OSError:
                    if attempt == 2:
                        raise
            self.close()  # it was killed: start another

    def _start(self) -> None:
        # macOS has no SEQPACKET; there a message ends where its file descriptors do.
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.publishing.trial_server"],
                stdin=theirs.fileno(),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._control = ours


def _read_both(
    report: int, status: int, deadline: float, give_up: threading.Event
) -> tuple[bytes, bytes]:
    """Read the report and the status until the status pipe is closed."""
    may_give_up = time.monotonic() + COMMITTED_SECONDS
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(status, select.POLLIN)
    parts: dict[int, bytearray] = {report: bytearray(), status: bytearray()}
    open_fds = {report, status}
    while status in open_fds:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        if give_up.is_set() and time.monotonic() >= may_give_up:
            raise SupersededError("the source changed again while it was tried")
        for fd, _ in poll.poll(min(left, LOOK_SECONDS) * 1000):
            chunk = os.read(fd, 65536)
            if not chunk:
                poll.unregister(fd)
                open_fds.discard(fd)
            elif len(parts[fd]) < MAX_REPORT_BYTES:
                parts[fd] += chunk
    if report in open_fds:  # what the child wrote before its end is in the pipe
        os.set_blocking(report, False)
        with suppress(BlockingIOError):
            while len(parts[report]) < MAX_REPORT_BYTES and (chunk := os.read(report, 65536)):
                parts[report] += chunk
    return bytes(parts[report]), bytes(parts[status])
