"""A watcher that gets no events, or not all: real limits of the kernel, real mounts."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import CHECKOUT

USER, MOUNT = ("unshare", "-U", "--map-root-user"), ("unshare", "-m", "--propagation", "private")

_RIGHTS = "-dac_override,-dac_read_search"
ORDINARY = ("setpriv", f"--inh-caps={_RIGHTS}", f"--bounding-set={_RIGHTS}")
"""Makes root one who may read only what the modes of files allow."""


def _can(*command: str) -> bool:
    return shutil.which("unshare") is not None and (
        subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    )


class Child:
    """A watcher in namespaces of its own."""

    def __init__(self, root: Path, artifacts: Path, *command: str) -> None:
        self.root = root
        self.artifacts = artifacts
        self.lines: list[dict[str, Any]] = []
        self._new: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        script = Path(__file__).with_name("watching_child.py")
        self._process = subprocess.Popen(
            [*command, sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._new.put(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, command: str) -> None:
        """Have something done, and wait until it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self.wait(lambda line: line.get("done") == command)

    def watch(self) -> None:
        """Start to watch, and wait for the first scan."""
        self.tell(f"start {self.root} {self.artifacts}")
        if not any("scanned" in line for line in self.lines):
            self.wait(lambda line: "scanned" in line)

    def wait(self, expected: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> float:
        """Wait for a line that is as expected; return how many seconds that took."""
        began = time.monotonic()
        while True:
            left = began + seconds - time.monotonic()
            try:
                line = self._new.get(timeout=max(0.0, left))
            except queue.Empty:
                raise AssertionError(f"not within {seconds} s: {self.lines}") from None
            self.lines.append(line)
            if expected(line):
                return time.monotonic() - began

    def wait_published(self, name: str, text: str, seconds: float) -> float:
        """Wait until a folder is looked at as it is now."""
        return self.wait(
            lambda line: (line.get("published"), line.get("text")) == (name, text), seconds
        )

    def wait_logged(self, text: str) -> None:
        """Wait until something is logged; the level does not matter."""
        self.wait(lambda line: text in line.get("log", ""))

    def wait_for_events(self, what: bool, seconds: float = 30.0) -> None:
        """Wait until it is said that events are missing, or that none are."""
        if self.conditions() and what != bool(self.conditions()[-1]):
            return
        self.wait(lambda line: bool(line.get("conditions", what)) != what, seconds)

    def conditions(self) -> list[list[str]]:
        return [line["conditions"] for line in self.lines if "conditions" in line]

    def warnings(self) -> list[str]:
        return [line["log"] for line in self.lines if line.get("level") in {"WARNING", "ERROR"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name in ("one", "two", "three", "four"):
        write(folder, name, "old")
    return folder


@pytest.fixture
def child(root: Path, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    with contextlib.ExitStack() as stack:

        def make(*command: str) -> Child:
            if not _can(*command):
                pytest.skip(f"{' '.join(command)} is not allowed here")
            made = Child(root, tmp_path / "bin", *command)
            stack.callback(made.close)
            return made

        yield make


def write(root: Path, name: str, text: str) -> None:
    (root / name).mkdir(exist_ok=True)
    (root / name / "main.py").write_text(text)


def edit_without_a_trace(root: Path, name: str, text: str) -> None:
    """Change a file's content alone: its size and mtime stay."""
    path = root / name / "main.py"
    found = path.stat()
    assert found.st_size == len(text)
    path.write_text(text)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("limit", "value", "setting"),
    [
        ("max_inotify_instances", "0", "fs.inotify.max_user_instances"),
        ("max_inotify_watches", "0", "fs.inotify.max_user_watches"),
        ("max_inotify_watches", "3", "fs.inotify.max_user_watches"),
    ],
)
def test_a_limit_of_inotify_at_the_start(
    child: Callable[..., Child], root: Path, limit: str, value: str, setting: str
) -> None:
    watching = child(*USER)
    watching.tell(f"set {limit} {value}")
    watching.watch()
    for name in ("one", "two", "three", "four"):
        edit_without_a_trace(root, name, "new")
        watching.wait_published(name, "new", 2.0)
    write(root, "five", "new")
    watching.wait_published("five", "new", 2.0)
    assert setting in watching.conditions()[-1][0]
    assert len(watching.warnings()) == 1
    watching.tell(f"set {limit} 1000")
    watching.wait_for_events(True)
    assert watching.conditions()[-1] == []
    write(root, "one", "told")
    assert watching.wait_published("one", "told", 2.0) < 0.7
    assert len(watching.warnings()) == 1


@pytest.mark.soak
def test_a_limit_of_inotify_that_is_met_later(child: Callable[..., Child], root: Path) -> None:
    watching = child(*USER)
    watching.tell("set max_inotify_watches 5")  # the root and the four in it
    watching.watch()
    write(root, "one", "new")
    watching.wait_published("one", "new", 2.0)
    assert watching.warnings() == []
    write(root, "five", "old")
    watching.wait_published("five", "old", 2.0)
    watching.wait_for_events(False)
    for text in ("new", "two"):
        edit_without_a_trace(root, "five", text)
        watching.wait_published("five", text, 2.0)
    assert len(watching.warnings()) == 1


@pytest.mark.soak
@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_a_file_system_without_events(child: Callable[..., Child], root: Path, layer: str) -> None:
    base = root.parent
    for name in ("lower", "upper", "work"):
        (base / name).mkdir()
    shutil.copytree(root, base / layer, dirs_exist_ok=True)
    watching = child(*MOUNT)
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    watching.tell(f"sh mount -t overlay overlay -o {options} {root}")
    watching.watch()
    edit_without_a_trace(base / layer, "one", "new")
    watching.wait_published("one", "new", 7.0)
    watching.wait_for_events(False)
    assert "one changed and no event told of it" in watching.conditions()[-1][0]
    for name in ("two", "three"):
        edit_without_a_trace(base / layer, name, "new")
        watching.wait_published(name, "new", 2.0)
    assert len(watching.warnings()) == 1


@pytest.mark.soak
def test_what_is_mounted_over_a_folder_is_followed(
    child: Callable[..., Child], root: Path, tmp_path: Path
) -> None:
    write(tmp_path / "plugins", "one", "old")
    write(tmp_path, "beside", "new")
    watching = child(*MOUNT)
    watching.watch()
    for number in range(2):
        watching.tell(f"sh mount --bind {tmp_path}/beside {root}/one")
        watching.wait_published("one", "new" if number == 0 else "two", 7.0)
        watching.wait_logged("one: another folder is mounted there now")
        edit_without_a_trace(tmp_path, "beside", "tow" if number else "two")
        assert watching.wait_published("one", "tow" if number else "two", 2.0) < 0.7
        watching.tell(f"sh umount {root}/one")
        watching.wait_published("one", "old", 7.0)
        watching.wait_logged("one: another folder is mounted there now")
    edit_without_a_trace(root, "one", "new")
    assert watching.wait_published("one", "new", 2.0) < 0.7
    assert watching.warnings() == []
    assert not any("events" in what for held in watching.conditions() for what in held)


@pytest.mark.soak
def test_the_same_files_mounted_over_a_folder_are_followed(
    child: Callable[..., Child], root: Path, tmp_path: Path
) -> None:
    for place in (root, tmp_path / "beside"):
        (place / "one" / "data").mkdir(parents=True)
    write(tmp_path / "beside", "one", "old")
    watching = child(*MOUNT)
    watching.watch()
    watching.tell(f"sh mount --bind {tmp_path}/beside/one {root}/one")
    watching.wait_logged("one: another folder is mounted there now")
    edit_without_a_trace(tmp_path / "beside", "one", "new")
    assert watching.wait_published("one", "new", 2.0) < 0.7
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.txt").write_text("1")
    watching.tell(f"sh mount --bind {tmp_path}/data {root}/one/data")
    watching.wait_logged("one: another folder is mounted there now")
    (tmp_path / "data" / "text.txt").write_text("2")
    assert watching.wait_published("one", "new2", 2.0) < 0.7
    assert watching.warnings() == []


@pytest.mark.soak
def test_what_has_events_is_never_taken_to_have_none(
    child: Callable[..., Child], root: Path, tmp_path: Path
) -> None:
    watching = child(*USER)
    watching.watch()
    deadline = time.monotonic() + 12.0  # two scans
    number = 0
    while time.monotonic() < deadline:
        number += 1
        write(root, "one", str(number))
        watching.wait_published("one", str(number), 2.0)
        (root / "two" / "main.py").chmod(0o600 + number % 2)  # changes the ctime, without an event
        (tmp_path / "hard").unlink(missing_ok=True)
        (tmp_path / "hard").hardlink_to(root / "three" / "main.py")
        (root / "four" / ".main.py.swp").write_text("")
    assert watching.warnings() == []
    held = {what for conditions in watching.conditions() for what in conditions}
    assert not [what for what in held if not what.startswith("not all folders have been looked at")]


@pytest.mark.soak
def test_rights_that_are_taken_away_are_no_sign_that_events_are_missing(
    child: Callable[..., Child], root: Path
) -> None:
    """The whole root was compared each second then, and the host degraded."""
    watching = child(*ORDINARY)
    watching.watch()
    for name in ("one", "two"):
        (root / name / "main.py").chmod(0)
        watching.wait(lambda line: "denied" in line)
    for name in ("one", "two"):
        (root / name / "main.py").chmod(0o644)
    for number in range(3):  # what was missed would be said with one of these
        write(root, "three", str(number))
        watching.wait_published("three", str(number), 10.0)
        time.sleep(0.6)  # when no event can be on its way any more
    assert watching.warnings() == []
