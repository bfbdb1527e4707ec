"""Real workers whose database lets everybody in and answers nobody, as in PgBouncer's PAUSE."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.support.databases import session
from tests.support.plugins import source
from tests.support.postgres_proxy import Proxy
from tests.support.server import Answer, MakeServer, Server, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

SILENCE_SECONDS = 7.0
"""A statement is asked for after 3 s, and the question after 3 more; looks are half a second."""


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> str:
    """How many threads each worker has; a test may set it."""
    return str(getattr(request, "param", "8"))


@pytest.fixture
def proxied(
    make_server: MakeServer, new_database: Callable[[], str], threads: str
) -> Iterator[tuple[Server, Proxy]]:
    """A server whose database can be paused; it serves `steady`, whose last good is written."""
    proxy = Proxy(new_database())
    server = make_server(database=False, DATABASE_URL=proxy.url, BENANA_THREADS=threads)
    server.write("steady", source("steady"))
    server.start()
    server.wait_says("steady", "one")
    wait_until(lambda: (server.artifacts / ".served" / "steady").exists(), "it is kept", 15.0)
    try:
        yield server, proxy
    finally:
        proxy.paused = False
        with contextlib.suppress(Exception):
            server.stop()
        proxy.close()


def test_a_restart_serves_what_was_served_last(proxied: tuple[Server, Proxy]) -> None:
    """HUP: the new workers waited for the database without end, and the old ones were gone."""
    server, proxy = proxied
    before = server.workers()
    proxy.paused = True
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    began = time.monotonic()

    def replaced() -> bool:
        with contextlib.suppress(OSError):
            found = server.ask_all("/steady")
            return not before & set(found) and all(a.says == "one" for a in found.values())
        return False

    wait_until(replaced, "new workers serve", SILENCE_SECONDS + 5.0)
    assert time.monotonic() - began < SILENCE_SECONDS + 3.0
    health = server.get("/health/ready")
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert "does not answer" in str(health.json), health.json
    assert "file system" not in server.log()
    proxy.paused = False
    server.write("steady", source("steady", "two"))
    server.wait_says("steady", "two", 10.0)
    wait_until(lambda: server.get("/health/ready").json["status"] == "ready", "it is ready", 15.0)


def test_a_restart_that_is_refused_for_a_moment_serves_what_is_new(
    proxied: tuple[Server, Proxy],
) -> None:
    """They began with what was served last at once, which may be older, or lack a plugin."""
    server, proxy = proxied
    server.write("steady", source("steady", "two"))
    server.wait_says("steady", "two")
    server.write("fresh", source("fresh", "new"))
    server.wait_says("fresh", "new")
    before = server.workers()
    proxy.refuses = 4
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    seen: set[tuple[str, int, str | None]] = set()

    def replaced() -> bool:
        with contextlib.suppress(OSError):
            for name in ("steady", "fresh"):
                answer = server.get(f"/{name}")
                seen.add((name, answer.status, answer.says if answer.status == 200 else None))
        return len(server.workers()) == 2 and not server.workers() & before

    wait_until(replaced, "new workers serve", 20.0)
    for _ in range(50):
        replaced()
    assert seen == {("steady", 200, "two"), ("fresh", 200, "new")}
    assert proxy.refuses == 0
    assert "starting with what was served last" not in server.log()


def test_a_start_serves_what_was_served_last(proxied: tuple[Server, Proxy]) -> None:
    server, proxy = proxied
    server.stop()
    proxy.paused = True
    server.start(wait=False)
    wait_until(
        lambda: _says(server) == "one",
        "it serves",
        2 * SILENCE_SECONDS + 5.0,
    )
    assert "starting without it" in server.log()


def _says(server: Server) -> str | None:
    with contextlib.suppress(OSError):
        return server.get("/steady").says
    return None


def test_an_admin_call_ends_with_a_sentence(proxied: tuple[Server, Proxy]) -> None:
    server, proxy = proxied
    proxy.paused = True
    for method, path in (
        ("POST", "/plugins/steady/reload?wait=2"),
        ("POST", "/plugins/steady/toggle?wait=2"),
        ("GET", "/plugins"),
        ("GET", "/plugins/steady"),
        ("GET", "/workers"),
    ):
        began = time.monotonic()
        answer = server.call(method, path)
        assert answer.status == 503, answer.json
        assert "does not answer" in answer.json["detail"]
        assert time.monotonic() - began < SILENCE_SECONDS + 1.0
        assert server.get("/steady").says == "one"


ASKS = """
from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        self.context = context

    def get_metadata(self):
        return PluginMetadata(name="{name}", version="1")

    def register_routes(self, server):
        server.get("/{name}", self.get)
        server.get("/{name}/there", lambda: {{"says": "one"}})

    def cleanup(self, context):
        pass

    def get(self):
        with self.context.database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return {{"says": cursor.fetchone()[0]}}


def new_plugin():
    return Plugin()
"""

LET_BE_SECONDS = 6.0
"""It is 1.5 to 2 s on a machine with nothing else to do, and was 8 to 9."""

CALLS = 60
"""Many more than the threads of all workers."""


@pytest.fixture
def asking(proxied: tuple[Server, Proxy]) -> tuple[Server, Proxy]:
    """The server, with two plugins that ask their database."""
    server, _ = proxied
    for name in ("asks", "wants"):
        server.write(name, ASKS.format(name=name))
        server.wait_everywhere(f"/{name}/there", lambda answer: answer.status == 200, 15.0)
    return proxied


def call_both(server: Server, pool: ThreadPoolExecutor) -> list[Future[Answer]]:
    return [pool.submit(server.get, f"/{('asks', 'wants')[n % 2]}") for n in range(CALLS)]


def others_are_answered(server: Server, silence: Callable[[], None]) -> set[int]:
    """Call both plugins in silence, and others meanwhile; return the calls' status codes."""
    with server.each_worker() as connections, ThreadPoolExecutor(CALLS) as pool:
        silence()
        ends = time.monotonic() + 6 * SILENCE_SECONDS
        calls = call_both(server, pool)
        waits = []
        while not all(call.done() for call in calls):
            assert time.monotonic() < ends
            for connection in connections.values():
                for path in ("/health/ready", "/steady"):
                    asked = time.monotonic()
                    assert ask(connection, "GET", path).status == 200
                    waits.append(time.monotonic() - asked)
        assert max(waits) < LET_BE_SECONDS, sorted(waits)[-5:]
        return {call.result().status for call in calls}


@pytest.mark.parametrize(
    ("way", "warm", "threads"),
    [
        ("paused", True, "8"),
        ("paused", False, "8"),
        ("no packets", True, "8"),
        ("no packets", False, "8"),
        ("paused", True, "1"),
        ("no packets", False, "2"),
    ],
    indirect=["threads"],
)
def test_calls_that_wait_hold_up_no_others(
    asking: tuple[Server, Proxy], way: str, warm: bool
) -> None:
    """The first wave of them held all threads, and health checks waited for 8 s behind them."""
    server, proxy = asking
    for name in ("asks", "wants") if warm else ():
        server.wait_everywhere(f"/{name}", lambda answer: answer.status == 200)

    def silence() -> None:
        if way == "paused":
            proxy.paused = True
        else:
            proxy.flows.clear()
            proxy.open = False

    assert others_are_answered(server, silence) == {503}
    assert "requests wait for threads, and the database does not answer those" in server.log()
    proxy.paused, proxy.open = False, True
    proxy.flows.set()
    for name in ("asks", "wants"):
        server.wait_says(name, 1, 5.0)  # type: ignore[arg-type]


def test_sessions_that_are_stopped_hold_up_no_others(
    asking: tuple[Server, Proxy], postgres_url: str
) -> None:
    """The database answers whoever connects anew: each of them waited for 10 s."""
    server, proxy = asking
    for name in ("asks", "wants"):
        server.wait_everywhere(f"/{name}", lambda answer: answer.status == 200)
    with ThreadPoolExecutor(CALLS) as pool:
        assert {call.result().status for call in call_both(server, pool)} == {200}
    name = urlsplit(proxy.url).path[1:]
    with session(postgres_url) as sql:
        rows = sql("SELECT pid FROM pg_stat_activity WHERE datname = %s", name)
        stopped = [pid for (pid,) in rows]

        def silence() -> None:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

        try:
            found = others_are_answered(server, silence)
            assert found <= {200, 503}
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
