"""Real workers whose database lets everybody in and answers nobody, as in PgBouncer's PAUSE."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.plugins import source
from tests.support.postgres_proxy import Proxy
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

SILENCE_SECONDS = 7.0
"""A statement is asked for after 3 s, and the question after 3 more; looks are half a second."""


@pytest.fixture
def proxied(
    make_server: MakeServer, new_database: Callable[[], str]
) -> Iterator[tuple[Server, Proxy]]:
    """A server whose database can be paused; it serves `steady`, whose last good is written."""
    proxy = Proxy(new_database())
    server = make_server(database=False, DATABASE_URL=proxy.url)
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
