"""What a process has started, and what that has started: nothing of it outlives whom it is for.

On Linux a process whose parent ends is given to the nearest ancestor that asked for such (a
subreaper, prctl(2)), so that no descendant gets lost, not even one that made itself a session of
its own. Who asks for them in Benana: the trials' server and each trial, each worker, and the
master, which is given what a killed worker has left behind. On macOS there is no such thing, and
what is not a child itself is not found.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from app.processes import process_option

_PR_SET_CHILD_SUBREAPER = 36

GRACE_SECONDS = 0.5
"""How long a process has between SIGTERM and SIGKILL."""

KILL_SECONDS = 1.0
"""How long the kernel has to end what was killed."""

_LOOK_SECONDS = 0.05

_PF_EXITING = 0x4

_ENDS_BY_ITSELF = b"multiprocessing.resource_tracker"
"""In the command line of a process that removes what others have left behind, once those that
started it have ended; killed, it could not."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it: `ended` if it only waits for its parent to take note of it.

    Its last thread has ended, then, and its orphans are others' (exit_notify in kernel/exit.c):
    that the first thread has ended, which makes the state a Z, says nothing of the rest.
    """

    pid: int
    session: int
    ended: bool


def adopter() -> Callable[[], None]:
    """Return what a process calls in order to be given the orphans below it."""
    if sys.platform != "linux":
        return lambda: None
    return process_option(_PR_SET_CHILD_SUBREAPER, 1)


def end_orphans(known: Container[int]) -> bool:
    """Kill this process's children but the known ones, and forget those that are dead.

    What they leave behind in turn comes to this process at their end, with a SIGCHLD.

    Returns:
        Whether none is left.
    """
    left = False
    for pid in own_children():
        if pid in known:
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            left |= os.waitpid(pid, os.WNOHANG)[0] == 0
    return not left


def end_all() -> None:
    """Kill all descendants of this process, and wait until they have ended."""
    while pids := own_children():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def end_descendants(
    spared: Container[int] = (), grace: float = GRACE_SECONDS, told: Iterable[int] = ()
) -> None:
    """End what this process has started, and all that came of it: SIGTERM, and then SIGKILL.

    What has ended is left to whoever waits for it.

    Args:
        spared: children that are left alone, and what they have started.
        grace: the seconds between the two signals.
        told: those that have had SIGTERM already.
    """
    began = time.monotonic()
    told = set(told)
    while left := living_descendants(spared):
        now = time.monotonic()
        if now >= began + grace + KILL_SECONDS:
            return  # it hangs in the kernel, or is another user's
        number = signal.SIGTERM if now < began + grace else signal.SIGKILL
        send(number, left - told if number is signal.SIGTERM else left)
        told |= left
        _await_end(left, _LOOK_SECONDS)


def await_ends(pids: Iterable[int]) -> None:
    """Wait until processes that were killed have ended, as long as the kernel may take for it."""
    deadline = time.monotonic() + KILL_SECONDS
    left = set(pids)
    while left := {pid for pid in left if not has_ended(pid)}:
        if (seconds := deadline - time.monotonic()) <= 0:
            return
        _await_end(left, min(seconds, _LOOK_SECONDS))


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, as far as they live and are ours."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def living_descendants(spared: Container[int] = ()) -> set[int]:
    """Return the process ids of all that live and descend from this process.

    Args:
        spared: children that are left out, and what they have started.
    """
    found: set[int] = set()
    waiting = [pid for pid in own_children() if pid not in spared]
    while waiting:
        pid = waiting.pop()
        process = look_up(pid)
        if pid not in found and process is not None:
            found |= set() if process.ended or _ends_by_itself(pid) else {pid}
            waiting += children_of(pid)
    return found


def own_children() -> list[int]:
    """Return the children of this process; none where /proc says nothing."""
    return children_of(os.getpid())


def children_of(pid: int) -> list[int]:
    """Return the children of a process, also those that have ended and nobody waited for.

    Each thread has its own; those of a thread that has ended are the main thread's, as are those
    that the process was given.
    """
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are all it takes
            found += children_of_thread(pid, int(thread))
    return found


def children_of_thread(pid: int, thread: int) -> list[int]:
    """Return the children of one thread of a process; none where /proc says nothing."""
    try:
        text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def look_up(pid: int) -> Process | None:
    """Return a process as it is now, None if there is none or /proc says nothing."""
    try:
        # The name, in brackets, may hold anything; the third field comes after it: proc(5).
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state, session, threads = fields[0], int(fields[3]), int(fields[17])
    except (OSError, ValueError, IndexError):
        return None
    return Process(pid, session, ended=state in {b"Z", b"X"} and threads <= 1)


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended, or /proc says nothing of it."""
    process = look_up(pid)
    return process is None or process.ended


def gives_away(pid: int) -> bool:
    """Tell whether what a process has started may be others' by now, or /proc says nothing of it.

    That is a moment before it has ended: once all its threads are about to, the first of them
    gives all away (find_new_reaper in kernel/exit.c).
    """
    return _is_exiting(f"/proc/{pid}/stat") and all(
        map(_is_exiting, glob(f"/proc/{pid}/task/*/stat"))  # noqa: PTH207 - names are all it takes
    )


def _is_exiting(stat: str) -> bool:
    try:
        fields = Path(stat).read_bytes().rpartition(b")")[2].split()
        return bool(int(fields[6]) & _PF_EXITING)
    except (OSError, ValueError, IndexError):
        return True


def _ends_by_itself(pid: int) -> bool:
    with suppress(OSError):
        return _ENDS_BY_ITSELF in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _await_end(pids: Iterable[int], seconds: float) -> None:
    """Wait until one of some processes has ended, a number of seconds at most."""
    poll = select.poll()
    with ExitStack() as stack:
        for pid in pids:
            with suppress(OSError):  # it has ended, or the system has no such handles
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1000)
