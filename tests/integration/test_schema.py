"""`schema.sql` on a real PostgreSQL: anew, again, at once, and over the Go design's tables."""

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.schema import apply_schema
from tests.support.databases import DIGEST, Session, apply, empty, session
from tests.support.first_tables import GO_ROWS, GO_TABLES, GO_TRIGGERS

KEYS = {"operation", "schema", "table", "id", "name", "new_data", "timestamp"}

Sql = Callable[..., list[tuple[Any, ...]]]


def apply_at_once(url: str, barrier: Any, results: Any) -> None:
    """The body of one of several processes that start together."""
    try:
        barrier.wait(30)
        results.put(apply(url))
    except BaseException as error:
        results.put(repr(error))
        raise


@pytest.fixture(scope="module")
def current_url(new_database: Callable[[], str]) -> str:
    """One up-to-date database for the tests of what the schema does."""
    url = new_database()
    apply(url)
    return url


@pytest.fixture
def sql(current_url: str) -> Iterator[Session]:
    """A session on an up-to-date, empty database, listening."""
    with session(current_url) as opened:
        empty(opened)
        opened("LISTEN plugin_changes; LISTEN fence")
        yield opened


def columns(sql: Sql, table: str) -> dict[str, tuple[Any, ...]]:
    found = sql(
        "SELECT column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_name = %s",
        table,
    )
    return {name: tuple(rest) for name, *rest in found}


def triggers(sql: Sql) -> set[tuple[str, str]]:
    return set(sql("SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal"))


def keep_version(sql: Sql, name: str, digest: str) -> None:
    """Keep a version without any bytes, as a publish does."""
    sql(
        "INSERT INTO plugin_versions VALUES (%s, %s, '', '', %s)",
        *(name, digest, json.dumps({"version": "1", "endpoints": [], "completed": True})),
    )


def generation(sql: Sql, name: str) -> int:
    return sql("SELECT generation FROM plugins WHERE name = %s", name)[0][0]


# --- applying ------------------------------------------------------------------------------


def test_an_empty_database_gets_the_schema_once(database_url: str) -> None:
    assert apply(database_url) is True
    assert apply(database_url) is False


def test_the_whole_file_can_be_applied_twice(database_url: str) -> None:
    apply(database_url)
    with session(database_url) as sql:
        sql("INSERT INTO plugins (name, source_path) VALUES ('kept', '/p/kept')")
        before = triggers(sql)
        sql("COMMENT ON TABLE plugins IS 'an older schema'")
        assert apply(database_url) is True
        assert triggers(sql) == before
        assert sql("SELECT name, generation FROM plugins") == [("kept", 1)]


def test_a_lost_trigger_is_put_back(database_url: str) -> None:
    apply(database_url)
    with session(database_url) as sql:
        before = triggers(sql)
        sql("DROP TRIGGER plugins_notify_update ON plugins")
        assert apply(database_url) is True
        assert triggers(sql) == before


@pytest.mark.parametrize("go_tables", [False, True])
def test_eight_processes_that_start_together_apply_it_once(
    database_url: str, go_tables: bool
) -> None:
    if go_tables:
        with session(database_url) as sql:
            sql(GO_TABLES + GO_ROWS + GO_TRIGGERS)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [
        context.Process(target=apply_at_once, args=(database_url, barrier, results))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    assert sorted(found, key=str) == [False] * 7 + [True]


def test_eight_threads_apply_it_once(database_url: str) -> None:
    database = Database(database_url)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Repository(database).apply_schema(), range(8)))
    database.close()
    assert sorted(found) == [False] * 7 + [True]


def test_an_idle_session_with_row_locks_does_not_hold_up_a_start(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('locked')")
    psql = psycopg2.connect(sql.connection.dsn)
    with contextlib.closing(psql), psql.cursor() as cursor:
        cursor.execute("UPDATE plugins SET description = 'mine' WHERE name = 'locked'")
        began = time.monotonic()
        with contextlib.closing(psycopg2.connect(sql.connection.dsn)) as other:
            with other.cursor() as impatient:
                impatient.execute("SET statement_timeout = '3s'")
            other.commit()
            assert apply_schema(other) is False
        assert time.monotonic() - began < 3.0


# --- over the tables of the Go design --------------------------------------------------------


@pytest.fixture
def migrated(database_url: str) -> Iterator[Session]:
    """A session on a database of the Go design with rows and triggers, brought to the schema."""
    with session(database_url) as sql:
        sql(GO_TABLES + GO_ROWS + GO_TRIGGERS)
        with pytest.raises(psycopg2.Error, match='no field "name"'):
            sql("INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
                " VALUES ('uuid-1', 'GET', '/x', 'h')")  # fmt: skip
        apply(database_url)
        sql("LISTEN plugin_changes; LISTEN fence")
        yield sql


def test_rows_of_the_go_design_are_kept_as_they_are(migrated: Session) -> None:
    assert migrated(
        "SELECT id, name, description, version, author, type, path, binary_path, source_path,"
        " status, generation, source_digest, error FROM plugins ORDER BY id"
    ) == [
        ("uuid-1", "powertable", "A plugin", "0.1.0", "Benana Team", "dynamic", None,
         "/abs/path/bin/plugins/powertable.so", "../powertable", "active", 1, None, None),
        ("uuid-2", "My-Plugin", None, "1", None, "static", None, None, "../My-Plugin",
         "inactive", 1, None, None),
        ("uuid-3", "other", None, "1", None, "dynamic", None, None, "../other",
         "loaded", 1, None, None),
    ]  # fmt: skip
    assert migrated("SELECT plugin_id, method, path FROM plugin_endpoints") == [
        ("uuid-1", "GET", "/powertable")
    ]


def test_triggers_of_the_go_design_are_gone(migrated: Session) -> None:
    assert {name for _, name in triggers(migrated)} == {
        "plugins_stamp",
        "plugins_version",
        "plugins_routes_insert",
        "plugins_routes_update",
        "plugins_notify_row",
        "plugins_notify_update",
        "plugins_notify_truncate",
        "plugin_endpoints_notify",
        "plugin_versions_notify",
    }


def test_endpoints_and_deletes_work_again(migrated: Session) -> None:
    migrated(
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " VALUES ('uuid-1', 'POST', '/powertable', 'h')"
    )
    assert [(n["table"], n["name"]) for n in migrated.notified()] == [("plugin_endpoints", None)]
    for name in ("powertable", "My-Plugin", "other"):
        migrated("DELETE FROM plugins WHERE name = %s", name)
    assert migrated("SELECT count(*) FROM plugins") == [(0,)]
    assert migrated("SELECT count(*) FROM plugin_endpoints") == [(0,)]
    assert [(n["operation"], n["id"], n["name"]) for n in migrated.notified()] == [
        ("DELETE", "uuid-1", "powertable"),
        ("DELETE", "uuid-2", "My-Plugin"),
        ("DELETE", "uuid-3", "other"),
    ]


def test_each_change_of_an_old_row_notifies_once(migrated: Session) -> None:
    migrated("UPDATE plugins SET status = 'inactive' WHERE name = 'powertable'")
    (found,) = migrated.notified()
    assert (found["operation"], found["name"], found["new_data"]["generation"]) == (
        "UPDATE",
        "powertable",
        2,
    )


def test_an_old_row_that_breaks_a_check_can_be_put_right(migrated: Session) -> None:
    migrated("UPDATE plugins SET name = 'my_plugin' WHERE name = 'My-Plugin'")
    migrated("UPDATE plugins SET status = 'active' WHERE name = 'other'")
    assert migrated("SELECT name, status FROM plugins ORDER BY id") == [
        ("powertable", "active"),
        ("my_plugin", "inactive"),
        ("other", "active"),
    ]


# --- columns and checks ------------------------------------------------------------------------


def test_the_columns_are_those_of_the_go_design_and_three_more(
    sql: Session, new_database: Callable[[], str]
) -> None:
    with session(new_database()) as go:
        go(GO_TABLES)
        expected = columns(go, "plugins")
        assert columns(sql, "plugin_endpoints") == columns(go, "plugin_endpoints")
    assert columns(sql, "plugins") == {
        **expected,
        "generation": ("bigint", None, "NO"),
        "source_digest": ("character varying", 32, "YES"),
        "error": ("jsonb", None, "YES"),
    }


def test_a_migrated_database_has_the_columns_of_a_new_one(
    migrated: Session, new_database: Callable[[], str]
) -> None:
    url = new_database()
    apply(url)
    with session(url) as new:
        for table in ("plugins", "plugin_endpoints", "plugin_versions", "plugin_failures"):
            assert columns(migrated, table) == columns(new, table)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "Abc",
        "1a",
        "_a",
        "a-b",
        "a.b",
        "a/b",
        "..",
        "../a",
        "a b",
        " a",
        "a ",
        "a\n",
        "\na",
        "a\nb",
        "ä",
        "aß",
        "a٣",
        "ａ",
        "a" * 64,
        "a'",
        'a"',
        "a\\",
        "a{}",
        "a\u200b",
    ],
)
def test_a_name_that_is_none_is_refused(sql: Session, name: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql("INSERT INTO plugins (name) VALUES (%s)", name)


@pytest.mark.parametrize("name", ["a", "a_", "a1", "a__9", "z" * 63])
def test_a_name_that_is_one_is_taken(sql: Session, name: str) -> None:
    sql("INSERT INTO plugins (name) VALUES (%s)", name)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        sql("INSERT INTO plugins (name) VALUES (%s)", name)


@pytest.mark.parametrize("status", ["", "Active", "active ", "failed", "loaded", None])
def test_a_status_that_is_none_is_refused(sql: Session, status: str | None) -> None:
    sql("INSERT INTO plugins (name, status) VALUES ('good', 'inactive')")
    with pytest.raises((psycopg2.errors.CheckViolation, psycopg2.errors.NotNullViolation)):
        sql("UPDATE plugins SET status = %s", status)
    assert sql("SELECT status, generation FROM plugins") == [("inactive", 1)]


def test_a_name_and_a_source_path_are_enough(sql: Session) -> None:
    sql("INSERT INTO plugins (name, source_path) VALUES ('one', '/p/one'), ('two', '/p/two')")
    found = sql("SELECT id, version, type, status, generation, source_digest FROM plugins")
    assert {row[1:] for row in found} == {("", "static", "active", 1, None)}
    ids = {row[0] for row in found}
    assert len(ids) == 2
    assert {len(row_id) for row_id in ids} == {36}


def test_endpoints_go_with_their_plugin(sql: Session) -> None:
    sql("INSERT INTO plugins (id, name) VALUES ('1', 'one'), ('2', 'two')")
    sql(
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " VALUES ('1', 'GET', '/a', 'h'), ('1', 'GET', '/b', 'h'), ('2', 'GET', '/c', 'h')"
    )
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        sql("INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
            " VALUES ('3', 'GET', '/a', 'h')")  # fmt: skip
    sql("DELETE FROM plugins WHERE name = 'one'")
    assert sql("SELECT plugin_id, path FROM plugin_endpoints") == [("2", "/c")]
    sql("TRUNCATE plugins CASCADE")
    assert sql("SELECT count(*) FROM plugin_endpoints") == [(0,)]


# --- the payload -----------------------------------------------------------------------------


def test_insert_update_delete_and_truncate_each_notify(sql: Session) -> None:
    sql("INSERT INTO plugins (id, name, version) VALUES ('1', 'one', '1.0')")
    sql("UPDATE plugins SET version = '2.0'")
    sql("DELETE FROM plugins")
    sql("TRUNCATE plugins CASCADE")
    heard = sql.notified()
    found = [n for n in heard if n["table"] == "plugins"]
    assert [n["operation"] for n in heard if n not in found] == ["TRUNCATE"], "of the endpoints"
    assert [(n["operation"], n["id"], n["name"]) for n in found] == [
        ("INSERT", "1", "one"),
        ("UPDATE", "1", "one"),
        ("DELETE", "1", "one"),
        ("TRUNCATE", None, None),
    ]
    assert all(n.keys() == KEYS for n in heard)
    assert [n["new_data"] and n["new_data"]["version"] for n in found] == ["1.0", "2.0", None, None]
    assert all(abs(n["timestamp"] - time.time()) < 60 for n in found)
    assert [n["timestamp"] for n in found] == sorted(n["timestamp"] for n in found)


def test_new_data_is_the_row_as_it_is_committed(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql("UPDATE plugins SET status = 'inactive'")
    found = sql.notified()[-1]["new_data"]
    assert found == sql("SELECT row_to_json(plugins) FROM plugins")[0][0]
    assert (found["generation"], found["status"]) == (2, "inactive")


def test_a_rename_notifies_both_names(sql: Session) -> None:
    sql("INSERT INTO plugins (id, name) VALUES ('1', 'one')")
    sql.notified()
    sql("UPDATE plugins SET name = 'two'")
    found = sql.notified()
    assert {n["name"] for n in found} == {"one", "two"}
    assert all(n.keys() == KEYS for n in found)


def test_an_update_that_changes_nothing_is_silent(sql: Session) -> None:
    sql("INSERT INTO plugins (name, error) VALUES ('one', '{\"a\": 1}')")
    before = sql("SELECT plugins FROM plugins")
    sql.notified()
    sql("UPDATE plugins SET status = status, name = 'one', error = '{\"a\":1}'")
    sql("UPDATE plugins SET updated_at = updated_at WHERE name = 'one'")
    sql("UPDATE plugins SET status = 'inactive' WHERE name = 'nobody'")
    assert sql.notified() == []
    assert sql("SELECT plugins FROM plugins") == before


@pytest.mark.parametrize("added", ["json", "point", "polygon[]"])
def test_a_column_of_a_type_that_cannot_be_compared_stops_no_statement(
    sql: Session, added: str
) -> None:
    """Every change of a row failed: could not identify an equality operator for type json."""
    value = {"json": "{}", "point": "(1, 2)", "polygon[]": "{}"}[added]
    sql(f"ALTER TABLE plugins ADD COLUMN extra {added}")
    try:
        sql("INSERT INTO plugins (name, extra) VALUES ('one', %s)", value)
        sql.notified()
        sql("UPDATE plugins SET status = status")
        assert sql.notified() == []
        sql("UPDATE plugins SET status = 'inactive'")
        assert generation(sql, "one") == 2
        assert [found["operation"] for found in sql.notified()] == ["UPDATE"]
    finally:
        sql("ALTER TABLE plugins DROP COLUMN extra")


def test_a_rollback_is_silent(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql.notified()
    for statement in (
        "INSERT INTO plugins (name) VALUES ('two')",
        "UPDATE plugins SET status = 'inactive'",
        "DELETE FROM plugins",
        "TRUNCATE plugins CASCADE",
    ):
        sql("BEGIN")
        sql(statement)
        sql("ROLLBACK")
    assert sql.notified() == []


def test_each_of_many_rows_is_notified(sql: Session) -> None:
    sql("INSERT INTO plugins (name) SELECT 'p' || n FROM generate_series(1, 500) n")
    assert {n["name"] for n in sql.notified()} == {f"p{n}" for n in range(1, 501)}
    sql("DELETE FROM plugins")
    assert {n["name"] for n in sql.notified()} == {f"p{n}" for n in range(1, 501)}


@pytest.mark.parametrize(
    "description",
    ["x" * 9000, "🍌" * 9000, "ä" * 3960, "\x01" * 1400, '"\\' * 2000, "日" * 2600, "x" * 1000000],
    ids=["9k", "emoji", "umlauts", "control", "quotes", "kanji", "1m"],
)
def test_a_description_too_long_for_a_payload_is_committed_and_notified(
    sql: Session, description: str
) -> None:
    sql("INSERT INTO plugins (name, description) VALUES ('one', %s)", description)
    sql("UPDATE plugins SET version = '2'")
    sql("DELETE FROM plugins")
    found = sql.notified()
    assert [n["operation"] for n in found] == ["INSERT", "UPDATE", "DELETE"]
    assert {(n["name"], n["new_data"]) for n in found} == {("one", None)}


def test_a_payload_stays_short_around_every_length(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql.notified()
    kept = []
    for length in range(7_300, 7_700, 7):
        sql("UPDATE plugins SET description = %s", "y" * length)
        (found,) = sql.notified()  # checks the length
        kept.append(found["new_data"] is not None)
    assert kept == sorted(kept, reverse=True)
    assert kept[0]
    assert not kept[-1]


@pytest.mark.parametrize("character", ["x", "🍌", "\x01", '"'])
def test_the_longest_id_fits_into_every_payload(sql: Session, character: str) -> None:
    row_id = character * 255
    sql("INSERT INTO plugins (id, name) VALUES (%s, 'one')", row_id)
    sql("UPDATE plugins SET description = repeat('d', 9000), author = repeat('🍌', 255)")
    sql("UPDATE plugins SET name = repeat('z', 63), status = 'inactive'")
    sql("DELETE FROM plugins")
    found = sql.notified()
    assert [n["operation"] for n in found] == ["INSERT", "UPDATE", "UPDATE", "UPDATE", "DELETE"]
    assert {n["id"] for n in found} == {row_id}


def test_the_longest_old_name_fits_into_every_payload(database_url: str) -> None:
    with session(database_url) as sql:
        sql(GO_TABLES)
        name, row_id = "\x01" * 255, "\x02" * 255
        sql("INSERT INTO plugins (id, name, version) VALUES (%s, %s, '1')", row_id, name)
        apply(database_url)
        sql("LISTEN plugin_changes; LISTEN fence")
        sql("UPDATE plugins SET name = 'short', description = repeat('d', 9000)")
        assert {n["name"] for n in sql.notified()} == {name, "short"}


def test_any_text_comes_through_as_it_is(sql: Session) -> None:
    nasty = "\"'\\ \\u0000 \\n\n\t\r\x7f {}$$%s \ufeff🍌 e\u0301 日本語 \U0010ffff'; DROP --"
    sql(
        "INSERT INTO plugins (id, name, description, version, author, path, source_path)"
        " VALUES (%s, 'one', %s, %s, %s, %s, %s)",
        *[nasty] * 6,
    )
    (found,) = sql.notified()
    assert found["id"] == nasty
    assert {found["new_data"][key] for key in ("description", "version", "author", "path")} == {
        nasty
    }


# --- the stamp ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "status = 'inactive'",
        f"binary_path = '/b/one-{DIGEST}.pyz'",
        "binary_path = NULL",
        "name = 'two'",
        "id = 'another'",
        "generation = generation + 1",
        "status = 'inactive', binary_path = NULL, name = 'two', generation = generation + 1",
        "generation = 1",
        "generation = -5",
        "generation = 0, status = 'inactive'",
    ],
)
def test_the_generation_rises_by_one_when_what_is_served_changes(sql: Session, change: str) -> None:
    keep_version(sql, "one", DIGEST)
    sql("INSERT INTO plugins (id, name, binary_path, generation) VALUES ('1', 'one', '/b/x', 7)")
    sql(f"UPDATE plugins SET {change}")
    assert sql("SELECT generation FROM plugins") == [(8,)]


@pytest.mark.parametrize(
    "change",
    [
        "description = 'x'",
        "error = '{}'",
        "version = '9'",
        "author = 'me'",
        "type = 'dynamic'",
        "path = 'x'",
        "source_path = '/else'",
        "source_digest = NULL",
        "generation = 7",
        "created_at = now()",
        "status = 'active', name = 'one'",
    ],
)
def test_the_generation_stays_where_the_same_is_served(sql: Session, change: str) -> None:
    sql("INSERT INTO plugins (name, generation, source_digest) VALUES ('one', 7, 'abc')")
    sql(f"UPDATE plugins SET {change}")
    assert generation(sql, "one") == 7


def test_a_higher_generation_is_taken_as_it_is(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql("UPDATE plugins SET generation = 1000")
    assert generation(sql, "one") == 1000
    sql("UPDATE plugins SET generation = 5")
    assert generation(sql, "one") == 1001


MOST = 2**62
"""What a generation may be set to; from there it is counted up."""


@pytest.mark.parametrize("wanted", [MOST + 1, 9 * 10**18, 2**63 - 1])
def test_a_generation_without_room_to_grow_is_refused(sql: Session, wanted: int) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    for statement in (
        "UPDATE plugins SET generation = %s",
        "INSERT INTO plugins (name, generation) VALUES ('two', %s)",
    ):
        with pytest.raises(psycopg2.errors.CheckViolation, match=str(MOST)) as caught:
            sql(statement, wanted)
        assert caught.value.diag.constraint_name == "plugins_generation_check"
    assert sql("SELECT name, generation FROM plugins") == [("one", 1)]
    sql("UPDATE plugins SET status = 'inactive'")
    assert generation(sql, "one") == 2


def test_the_highest_generation_that_can_be_set_is_counted_up(sql: Session) -> None:
    sql("INSERT INTO plugins (name, generation) VALUES ('one', %s)", MOST)
    sql("INSERT INTO plugins (name) VALUES ('two')")
    sql("UPDATE plugins SET generation = %s WHERE name = 'two'", MOST)
    for change in ("status = 'inactive'", "generation = generation + 1", "generation = 3"):
        sql(f"UPDATE plugins SET {change}")
    assert generation(sql, "one") == generation(sql, "two") == MOST + 3


def test_without_its_trigger_the_table_still_refuses(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql("SET session_replication_role = replica")
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql("UPDATE plugins SET generation = %s", 2**63 - 1)


@pytest.mark.parametrize("stuck", [9 * 10**18 + 1, 2**63 - 1])
def test_a_row_that_cannot_be_counted_up_is_given_room_by_the_schema(
    database_url: str, stuck: int
) -> None:
    apply(database_url)
    with session(database_url) as sql:
        sql("ALTER TABLE plugins DROP CONSTRAINT plugins_generation_check")
        sql("ALTER TABLE plugins DISABLE TRIGGER USER")
        sql("INSERT INTO plugins (name, generation) VALUES ('stuck', %s), ('fine', 7)", stuck)
        sql("ALTER TABLE plugins ENABLE TRIGGER USER; COMMENT ON TABLE plugins IS 'older'")
        assert apply(database_url) is True
        sql("UPDATE plugins SET status = 'inactive'")
        assert sql("SELECT name, generation FROM plugins ORDER BY name") == [
            ("fine", 8),
            ("stuck", MOST + 1),
        ]


def test_an_upsert_raises_the_generation_too(sql: Session) -> None:
    for _ in range(3):
        sql(
            "INSERT INTO plugins (id, name, status) VALUES ('1', 'one', 'inactive')"
            " ON CONFLICT (name) DO UPDATE SET status = CASE plugins.status"
            " WHEN 'active' THEN 'inactive' ELSE 'active' END"
        )
    assert generation(sql, "one") == 3


@pytest.mark.parametrize("statement", ["generation = generation + 1", "status = %s"])
def test_concurrent_updates_get_distinct_generations(
    sql: Session, current_url: str, statement: str
) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    statement = statement.replace(
        "%s", "CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END"
    )

    def update(_: int) -> list[int]:
        with session(current_url) as mine:
            return [
                mine(f"UPDATE plugins SET {statement} RETURNING generation")[0][0]
                for _ in range(25)
            ]

    with ThreadPoolExecutor(8) as pool:
        found = [number for numbers in pool.map(update, range(8)) for number in numbers]
    assert sorted(found) == list(range(2, 202))
    assert len(sql.notified()) == 201


def test_updated_at_follows_real_changes_only(sql: Session) -> None:
    sql("INSERT INTO plugins (name, updated_at) VALUES ('one', '2001-01-01')")
    sql("UPDATE plugins SET status = status")
    assert sql("SELECT updated_at < '2002-01-01' FROM plugins") == [(True,)]
    sql("UPDATE plugins SET description = 'x', updated_at = '2001-02-01'")
    assert sql("SELECT updated_at > now() - interval '1 minute' FROM plugins") == [(True,)]
    assert sql("SELECT created_at <= updated_at FROM plugins") == [(True,)]


def test_two_updates_of_one_transaction_have_times_of_their_own(sql: Session) -> None:
    sql("INSERT INTO plugins (name) VALUES ('one')")
    sql("BEGIN")
    times = [
        sql("UPDATE plugins SET version = %s RETURNING updated_at", str(n))[0][0] for n in range(3)
    ]
    sql("COMMIT")
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("source_path = '/p/two'", None),
        ("source_path = NULL", None),
        (f"binary_path = '/b/one-{DIGEST}.pyz'", DIGEST),
        (f"binary_path = '/b/one-{DIGEST}.pyz', source_path = '/p/two'", DIGEST),
        ("binary_path = NULL", "old"),
        ("source_path = '/p/two', source_digest = 'mine'", "mine"),
        (f"binary_path = '/b/one-{DIGEST}.pyz', source_digest = 'mine'", "mine"),
        ("status = 'inactive'", "old"),
        ("description = 'x'", "old"),
        ("source_digest = NULL", None),
    ],
)
def test_the_source_digest_follows_the_paths(
    sql: Session, change: str, expected: str | None
) -> None:
    keep_version(sql, "one", DIGEST)
    sql(
        "INSERT INTO plugins (name, source_path, binary_path, source_digest)"
        " VALUES ('one', '/p/one', '/b/one-old.pyz', 'old')"
    )
    sql(f"UPDATE plugins SET {change}")
    assert sql("SELECT source_digest FROM plugins") == [(expected,)]
