"""The gunicorn worker: gunicorn's own with threads, which takes no request without its master."""

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakSet

from gunicorn.workers.gthread import ThreadWorker

from app.activity import Activity
from app.loading.stream_places import StreamPlaces
from app.processes import PR_SET_PDEATHSIG, process_option
from app.serving.last_words import last_words
from app.workers.bell import Bell
from app.workers.listening import keep_class
from app.workers.open_files import NONE_LEFT, FullHouse, has_data

LOOK_SECONDS = 1.0
"""How often a worker that takes connections looks at itself; as long may its loop wait."""

FORWARDED_THREADS = 128
"""How many of the threads that answer what other workers pass on show what they do."""

# What each request passes; looked up once, as in `app.routing`.
_enqueue = ThreadWorker.enqueue_req
_wait = ThreadWorker.wait_for_and_dispatch_events


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker that shares with its master what it does, and ends with it.

    gunicorn's own keeps the listening sockets open until its last request has ended: a killed
    master's port stays taken meanwhile, and connections go to who does not accept any more.
    """

    bell: Bell | None = None
    """What wakes the master; the master's own, as the children have it from the fork."""

    relieves = False
    """Whether the next worker that is made is to take the place of one that serves."""

    def __init__(self, *arguments: Any) -> None:
        """Make it: in the master, before the fork."""
        super().__init__(*arguments)
        self.activity = Activity(self.cfg.threads + FORWARDED_THREADS)
        self.activity.crew = self.cfg.workers  # the master corrects it, after TTIN and TTOU
        self.activity.waiting = lambda: self._taken - self.cfg.threads
        self.on_drain: Callable[[], None] = lambda: None
        """Called when no more connections are taken, and the last requests run on."""
        self.on_look: Callable[[], None] = lambda: None
        """Called about once a second while connections are taken, by the main thread."""
        self._look_at = 0.0
        self.connections: WeakSet[Any] = WeakSet()
        """The accepted connections, gunicorn's `TConn`."""
        self.on_quiet: Callable[[], None] = lambda: None
        """Called when, after that, no connection is left on which another request may come."""
        self.relieves = self.relieves  # of the class: it is another one at the next start
        self._usual_seconds = self.cfg.graceful_timeout
        self.nr_conns: int = 0
        self._quiet = False
        self._timer_said = False
        self._full_house = FullHouse()
        self._ends_at: float | None = None

    def init_process(self) -> None:
        """Make this process a worker, and serve."""
        for listener in self.sockets:
            keep_class(listener.sock)
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return gunicorn's threads, whose streamed answers are counted."""
        places = StreamPlaces(self.cfg.threads)
        return ThreadPoolExecutor(self.cfg.threads, initializer=places.count_here)

    # --- what it tells its master -------------------------------------------------------------

    def begin_serving(self) -> None:
        """Tell the master that this worker serves."""
        self.activity.begin_serving()
        self._ring()

    def ask_to_be_replaced(self, *, at_once: bool = False) -> None:
        """Ask the master for a fresh worker in the place of this one.

        Args:
            at_once: whether this one stops serving even before that one serves, if others do.
        """
        self.activity.ask_to_be_replaced(at_once=at_once)
        self._ring()

    def _ring(self) -> None:
        if self.bell is not None:
            self.bell.ring()

    # --- its end ------------------------------------------------------------------------------

    def init_signals(self) -> None:
        """Handle signals as gunicorn does, and ask for SIGTERM when the master ends.

        On Linux (prctl(2)); elsewhere gunicorn's loop sees it within a second. A change of user
        clears the wish: this runs after it.
        """
        super().init_signals()
        for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
            signal.signal(number, self._ignore_timer)  # a function: children shall have the default
        if sys.platform == "linux":
            process_option(PR_SET_PDEATHSIG, signal.SIGTERM)()
            if self._is_orphan():
                sys.exit(0)

    def _ignore_timer(self, number: int, _frame: Any) -> None:
        """Go on where a plugin has set a timer, as by `signal.alarm`: it would end the worker."""
        if not self._timer_said:
            self._timer_said = True
            self.log.warning(
                "%s came, which ends no worker: a plugin has set a timer (`signal.alarm`, "
                "`signal.setitimer`); its signals belong to the server",
                signal.Signals(number).name,
            )

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop; at once, where there is neither a master nor a request yet.

        One that drains in a round, and is told so again, has no more time than any other: the
        server stops.
        """
        last_words.note_told()
        if not self.alive and self._ends_at is None:
            self._ends_at = time.monotonic() + self._usual_seconds
        super().handle_exit(sig, frame)
        if self._is_orphan() and not self.booted:
            sys.exit(0)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once."""
        last_words.note_told()
        super().handle_quit(sig, frame)

    def accept(self, listener: Any) -> None:
        """Take a connection; where there is no file for it, take none for a moment."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in NONE_LEFT:
                raise
            self._full_house.begin(error)
            self.set_accept_enabled(False)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take connections or not; without a master, close the listening sockets."""
        if enabled and not self._full_house.is_over:
            return
        super().set_accept_enabled(enabled)
        if not (enabled or self.alive):
            if self.activity.drain_seconds:
                self.cfg.set("graceful_timeout", self.activity.drain_seconds)
            self.on_drain()
        if not enabled and self._is_orphan():
            for listener in self.sockets:
                listener.close()

    def enqueue_req(self, conn: Any) -> None:
        """Have a thread answer a connection's request, and note the connection."""
        if not conn.initialized:  # else it is noted already
            self.connections.add(conn)
            conn.wait_for_data = partial(has_data, conn.sock, self.activity)
        _enqueue(self, conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events, and look at itself now and then; at its end, see how far that is."""
        if not self.alive:
            self._look_at_drain()
        _wait(self, timeout)
        if self.alive and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.on_look()

    def _cap_keepalive(self, deadline: float) -> None:
        """Close idle connections by a deadline, also those on which nothing has come yet."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)

    @property
    def _taken(self) -> int:
        """How many connections have a thread, or wait for one."""
        return self.nr_conns - len(self.keepalived_conns) - len(self.pending_conns)

    def _look_at_drain(self) -> None:
        idle = self.keepalived_conns or self.pending_conns
        # A connection that is in no request, nor idle, has a thread that waits for one.
        if not self._quiet and not idle and self.nr_conns <= self.activity.busy:
            self._quiet = True
            self.on_quiet()
        if self._ends_at is None and self._is_orphan():
            self._ends_at = time.monotonic() + self._usual_seconds
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.nr_conns = 0  # which ends gunicorn's loop

    def _is_orphan(self) -> bool:
        return bool(os.getppid() != self.ppid)
