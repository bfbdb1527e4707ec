"""What stands for the publisher where the watcher is tested."""

import threading
from collections.abc import Set as AbstractSet
from pathlib import Path

from app.conditions import Conditions
from app.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    PluginError,
    SupersededError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.discovery import read_source
from app.publishing.refusals import Refusals
from app.records import PluginRow


class Looks:
    """Stands for the publisher, which needs a database: it notes what it is to look at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[tuple[str, str | None]] = []
        self.scans = 0
        self.unavailable = False
        self.locked: list[str] = []
        self.locked_row = False
        self.waits_for_lock: list[bool] = []
        self.attempts: list[PublishAttempt] = []
        """What hangs now."""
        self.asked: list[str] = []
        self.begun = 0
        self.superseded = 0
        self.refused = 0
        self.hanging = 0
        self.walks = 0
        self.release = threading.Event()
        self.refusals = Refusals(Conditions())
        self.refusals.note(
            "wanting", PublishAttempt(), PluginError("wanting", "not installed"), aloud=False
        )

    def prepare(self) -> None: ...

    def find_rows(self, folder: str) -> dict[str, PluginRow | None]:
        return {folder: None}

    def look_at_rows(self, _names: AbstractSet[str] | None) -> list[str]:
        return self.asked

    def scan(self) -> list[str]:
        if not self.root.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(self.root))
        self.scans += 1
        return self.locked

    def follow(self, name: str, _row: PluginRow | None, attempt: PublishAttempt) -> bool:
        self.waits_for_lock.append(attempt.waits_for_lock)
        if self.locked_row:
            raise DatabaseBusyError("locked")
        if self.unavailable:
            self.refused += 1
            raise DatabaseUnavailableError("away")
        self.begun += 1
        if name.startswith("hangs"):
            text = (self.root / name / "main.py").read_text()
            if self.saw(name, text):
                return False
            self.attempts.append(attempt)
            self.hanging += 1
            self.release.wait(20.0)
            self.attempts.remove(attempt)
            self.hanging -= 1
            self.seen.append((name, text))
            return True
        if name.startswith("large"):
            self.walks += 1
            try:
                read_source(self.root, self.root / name, name)
            except PluginError as error:
                self.refusals.note(name, attempt, error)
                raise
        if not attempt.outlast_quiet_period():
            self.superseded += 1
            raise SupersededError("changed")
        file = self.root / name / "main.py"
        self.seen.append((name, file.read_text() if file.exists() else None))
        return True

    def saw(self, name: str, text: str | None) -> bool:
        return (name, text) in self.seen


def write(root: Path, name: str, text: str) -> None:
    (root / name).mkdir(exist_ok=True)
    (root / name / "main.py").write_text(text)
