"""The repository on a real PostgreSQL."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from app.database.connection import CONNECT_SECONDS
from app.database.pool import Database
from app.database.publication import KEPT_VERSIONS
from app.database.repository import Repository
from app.database.statements import statement, transaction
from app.errors import (
    ConflictError,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PluginError,
)
from app.plugin import PluginMetadata
from app.records import ACTIVE, AUTO, FRESH, HOT, Reload, artifact_name
from tests.support.clusters import NewPostgres
from tests.support.databases import Session, session
from tests.support.publications import MESSAGES, artifact, digest, publish, report
from tests.support.waiting import wait_until

# --- publications ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/a/{x}", "/a/{y}"), ("/{x}", "/{y}"), ("/a/{x:int}", "/a/{x}")],
)
def test_of_two_publishes_with_one_route_exactly_one_wins(
    repository: Repository, sql: Session, first: str, second: str
) -> None:
    barrier = threading.Barrier(2)

    def attempt(name: str, path: str) -> str:
        barrier.wait(10)
        try:
            publish(repository, name, path)
        except ConflictError:
            return "refused"
        return "won"

    for _ in range(10):
        sql("TRUNCATE plugins CASCADE")
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(attempt, ("one", "two"), (first, second)))
        assert sorted(found) == ["refused", "won"]
        assert sql("SELECT count(*) FROM plugin_endpoints") == [(1,)]


def test_publishes_serialise_whatever_isolation_the_database_defaults_to(
    new_database: Callable[[], str],
) -> None:
    url = new_database()
    with session(url) as sql:
        name = url.rpartition("/")[2].partition("?")[0]
        sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    database = Database(url)
    repository = Repository(database)
    repository.apply_schema()
    holding = threading.Event()
    go_on = threading.Event()

    def first() -> None:
        with repository.publishing() as publication:
            assert publication.lock_row("one") is None
            holding.set()
            go_on.wait(10)
            found = report("one", "/a")
            publication.save(
                None,
                found.metadata,
                found.endpoints,
                source_path="/p/one",
                binary_path="/b/one",
                source_digest=digest(1),
                status=ACTIVE,
            )

    with ThreadPoolExecutor(2) as pool, session(url) as sql:
        one = pool.submit(first)
        assert holding.wait(10)
        two = pool.submit(publish, repository, "two", "/a")
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "two waits")
        go_on.set()
        one.result(10)
        # Refused as a conflict, or as something to be tried again; never both with one route.
        with pytest.raises((ConflictError, DatabaseUnavailableError)):
            two.result(10)
    database.close()


def test_a_failed_publish_leaves_nothing(repository: Repository, sql: Session) -> None:
    publish(repository, "one", "/a", number=1)
    before = repository.list_rows()
    with pytest.raises(RuntimeError), repository.publishing() as publication:
        row = publication.lock_row("one")
        publication.keep_version(artifact("one", 2), report("one", "/b"))
        publication.save(
            row,
            PluginMetadata("one", "2.0"),
            (),
            source_path="/x",
            binary_path="/y",
            source_digest=digest(2),
            status=ACTIVE,
        )
        raise RuntimeError
    assert repository.list_rows() == before
    assert sql("SELECT source_digest FROM plugin_versions") == [(digest(1),)]


def test_endpoints_that_are_as_they_were_stay_untouched(
    repository: Repository, sql: Session
) -> None:
    def rows() -> list[Any]:
        return sql("SELECT id, path, created_at FROM plugin_endpoints ORDER BY id")

    publish(repository, "one", "/a", "/b")
    before = rows()
    publish(repository, "one", "/a", "/b", number=2)
    assert rows() == before
    publish(repository, "one", "/b", "/a", number=3)
    assert [path for _, path, _ in rows()] == ["/b", "/a"]
    sql("DELETE FROM plugin_endpoints WHERE path = '/a'")
    publish(repository, "one", "/b", "/a", number=4)
    assert [path for _, path, _ in rows()] == ["/b", "/a"]


def test_a_publish_rewrites_the_endpoints_and_forgets_error_and_failure(
    repository: Repository, sql: Session
) -> None:
    first = publish(repository, "one", "/a", "/b")
    row = repository.find_row("one")
    assert row is not None
    repository.record_error(row, {"message": "broken"})
    repository.failures.record("one", "/p/one", {"message": "broken"})
    second = publish(repository, "one", "/c", number=2)
    assert second == (first[0], first[1] + 1)
    row = repository.find_row("one")
    assert row is not None
    assert (row.error, [e.path for e in row.endpoints]) == (None, ["/c"])
    assert repository.failures.list_all() == []


def test_an_inactive_plugin_stays_so_when_it_is_published(repository: Repository) -> None:
    publish(repository, "one", "/a")
    assert repository.toggle("one") is not None
    publish(repository, "one", "/a", number=2)
    row = repository.find_row("one")
    assert row is not None
    assert row.status == "inactive"


def test_a_session_that_holds_one_row_does_not_stop_the_publish_of_another(
    repository: Repository, sql: Session, url: str
) -> None:
    """Somebody ran `BEGIN; UPDATE plugins …` in psql and went for lunch."""
    publish(repository, "held", "/held")
    psql = psycopg2.connect(url)
    pool = ThreadPoolExecutor(2)
    try:
        with psql.cursor() as cursor:
            cursor.execute("UPDATE plugins SET description = 'mine' WHERE name = 'held'")
        held = pool.submit(publish, repository, "held", "/held", number=2)
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "held waits")
        other = pool.submit(publish, repository, "other", "/other")
        assert _done(other, 8.0), "the publish of another plugin waits for the held row"
    finally:
        psql.close()  # its transaction is rolled back
        pool.shutdown()
    with contextlib.suppress(DatabaseUnavailableError):  # given up, or made up for
        held.result()


def test_a_toggle_of_a_row_that_somebody_holds_gives_up(repository: Repository, url: str) -> None:
    """It would hold a request's thread for as long as psql stays open."""
    publish(repository, "held", "/held")
    psql = psycopg2.connect(url)
    pool = ThreadPoolExecutor(1)
    try:
        with psql.cursor() as cursor:
            cursor.execute("UPDATE plugins SET description = 'mine' WHERE name = 'held'")
        toggle = pool.submit(repository.toggle, "held")
        assert _done(toggle, 8.0), "the toggle waits without an end"
    finally:
        psql.close()
        pool.shutdown()
    assert isinstance(toggle.exception(), DatabaseUnavailableError)


def _done(future: Future[Any], seconds: float) -> bool:
    with contextlib.suppress(Exception):
        future.exception(seconds)
    return future.done()


# --- errors ------------------------------------------------------------------------------------


def test_an_error_is_noted_for_the_generation_that_it_belongs_to(repository: Repository) -> None:
    publish(repository, "one", "/a")
    old = repository.find_row("one")
    assert old is not None
    repository.record_error(old, {"message": "first"})
    found = repository.find_row("one")
    assert found is not None
    assert (found.error, found.generation) == ({"message": "first"}, old.generation)
    publish(repository, "one", "/a", number=2)
    repository.record_error(old, {"message": "late"})
    found = repository.find_row("one")
    assert found is not None
    assert found.error is None
    repository.record_error(found, None)
    assert repository.find_row("one") == found


def test_the_same_error_again_changes_nothing(repository: Repository, sql: Session) -> None:
    publish(repository, "one", "/a")
    row = repository.find_row("one")
    assert row is not None
    error = {"phase": "load", "message": "x", "file": None, "line": 3}
    repository.record_error(row, error)
    before = sql("SELECT xmin, updated_at FROM plugins")
    repository.record_error(row, dict(reversed(error.items())))
    assert sql("SELECT xmin, updated_at FROM plugins") == before


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_whatever_a_plugin_says_can_be_noted(repository: Repository, message: str) -> None:
    publish(repository, "one", "/a")
    row = repository.find_row("one")
    assert row is not None
    error = PluginError("one", message, file="main.py", line=1).as_record()
    repository.record_error(row, error)
    repository.failures.record("two", "/p/two", error)
    row, failure = repository.find_row("one"), repository.failures.find("two")
    assert row is not None
    assert row.error is not None
    assert failure is not None
    assert row.error == failure.error
    if "\0" not in message and message.isprintable():
        assert row.error == error


@pytest.mark.parametrize(
    "name",
    ["x" * 255, "x" * 4_000, "ä" * 255, "../x", "", " ", "a\nb", "a'b", "caf\udce9", "a\0b"],
    ids=["255", "4000", "umlauts", "dots", "empty", "blank", "newline", "quote", "bytes", "nul"],
)
def test_a_failure_of_any_folder_name_is_noted_and_forgotten(
    repository: Repository, name: str
) -> None:
    for message in ("first", "second"):
        repository.failures.record(name, f"/p/{name}", {"message": message})
    (found,) = repository.failures.list_all()
    assert found.error == {"message": "second"}
    assert repository.find_row(name) is None
    repository.failures.forget(name)
    assert repository.failures.list_all() == []


# --- versions ----------------------------------------------------------------------------------


def test_old_versions_are_dropped_but_never_the_one_in_use(
    repository: Repository, sql: Session
) -> None:
    for number in range(KEPT_VERSIONS):
        publish(repository, "one", "/a", number=number)
    publish(repository, "two", "/b", number=0)
    assert sql("SELECT count(*) FROM plugin_versions WHERE plugin_name = 'one'") == [
        (KEPT_VERSIONS,)
    ]
    publish(repository, "one", "/a", number=0)  # back to the oldest
    for number in range(100, 105):
        with repository.publishing() as publication:
            publication.keep_version(artifact("one", number), report("one", "/a"))
            dropped = publication.prune_versions("one")
        assert digest(0) not in dropped
    assert repository.find_artifact("one", digest(0)) == artifact("one", 0)
    assert repository.find_artifact("two", digest(0)) == artifact("two", 0)
    kept = {found for (found,) in sql("SELECT source_digest FROM plugin_versions"
                                      " WHERE plugin_name = 'one'")}  # fmt: skip
    assert kept == {digest(n) for n in (0, *range(5, KEPT_VERSIONS), *range(100, 105))}


@pytest.mark.parametrize(
    ("binary_path", "source_digest"),
    [(f"/other/host/{artifact_name('one', digest(1))}", "else"), (None, digest(1))],
    ids=["binary_path", "source_digest"],
)
def test_a_version_that_a_row_was_set_back_to_is_kept(
    repository: Repository, sql: Session, binary_path: str | None, source_digest: str
) -> None:
    for number in range(KEPT_VERSIONS + 1):
        publish(repository, "one", "/a", number=number)
    sql("UPDATE plugins SET binary_path = %s, source_digest = %s", binary_path, source_digest)
    with repository.publishing() as publication:
        for number in range(200, 200 + KEPT_VERSIONS):
            publication.keep_version(artifact("one", number), report("one"))
        dropped = publication.prune_versions("one")
    assert digest(1) not in dropped
    assert digest(2) in dropped
    assert repository.find_artifact("one", digest(1)) is not None


def kept_reload(sql: Session, number: int) -> Reload | None:
    """Return how a version of the plugin `one` goes live, as it is kept with it."""
    ((kept,),) = sql("SELECT reload FROM plugin_versions WHERE source_digest = %s", digest(number))
    return Reload.read(kept)


def test_how_a_version_goes_live_is_kept_with_it(repository: Repository, sql: Session) -> None:
    publish(repository, "one", "/a", number=1)
    publish(repository, "one", "/a", number=2)
    found = Reload(FRESH, "marshmallow keeps Tag", "register it once")
    repository.reloads.record("one", digest(2), found)
    repository.reloads.record("one", digest(2), Reload(HOT, "found out later"))
    assert kept_reload(sql, 1) is None
    row = repository.find_row("one")
    assert row is not None
    assert kept_reload(sql, 2) == row.reload == found
    (served,) = repository.served_rows(["one"])
    assert (served.reload, served.reload_why) == (FRESH, found.why)
    sql("UPDATE plugins SET binary_path = %s", f"/b/{artifact_name('one', digest(1))}")
    (served,) = repository.served_rows()
    assert (served.reload, served.reload_why) == (AUTO, "")


def test_what_a_manifest_says_of_reloads_is_kept_with_the_version(
    repository: Repository, sql: Session
) -> None:
    said = Reload(FRESH, "plugin.yaml says reload: fresh")
    with repository.publishing() as publication:
        publication.keep_version(artifact("one", 1), report("one"), said)
        publication.keep_version(artifact("one", 1), report("one"))
    repository.reloads.record("one", digest(1), Reload(HOT, "tried"))
    assert kept_reload(sql, 1) == said


def test_the_first_archive_of_a_digest_stands(repository: Repository) -> None:
    with repository.publishing() as publication:
        assert publication.keep_version(artifact("one", 1, b"first"), report("one"))
        assert not publication.keep_version(artifact("one", 1, b"second"), report("one"))
        assert publication.keep_version(artifact("one", 1, b"first"), report("one"))
    assert repository.find_artifact("one", digest(1)) == artifact("one", 1, b"first")


def test_a_served_row_comes_with_the_hash_of_the_archive_that_its_path_names(
    repository: Repository, sql: Session
) -> None:
    publish(repository, "one", "/a", number=1)
    publish(repository, "one", "/a", number=2)
    publish(repository, "two", "/b", number=3)

    def hashes() -> dict[str, str | None]:
        some = repository.served_rows(["one", "two"])
        assert some == repository.served_rows()
        return {row.name: row.archive_sha256 for row in some}

    assert hashes() == {"one": artifact("one", 2).sha256, "two": artifact("two", 3).sha256}
    sql("UPDATE plugins SET binary_path = %s WHERE name = 'one'", f"one-{digest(1)}.pyz")
    assert hashes()["one"] == artifact("one", 1).sha256
    for path in (f"/x/one-{digest(3)}.pyz", "short", "", None):
        sql("DELETE FROM plugins WHERE name = 'one'")
        sql("INSERT INTO plugins (name, binary_path) VALUES ('one', %s)", path)
        assert hashes()["one"] is None


# --- the database away -------------------------------------------------------------------------


def calls(repository: Repository, row: Any) -> dict[str, Callable[[], Any]]:
    """All that a repository can do, by name."""
    return {
        "apply_schema": repository.apply_schema,
        "list_rows": repository.list_rows,
        "find_row": lambda: repository.find_row("one"),
        "states.find": lambda: repository.states.find(None),
        "states.unknown": lambda: repository.states.unknown({"a": "b"}),
        "find_by_source": lambda: repository.find_by_source("/p", "p"),
        "served_rows": repository.served_rows,
        "served_rows_some": lambda: repository.served_rows(["one"]),
        "find_artifact": lambda: repository.find_artifact("one", digest(1)),
        "list_failures": repository.failures.list_all,
        "find_failure": lambda: repository.failures.find("one"),
        "publish": lambda: publish(repository, "one", "/a"),
        "record_error": lambda: repository.record_error(row, {"message": "x"}),
        "record_failure": lambda: repository.failures.record("one", "/p", {"message": "x"}),
        "forget_failure": lambda: repository.failures.forget("one"),
        "unregister": lambda: repository.unregister("one", "/p/one"),
        "toggle": lambda: repository.toggle("one"),
        "raise_generation": lambda: repository.raise_generation("one"),
    }


def test_every_call_says_so_while_the_server_is_away_and_works_when_it_is_back(
    open_path: Path, new_postgres: NewPostgres
) -> None:
    postgres = new_postgres(open_path / "var")
    database = Database(postgres.start())
    repository = Repository(database)
    try:
        repository.apply_schema()
        publish(repository, "one", "/a")
        row = repository.find_row("one")
        for name, call in calls(repository, row).items():
            call(), name
        publish(repository, "one", "/a")
        postgres.stop()
        for name, call in calls(repository, row).items():
            with pytest.raises(DatabaseUnavailableError) as caught:
                call()
            assert "\n" not in str(caught.value), name
        postgres.start()
        for call in calls(repository, repository.find_row("one")).values():
            call()
    finally:
        database.close()
        postgres.stop()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/none",
        "postgresql:///none?host=/nowhere",
        "postgresql://127.0.0.1:{port}/none",
        "postgresql://no-such-host.invalid/none",
    ],
)
def test_nobody_there_is_said_within_seconds(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        database = Database(url.format(port=silent.getsockname()[1]))
        repository = Repository(database)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            repository.list_rows()
        assert time.monotonic() - began < CONNECT_SECONDS + 3.0


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'not on fridays' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize(
    ("refused", "sqlstate"),
    [
        ("SELECT 1 / 0", "22012"),
        ("SELECT 9223372036854775807 + 1", "22003"),
        ("INSERT INTO plugins (name) VALUES (NULL)", "23502"),
        ("INSERT INTO plugins (name, status) VALUES ('one', 'no')", "23514"),
        ("SELECT FROM", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        (raising("42501"), "42501"),
        (raising("P0001"), "P0001"),
        (raising("0A000"), "0A000"),
        (raising("MY001"), "MY001"),
        (raising("55000"), "55000"),
        (raising("58030"), "58030"),
        (raising("XX000"), "XX000"),
        # Of another database, as a foreign table's whose server is away.
        (raising("08001"), "08001"),
        (raising("57P01"), "57P01"),
    ],
)
def test_what_the_database_refuses_is_no_outage(
    database: Database, refused: str, sqlstate: str
) -> None:
    for begin in (statement, transaction):
        with pytest.raises(DatabaseRefusedError) as caught, begin(database) as cursor:
            cursor.execute(refused)
        assert caught.value.sqlstate == sqlstate
        assert str(caught.value).startswith("the database refuses: ")
        assert "\n" not in str(caught.value)
        with begin(database) as cursor:
            cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    "passing",
    [
        *map(raising, ("40001", "40P01", "55P03", "57014", "53300", "53100")),
        "DO $$ BEGIN RAISE 'tuple concurrently updated' USING ERRCODE = 'XX000'; END $$",
        "CREATE SCHEMA public",
        "SET TRANSACTION READ ONLY; INSERT INTO plugins (name) VALUES ('one')",
        "SELECT pg_terminate_backend(pg_backend_pid())",
    ],
)
def test_what_passes_is_an_outage(database: Database, passing: str) -> None:
    with pytest.raises(DatabaseUnavailableError), transaction(database) as cursor:
        cursor.execute(passing)


@pytest.fixture
def guarded(repository: Repository, sql: Session) -> Iterator[Callable[[str], None]]:
    """Has a trigger of somebody's do something with each changed row of `plugins`."""
    publish(repository, "one", "/a")

    def guard(body: str) -> None:
        sql(
            "CREATE FUNCTION quota(used integer) RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'used up: %', used USING ERRCODE = '53300'; END $$;"
            f" CREATE FUNCTION f57() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body};"
            " RETURN NEW; END $$; CREATE TRIGGER f57 BEFORE UPDATE ON plugins FOR EACH ROW"
            " EXECUTE FUNCTION f57()"
        )

    yield guard
    sql("DROP FUNCTION f57 CASCADE; DROP FUNCTION quota")


@pytest.mark.parametrize(
    ("body", "sqlstate", "function"),
    [
        *(
            (f"RAISE 'used up' USING ERRCODE = '{code}'", code, "f57() line 1 at RAISE")
            for code in ("53000", "53100", "53400")
        ),
        ("PERFORM quota(9)", "53300", "quota(integer) line 1 at RAISE"),
    ],
)
def test_a_quota_that_a_trigger_raises_is_no_outage(
    guarded: Callable[[str], None], repository: Repository, body: str, sqlstate: str, function: str
) -> None:
    """PostgreSQL was said to lack what it needs, and neither code nor function was named."""
    guarded(body)
    with pytest.raises(DatabaseRefusedError, match="used up") as caught:
        repository.toggle("one")
    assert (caught.value.sqlstate, caught.value.raised) == (sqlstate, True)
    assert f"(SQLSTATE {sqlstate}, PL/pgSQL function {function})" in str(caught.value)


def test_what_postgresql_lacks_in_a_triggers_statement_is_an_outage(
    guarded: Callable[[str], None], repository: Repository
) -> None:
    guarded(
        "PERFORM set_config('temp_file_limit', '1kB', true), set_config('work_mem', '64kB', true);"
        " PERFORM count(*) FROM (SELECT n::text FROM generate_series(1, 99999) n ORDER BY 1) s"
    )
    with pytest.raises(DatabaseBusyError, match=r"lacks what it needs: .*temp_file_limit"):
        repository.toggle("one")


def test_a_refusal_does_not_show_the_row(repository: Repository, sql: Session) -> None:
    """PostgreSQL's detail does, whole: descriptions, paths and all."""
    publish(repository, "one", "/a", description="hunter2")
    sql("ALTER TABLE plugins ADD CONSTRAINT mine CHECK (status = 'active')")
    try:
        with pytest.raises(DatabaseRefusedError, match="mine") as caught:
            repository.toggle("one")
    finally:
        sql("ALTER TABLE plugins DROP CONSTRAINT mine")
    assert (caught.value.sqlstate, caught.value.constraint) == ("23514", "mine")
    assert "hunter2" not in str(caught.value)
    assert repository.toggle("one") is not None


def test_a_table_that_is_not_there_is_the_database_that_refuses(
    new_database: Callable[[], str],
) -> None:
    database = Database(new_database())
    with pytest.raises(DatabaseRefusedError, match="plugins") as caught:
        Repository(database).list_rows()
    assert caught.value.sqlstate == "42P01"
    database.close()
