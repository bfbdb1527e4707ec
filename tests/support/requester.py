"""Requests without a pause whose every answer is checked, and the record it is checked against.

The plugin of `counting` says which generation answers (from its package's name) and which edit
it was made from (a number in its source, which is its version too). The `Audit` notes every row
that was ever committed, so an answer that was never published can be told.
"""

import contextlib
import http.client
import json
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg2

from tests.support.server import Answer, Server, ask
from tests.support.waiting import wait_until

COUNTING = '''
import os
import threading
import time

from app.plugin import PluginMetadata

NUMBER = {number}
GENERATION = int(__package__.rpartition(".g")[2].partition("_")[0])
{prelude}


class Stream:
    """Says its generation again and again, then `end`."""

    def on_get(self, req, resp):
        resp.content_type = "text/plain"
        resp.stream = self.parts(req.get_param("until"), req.get_param_as_float("seconds"))

    def parts(self, until, seconds):
        ends = time.monotonic() + (seconds or 60.0)
        while time.monotonic() < ends and not (until and os.path.exists(until)):
            yield f"{{os.getpid()}} {{GENERATION}} {{NUMBER}}\\n".encode()
            time.sleep(0.05)
        yield f"end {{time.monotonic()}}\\n".encode()


class Plugin:
    def initialize(self, context):
        self.trial = context.trial
{initialize}

    def get_metadata(self):
        return PluginMetadata(name="{name}", version=str(NUMBER))

    def register_routes(self, server):
        server.get("/{name}", self.get)
        server.add_route("/{name}/stream", Stream())
{routes}

    def cleanup(self, context):
{cleanup}

    def get(self):
        return {{"pid": os.getpid(), "generation": GENERATION, "number": NUMBER}}


def new_plugin():
    return Plugin()
'''


def counting(
    name: str,
    number: int,
    *,
    prelude: str = "",
    initialize: str = "pass",
    routes: str = "",
    cleanup: str = "pass",
) -> str:
    """Return a plugin that says its process, its generation and its number.

    Args:
        name: the plugin's name and its route.
        number: what the edit is told by.
        prelude: statements of the module.
        initialize: statements of `initialize`; `self.trial` tells a trial.
        routes: more statements of `register_routes`.
        cleanup: statements of `cleanup`.
    """
    return COUNTING.format(
        name=name,
        number=number,
        prelude=prelude,
        initialize=textwrap.indent(initialize, " " * 8),
        routes=textwrap.indent(routes, " " * 8),
        cleanup=textwrap.indent(cleanup, " " * 8),
    )


NOTE_CLEANUP = """
if not self.trial:
    with open({path!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{GENERATION}} {{time.monotonic()}}\\n")
"""
"""A `cleanup` that notes its process, its generation and the moment in a file."""


def number_of(answer: Answer) -> int | None:
    """Return the number that answered, None if no plugin of `counting` did."""
    return answer.json.get("number") if answer.status == 200 else None


def wait_number(server: Server, name: str, number: int, seconds: float = 15.0) -> float:
    """Wait until every worker serves the edit of a number; return the seconds that it took."""
    return server.wait_everywhere(f"/{name}", lambda a: number_of(a) == number, seconds)


def wait_published(server: Server, name: str, number: int, seconds: float = 30.0) -> None:
    """Wait until the row is of the edit of a number."""
    with session(server) as run:
        wait_until(
            lambda: run("SELECT 1 FROM plugins WHERE name = %s AND version = %s", name, number),
            f"{name} is published with number {number}",
            seconds,
        )


@contextlib.contextmanager
def session(server: Server) -> Iterator[Any]:
    """Give a function that runs statements over one connection, each at once."""
    connection = psycopg2.connect(server.database_url or "")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:

            def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
                cursor.execute(statement, [str(p) if isinstance(p, int) else p for p in parameters])
                return cursor.fetchall() if cursor.description else []

            yield run
    finally:
        connection.close()


class Audit:
    """Every version of every row of `plugins`, noted by a trigger of the test's own."""

    def __init__(self, server: Server) -> None:
        """Begin: what is registered already is noted too."""
        self._server = server
        with session(server) as run:
            run(
                """
                CREATE TABLE IF NOT EXISTS audit (
                    number BIGSERIAL, at DOUBLE PRECISION, operation TEXT, name TEXT,
                    generation BIGINT, version TEXT, status TEXT, error TEXT);
                CREATE OR REPLACE FUNCTION note_audit() RETURNS TRIGGER AS $$
                DECLARE found plugins;
                BEGIN
                    IF TG_OP = 'DELETE' THEN found := OLD; ELSE found := NEW; END IF;
                    INSERT INTO audit (at, operation, name, generation, version, status, error)
                    VALUES (extract(epoch FROM clock_timestamp()), TG_OP, found.name,
                            found.generation, found.version, found.status, found.error);
                    RETURN NULL;
                END; $$ LANGUAGE plpgsql;
                DROP TRIGGER IF EXISTS audit ON plugins;
                TRUNCATE audit;
                CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON plugins
                    FOR EACH ROW EXECUTE FUNCTION note_audit();
                INSERT INTO audit (at, operation, name, generation, version, status, error)
                    SELECT 0, 'INSERT', name, generation, version, status, error FROM plugins;
                """
            )

    def published(self, name: str) -> set[tuple[int, int]]:
        """Return the generations and numbers that were committed."""
        found = self._server.sql("SELECT generation, version FROM audit WHERE name = %s", name)
        return {(generation, int(version)) for generation, version in found}

    def changes(self, name: str) -> list[tuple[Any, ...]]:
        """Return operation, generation, version and error of all changes, in order."""
        return self._server.sql(
            "SELECT operation, generation, version, error FROM audit WHERE name = %s"
            " ORDER BY number",
            name,
        )


@dataclass(frozen=True)
class Fault:
    """An answer that must not be."""

    at: float
    what: str
    pid: int | None
    detail: str


def _was_in_flight(fault: Fault, killed: dict[int, float]) -> bool:
    """Tell whether a killed process had the request; a first one does not know its process."""
    if fault.what != "lost":
        return False
    moments = killed.values() if fault.pid is None else filter(None, [killed.get(fault.pid)])
    return any(moment - 1.0 < fault.at < moment + 0.2 for moment in moments)


class Requester:
    """Threads that ask without a pause, and check every answer, between `with` and its end.

    Per process the generation must never go down: an answer to a request that began after
    another one's answer had come is at least as new. A kept-alive connection that was closed
    between two requests, before any byte of the answer, is legal HTTP: it is counted under its
    worker in `retried` and asked again over a new one.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        *,
        threads: int = 8,
        fresh: bool = False,
        streams: int = 0,
        pause: float = 0.002,
    ) -> None:
        """Make it.

        Args:
            server: whom to ask.
            name: a plugin of `counting`.
            threads: how many connections.
            fresh: whether each request has a connection of its own.
            streams: how many further threads read streams of 0.3 s.
            pause: seconds between two requests of a thread, so that the server has a core too.
        """
        self._server = server
        self._name = name
        self._fresh = fresh
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._floor: dict[int, int] = {}
        self.count = 0
        self.streamed = 0
        self.faults: list[Fault] = []
        self.retried: Counter[int | None] = Counter()
        self.seen: set[tuple[int, int]] = set()
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._ask_always) for _ in range(threads)]
        self._threads += [threading.Thread(target=self._stream_always) for _ in range(streams)]

    def __enter__(self) -> "Requester":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30.0)
        assert not any(thread.is_alive() for thread in self._threads)

    def summary(self) -> str:
        """Return the figures in one line."""
        return (
            f"{self.count} requests, {self.streamed} streams, {len(self.faults)} faults, "
            f"{sum(self.retried.values())} retried, slowest {self.slowest * 1000:.0f} ms, "
            f"{len({generation for generation, _ in self.seen})} generations seen"
        )

    def assert_flawless(
        self, audit: Audit | None = None, killed: dict[int, float] | None = None
    ) -> None:
        """Fail unless every answer was right; requests in flight in a killed process may fail.

        Args:
            audit: what was committed.
            killed: the killed processes, each with the moment.
        """
        killed = killed or {}
        faults = [fault for fault in self.faults if not _was_in_flight(fault, killed)]
        assert not faults, f"{self.summary()}; the first of {len(faults)}: {faults[:5]}"
        retried = {pid: n for pid, n in self.retried.items() if pid not in killed}
        assert not retried, f"connections were cut between requests: {retried}"
        assert self.count > 0
        if audit is not None:
            unpublished = self.seen - audit.published(self._name)
            assert not unpublished, f"never published: {sorted(unpublished)[:5]}"

    # --- the threads -----------------------------------------------------------------------

    def _ask_always(self) -> None:
        connection = self._server.connect()
        pid: int | None = None
        used = 0
        while not self._stop.is_set():
            with self._lock:
                floor = dict(self._floor)
            began = time.monotonic()
            try:
                headers = {"Connection": "close"} if self._fresh else {}
                answer = ask(connection, "GET", f"/{self._name}", headers=headers)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = self._server.connect()
                cut = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
                if used and isinstance(error, cut):
                    with self._lock:
                        self.retried[pid] += 1
                else:
                    self._fault("lost", pid, f"{error!r} after {used} requests", began)
                pid, used = None, 0
                continue
            pid = self._check(answer, pid, floor, began)
            used += 1
            if self._fresh:
                connection.close()
                pid, used = None, 0
            self._stop.wait(self._pause)
        connection.close()

    def _check(
        self, answer: Answer, pid: int | None, floor: dict[int, int], began: float
    ) -> int | None:
        took = time.monotonic() - began
        if answer.status != 200:
            self._fault("status", pid, f"{answer.status} {answer.body[:300]!r}", began)
            return pid
        try:
            body = json.loads(answer.body)
            found = (body["generation"], body["number"])
            pid = int(body["pid"])
        except (ValueError, KeyError, TypeError) as error:
            self._fault("body", pid, f"{error!r} {answer.body[:300]!r}", began)
            return pid
        if found[0] < floor.get(pid, 0):
            self._fault("went down", pid, f"{found} after generation {floor[pid]}", began)
        with self._lock:
            self.count += 1
            self.slowest = max(self.slowest, took)
            self.seen.add(found)
            self._floor[pid] = max(self._floor.get(pid, 0), found[0])
        return pid

    def _stream_always(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with contextlib.closing(self._server.connect()) as connection:
                    answer = ask(connection, "GET", f"/{self._name}/stream?seconds=0.3")
            except (OSError, http.client.HTTPException) as error:
                self._fault("lost", None, f"stream: {error!r}", began)
                continue
            lines = answer.body.decode().splitlines()
            whole = answer.status == 200 and len(lines) > 1 and lines[-1].startswith("end ")
            if not whole or len(set(lines[:-1])) != 1:
                self._fault("stream", None, f"{answer.status} {answer.body[-300:]!r}", began)
            with self._lock:
                self.streamed += 1

    def _fault(self, what: str, pid: int | None, detail: str, began: float) -> None:
        with self._lock:
            self.faults.append(Fault(began, what, pid, detail))
        self._stop.wait(0.02)  # a server that is down shall not be asked ten thousand times
