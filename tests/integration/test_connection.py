"""The pool of connections to a real PostgreSQL."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import psycopg2.extras
import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.sqlstates import is_transient
from app.errors import DatabaseUnavailableError
from tests.support.databases import PLACES, Session
from tests.support.publications import publish
from tests.support.waiting import wait_until


@pytest.fixture
def lent(url: str, repository: Repository) -> Iterator[Database]:
    """A pool as plugins have it: a connection that comes back is made as new."""
    database = Database(url, max_connections=PLACES, reset=True)
    yield database
    database.close()


def backends(sql: Session) -> int:
    """How many other connections the database has."""
    return sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )[0][0]


def pid_of(database: Database) -> int:
    with database.connection() as connection:
        return connection.info.backend_pid


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def lend_all(database: Database, count: int = PLACES) -> list[int]:
    """Lend so many connections at once, and return their process ids."""
    with contextlib.ExitStack() as stack:
        lent = [stack.enter_context(database.connection()) for _ in range(count)]
        return [connection.info.backend_pid for connection in lent]


def test_a_connection_is_used_again(database: Database) -> None:
    assert len({pid_of(database) for _ in range(20)}) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_connection_comes_back_after_an_exception(
    database: Database, sql: Session, error: type[BaseException]
) -> None:
    first = pid_of(database)
    for _ in range(PLACES + 1):
        with pytest.raises(error), database.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO plugins (name) VALUES ('lost')")
            raise error
    assert pid_of(database) == first
    assert sql("SELECT count(*) FROM plugins") == [(0,)]


def test_a_connection_comes_back_after_a_failed_statement(database: Database) -> None:
    first = pid_of(database)
    for _ in range(PLACES + 1):
        with (
            pytest.raises(psycopg2.errors.UndefinedTable),
            database.connection() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT * FROM nowhere")
    assert pid_of(database) == first


def test_a_deferred_error_of_the_commit_is_told(database: Database, sql: Session) -> None:
    sql("CREATE TABLE IF NOT EXISTS late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with (
        pytest.raises(psycopg2.IntegrityError),
        database.connection() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO late VALUES (1), (1)")
    assert sql("SELECT count(*) FROM late") == [(0,)]
    assert lend_all(database)


def test_connections_that_the_server_closed_are_replaced_unnoticed(
    database: Database, sql: Session
) -> None:
    pids = lend_all(database)
    for pid in pids:
        sql("SELECT pg_terminate_backend(%s)", pid)
    wait_until(lambda: backends(sql) == 0, "the backends end")
    again = lend_all(database)
    assert not set(pids) & set(again)
    assert Repository(database).list_rows() == []


def test_a_connection_that_is_closed_while_it_is_lent_is_said_and_replaced(
    database: Database, sql: Session
) -> None:
    for _ in range(PLACES + 1):
        with pytest.raises(DatabaseUnavailableError), database.connection() as connection:
            sql("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    assert len(lend_all(database)) == PLACES


def test_a_connection_that_is_closed_before_its_commit_is_said(
    database: Database, sql: Session
) -> None:
    with pytest.raises(DatabaseUnavailableError), database.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO plugins (name) VALUES ('lost')")
        sql("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        wait_until(lambda: backends(sql) == 0, "the backend ends")
    assert sql("SELECT count(*) FROM plugins") == [(0,)]


def test_a_connection_that_its_user_closed_is_not_lent_again(database: Database) -> None:
    with contextlib.suppress(DatabaseUnavailableError), database.connection() as connection:
        connection.close()
    assert len(lend_all(database)) == PLACES


def test_an_exhausted_pool_waits_and_then_says_so(url: str) -> None:
    database = Database(url, max_connections=PLACES, wait_seconds=0.2)
    with contextlib.closing(database), contextlib.ExitStack() as stack:
        for _ in range(PLACES):
            stack.enter_context(database.connection())
        began = time.monotonic()
        with pytest.raises(
            DatabaseUnavailableError,
            match="all 4 connections of the pool are lent: the server holds 4",
        ):
            pid_of(database)
        assert 0.2 <= time.monotonic() - began < 2.0
        stack.close()
        assert len(lend_all(database)) == PLACES


def test_who_waits_gets_the_next_connection_that_comes_back(database: Database) -> None:
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        for _ in range(PLACES - 1):
            stack.enter_context(database.connection())
        with database.connection() as last:
            waiting = pool.submit(pid_of, database)
            wait_until(lambda: database.lent() == PLACES and waiting.running(), "it waits")
            assert not waiting.done()
            pid = last.info.backend_pid
        assert waiting.result(5) == pid


def test_a_failed_connect_does_not_take_a_place_away() -> None:
    database = Database("postgresql:///none?host=/nowhere", max_connections=2, wait_seconds=0.2)
    for _ in range(5):
        with pytest.raises(DatabaseUnavailableError, match="away"):
            pid_of(database)


def test_a_thousand_uses_by_many_threads_leak_nothing(database: Database, sql: Session) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def use(number: int) -> None:
        with contextlib.suppress(ZeroDivisionError), database.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT %s", (number,))
                assert cursor.fetchone() == (number,)
            if number % 7 == 0:
                connection.close() if number % 49 == 0 else 1 / 0

    def suppressed(number: int) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            use(number)

    before = open_files()
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(suppressed, range(1000)))
    finally:
        sys.setswitchinterval(interval)
    assert backends(sql) <= PLACES
    assert database.lent() == 0
    assert open_files() <= before + PLACES
    database.close()
    wait_until(lambda: backends(sql) == 0, "all connections are closed")
    assert open_files() <= before


def test_a_pool_that_is_cut_ends_the_wait_of_everybody(database: Database, sql: Session) -> None:
    def sleep(_: int) -> None:
        with database.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    began = time.monotonic()
    with ThreadPoolExecutor(PLACES) as pool:
        waiting = [pool.submit(sleep, n) for n in range(PLACES)]
        wait_until(
            lambda: (
                sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                == [(PLACES,)]
            ),
            "all of them sleep",
        )
        database.abort()
        for future in waiting:
            assert isinstance(future.exception(5), DatabaseUnavailableError)
    assert time.monotonic() - began < 5.0
    assert len(lend_all(database)) == PLACES
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


def test_a_lent_connection_is_closed_when_it_comes_back_to_a_closed_pool(
    database: Database,
) -> None:
    with database.connection() as connection:
        database.close()
        assert connection.closed == 0
    assert connection.closed


def test_a_connection_is_clean_when_it_is_lent_again(lent: Database, sql: Session) -> None:
    """What one plugin sets on a connection must not reach the next."""
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = nowhere; SET statement_timeout = 17")
        cursor.execute("CREATE TEMP TABLE plugins AS SELECT 1 AS wrong")
    assert Repository(lent).list_rows() == []
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


def test_autocommit_does_not_outlive_its_user(lent: Database, sql: Session) -> None:
    with lent.connection() as connection:
        connection.autocommit = True
    with pytest.raises(RuntimeError), lent.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO plugins (name) VALUES ('half')")
        raise RuntimeError
    assert sql("SELECT name FROM plugins") == []


def test_a_cursor_factory_does_not_outlive_its_user(lent: Database) -> None:
    publish(Repository(lent), "one", "/a")
    with lent.connection() as connection:
        connection.cursor_factory = psycopg2.extras.RealDictCursor
    assert [row.name for row in Repository(lent).list_rows()] == ["one"]


def test_a_read_only_session_does_not_outlive_its_user(lent: Database) -> None:
    with lent.connection() as connection:
        connection.set_session(readonly=True)
    publish(Repository(lent), "one", "/a")


def test_a_session_lock_does_not_outlive_its_user(
    repository: Repository, lent: Database, sql: Session
) -> None:
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(4711)")
    assert sql("SELECT pg_try_advisory_lock(4711)") == [(True,)]
    sql("SELECT pg_advisory_unlock(4711)")


def test_a_pool_is_not_shared_with_a_forked_child_that_only_ends(
    database: Database, url: str
) -> None:
    pid = pid_of(database)
    script = (
        "import os, sys\n"
        "from app.database.pool import Database\n"
        f"database = Database({url!r})\n"
        "with database.connection():\n"
        "    pass\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "with database.connection() as connection, connection.cursor() as cursor:\n"
        "    cursor.execute('SELECT 1')\n"
        "database.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pid_of(database) == pid
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- what passes ----------------------------------------------------------------------------


def _error_of(url: str, *statements: str) -> psycopg2.Error:
    connection = psycopg2.connect(url)
    try:
        with pytest.raises(psycopg2.Error) as caught, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        return caught.value
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("statements", "passes"),
    [
        (["CREATE TABLE pg_temp.t ()", "CREATE TABLE pg_temp.t ()"], True),
        (["CREATE SCHEMA public"], True),
        (["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"] * 2, False),
        (["INSERT INTO pg_class SELECT * FROM pg_class LIMIT 1"], True),
        (["CREATE TEMP TABLE u (i int UNIQUE)", "INSERT INTO u VALUES (1), (1)"], False),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '40P01'; END$$"], True),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '57P03'; END$$"], True),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '53300'; END$$"], True),
        (["DO $$BEGIN RAISE 'tuple concurrently updated' USING ERRCODE = 'XX000'; END$$"], True),
        (["DO $$BEGIN RAISE 'cache lookup failed' USING ERRCODE = 'XX000'; END$$"], False),
        (["SELECT * FROM no_such_table"], False),
        (["SELEC"], False),
        (["SELECT pg_terminate_backend(pg_backend_pid())"], True),
    ],
)
def test_only_what_may_succeed_in_a_moment_passes(
    url: str, statements: list[str], passes: bool
) -> None:
    error = _error_of(url, *statements)
    assert is_transient(error) == passes
    wrapped = RuntimeError("as a library does it")
    wrapped.__cause__ = error
    assert is_transient(wrapped) == passes


def test_a_connection_that_is_refused_passes_and_an_error_of_another_kind_does_not() -> None:
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect("postgresql://127.0.0.1:1/none")
    assert is_transient(caught.value)
    assert not is_transient(ValueError("x"))
