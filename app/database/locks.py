"""Finds out who holds the lock that a statement of the server's own did not get."""

import datetime
import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extensions

from app.database.connection import advance, finish
from app.database.rows import Row, fetch_rows, record_of

log = logging.getLogger(__name__)

PUBLISH_LOCK = 0x62656E616E62
"""The advisory lock under which one publish at a time compares its routes with the others'."""

SCHEMA_LOCK = 0x62656E616E61
"""The advisory lock under which one process at a time applies the schema: "benana" in ASCII."""

_ADVISORY = {PUBLISH_LOCK: "the lock of publishing", SCHEMA_LOCK: "the lock of the schema"}

_STANDBY = "SyncRep"
"""PostgreSQL's word (`pg_stat_activity.wait_event`) for a commit that waits for a standby."""

LOOK_SECONDS = 0.5
"""How long the statement waits a second time, while another session looks who blocks it."""

STEP_SECONDS = 0.01
MAX_QUERY_BYTES = 1_000_000
"""An archive is not sent a second time."""

SHOWN_HOLDERS = 3
SHOWN_CHARACTERS = 80
REMEMBERED = 1000

# Where the blocker is blocked itself, the first in the line is named: when that one goes on, so do
# the others. A wait for a row is a wait for its last writer's transaction; the lock on the tuple,
# which the waiting session holds, tells the table.
_HOLDERS = """
    WITH RECURSIVE line(waiter, holder) AS (
        SELECT %(pid)s, unnest(pg_blocking_pids(%(pid)s))
        UNION
        SELECT holder, unnest(pg_blocking_pids(holder)) FROM line)
    SELECT w.locktype, coalesce(w.relation, (
            SELECT t.relation FROM pg_locks t
            WHERE t.pid = w.pid AND t.locktype = 'tuple' LIMIT 1))::regclass::text AS relation,
        (w.classid::bigint << 32) | w.objid::bigint AS key,
        line.holder AS pid, a.application_name AS application, a.state, a.xact_start AS since,
        a.query, a.wait_event
    FROM line JOIN pg_locks w ON w.pid = line.waiter AND NOT w.granted
    LEFT JOIN pg_stat_activity a ON a.pid = line.holder
    WHERE cardinality(pg_blocking_pids(line.holder)) = 0
"""

_COMMITTING = """
    SELECT w.pid, a.application_name AS application, a.state, a.xact_start AS since, a.query,
        a.wait_event
    FROM pg_locks w LEFT JOIN pg_stat_activity a ON a.pid = w.pid
    WHERE w.locktype = 'object' AND w.classid = 'pg_database'::regclass AND w.objid = 0
        AND w.database = 0 AND w.granted
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds a lock; what this role may not see of it is None."""

    pid: int
    application: str | None
    state: str | None
    since: datetime.datetime | None
    query: str | None
    wait_event: str | None = None

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction (see pg_prepared_xacts)"
        about = [_shown(self.application) or "an unnamed application"]
        if self.state:
            about.append(self.state)
        if self.since:
            about[-1] += f" since {self.since.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        if self.wait_event == _STANDBY:
            about.append("its commit waits for a synchronous standby")
        return f"pid {self.pid} ({', '.join(about)})"

    @property
    def advice(self) -> str:
        """What a person can do about it."""
        if self.pid == 0:
            return "commit it or roll it back"
        if self.wait_event == _STANDBY:
            return "bring the standby back, or take it out of synchronous_standby_names"
        return f"end its transaction, or run SELECT pg_terminate_backend({self.pid})"


class LockReport:
    """Finds who holds a lock, tells the caller each time, and logs each holder once."""

    def __init__(self, options: Callable[[], dict[str, Any]]) -> None:
        """Make a report for sessions with these options of psycopg2, asked for each time."""
        self._options = options
        self._told: set[tuple[object, ...]] = set()
        self._lock = threading.Lock()

    def sentence(self, query: bytes | None) -> str | None:
        """Say what a statement waited for, and who holds it; None if nobody does any more.

        Args:
            query: the statement, as it was sent.
        """
        if not query or len(query) > MAX_QUERY_BYTES:
            return None
        return self._describe(*find_holders(self._options(), query))

    def commit_sentence(self) -> str | None:
        """Say what a commit waited for, and who holds it; None if nobody does any more."""
        return self._describe("the queue of notifications", find_committing(self._options()))

    def _describe(self, what: str, holders: list[Holder]) -> str | None:
        if not holders:
            return None
        shown = " and ".join(str(holder) for holder in holders[:SHOWN_HOLDERS])
        if len(holders) > SHOWN_HOLDERS:
            shown += f" and {len(holders) - SHOWN_HOLDERS} more"
        sentence = f"{what} is locked by {shown}"
        key = (what, *((holder.pid, holder.since) for holder in holders))
        if self._is_new(key):
            log.warning(
                "%s; what needs it is tried again. It runs, or ran last: %s",
                sentence,
                " | ".join(_shown(holder.query) or "unknown" for holder in holders[:SHOWN_HOLDERS]),
            )
        return f"{sentence}; {holders[0].advice}"

    def _is_new(self, key: tuple[object, ...]) -> bool:
        with self._lock:
            if key in self._told:
                return False
            if len(self._told) >= REMEMBERED:
                self._told.clear()
            self._told.add(key)
            return True


def find_holders(options: dict[str, Any], query: bytes) -> tuple[str, list[Holder]]:
    """Find who holds what a statement waits for, by running it again until it waits.

    It runs in a session of its own, in a transaction that is rolled back, while another session
    asks `pg_blocking_pids`: that knows of waiters alone, and of every kind of lock.

    Returns:
        What is locked, and the holders; none where the lock is free by now or that cannot be told.
    """
    try:
        with (
            closing(psycopg2.connect(**options)) as asking,
            closing(psycopg2.connect(**options, async_=True)) as waiting,
        ):
            asking.autocommit = True
            return _watch(asking, waiting, query)
    except (psycopg2.Error, TimeoutError) as error:
        log.debug("who holds a lock cannot be told: %s", error)
        return "", []


def find_committing(options: dict[str, Any]) -> list[Holder]:
    """Find who holds the lock that a transaction with notifications takes when it commits.

    It keeps it to the commit's end, and so while that waits for a standby (async.c in PostgreSQL).
    """
    try:
        with closing(psycopg2.connect(**options)) as asking, asking.cursor() as ask:
            ask.execute(_COMMITTING)
            return [record_of(Holder, row) for row in fetch_rows(ask)]
    except psycopg2.Error as error:
        log.debug("who commits cannot be told: %s", error)
        return []


def _watch(asking: Any, waiting: Any, query: bytes) -> tuple[str, list[Holder]]:
    deadline = time.monotonic() + LOOK_SECONDS
    finish(waiting, deadline)
    with asking.cursor() as ask, waiting.cursor() as wait:
        wait.execute("BEGIN; SELECT pg_backend_pid()")
        finish(waiting, deadline)
        (pid,) = wait.fetchone()
        wait.execute(query)
        try:
            while time.monotonic() < deadline:
                ended = advance(waiting, STEP_SECONDS)
                ask.execute(_HOLDERS, {"pid": pid})
                rows = fetch_rows(ask)
                if rows or ended:
                    return _read(rows)
        finally:
            with suppress(psycopg2.Error):
                ask.execute("SELECT pg_cancel_backend(%s)", (pid,))
    return "", []


def _read(rows: list[Row]) -> tuple[str, list[Holder]]:
    if not rows:
        return "", []
    kind, table = rows[0]["locktype"], rows[0]["relation"]
    if kind == "advisory":
        what = _ADVISORY.get(rows[0]["key"], "an advisory lock")
    elif kind == "relation" and table:
        what = f"the table {table}"
    else:
        what = f"a row of {table}" if table else "a row"
    return what, list({row["pid"]: record_of(Holder, row) for row in rows}.values())


def _shown(text: str | None) -> str:
    text = " ".join((text or "").split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
