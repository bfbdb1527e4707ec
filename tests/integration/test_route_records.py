"""What is recorded of routes is what the versions have that rows serve, whoever has changed it."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from app.conditions import Conditions
from app.database import route_records
from app.database.pool import Database
from app.database.route_records import RouteRecords
from app.database.sessions import Sessions
from tests.support.databases import DIGEST, Session, apply, empty, session
from tests.support.waiting import wait_until

METADATA = {"version": "7", "endpoints": [["GET", "/p", "h"], ["PUT", "/p", "g"]]}
ROUTES = [("GET", "/p"), ("PUT", "/p")]


@pytest.fixture(scope="module")
def records_url(new_database: Callable[[], str]) -> str:
    url = new_database()
    apply(url)
    return url


@pytest.fixture
def sql(records_url: str) -> Iterator[Session]:
    """A session where the plugin `a` serves a version, and `b` nothing."""
    with session(records_url) as opened:
        empty(opened)
        values = (DIGEST, json.dumps(METADATA))
        opened("INSERT INTO plugin_versions VALUES ('a', %s, '', '', %s)", *values)
        opened(
            "INSERT INTO plugins (name, binary_path) VALUES ('a', %s), ('b', NULL)",
            f"/x/a-{DIGEST}.pyz",
        )
        yield opened


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
def records(
    records_url: str, conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RouteRecords]:
    monkeypatch.setattr(route_records, "SETTLE_SECONDS", 0.0)
    with contextlib.closing(Database(records_url)) as database:
        yield RouteRecords(database, conditions)


def routes(sql: Session) -> list[tuple[str, str]]:
    return sql("SELECT method, path FROM plugin_endpoints ORDER BY id")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM plugin_endpoints",
        "DELETE FROM plugin_endpoints WHERE method = 'PUT'",
        "UPDATE plugin_endpoints SET path = '/q' WHERE method = 'GET'",
        "UPDATE plugin_endpoints SET plugin_id = (SELECT id FROM plugins WHERE name = 'b')",
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " SELECT plugin_id, 'GET', '/q', 'h' FROM plugin_endpoints",
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " SELECT plugin_id, method, path, handler FROM plugin_endpoints",
    ],
)
def test_whatever_is_changed_is_put_right_and_notified(
    sql: Session, records: RouteRecords, conditions: Conditions, change: str
) -> None:
    sql("LISTEN plugin_changes; LISTEN fence")
    sql(change)
    (told,) = sql.notified()
    assert (told["table"], told["name"]) == ("plugin_endpoints", None)
    records.may_have_changed()
    records.look()
    assert conditions.held() == ()
    assert records.look_at is None
    assert sql.notified() == [], "we tell nobody of what we put right"
    mine = "WHERE plugin_id = (SELECT id FROM plugins WHERE name = 'a')"
    assert sql(f"SELECT method, path FROM plugin_endpoints {mine} ORDER BY id") == ROUTES


def test_what_follows_from_a_change_of_rows_is_not_notified_twice(sql: Session) -> None:
    sql("LISTEN plugin_changes; LISTEN fence")
    sql("UPDATE plugins SET binary_path = NULL WHERE name = 'a'")
    sql("UPDATE plugins SET binary_path = %s WHERE name = 'a'", f"/x/a-{DIGEST}.pyz")
    sql("DELETE FROM plugins WHERE name = 'a'")
    assert [told["table"] for told in sql.notified()] == ["plugins"] * 3


@pytest.mark.parametrize(
    "change", ["DELETE FROM plugin_versions", "UPDATE plugin_versions SET archive = 'x'"]
)
def test_a_change_of_what_is_kept_is_notified(sql: Session, change: str) -> None:
    sql("LISTEN plugin_changes; LISTEN fence")
    sql(change)
    assert [told["table"] for told in sql.notified()] == ["plugin_versions"]


@pytest.mark.parametrize("by", ["pg_restore", "a session that writes", "a subscription"])
def test_what_somebody_may_be_about_to_bring_is_waited_for(
    sql: Session, records: RouteRecords, conditions: Conditions, by: str
) -> None:
    sql("DELETE FROM plugin_endpoints")
    name = "&application_name=pg_restore" if by == "pg_restore" else ""
    with session(f"{sql.connection.dsn}{name}") as restoring:
        if by == "a session that writes":
            restoring("BEGIN; LOCK TABLE plugin_versions IN ROW EXCLUSIVE MODE")
        elif by == "a subscription":
            sql(
                "INSERT INTO pg_subscription_rel VALUES"
                " (1, 'plugin_endpoints'::regclass, 'i', NULL)"
            )
        for _ in range(2):
            records.look()
            (held,) = conditions.held()
            assert "not while" in held.what
            assert routes(sql) == []
        assert records.look_at is not None
    sql("DELETE FROM pg_subscription_rel")
    wait_until(lambda: looked(records, sql) == ROUTES, "they are recorded once it has ended")
    assert conditions.held() == ()


def looked(records: RouteRecords, sql: Session) -> list[tuple[str, str]]:
    records.look()
    return routes(sql)


def test_rows_wait_for_a_while(
    sql: Session, records: RouteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore brings rows and routes one after the other."""
    monkeypatch.setattr(route_records, "SETTLE_SECONDS", 3600.0)
    sql("DELETE FROM plugin_endpoints")
    records.look()
    records.look()
    assert routes(sql) == []


def test_what_somebodys_trigger_changes_is_written_once_and_said(
    sql: Session, records: RouteRecords, conditions: Conditions, caplog: pytest.LogCaptureFixture
) -> None:
    sql(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN NEW.path := upper(NEW.path); RETURN NEW; END';"
        " CREATE TRIGGER shout BEFORE INSERT ON plugin_endpoints FOR EACH ROW"
        " EXECUTE FUNCTION shout(); DELETE FROM plugin_endpoints"
    )
    try:
        with caplog.at_level(logging.WARNING):
            records.look()
            written = sql("SELECT id FROM plugin_endpoints")
            records.look()
        assert sql("SELECT id FROM plugin_endpoints") == written
        assert "does a trigger change them?" in conditions.held()[0].what
        assert records.look_at is None
        assert "recorded again" not in caplog.text
    finally:
        sql("DROP FUNCTION shout CASCADE")
    sql("DELETE FROM plugin_endpoints")
    records.look()
    assert conditions.held(), "it is not tried before it was right once"


def test_rows_without_a_version_keep_what_they_have(
    sql: Session, records: RouteRecords, conditions: Conditions
) -> None:
    """As those of an earlier system."""
    sql(
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " SELECT id, 'GET', '/static', 'x' FROM plugins WHERE name = 'b'"
    )
    records.look()
    assert ("GET", "/static") in routes(sql)
    assert conditions.held() == ()


def test_records_of_a_read_only_database_are_looked_at_and_left(
    records: RouteRecords,
    conditions: Conditions,
    sql: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on a standby, where a repair is for the primary."""
    monkeypatch.setattr(Sessions, "beginning", "SET LOCAL transaction_read_only = on; ")
    records.look()
    assert not conditions.held()
    sql("DELETE FROM plugin_endpoints")
    for _ in range(2):
        records.look()
        (held,) = conditions.held()
        assert "recorded again by itself, but not while the database is read only" in held.what
    assert caplog.text == ""
    monkeypatch.undo()
    monkeypatch.setattr(route_records, "SETTLE_SECONDS", 0.0)
    records.look()
    assert routes(sql) == ROUTES
    assert not conditions.held()
