"""Which process of a host watches and publishes, and what the others know of it.

It is the one that holds the lock (`flock`) of a file, which the kernel frees when its holder dies.
In another file beside it, it says once a second that it lives, and at once when something changes,
what is not as it should be; the others read it there. So it is told to exactly those who stand for
the same election, whoever their master is.
"""

import errno
import fcntl
import logging
import math
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.conditions import Condition, Conditions
from app.files import make_private
from app.health import LOOK_SECONDS
from app.publishing.host_board import Board, Word

log = logging.getLogger(__name__)

SILENT_SECONDS = 4.0
"""How long the one that watches may say nothing before the others say that nobody watches."""

STUCK_SECONDS = 10.0
"""How long the thread that watches may be at one thing, before that is said."""

AWAITING_SECONDS = 0.2
"""How often is heard what is about to change: that somebody watches, or that a trouble is over."""

PROBE_SECONDS = 2.0
"""How often it is tried whether the artifacts folder can be written to."""

# Were it a pipe, to open it for appending would wait for a reader without end.
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_PROBE_BYTES = 4096

FIRST_LOOK = "watching:root"
"""What is held from the election on until all folders have been looked at, or why they cannot."""

_FIRST_LOOK = (
    "not all folders have been looked at yet since this host's watching began; edits are published "
    "meanwhile"
)
_UNHEARD = "it is not known yet whether anybody watches on this host"


class Election:
    """The election of the one process of a host that watches; every process of it stands."""

    def __init__(
        self,
        artifacts_dir: Path,
        conditions: Conditions,
        *,
        silent_seconds: float = SILENT_SECONDS,
        stuck_seconds: float = STUCK_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        """Stand for the election of all who share an artifacts folder.

        Args:
            artifacts_dir: the folder, which is written to by who wins.
            conditions: what the publishing half of this process holds; it is the host's as long
                as this process is the elected one.
            silent_seconds: how long the one that watches may say nothing.
            stuck_seconds: how long the thread that watches may be at one thing.
            probe_seconds: how often it is tried whether the folder can be written to.
        """
        self.silent_seconds = silent_seconds
        self.stuck_seconds = stuck_seconds
        self._probe_seconds = probe_seconds
        self._folder = artifacts_dir
        self._path = str(artifacts_dir / ".watch.lock")
        self._board = Board(str(artifacts_dir / ".watching"))
        self._conditions = conditions
        self._lock = threading.Lock()
        """Guards the file: the thread that watches takes it, the one of the health tells in it."""
        self._file = -1
        self._probe_at = 0.0
        self._went_on_at = math.inf
        """When the thread that watches came to its next step, in monotonic seconds."""
        self._own = Conditions()
        """What this process itself finds of the election."""
        self._barred = ""
        """What keeps this process from standing for it."""
        self._heard: tuple[Condition, ...] | None = None
        """What the one that watches has said, None as long as it was not heard."""
        self._heard_word: Word | None = None
        self._heard_at: float | None = None
        """When the one that watches was heard last, or it was begun to listen."""
        self._rival: int | None = None
        """The process that held the lock when it was tried last, by its own id."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Have something called when what this process itself knows of its host changes."""
        self._conditions.watch(changed)
        self._own.watch(changed)

    # --- the lock ----------------------------------------------------------------------------

    def take(self) -> bool:
        """Take the lock if it is free; return whether this process is the elected one now."""
        try:
            file = self._open()
        except OSError as error:
            self._complain(error)
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            # Who can open a file can lock it, and so keep every process from watching.
            make_private(file)
        except BlockingIOError:
            self._rival = _number_in(file) if self._heard is None else None
            os.close(file)
            self._barred = ""
            self._own.clear("election")
            return False
        except OSError as error:
            os.close(file)
            self._complain(error)
            return False
        self._barred = ""
        self._own.clear_all()
        self._conditions.clear_all()  # of a former time: all is looked at again
        self._conditions.hold(FIRST_LOOK, _FIRST_LOOK)
        with self._lock:
            self._file, self._probe_at = file, 0.0
            self.go_on()
            with suppress(OSError):
                os.ftruncate(file, 0)  # what the one before has said counts no more
        self.look()
        with suppress(OSError):  # for a person to read, and for who begins to listen
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return True

    def _open(self) -> int:
        try:
            return os.open(self._path, _OPEN_FLAGS, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, _OPEN_FLAGS, 0o600)

    def go_on(self) -> None:
        """Note that the thread that watches has come to its next step."""
        self._went_on_at = time.monotonic()

    def is_held(self) -> bool:
        """Return whether this process is the elected one, by the file that counts."""
        with self._lock:
            if self._file < 0:
                return False
            try:
                return os.path.samestat(os.fstat(self._file), os.stat(self._path))  # noqa: PTH116
            except OSError:
                return False  # somebody removed it: another process takes a new one

    def release(self) -> None:
        """Give the lock back."""
        with self._lock:
            file, self._file = self._file, -1
            self._heard, self._heard_at = None, None
        self._own.clear("telling")
        # A child that a plugin has forked has the file open, too, and would keep the lock.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)

    def _complain(self, error: OSError) -> None:
        place = error.filename or self._path
        sentence = (
            f"nothing is watched: {place}: {error.strerror}; free space, make the folder writable "
            "or set BENANA_WATCH=off"
        )
        if not self._barred:
            log.warning("%s", sentence)
        self._barred = sentence
        self._own.clear("watching")  # it is known why
        self._own.hold("election", sentence)

    # --- what is said of the host --------------------------------------------------------------

    def look(self) -> float:
        """Say how this host's publishing is, if this process is the elected one; else hear it.

        Returns:
            In how many seconds to look again at the latest.
        """
        with self._lock:
            if self._file >= 0:
                self._look_whether_stuck()
                self._probe()
                self._tell()
                return LOOK_SECONDS
        self._hear()
        return LOOK_SECONDS if self._heard == () else AWAITING_SECONDS

    def conditions(self) -> tuple[Condition, ...]:
        """Return what keeps the host from seeing edits, or from writing, as it was heard last."""
        if self._file >= 0:
            return (*self._conditions.held(), *self._own.held())
        heard_at = self._heard_at
        silent = heard_at is not None and time.monotonic() - heard_at > self.silent_seconds
        if self._barred or not (silent or self._heard is None):
            self._own.clear("watching")
        elif not silent:
            self._own.hold("watching", _UNHEARD)
        else:
            word = self._heard_word
            who = "of which nothing was heard" if word is None else f"pid {word.pid}"
            self._own.hold(
                "watching",
                "nobody watches on this host, so no edit is seen: the process that must "
                f"({who}) says nothing in {self._board.path}; end it, and "
                "another one watches",
            )
        return self._own.held() or self._heard or ()

    def _look_whether_stuck(self) -> None:
        seconds = time.monotonic() - self._went_on_at
        if seconds > self.stuck_seconds:
            self._conditions.hold(
                "watching:stuck",
                "no edit is seen: the folders have been looked at for more than "
                f"{self.stuck_seconds:.0f} s at a stretch; a file system hangs, or much has "
                "changed",
            )
        else:
            self._conditions.clear("watching:stuck")

    def _probe(self) -> None:
        if time.monotonic() < self._probe_at:
            return
        self._probe_at = time.monotonic() + self._probe_seconds
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
        except OSError as error:
            self._conditions.hold(
                "artifacts",
                f"no edit can be published: {self._folder} cannot be written to "
                f"({error.strerror}); free space, make it writable or set BENANA_ARTIFACTS_DIR",
            )
        else:
            self._conditions.clear("artifacts")

    def _tell(self) -> None:
        try:
            self._board.write(self._conditions.held())
            self._own.clear("telling")
        except OSError as error:
            self._own.hold(
                "telling",
                "the other processes of this host do not hear what is wrong: "
                f"{self._board.path} cannot be written to ({error.strerror}); free space or make "
                "it writable",
            )

    def _hear(self) -> None:
        if self._heard_at is None:
            self._heard_at, self._heard_word = time.monotonic(), None
        word = self._board.read(self._heard_word)
        if word is None:
            return  # the silence counts
        # A first word may be of a former server's: it counts if it is of the one that holds the
        # lock, and not if it is old; else the next word does.
        if self._heard_word is not None or self._is_of_rival(word):
            self._heard, self._heard_at = word.conditions, time.monotonic()
        self._heard_word = word

    def _is_of_rival(self, word: Word) -> bool:
        age = (time.monotonic_ns() - word.beat) / 1e9
        return word.pid == self._rival and 0 <= age < self.silent_seconds


def _number_in(file: int) -> int | None:
    try:
        return int(os.pread(file, 20, 0))
    except (OSError, ValueError):
        return None
