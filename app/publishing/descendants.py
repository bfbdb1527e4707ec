"""Nothing that a trial starts outlives it, not even what made itself a session of its own.

On Linux a process whose parent ends is given to the nearest ancestor that asked for such (a
subreaper, prctl(2)). The trials' server asks for it, and so does each trial: what a running trial's
children leave behind stays that trial's, and whoever comes to the server belongs to a trial that
has ended. On macOS there is no such thing: there the process group goes, and what left it stays.
"""

import os
import signal
import sys
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path

from app.processes import process_option

_PR_SET_CHILD_SUBREAPER = 36


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


def own_children() -> list[int]:
    """Return the children of this process, which has one thread; none where /proc says nothing."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        ]
    except OSError:
        return []
