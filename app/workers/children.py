"""Processes that plugins start in a worker: whole ones, and none of them outlives it.

A child that is forked is half a worker: it has its signal handlers, its listening sockets, its
clients' connections and its sessions with the database. Without more, it ignores SIGTERM, keeps
clients waiting, and holds the server's port for as long as it likes. A fork hook lets go of all
that. It does not run where a library forks in C; such a child is ended like all others.
"""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from app import descendants
from app.isolation.own_sockets import close_copy

ASKED_FOR_SECONDS = 600.0
"""A process that ended so long ago, and that nobody asked for, was given to us by the kernel."""


def become_parent(worker: Any, let_go: Callable[[], None]) -> None:
    """Have the children of this process be processes of their own, and get the orphans below it.

    To be called in a worker, once. Not before the fork of the worker: with `--preload` the hook
    would close the listening sockets of workers to come.

    Args:
        worker: gunicorn's, which has the sockets.
        let_go: lets go of what else a child must not use, in the child; it may take no lock,
            because who holds one is not there.
    """
    descendants.adopter()()
    forks = _Forks(worker, let_go)
    os.register_at_fork(
        before=forks.before, after_in_parent=forks.in_parent, after_in_child=forks.in_child
    )


class _Forks(threading.local):
    """What is done before and after each fork of this process; each thread has its own mask.

    Signals wait meanwhile: one that is sent to a new child at once must end it, and not come to
    a handler that is the worker's.
    """

    def __init__(self, worker: Any, let_go: Callable[[], None]) -> None:
        self._worker = worker
        self._let_go = let_go
        self._mask: Iterable[int] = ()

    def before(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def in_child(self) -> None:
        _reset_signals()
        _close_sockets(self._worker)
        self._let_go()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    faulthandler.disable()  # it writes where the worker's own end is looked for


def _close_sockets(worker: Any) -> None:
    """Close the listening and the accepted sockets here; they stay open in the worker.

    By the objects that hold them, which then know it. Not through the worker's selector: its
    epoll instance is shared, and would forget them for the worker, too.
    """
    connections = getattr(worker, "connections", ())  # none with another worker class, `-k`
    for holder in (*worker.sockets, *connections):
        held = getattr(holder, "sock", None)
        if held is not None:
            close_copy(held)


class Foundlings:
    """Takes note of the end of processes that the kernel has given to this one; for one thread.

    They would stay in the process table else. What a plugin has started itself is left to it: it
    may ask later how it ended.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        """Since when each is seen that has ended, in monotonic seconds."""
        self._session = os.getsid(0)

    def look(self) -> None:
        """Reap those that have ended."""
        pid = os.getpid()
        # What we are given is the main thread's (exit(2)), and so is what another has started
        # that has ended itself.
        found = map(descendants.look_up, descendants.children_of_thread(pid, pid))
        ended = [process for process in found if process is not None and process.ended]
        now = time.monotonic()
        self._since = {process.pid: self._since.get(process.pid, now) for process in ended}
        for process in ended:
            # A child of ours is in our session, or leads one of its own: it is no child of ours.
            given = process.session not in {self._session, process.pid}
            if given or now - self._since[process.pid] > ASKED_FOR_SECONDS:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
