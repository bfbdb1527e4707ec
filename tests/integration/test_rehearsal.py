"""In a trial nothing lasts, and what a plugin writes behaves as written, on a real PostgreSQL."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import sql as composed

from app.database.pool import Database
from app.database.trial_session import TrialSession
from app.errors import DatabaseUnavailableError, LoadError
from app.publishing.trials.trial import TrialRunner
from tests.support.databases import Session, session
from tests.support.plugins import plugin_text, source_of

SECONDS = 5.0


@pytest.fixture(scope="module")
def place(new_database: Callable[[], str]) -> str:
    """A database of these tests alone, with one table."""
    url = new_database()
    with session(url) as opened:
        opened("CREATE TABLE kept (number int PRIMARY KEY)")
        opened("CREATE TABLE parent (id int PRIMARY KEY)")
        opened("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    return url


@pytest.fixture
def outside(place: str) -> Iterator[Session]:
    """Somebody else's session, on emptied tables."""
    with session(place) as opened:
        opened("DROP TABLE IF EXISTS made; TRUNCATE kept, parent, child")
        yield opened


@pytest.fixture
def rehearsal(place: str, outside: Session) -> Iterator[TrialSession]:
    """What a trial lends from; nothing that a test did lasts."""
    made = TrialSession(place, SECONDS)
    yield made
    made.close()
    tables = outside("SELECT relname FROM pg_class WHERE relname IN ('made', 'kept')")
    assert tables == [("kept",)]
    assert outside("SELECT * FROM kept UNION ALL SELECT * FROM child") == []


@pytest.fixture(params=["trial", "worker"])
def lender(request: pytest.FixtureRequest, place: str, outside: Session) -> Iterator[Any]:
    """What a trial lends from, and what a worker does: a plugin sees no difference."""
    if request.param == "trial":
        yield request.getfixturevalue("rehearsal")
        return
    pool = Database(place, max_connections=8, reset=True)
    yield pool
    pool.close()


def numbers(connection: Any) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM kept ORDER BY 1")
        return [number for (number,) in cursor.fetchall()]


def insert(connection: Any, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (%s)", [number])


def test_what_is_committed_is_read_back_and_does_not_last(
    rehearsal: TrialSession, outside: Session
) -> None:
    with rehearsal.connection() as connection:
        insert(connection, 1)
        connection.commit()
        insert(connection, 2)
        connection.rollback()
        assert numbers(connection) == [1]
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE made (x int)")
            cursor.execute("CREATE INDEX ON made (x)")
        connection.commit()
        assert outside("SELECT * FROM kept") == []
    with rehearsal.connection() as second:
        assert numbers(second) == [1], "a loan that ended well is committed"
        with second.cursor() as cursor:
            cursor.execute("INSERT INTO made VALUES (1)")


def test_a_block_that_raises_is_rolled_back_alone(lender: Any) -> None:
    with lender.connection() as connection:
        insert(connection, 1)
    with pytest.raises(ZeroDivisionError), lender.connection() as connection:
        insert(connection, 2)
        connection.commit()
        insert(connection, 3)
        raise ZeroDivisionError
    with lender.connection() as connection:
        assert numbers(connection) == [1, 2]


def test_loans_within_loans_see_what_is_committed_and_wait_for_nobody(
    lender: Any,
) -> None:
    with lender.connection() as outer:
        insert(outer, 1)
        outer.commit()
        insert(outer, 2)
        with pytest.raises(psycopg2.errors.UniqueViolation), lender.connection() as inner:
            assert 1 in numbers(inner)
            insert(inner, 3)
            insert(inner, 3)
        insert(outer, 4)
        with lender.connection() as inner:
            insert(inner, 5)
            inner.commit()
            insert(inner, 6)
            inner.rollback()
        assert numbers(outer) == [1, 2, 4, 5]
        outer.rollback()
        assert numbers(outer)[0] == 1
    with lender.connection() as connection:
        insert(connection, 7)


def test_threads_may_borrow_at_once(lender: Any) -> None:
    ready = threading.Barrier(4)
    faults: list[Exception] = []

    def work(number: int) -> None:
        try:
            with lender.connection() as connection:
                ready.wait(10.0)
                insert(connection, number)
                connection.commit()
                insert(connection, number + 10)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert faults == []
    with lender.connection() as connection:
        assert numbers(connection) == [0, 1, 2, 3, 10, 11, 12, 13]


def switch_on(connection: Any) -> None:
    connection.autocommit = True


@pytest.mark.parametrize(
    "begin",
    [
        switch_on,
        lambda c: c.set_session(autocommit=True),
        lambda c: c.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT),
    ],
    ids=["attribute", "set_session", "set_isolation_level"],
)
def test_autocommit_keeps_each_statement_and_an_error_spoils_no_other(
    lender: Any, begin: Callable[[Any], None]
) -> None:
    with pytest.raises(ZeroDivisionError), lender.connection() as connection:
        begin(connection)
        assert connection.autocommit
        insert(connection, 1)
        with pytest.raises(psycopg2.errors.UniqueViolation):
            insert(connection, 1)
        insert(connection, 2)
        connection.rollback()
        assert numbers(connection) == [1, 2]
        with pytest.raises(ZeroDivisionError), connection:  # a transaction in spite of it
            insert(connection, 3)
            raise ZeroDivisionError
        raise ZeroDivisionError
    with lender.connection() as connection:
        assert not connection.autocommit, "it does not outlive its loan"
        assert numbers(connection) == [1, 2]


def test_a_failed_statement_spoils_the_transaction_until_it_is_rolled_back(
    lender: Any,
) -> None:
    with lender.connection() as connection:
        insert(connection, 1)
        connection.commit()
        with pytest.raises(psycopg2.errors.UniqueViolation):
            insert(connection, 1)
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            insert(connection, 2)
        connection.rollback()
        insert(connection, 3)
        assert numbers(connection) == [1, 3]


def test_with_connection_works_again_and_again(lender: Any) -> None:
    with lender.connection() as connection:
        for number in (1, 2):
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (%s)", [number])
        with pytest.raises(psycopg2.errors.UniqueViolation), connection:
            insert(connection, 3)
            insert(connection, 1)
        assert numbers(connection) == [1, 2]
        with connection, pytest.raises(psycopg2.ProgrammingError, match="re-entered"), connection:
            pass


@pytest.mark.parametrize(
    "factory",
    [
        psycopg2.extras.DictCursor,
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        psycopg2.extensions.cursor,
    ],
)
def test_cursors_of_all_kinds_take_part(lender: Any, factory: Any) -> None:
    with lender.connection() as connection:
        connection.autocommit = True
        with connection.cursor(cursor_factory=factory) as cursor:
            assert isinstance(cursor, factory)
            cursor.execute("INSERT INTO kept VALUES (1) RETURNING number")
            assert list(cursor.fetchone()) in ([1], ["number"])
            with pytest.raises(psycopg2.errors.UniqueViolation):
                cursor.execute("INSERT INTO kept VALUES (1)")
        connection.cursor_factory = factory
        with connection.cursor() as cursor:
            assert isinstance(cursor, factory)
    with lender.connection() as connection:
        assert connection.cursor_factory in {None, psycopg2.extensions.cursor}
        assert numbers(connection) == [1]


def test_bulk_statements_named_cursors_and_composed_sql_work(lender: Any) -> None:
    with lender.connection() as connection:
        for autocommit in (False, True):
            connection.autocommit = autocommit
            start = 100 if autocommit else 0
            with connection.cursor() as cursor:
                rows = [(start + number,) for number in range(10)]
                psycopg2.extras.execute_values(cursor, "INSERT INTO kept VALUES %s", rows)
                cursor.executemany("INSERT INTO kept VALUES (%s)", [(start + 20,), (start + 21,)])
                cursor.copy_expert("COPY kept FROM STDIN", io.StringIO(f"{start + 30}\n"))
                cursor.copy_from(io.StringIO(f"{start + 31}\n"), "kept", columns=("number",))
                out = io.StringIO()
                cursor.copy_to(out, "kept")
                assert f"{start + 31}\n" in out.getvalue()
                cursor.execute(
                    composed.SQL("SELECT max({}) FROM {}").format(
                        composed.Identifier("number"), composed.Identifier("kept")
                    )
                )
                assert cursor.fetchone() == (start + 31,)
                assert composed.Identifier('a"b').as_string(connection) == '"a""b"'
            connection.commit()
        connection.autocommit = False
        with connection.cursor("big") as cursor:
            cursor.execute("SELECT number FROM kept")
            assert len(list(cursor)) == 28


@pytest.mark.parametrize(
    "statement",
    ["VACUUM kept", "CREATE INDEX CONCURRENTLY ON kept (number)", "CREATE DATABASE other"],
)
def test_what_cannot_be_undone_is_refused_with_what_to_do(
    rehearsal: TrialSession, statement: str
) -> None:
    with rehearsal.connection() as connection:
        connection.autocommit = True
        insert(connection, 1)
        with connection.cursor() as cursor:
            with pytest.raises(psycopg2.errors.ActiveSqlTransaction) as caught:
                cursor.execute(statement)
            assert "leave it out there: 'if not context.trial:'" in str(caught.value)
            assert caught.value.pgcode == "25001"
        assert numbers(connection) == [1]
        with pytest.raises(psycopg2.NotSupportedError, match=r"context\.trial"):
            connection.tpc_begin(connection.xid(1, "a", "b"))


def test_settings_of_the_session_are_taken_and_forgotten(lender: Any) -> None:
    with lender.connection() as connection:
        connection.set_session(isolation_level="SERIALIZABLE", readonly=False)
        assert connection.isolation_level == psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE
        assert connection.readonly is False
        with pytest.raises(ValueError, match="isolation_level"):
            connection.set_session(isolation_level="PERFECT")
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
        assert connection.status == psycopg2.extensions.STATUS_BEGIN
        assert connection.get_transaction_status() == (
            psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        )
        with pytest.raises(psycopg2.ProgrammingError, match="inside a transaction"):
            connection.autocommit = True
        connection.commit()
        assert connection.status == psycopg2.extensions.STATUS_READY
        assert connection.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        connection.set_client_encoding("LATIN1")
        insert(connection, 1)
        connection.reset()
        assert numbers(connection) == []
    with lender.connection() as connection:
        assert connection.readonly is None
        insert(connection, 2)


def test_a_deferred_constraint_is_checked_by_the_commit(lender: Any) -> None:
    with lender.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO child VALUES (1)")
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            connection.commit()
        cursor.execute("INSERT INTO child VALUES (2); INSERT INTO parent VALUES (2)")
        connection.commit()
        cursor.execute("SELECT id FROM child")
        assert cursor.fetchall() == [(2,)]


def test_a_connection_that_is_closed_is_so_for_its_borrower_alone(lender: Any) -> None:
    with pytest.raises(DatabaseUnavailableError), lender.connection() as connection:
        insert(connection, 1)
        connection.close()
        assert connection.closed
        with pytest.raises(psycopg2.InterfaceError, match="already closed"):
            connection.cursor()
    with lender.connection() as connection:
        assert not connection.closed
        assert numbers(connection) == []


def test_a_lock_of_somebody_else_is_said_and_not_waited_for(place: str, outside: Session) -> None:
    rehearsal = TrialSession(place, SECONDS, lock_seconds=0.2)
    with contextlib.closing(rehearsal), session(place) as holder:
        holder("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(psycopg2.errors.LockNotAvailable, match="another session holds the lock"),
            rehearsal.connection() as connection,
        ):
            insert(connection, 1)
        holder("ROLLBACK")
        with rehearsal.connection() as connection:
            insert(connection, 1)


def test_a_session_that_is_lost_is_an_outage_and_the_next_one_is_new(
    rehearsal: TrialSession, outside: Session
) -> None:
    with pytest.raises(DatabaseUnavailableError), rehearsal.connection() as connection:
        outside("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        insert(connection, 1)
    with rehearsal.connection() as connection:
        insert(connection, 1)
    with (
        pytest.raises(DatabaseUnavailableError),
        TrialSession("host=127.0.0.1 port=1 dbname=x", SECONDS).connection(),
    ):
        pass


def test_a_transaction_that_sql_text_has_ended_goes_on(
    rehearsal: TrialSession, outside: Session
) -> None:
    with rehearsal.connection() as connection, connection.cursor() as cursor:
        insert(connection, 1)
        cursor.execute("ROLLBACK")
        insert(connection, 2)
        connection.commit()
        assert numbers(connection) == [2]
        connection.commit()
        connection.autocommit = True
        cursor.execute("ROLLBACK")
        insert(connection, 3)
        assert numbers(connection) == [3]


# --- in a trial's process ------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner(place: str) -> Iterator[TrialRunner]:
    runner = TrialRunner(place)
    yield runner
    runner.stop()


COMMITS = """
with context.database() as connection, connection.cursor() as cursor:
    cursor.execute("CREATE TABLE made (x int)")
    connection.commit()
    with connection:
        cursor.execute("INSERT INTO made VALUES (1)")
with context.database() as connection, connection.cursor() as cursor:
    connection.autocommit = True
    cursor.execute("INSERT INTO kept VALUES (1)")
    cursor.execute("SELECT count(*) FROM made")
    assert cursor.fetchone() == (1,)
"""


def test_a_trial_leaves_nothing_behind(runner: TrialRunner, outside: Session) -> None:
    for _ in range(2):  # a table of the first would fail the second
        _, report = runner.run(source_of({"main.py": plugin_text(initialize=COMMITS)}))
        assert report.endpoints
    assert outside("SELECT to_regclass('made'), (SELECT count(*) FROM kept)") == [(None, 0)]


def test_what_a_trial_cannot_undo_is_named_with_its_place(runner: TrialRunner) -> None:
    vacuum = """
with context.database() as connection, connection.cursor() as cursor:
    connection.autocommit = True
    cursor.execute("VACUUM kept")
"""
    with pytest.raises(LoadError, match=r"ActiveSqlTransaction.*if not context\.trial") as caught:
        runner.run(source_of({"main.py": plugin_text(initialize=vacuum)}))
    assert (caught.value.phase, caught.value.file, caught.value.line) == (
        "initialize",
        "main.py",
        8,
    )
    spared = vacuum.replace(
        "connection.autocommit", "if context.trial: return\n    connection.autocommit"
    )
    runner.run(source_of({"main.py": plugin_text(initialize=spared)}))


def test_a_trial_that_is_killed_leaves_no_statement_behind(place: str, outside: Session) -> None:
    runner = TrialRunner(place, seconds=0.5)
    sleeps = """
with context.database() as connection, connection.cursor() as cursor:
    cursor.execute("LOCK TABLE kept; SELECT pg_sleep(60)")
"""
    try:
        with pytest.raises(LoadError):
            runner.run(source_of({"main.py": plugin_text(initialize=sleeps)}))
    finally:
        runner.stop()
    outside("SET lock_timeout = '3s'")
    outside("INSERT INTO kept VALUES (1)")


@pytest.mark.parametrize(
    ("code", "said"),
    [("1 / 0", "ZeroDivisionError"), ("raise SystemExit(3)", r"it called sys.exit\(3\)")],
)
def test_a_fault_in_cleanup_has_file_and_line(runner: TrialRunner, code: str, said: str) -> None:
    with pytest.raises(LoadError, match=said) as caught:
        runner.run(source_of({"main.py": plugin_text(cleanup=code)}))
    assert (caught.value.phase, caught.value.file) == ("cleanup", "main.py")
    assert caught.value.line == 11
    waits = "assert self.context.cancelled.wait(1.0)"
    runner.run(source_of({"main.py": plugin_text(cleanup=waits)}))
