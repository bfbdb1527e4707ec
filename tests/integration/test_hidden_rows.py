"""Rows that a role may not see: an error, and not as if they were deleted."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from app import turns
from app.database.pool import Database
from app.database.repository import Repository
from app.errors import DatabaseRefusedError
from app.publishing import watcher
from app.serving import reconciler
from tests.support.databases import Session, session
from tests.support.live import Live, running, settings_for
from tests.support.plugins import source
from tests.support.publications import publish
from tests.support.waiting import wait_until

ROLE = "benana_hidden"
TABLES = "plugins, plugin_endpoints, plugin_versions, plugin_failures, plugin_workers, plugin_loads"
HIDE = {
    "all rows": ("ALTER TABLE plugins ENABLE ROW LEVEL SECURITY",),
    "some rows": (
        "CREATE POLICY ours ON plugins USING (name <> 'hello')",
        "ALTER TABLE plugins ENABLE ROW LEVEL SECURITY",
    ),
    "the versions": ("ALTER TABLE plugin_versions ENABLE ROW LEVEL SECURITY",),
    "the rows of their owner": (
        f"ALTER TABLE plugins OWNER TO {ROLE}",
        "ALTER TABLE plugins ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE plugins FORCE ROW LEVEL SECURITY",
    ),
    "the table": (f"REVOKE SELECT ON plugins FROM {ROLE}",),
}
SHOW = (
    "DROP POLICY IF EXISTS ours ON plugins",
    "ALTER TABLE plugins NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE plugins DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE plugin_versions DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE plugins OWNER TO current_user",
    f"GRANT ALL ON plugins TO {ROLE}",
)


@contextlib.contextmanager
def role_of(sql: Session) -> Iterator[None]:
    """A role that owns nothing and may use all tables."""
    sql(f"CREATE ROLE {ROLE}")
    sql(f"GRANT ALL ON {TABLES}, plugin_endpoints_id_seq TO {ROLE}")
    try:
        yield
    finally:
        for statement in SHOW:
            sql(statement)
        sql(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def as_role(url: str) -> str:
    return f"{url}&options=-c%20role%3D{ROLE}"


@pytest.mark.parametrize("hidden", HIDE)
def test_rows_that_may_not_be_seen_are_an_error(
    url: str, repository: Repository, sql: Session, hidden: str
) -> None:
    publish(repository, "hello", "/hello")
    database = Database(as_role(url))
    ours = Repository(database)
    with role_of(sql):
        try:
            assert [row.name for row in ours.served_rows()] == ["hello"]
            for statement in HIDE[hidden]:
                sql(statement)
            for read in (ours.served_rows, partial(ours.served_rows, ["hello"])):
                with pytest.raises(DatabaseRefusedError) as caught:
                    read()
                assert caught.value.sqlstate == "42501"
            for statement in SHOW:
                sql(statement)
            assert [row.name for row in ours.served_rows()] == ["hello"]
        finally:
            database.close()


@pytest.mark.parametrize("right", ["BYPASSRLS", "OWNER"])
def test_a_role_that_row_level_security_does_not_concern_sees_all(
    url: str, repository: Repository, sql: Session, right: str
) -> None:
    publish(repository, "hello", "/hello")
    database = Database(as_role(url))
    with role_of(sql):
        try:
            sql("ALTER TABLE plugins ENABLE ROW LEVEL SECURITY")
            if right == "OWNER":
                sql(f"ALTER TABLE plugins OWNER TO {ROLE}")
            else:
                sql(f"ALTER ROLE {ROLE} BYPASSRLS")
            assert [row.name for row in Repository(database).served_rows()] == ["hello"]
        finally:
            database.close()


def test_a_plugins_own_sessions_keep_row_level_security(url: str, sql: Session) -> None:
    """It filters there, as the plugin's author means it."""
    database = Database(as_role(url), reset=True)
    with role_of(sql):
        sql("ALTER TABLE plugins ENABLE ROW LEVEL SECURITY")
        try:
            with database.connection() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT name FROM plugins")
                assert cursor.fetchall() == []
        finally:
            database.close()


def test_what_is_served_is_served_on_while_its_rows_are_hidden(
    new_database: Callable[[], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All plugins were unloaded, as if their rows had been deleted."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.05)
    url = new_database()
    owner = Database(url)
    Repository(owner).apply_schema()
    owner.close()
    settings = settings_for(tmp_path, as_role(url))
    (settings.plugins_dir / "hello").mkdir(parents=True)
    (settings.plugins_dir / "hello" / "main.py").write_text(source("hello", "one"))
    with session(url) as sql, role_of(sql), running(settings) as live:
        live.serves("hello")
        wait_until(lambda: not live.app.manager.health.reasons, "all is well")
        sql("ALTER TABLE plugins ENABLE ROW LEVEL SECURITY")
        sentence = 'would be affected by row-level security policy for table "plugins"'
        # Nobody tells of it; the next heartbeat finds it.
        wait_until(lambda: sentence in caplog.text, "it is said", 3.0)
        live.write("hello", source("hello", "two"))
        wait_until(lambda: held(live, "watching:root"), "no edit is published")
        wait_until(lambda: held(live, "rows"), "the rows cannot be read")
        assert live.client.get("/hello").json["says"] == "one"
        assert sentence in live.client.get("/plugins", status=500).json["detail"]

        def told() -> int:
            texts = [record.getMessage() for record in caplog.records]
            return sum(sentence in text and "the rows cannot be read" in text for text in texts)

        wait_until(told, "the log says what is not current")
        assert told() == 1
        sql("ALTER TABLE plugins DISABLE ROW LEVEL SECURITY")
        wait_until(lambda: live.client.get("/hello").json["says"] == "two", "the edit follows")
        wait_until(lambda: not live.app.manager.health.reasons, "all is well again")


def test_a_right_that_is_taken_away_is_noticed_by_the_next_heartbeat(
    new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was at the next read: up to a minute later."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.05)
    url = new_database()
    owner = Database(url)
    Repository(owner).apply_schema()
    owner.close()
    settings = settings_for(tmp_path, as_role(url), watch=False)
    hide = (
        "REVOKE SELECT ON plugin_versions",
        "GRANT SELECT ON plugin_versions",
        "ALTER TABLE plugin_versions ENABLE ROW LEVEL SECURITY",
    )
    with session(url) as sql, role_of(sql), running(settings) as live:
        wait_until(lambda: not live.app.manager.health.reasons, "all is well")
        sql(f"{hide[0]} FROM {ROLE}")
        wait_until(lambda: held(live, "rows"), "a right", 3.0)
        sql(f"{hide[1]} TO {ROLE}")
        wait_until(lambda: not held(live, "rows"), "it is back", 3.0)
        sql(hide[2])
        wait_until(lambda: held(live, "rows"), "rows of versions", 3.0)


def held(live: Live, key: str) -> bool:
    return key in [reason.key for reason in live.app.manager.health.reasons]
