"""How many of a process's request threads streamed answers may hold, so that others answer on.

A stream has its thread as long as it lasts. So half of the threads may be held by streams that
last, and the last thread by none. Short ones, as a file of rows that is made as it is sent, are
refused only where others last: they soon give their threads back.
"""

import logging
import math
import select
import threading
import time
from contextvars import ContextVar
from typing import Any

from app.responses import Problem

log = logging.getLogger(__name__)

SHORT_SECONDS = 1.0
"""What streams for longer lasts; as long a stream waits for the end of a short one."""

ALONE_SECONDS = 30.0
"""How long a stream may hold the only thread of a process, in which nobody else is answered."""

RETRY_AFTER_SECONDS = 5

SAID_SECONDS = 60.0
"""How often the log says that streams are refused, at most."""

# As they are before any plugin: some replace what is in `select`.
_poll = select.poll

_here: ContextVar["StreamPlaces | None"] = ContextVar("places", default=None)
"""The places of the calling thread, where it answers requests."""


class NoPlaceError(Problem):
    """Streams hold as many threads as they may; answered before the stream begins."""


class StreamTooLongError(Exception):
    """A stream has held the only thread for too long, and is broken off."""

    def __init__(self) -> None:
        super().__init__(
            f"it has held the only thread of this process for {ALONE_SECONDS:g} s, in which nobody "
            "else was answered; where streams take longer, BENANA_THREADS has to be 2 or more"
        )


class Place:
    """A stream's right to the thread that sends it; given back by `release`, or once it is gone.

    `ends_at` is when the stream has to end, in monotonic seconds, None where it need not.
    """

    def __init__(self, places: "StreamPlaces | None", ends_at: float | None = None) -> None:
        self._places = places
        self.ends_at = ends_at

    def check_end(self) -> None:
        """Check that the stream may go on.

        Raises:
            StreamTooLongError: it may not.
        """
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise StreamTooLongError

    def release(self) -> None:
        """Give it back; a second time changes nothing."""
        places, self._places = self._places, None
        if places is not None:
            places._give_back(id(self))

    def __del__(self) -> None:
        """Give it back, where an answer is dropped before it is sent."""
        self.release()


class StreamPlaces:
    """The places for streams among the request threads of a process."""

    def __init__(self, threads: int) -> None:
        """Make them.

        Args:
            threads: how many threads answer requests. One alone may send what a handler yields,
                for `ALONE_SECONDS` at most, and no events: nothing else is answered meanwhile.
        """
        self._threads = threads
        self._lasting = max(1, threads // 2)
        self._all = max(1, threads - 1)
        self._since: dict[int, float] = {}
        """Since when each place is held; -inf for a stream that is made to last."""
        # Reentrant: a collection may drop a stream, and so give a place back, while this is held.
        self._changed = threading.Condition(threading.RLock())
        self._say_at = -math.inf

    def count_here(self) -> None:
        """Count the streams of the calling thread, which answers requests."""
        _here.set(self)

    def take(self, *, lasts: bool) -> Place:
        """Return a place; see `take_place`."""
        is_alone = self._threads == 1
        if lasts and is_alone:
            raise NoPlaceError(
                503,
                "A stream of events would hold the only thread that this server's processes "
                "answer requests with: it needs BENANA_THREADS of 2 or more.",
            )
        place = Place(self, time.monotonic() + ALONE_SECONDS if is_alone else None)
        with self._changed:
            if not self._is_room() or not self._changed.wait_for(self._is_free, SHORT_SECONDS):
                self._say(time.monotonic())
                raise NoPlaceError(
                    503,
                    f"Streams hold {len(self._since)} of the {self._threads} threads of this "
                    "process, and the others are for other requests. Try again in a moment.",
                    headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
                )
            self._since[id(place)] = -math.inf if lasts else time.monotonic()
        return place

    def _is_room(self) -> bool:
        began = time.monotonic() - SHORT_SECONDS
        return sum(since <= began for since in list(self._since.values())) < self._lasting

    def _is_free(self) -> bool:
        return len(self._since) < self._all

    def _give_back(self, number: int) -> None:
        with self._changed:
            if self._since.pop(number, None) is not None:
                self._changed.notify()

    def _say(self, now: float) -> None:
        if now >= self._say_at:
            self._say_at = now + SAID_SECONDS
            log.warning(
                "streamed answers hold %d of %d threads: further ones are answered 503 until one "
                "ends; more threads (BENANA_THREADS) or workers (WEB_CONCURRENCY) allow more",
                len(self._since),
                self._threads,
            )


class Placed:
    """A body that has taken its place itself, before its first part was made."""


def take_place(*, lasts: bool = False) -> Place:
    """Return a place for a stream that the calling thread will send.

    A thread that is none of a worker's, as in a test, has one always.

    Args:
        lasts: whether it is made to last, as a stream of events.

    Raises:
        NoPlaceError: streams hold as many threads as they may.
    """
    places = _here.get()
    return Place(None) if places is None else places.take(lasts=lasts)


def has_hung_up(client: Any) -> bool:
    """Tell whether a client has closed its connection, or its half of it.

    Args:
        client: its socket; None where there is none to ask.
    """
    if client is None:
        return False
    try:
        poll = _poll()
        poll.register(client, getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))  # an end or an error: those are told without being asked for
    except (OSError, ValueError):
        return True  # it is closed here
