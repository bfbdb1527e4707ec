"""Rows that are changed where only what notifies fires, as in a replica's session."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import Session, session
from tests.support.live import Live, running, settings_for
from tests.support.plugins import source
from tests.support.waiting import wait_until

FOLLOWED_SECONDS = 1.0


@pytest.fixture(scope="module")
def live(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A server with a plugin in two versions, of which the second is served."""
    settings = settings_for(tmp_path_factory.mktemp("unstamped"), new_database())
    settings.plugins_dir.mkdir()
    with running(settings) as live:
        yield live


@pytest.fixture
def sql(live: Live) -> Iterator[Session]:
    """A session in which BEFORE triggers and foreign keys do not count."""
    for text, version in (("first", "1.0.0"), ("second", "2.0.0")):
        live.write("one", source("one", text, version))
        live.client.post("/plugins/one/reload", status=202)
        wait_until(lambda expected=text: says(live) == expected, text)
    well(live)
    with session(str(live.settings.database_url)) as opened:
        opened("SET session_replication_role = replica")
        yield opened


def says(live: Live) -> str | None:
    answer = live.client.get("/one", status="*")
    return answer.json["says"] if answer.status_code == 200 else None


def well(live: Live) -> None:
    wait_until(lambda: not live.app.manager.health.reasons, "all is well")


def path_of(sql: Session, which: str) -> str:
    """The path of the archive of the older or the newer version."""
    order = "" if which == "first" else "DESC"
    found = sql(
        "SELECT source_digest FROM plugin_versions WHERE plugin_name = 'one'"
        f" ORDER BY created_at {order} LIMIT 1"
    )
    return f"/b/one-{found[0][0]}.pyz"


def record(sql: Session) -> tuple[Any, ...]:
    """What the row says of its version, and whether that is what its archive says."""
    return sql(
        "SELECT p.version, p.source_digest = v.source_digest,"
        " (SELECT json_agg(json_build_array(method, path, handler) ORDER BY id)::jsonb"
        " FROM plugin_endpoints WHERE plugin_id = p.id) = v.metadata->'endpoints'"
        " FROM plugins p JOIN plugin_versions v ON v.plugin_name = p.name"
        " AND v.source_digest = left(right(p.binary_path, 36), 32) WHERE p.name = 'one'"
    )[0]


def test_a_row_that_is_set_back_is_followed_and_says_so(
    live: Live, sql: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """The generation was the same, so the new version went on, and the row named the old one."""
    before = live.generation("one")
    sql("UPDATE plugins SET binary_path = %s", path_of(sql, "first"))
    wait_until(lambda: says(live) == "first", "it is followed", FOLLOWED_SECONDS)
    assert live.generation("one") > before
    assert record(sql) == ("1.0.0", True, True)
    assert live.plugin("one")["version"] == "1.0.0"
    assert caplog.text.count("where our triggers do not fire") == 1
    well(live)


def test_a_row_restored_under_the_same_generation_is_followed(live: Live, sql: Session) -> None:
    """As from a dump of another time, which is whole in itself: only what is served tells."""
    digest = path_of(sql, "first")[-36:-4]
    sql(
        "UPDATE plugins SET binary_path = %s, source_digest = %s, version = '1.0.0'",
        path_of(sql, "first"),
        digest,
    )
    wait_until(lambda: says(live) == "first", "it is followed", FOLLOWED_SECONDS)
    assert record(sql) == ("1.0.0", True, True)
    well(live)


@pytest.mark.parametrize("way", ["INSERT", "COPY"])
def test_a_row_that_comes_without_a_version_gets_it(live: Live, sql: Session, way: str) -> None:
    path = path_of(sql, "first")
    sql("DELETE FROM plugins")
    wait_until(lambda: says(live) is None, "it is gone", FOLLOWED_SECONDS)
    if way == "INSERT":
        sql("INSERT INTO plugins (name, binary_path) VALUES ('one', %s)", path)
    else:
        with sql.connection.cursor() as cursor:
            cursor.copy_expert(
                "COPY plugins (name, binary_path) FROM STDIN CSV", io.StringIO(f"one,{path}\n")
            )
    wait_until(lambda: says(live) == "first", "it is served", FOLLOWED_SECONDS)
    wait_until(lambda: record(sql) == ("1.0.0", True, True), "it says what it serves")
    well(live)


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("UPDATE plugins SET status = 'inactive'", "UPDATE plugins SET status = 'active'"),
        ("UPDATE plugins SET binary_path = NULL", "UPDATE plugins SET binary_path = '{path}'"),
    ],
)
def test_what_takes_effect_by_itself_is_followed(
    live: Live, sql: Session, change: str, back: str
) -> None:
    path = path_of(sql, "second")
    sql(change)
    wait_until(lambda: says(live) is None, "it is gone", FOLLOWED_SECONDS)
    sql(back.format(path=path))
    wait_until(lambda: says(live) == "second", "it is back", FOLLOWED_SECONDS)
    well(live)


def test_a_truncate_is_followed(live: Live, sql: Session) -> None:
    sql("TRUNCATE plugins CASCADE")
    wait_until(lambda: says(live) is None, "it is gone", FOLLOWED_SECONDS)
    live.client.post("/plugins/one/reload", status=202)
    wait_until(lambda: says(live) == "second", "it is registered again")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/b/one-" + "0" * 32 + ".pyz", "the version 00000000000000000000000000000000 of the"),
        ("/b/nonsense", "expected the path of one of its archives"),
    ],
)
def test_what_cannot_be_served_is_said_and_the_last_good_goes_on(
    live: Live, sql: Session, path: str, sentence: str
) -> None:
    """An ordinary session is refused; here nothing was said until the next worker started."""
    good = path_of(sql, "second")
    sql("UPDATE plugins SET binary_path = %s", path)
    (reason,) = wait_until(lambda: live.app.manager.health.reasons, "it is said", FOLLOWED_SECONDS)
    assert reason.plugin == "one"
    assert sentence in reason.what
    assert reason.what.endswith("is served; set binary_path in an ordinary session")
    assert says(live) == "second"
    wait_until(
        lambda: [r["plugin"] for r in live.plugin("one")["reasons"]] == ["one"], "it is reported"
    )
    sql("SET session_replication_role = origin")
    sql("UPDATE plugins SET binary_path = %s", good)
    well(live)


def test_endpoints_whose_row_was_deleted_are_dropped(live: Live, sql: Session) -> None:
    """Foreign keys do not count there."""
    sql("DELETE FROM plugins")
    assert sql("SELECT count(*) > 0 FROM plugin_endpoints") == [(True,)]
    live.app.manager._serving.upkeep.look()
    assert sql("SELECT count(*) FROM plugin_endpoints") == [(0,)]
    live.client.post("/plugins/one/reload", status=202)
    wait_until(lambda: says(live) == "second", "it is registered again")


def test_a_wrong_row_is_found_by_a_start(new_database: Callable[[], str], tmp_path: Path) -> None:
    """Nobody serves another version then, by which it could be told."""
    settings = settings_for(tmp_path, new_database())
    settings.plugins_dir.mkdir()
    with running(settings) as live:
        for text, version in (("first", "1.0.0"), ("second", "2.0.0")):
            live.write("one", source("one", text, version))
            wait_until(lambda expected=text: says(live) == expected, text)
    with session(str(settings.database_url)) as sql:
        sql("SET session_replication_role = replica")
        sql("UPDATE plugins SET binary_path = %s", path_of(sql, "first"))
        assert record(sql) == ("2.0.0", False, True)
        with running(settings) as live:
            wait_until(lambda: says(live) == "first", "it serves what the row names")
            wait_until(lambda: record(sql) == ("1.0.0", True, True), "it says what it serves")
            well(live)
