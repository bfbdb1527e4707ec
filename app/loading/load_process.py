"""What every process that loads plugins is like: trials, checks and workers alike.

A plugin that passes its trial is to be loadable by every worker. So all of them load in a thread
of one name, have no arguments of a command line, and nothing to read on standard input.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from app.threads import start_thread

T = TypeVar("T")

LOAD_THREAD = "benana-loader"
ARGUMENTS = ("benana",)


def prepare_process() -> None:
    """Take the arguments and the standard input away from this process."""
    sys.argv[:] = ARGUMENTS
    with suppress(AttributeError, OSError, ValueError):  # it has none, or it is no file
        if sys.stdin.fileno() == 0:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(null, 0)
            os.close(null)


def in_load_thread(work: Callable[[], T]) -> T:
    """Call a function in a thread as that of a worker's loads, and return what it returns."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            done.set_exception(error)

    start_thread(LOAD_THREAD, run)
    return done.result()
