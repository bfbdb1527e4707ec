"""The end of a worker's interpreter is bounded, because code of plugins runs in it.

Python waits for all threads that are no daemons (an executor's too), calls what was registered with
`atexit`, and finalizes what is left. Each of these may not return, and meanwhile the process keeps
its place among the master's workers: a round of fresh workers waits for it, and so does the stop.
"""

import faulthandler
import logging
import os
import sys
import threading
from concurrent.futures.thread import _threads_queues
from contextlib import suppress
from time import sleep

from app.loading.exit_functions import exit_functions
from app.loading.started_threads import started_threads
from app.package.frames import innermost_plugin_frame
from app.threads import start_thread

log = logging.getLogger(__name__)

NAMED_SECONDS = 3.0
"""After how many seconds a process whose end is held up by a plugin ends, and says by whom."""

END_SECONDS = 5.0
"""After how many seconds every process has ended."""

_STANDARD_ERROR = 2  # `sys.stderr` may be a plugin's

_exit = os._exit  # a plugin may replace it


def bound_the_end(named: float = NAMED_SECONDS, end: float = END_SECONDS) -> None:
    """Have this process end soon, whatever holds up its end.

    To be called when it has nothing left to do. Where it has to be ended, it ends with exit code
    1, and the log says whose thread or function was waited for. Where threads do not run any more,
    as in the last finalizers, standard error has where it was.

    Args:
        named: after how many seconds who holds it up is looked for.
        end: after how many seconds it ends without.
    """
    faulthandler.dump_traceback_later(end, exit=True, file=_STANDARD_ERROR)
    with suppress(RuntimeError):  # the system has no thread left
        start_thread("benana-end", _end, named)


def _end(seconds: float) -> None:
    sleep(seconds)
    holders = _of_exit_functions() or _of_threads()
    for holder in holders:
        log.error(
            "%s after %g s, and keeps this worker (pid:%s) from ending, which is ended now; give "
            "it back in cleanup (an executor: shutdown), and let it return soon",
            holder,
            seconds,
            os.getpid(),
        )
    if holders:
        _exit(1)


def _of_exit_functions() -> list[str]:
    """Return whose function `atexit` is at; none if that is nobody's."""
    if not exit_functions.generation:
        return []
    who, place = _called(exit_functions.generation), exit_functions.place
    at = f" at {place}" if place else ""
    return [f"{who}: what it has registered with atexit{at} has not returned"]


def _of_threads() -> list[str]:
    """Return which threads Python waits for; each with whose it is, where that is known."""
    frames = sys._current_frames()
    told = []
    for thread in threading.enumerate():
        # Those of an executor are daemons where a daemon has begun it, and waited for all the same.
        waited_for = not thread.daemon or thread in _threads_queues
        if not waited_for or thread is threading.main_thread():
            continue
        frame = innermost_plugin_frame(frames.get(thread.ident or 0))
        generation = started_threads.generation_of(thread) or (frame.generation if frame else "")
        who = f"{_called(generation)}: its" if generation else "a"
        at = f" at {frame.place}" if frame else ""
        told.append(f"{who} thread {thread.name!r} still runs{at}")
    return told


def _called(generation: str) -> str:
    """Return a generation's name in a log line, as `shop g2`."""
    return " ".join(generation.split(".")[1:])
