"""Runs PostgreSQL's programs: as its account, with their output in its log."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.log_file import LogFile
from app.postgres.processes import Watch
from app.postgres.users import Account
from app.processes import die_with_parent

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class Programs:
    """The programs of one installation; `run` waits for one, `spawn` only starts it."""

    def __init__(self, install: Path, account: Account | None, log: LogFile, watch: Watch) -> None:
        """Make it.

        Args:
            install: the folder with `bin/postgres`.
            account: who they run as; None for who we are.
            log: where their output goes.
            watch: what can end the wait for one.
        """
        self._install = install
        self._account = account
        self._log = log
        self._watch = watch

    def run(self, name: str, *arguments: str | Path, text: str = "") -> None:
        """Run one to its end.

        Args:
            name: the program.
            arguments: its arguments.
            text: its standard input.

        Raises:
            EmbeddedDatabaseError: it has failed; with what it said.
        """
        mark = self._log.size
        reader, writer = os.pipe()
        try:
            with os.fdopen(writer, "w") as file:
                file.write(text)  # far less than a pipe holds: this does not block
            tool = self.spawn(name, arguments, signal.SIGKILL, stdin=reader)
        finally:
            os.close(reader)
        try:
            self._watch.until_exit(tool)
        finally:
            tool.kill()
            tool.wait()
        if tool.returncode != 0:
            raise EmbeddedDatabaseError(self._log.failure(f"`{name}` failed", mark))

    def spawn(
        self,
        name: str,
        arguments: Sequence[str | Path],
        death_signal: signal.Signals,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start one, which gets `death_signal` should this process end without a word."""
        account = self._account
        with self._log.open() as output:
            return subprocess.Popen(
                [self._install / "bin" / name, *arguments],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd="/",
                env=ENVIRONMENT,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=die_with_parent(death_signal),  # runs after the change of user
            )
