"""What the embedded PostgreSQL's supervisor does with processes: wait for them, look at them."""

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.files import make_private

LOOK_SECONDS = 0.2  # between two looks whether a lock is free


class Watch:
    """Waits for children, and for whatever ends the supervisor.

    Once the supervisor is to stop, the wait in progress raises SystemExit; later waits only
    watch the children that are being stopped. `parent` is the process id of the server.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._wake, wake_writer = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer)
        # SIGINT is a terminal's Ctrl-C, which is for the server to handle. A handler and not
        # SIG_IGN, because that would be inherited by PostgreSQL.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        # The pipe alone is not enough: gunicorn's workers inherit its other end, and may outlive
        # a killed master. Where there is no pidfd, the parent is looked at every second.
        self._parent_handle: int | None = None
        if sys.platform == "linux":
            with suppress(OSError):  # an old kernel, or a sandbox that forbids it
                self._parent_handle = os.pidfd_open(parent)
                self._selector.register(self._parent_handle, selectors.EVENT_READ)

    def wait(self, seconds: float) -> None:
        """Return when a child has changed its state, and after `seconds` at the latest."""
        if not self._stopping and self._parent_handle is None:
            seconds = min(seconds, 1.0)
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        signals = b""
        if self._wake in ready:
            ready.remove(self._wake)
            signals = os.read(self._wake, 4096)
        gone = os.getppid() != self._parent
        if not self._stopping and (ready or gone or signal.SIGTERM in signals):
            self._stopping = True
            self._selector.unregister(sys.stdin.fileno())
            if self._parent_handle is not None:
                self._selector.unregister(self._parent_handle)
            sys.exit(0)

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`."""
        self._until(lambda: False, seconds)

    def until_exit(self, process: subprocess.Popen[bytes], seconds: float = 1e6) -> bool:
        """Wait until a child has ended, `seconds` at most; return whether it has."""
        return self._until(lambda: process.poll() is not None, seconds)

    def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self.wait(remaining)
        return True


class FolderLock:
    """An exclusive lock on a file, which the kernel frees when the last of its holders dies.

    `path` is the file, made if it is missing; `watch` is what can end the wait for it.
    """

    def __init__(self, path: Path, watch: Watch) -> None:
        self._path = path
        self._watch = watch
        self._file = -1

    def take(self, on_wait: Callable[[], object]) -> bool:
        """Take the lock, and call `on_wait` once if another process has it.

        Returns whether that was so. Raises OSError if the file cannot be opened or locked.
        """
        waited = False
        while not self.is_held():
            # Who can open a file can lock it: nobody else may.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            make_private(self._file)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    on_wait()
                waited = True
                self._close()
                self._watch.pause(LOOK_SECONDS)
        return waited

    def is_held(self) -> bool:
        """Return whether we have the lock, and its file is still the one at its path."""
        if self._file < 0:
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), self._path.stat()):
                return True
        self._close()
        return False

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1


def is_alive(pid: int) -> bool:
    """Return whether a process has this id, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_processes_in(folder: Path, program: str) -> bool:
    """Kill a program's processes whose current folder is `folder`; return whether there are none.

    Linux only (elsewhere there are none), and to be called as the user of those processes: even
    root may not look at another user's in a container without CAP_SYS_PTRACE.
    """
    none = True
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            runs = str((process / "exe").readlink()).removesuffix(" (deleted)")
            if Path(runs).name == program and (process / "cwd").readlink() == folder:
                none = False
                os.kill(int(process.name), signal.SIGKILL)
    return none


def command_line(pid: int) -> str:
    """Return the command line of a process with a space after every argument, or nothing."""
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        return ""
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() + " "
