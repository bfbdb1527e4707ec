"""A server on a hot standby, which only reads; and when that becomes the primary."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.conditions import Condition
from app.database.route_records import RouteRecords
from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres
from tests.support.databases import session
from tests.support.folders import open_folder
from tests.support.live import Live, running, settings_for
from tests.support.waiting import wait_until


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that recorded routes were looked at, however that ended."""
    found: list[None] = []
    look = RouteRecords.look

    def counted(records: RouteRecords) -> None:
        found.append(None)
        look(records)

    monkeypatch.setattr(RouteRecords, "look", counted)
    return found


@pytest.fixture
def standby(new_postgres: NewPostgres, tmp_path: Path) -> Iterator[Live]:
    """A server that watches nothing, on the standby of a primary that has gone.

    What was registered there is in it, and endpoints of no row, which a primary would have dropped.
    """
    with open_folder() as folder:
        postgres = new_postgres(folder / "var")
        settings = settings_for(tmp_path, postgres.start())
        try:
            settings.plugins_dir.mkdir()
            with running(settings) as live:
                live.add("one")
            with session(settings.database_url or "") as sql:
                sql("SET session_replication_role = replica")  # no foreign keys
                sql(
                    "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
                    " VALUES ('gone', 'GET', '/gone', 'gone')"
                )
            postgres.stop()
            (folder / "var" / "postgres" / "standby.signal").touch()
            postgres = EmbeddedPostgres(folder / "var")
            settings = replace(settings, database_url=postgres.start(), watch=False)
            with running(settings) as live:
                yield live
        finally:
            postgres.stop()


def said(live: Live) -> tuple[Condition, ...]:
    return live.app.manager.health.reasons


@pytest.mark.soak
def test_what_a_standby_cannot_do_is_said_and_nothing_else_until_it_is_the_primary(
    looks: list[None], standby: Live
) -> None:
    """Repairs made health say that the rows cannot be read; LISTEN was tried a minute later."""
    standby.serves("one")
    seen: set[str] = set()
    before = len(looks)

    def compared() -> bool:
        seen.update(reason.what for reason in said(standby))
        return len(looks) > before + 3 and len(seen) > 1

    wait_until(compared, "rows are compared again and again", 30.0)
    assert [what for what in seen if "cannot be read" in what] == []
    assert any("standby, which refuses LISTEN" in what for what in seen)
    assert any("what this process runs is not recorded" in what for what in seen)

    assert standby.sql("SELECT pg_promote()") == [(True,)]
    # Sixty comparisons, a second each, came before LISTEN was tried again.
    wait_until(lambda: not said(standby), "all is well", 20.0)
    assert standby.sql("SELECT count(*) FROM plugin_endpoints WHERE plugin_id = 'gone'") == [(0,)]
    standby.client.post("/plugins/one/toggle", status=200)
    wait_until(lambda: standby.client.get("/one", status="*").status_code == 404, "it follows")
