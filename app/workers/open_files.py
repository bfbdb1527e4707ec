"""How many files a worker may have open, against how many connections it may take."""

import errno
import logging
import math
import os
import resource
import select
import socket
import time
from typing import Any

from gunicorn.http.errors import NoMoreData

from app.activity import Activity

log = logging.getLogger("benana")

OTHER_FILES = 256
"""What a worker has open beside connections of clients: the database, archives, its plugins."""

NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` fails with where there is no file for one more connection; see accept(2)."""

PAUSE_SECONDS = 0.5

SAID_SECONDS = (10.0, 3600.0)
"""After how long it is said again, at first and at most; twice as long each time."""

CALM_SECONDS = 60.0
"""What did not happen for so long has begun anew when it happens."""


_SENT_OR_GONE = select.POLLIN | getattr(select, "POLLRDHUP", 0)


def make_room(configuration: Any) -> None:
    """Raise the limit of open files as far as the connections need it, or take fewer of them.

    The usual limit (1,024, which a process may raise itself) is less than gunicorn's 1,000
    connections and what else is open. It is raised no further: programs that plugins start may
    rely on it, see select(2).

    Args:
        configuration: gunicorn's settings.
    """
    others = OTHER_FILES + 4 * configuration.threads
    needed = configuration.worker_connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    possible = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < needed:
        connections = max(possible - others, configuration.threads + 1)
        log.warning(
            "a worker may have %d files open, so it takes %d connections at once instead of %d: "
            "raise the limit (ulimit -Hn, LimitNOFILE of systemd), or lower worker_connections",
            possible,
            connections,
            configuration.worker_connections,
        )
        configuration.set("worker_connections", connections)


def hold_standard_files() -> None:
    """Open /dev/null as standard input, output and error, where they were closed.

    Else the next files get their numbers: what a crash or a child says would go into a database's
    connection.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one. Children are to have it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class FullHouse:
    """Notes that a worker has no file left for a connection, and says so less and less often."""

    def __init__(self) -> None:
        self._until = 0.0
        self._last_at = -math.inf
        self._say_at = 0.0
        self._said_for, _ = SAID_SECONDS
        """For how long it will have been said."""
        self._unsaid = 0

    @property
    def is_over(self) -> bool:
        """Whether connections may be taken again."""
        return time.monotonic() >= self._until

    def begin(self, error: OSError) -> None:
        """Begin a pause; what waits in the queue of the listening socket stays there."""
        now = time.monotonic()
        self._until = now + PAUSE_SECONDS
        if now >= self._last_at + CALM_SECONDS:
            self._said_for, _ = SAID_SECONDS
            self._say_at, self._unsaid = now, 0
        self._last_at = now
        if now < self._say_at:
            self._unsaid += 1
            return
        count = f", {self._unsaid} times since this was said last" if self._unsaid else ""
        self._unsaid = 0
        self._say_at = now + self._said_for
        self._said_for = min(2 * self._said_for, SAID_SECONDS[1])
        log.error(
            "no connection can be taken (%s%s); trying again: raise the limit of open files "
            "(ulimit -n, LimitNOFILE of systemd), lower worker_connections, or find the plugin "
            "that leaves files open",
            error.strerror,
            count,
        )


def has_data(client: socket.socket, activity: Activity, seconds: float) -> bool:
    """Tell whether a client has sent something, with no file more: gunicorn's own takes one.

    Args:
        client: the connection.
        activity: of the process; while requests wait for its threads, who has gone is not answered.
        seconds: how long to wait for it.

    Raises:
        NoMoreData: the client has gone, and others wait; gunicorn closes the connection.
    """
    try:
        poll = select.poll()
        poll.register(client, _SENT_OR_GONE)
        found = poll.poll(seconds * 1000)
    except (OSError, ValueError):
        return False  # it is closed
    if found and found[0][1] != select.POLLIN and activity.waiting() > 0:
        raise NoMoreData  # or it has closed its half alone: nobody can tell, and few do that
    return bool(found)
