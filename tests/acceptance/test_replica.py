"""A server on the subscriber of a logical replication."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.postgres.server import EmbeddedPostgres
from tests.support.databases import apply, session
from tests.support.folders import open_folder
from tests.support.plugins import source
from tests.support.postgres_proxy import Proxy
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

EMPTY = "TRUNCATE plugins, plugin_endpoints, plugin_versions, plugin_workers, plugin_loads"


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[str, str]]:
    """Two databases of one cluster that writes what logical replication needs."""
    with open_folder() as folder:
        postgres = EmbeddedPostgres(folder)
        with session(postgres.start()) as sql:
            sql("ALTER SYSTEM SET wal_level = logical")
        postgres.stop()
        postgres = EmbeddedPostgres(folder)
        url = postgres.start()
        with session(url) as sql:
            assert sql("SHOW wal_level") == [("logical",)]
            sql("CREATE DATABASE original")
            sql("CREATE DATABASE replica")
        parts = urlsplit(url)
        original, replica = (
            f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"
            for name in ("original", "replica")
        )
        yield original, replica
        postgres.stop()


@pytest.mark.parametrize("tables", ["FOR ALL TABLES", "FOR TABLES IN SCHEMA public"])
def test_the_workers_of_a_logical_replica_follow(
    clusters: tuple[str, str], tmp_path: Path, tables: str
) -> None:
    original_url, replica_url = clusters
    (tmp_path / "original").mkdir()
    (tmp_path / "replica").mkdir()
    original = Server(tmp_path / "original", original_url)
    replica = Server(tmp_path / "replica", replica_url, BENANA_WATCH="off")
    replica.plugins = tmp_path / "not watched"  # where `start` writes its own plugin to
    apply(replica_url)
    with (
        session(original_url) as publisher,
        session(replica_url) as subscriber,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(original.kill)
        original.start()
        original.write("copied", source("copied", "one"))
        original.wait_says("copied", "one")
        publisher(f"CREATE PUBLICATION everything {tables}")
        stack.callback(publisher, "DROP PUBLICATION everything")
        slot = f"benana_{time.monotonic_ns()}"
        publisher("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
        # The embedded PostgreSQL lets in root and the server's user, and not its own account.
        proxy = Proxy(original_url)
        stack.callback(proxy.close)
        subscriber(
            f"CREATE SUBSCRIPTION benana CONNECTION '{proxy.url}' PUBLICATION everything"
            f" WITH (create_slot = false, slot_name = '{slot}')"
        )
        stack.callback(subscriber, EMPTY)
        stack.callback(subscriber, "DROP SUBSCRIPTION benana")
        synced = "SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel"
        wait_until(lambda: subscriber(synced) == [(True,)], "the tables are copied", 30.0)
        stack.callback(replica.kill)
        replica.start()
        replica.wait_says("copied", "one")
        subscriber("LISTEN plugin_changes; LISTEN fence")
        took = []
        for number in range(5):
            original.write("copied", source("copied", f"edit {number}"))
            original.wait_says("copied", f"edit {number}")
            began = time.monotonic()
            replica.wait_says("copied", f"edit {number}", 2.0)
            took.append(time.monotonic() - began)
        assert max(took) < 1.0, took
        operations = [found["operation"] for found in subscriber.notified()]
        assert operations.count("UPDATE") == 5, "one word a change"
        publisher("UPDATE plugins SET status = 'inactive' WHERE name = 'copied'")
        replica.wait_gone("copied", 2.0)
        publisher("UPDATE plugins SET status = 'active' WHERE name = 'copied'")
        replica.wait_says("copied", "edit 4", 2.0)
        # The publisher's processes are not there, and its records are not made twice.
        (pids,) = zip(*subscriber("SELECT pid FROM plugin_workers"), strict=True)
        assert set(pids) == replica.workers()
        routes = "SELECT method, path FROM plugin_endpoints ORDER BY id"
        assert subscriber(routes) == publisher(routes)
        publisher("TRUNCATE plugins CASCADE")
        replica.wait_gone("copied", 2.0)


def test_commits_that_wait_for_a_standby_are_named(
    clusters: tuple[str, str], tmp_path: Path
) -> None:
    """A synchronous standby is away: each commit is made here, and waits to be made there."""
    url, _ = clusters
    (tmp_path / "primary").mkdir()
    server = Server(tmp_path / "primary", url)
    with session(url) as sql, contextlib.ExitStack() as last, contextlib.ExitStack() as stack:
        last.callback(server.kill)
        server.start()
        server.write("kept", source("kept"))
        server.wait_says("kept", "one")
        server.write("other", source("other"))
        server.wait_says("other", "one")
        wait_until(lambda: server.get("/health/ready").json["status"] == "ready", "it is ready")
        stack.callback(sql, "SELECT pg_reload_conf()")
        stack.callback(sql, "ALTER SYSTEM RESET synchronous_standby_names")
        sql("SET synchronous_commit = local")
        sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        sql("SELECT pg_reload_conf()")
        wait_until(lambda: sql("SHOW synchronous_standby_names") == [("nobody",)], "it counts")
        for call in ("other/toggle", "other/toggle", "kept/toggle", "kept/reload"):
            answer = server.post(f"/plugins/{call}")
            assert answer.status == 503, answer.body
            assert "waits for a synchronous standby" in answer.json["detail"]
            assert "pg_terminate_backend" not in answer.json["detail"]
        server.write("kept", source("kept", "two"))

        def reasons() -> str:
            return str(server.get("/health/ready").json.get("reasons", ""))

        wait_until(lambda: "wait for a synchronous standby" in reasons(), "it says why", 6.0)
        assert server.get("/kept").status == 200
        assert "pg_terminate_backend" not in reasons()
        stack.close()
        wait_until(lambda: server.get("/kept").says == "two", "it follows", 10.0)
        assert server.plugin("other")["status"] == "inactive", "it was toggled once"
        wait_until(lambda: server.get("/health/ready").json["status"] == "ready", "it is ready")
