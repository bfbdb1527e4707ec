"""A watcher in a process that may have limits and mounts of its own; see `test_blind.py`.

It prints a JSON line for each look at a folder, each line of the log and each change of its
conditions, and does what it is told on standard input: `set NAME VALUE` for a limit of its user
namespace, `sh COMMAND` for its mounts.
"""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Set as AbstractSet
from pathlib import Path

from app.conditions import Conditions
from app.errors import DiscoveryError
from app.publishing import sight
from app.publishing.attempt import PublishAttempt
from app.publishing.refusals import Refusals
from app.publishing.watcher import SourceWatcher
from app.records import PluginRow

sight.AGAIN_SECONDS = sight.PROOF_SECONDS = 0.5


def say(**facts: object) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


class Handler(logging.Handler):
    """Passes the log on."""

    def emit(self, record: logging.LogRecord) -> None:
        say(level=record.levelname, log=record.getMessage())


class Publisher:
    """Stands for the one that needs a database."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts: dict[str, str] = {}
        self.refusals = Refusals(Conditions())

    def prepare(self) -> None: ...

    def find_rows(self, folder: str) -> dict[str, PluginRow | None]:
        return {folder: None}

    def look_at_rows(self, _names: AbstractSet[str] | None) -> list[str]:
        return []

    def forget_refusals(self) -> list[str]:
        return []

    def scan(self) -> list[str]:
        for folder in self.root.iterdir():
            self._publish(folder.name)
        say(scanned=True)
        return []

    def follow(self, name: str, _row: PluginRow | None, attempt: PublishAttempt) -> bool:
        if not attempt.outlast_quiet_period():
            return False
        return self._publish(name)

    def _publish(self, name: str) -> bool:
        file = self.root / name / "main.py"
        files = (file, file.parent / "data" / "text.txt")
        try:
            text = "".join(each.read_text() for each in files if each.is_file())
        except PermissionError as error:
            say(denied=name)
            raise DiscoveryError(name, f"cannot be read: {error}", outside=True) from None
        if self.texts.get(name) == text:
            return False
        self.texts[name] = text
        say(published=name, text=text)
        return True


class Told(Conditions):
    """Says each change."""

    def hold(
        self, key: str, what: str, plugin: str | None = None, *, degrades: bool = True
    ) -> None:
        super().hold(key, what, plugin, degrades=degrades)
        say(conditions=[condition.what for condition in self.held()])

    def clear(self, key: str) -> None:
        before = self.held()
        super().clear(key)
        if self.held() != before:
            say(conditions=[condition.what for condition in self.held()])


def obey() -> None:
    """Do what is said on standard input."""
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "set":
            name, value = rest.split()
            Path(f"/proc/sys/user/{name}").write_text(value)
        elif verb == "sh":
            subprocess.run(rest, shell=True, check=True)
        elif verb == "start":
            root, artifacts = map(Path, rest.split())
            logging.getLogger().addHandler(Handler())
            logging.getLogger().setLevel(logging.INFO)
            publisher = Publisher(root)
            SourceWatcher(root, artifacts, publisher, Told()).start()  # type: ignore[arg-type]
        say(done=line.strip())


threading.Thread(target=obey, daemon=True).start()
time.sleep(120.0)
