"""A database that is connected and says nothing any more: who waits for it gets an error."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from app.conditions import Conditions
from app.database import silence
from app.database.pool import Database
from app.database.statements import statement, transaction
from app.database.timeouts import Timeouts
from app.errors import DatabaseUnavailableError
from tests.support.databases import PLACES, Session
from tests.support.listening import Recorder, listening
from tests.support.postgres_proxy import Proxy
from tests.support.waiting import wait_until

PATIENCE = 0.3
BEAT = 0.3


@pytest.fixture(params=[False, True], ids=["own", "plugins"])
def behind(
    request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """A pool behind a proxy, which is impatient."""
    monkeypatch.setattr(silence, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.05)
    with contextlib.closing(
        Database(proxy.url, max_connections=PLACES, reset=request.param, silence_seconds=PATIENCE)
    ) as database:
        yield database


def ask(database: Database) -> object:
    with database.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


@pytest.mark.parametrize(("way", "askers"), [("paused", PLACES), ("no packets", 1)])
def test_who_waits_for_a_silent_database_gets_an_error(
    behind: Database, proxy: Proxy, way: str, askers: int
) -> None:
    assert ask(behind) == (1,), "there is a connection"
    if way == "paused":
        proxy.paused = True
    else:
        proxy.flows.clear()
        proxy.open = False
    began = time.monotonic()
    with ThreadPoolExecutor(PLACES) as pool:
        for future in [pool.submit(ask, behind) for _ in range(askers)]:
            error = future.exception(5)
            assert isinstance(error, DatabaseUnavailableError)
            assert "does not answer" in str(error)
    assert time.monotonic() - began < 4.0
    assert behind.lent() == 0
    proxy.paused, proxy.open = False, True
    proxy.flows.set()
    assert ask(behind) == (1,)


def test_a_new_connection_to_a_silent_database_gets_an_error(
    behind: Database, proxy: Proxy
) -> None:
    proxy.paused = True
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match="does not answer"):
            ask(behind)
    proxy.paused = False
    assert ask(behind) == (1,)


def test_a_commit_into_silence_ends_too(behind: Database, proxy: Proxy) -> None:
    with (
        pytest.raises(DatabaseUnavailableError, match="does not answer"),
        behind.connection() as connection,
    ):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        proxy.paused = True
    proxy.paused = False


def test_one_connection_whose_session_is_stopped_is_ended_alone(url: str, sql: Session) -> None:
    """The database answers everybody else: calls waited until somebody ended that process."""
    with contextlib.closing(Database(url, max_connections=PLACES, silence_seconds=PATIENCE)) as own:
        with own.connection() as connection:
            stopped = connection.info.backend_pid
        os.kill(stopped, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailableError, match="does not answer"):
                ask(own)
            assert time.monotonic() - began < 5.0
            assert ask(own) == (1,), "another connection"
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_what_takes_its_time_to_be_sent_is_left_alone(
    behind: Database, proxy: Proxy, sql: Session
) -> None:
    """PostgreSQL calls its session idle until it has all of a statement."""
    proxy.seconds_per_chunk = 0.05
    began = time.monotonic()
    with behind.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.execute("SELECT length(%s)", ["x" * 1_000_000])
        assert cursor.fetchone() == (1_000_000,)
    assert time.monotonic() - began > 4 * PATIENCE


@pytest.mark.parametrize("pace", ["normal", "brief"])
def test_a_session_that_is_stopped_in_a_statement_is_ended_after_its_limit(
    url: str, sql: Session, monkeypatch: pytest.MonkeyPatch, pace: Any
) -> None:
    """The database counts it as working: the call waited until somebody ended that process."""
    monkeypatch.setattr(silence, "HEED_SECONDS", 0.5)
    own = Database(url, silence_seconds=PATIENCE, timeouts=Timeouts(0.5, 1.0))
    with contextlib.closing(own), ThreadPoolExecutor(1) as pool:

        def sleep() -> None:
            with statement(own, pace=pace) as cursor:
                cursor.execute("SELECT 'stop me', pg_sleep(600)")

        asked = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s"
        call = pool.submit(sleep)
        rows = wait_until(lambda: sql(asked, "%SELECT 'stop me'%"), "it works")
        ((stopped,),) = rows
        os.kill(stopped, signal.SIGSTOP)
        try:
            error = call.exception(20.0)
            assert isinstance(error, DatabaseUnavailableError)
            assert "though its limit is 1 s" in str(error)
            assert own.lent() == 0
            assert ask(own) == (1,), "another connection"
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_while_a_database_is_silent_one_tries_and_the_others_are_refused_at_once(
    behind: Database, proxy: Proxy
) -> None:
    """Each of those that waited in a queue waited anew, and held a thread of the server's."""
    proxy.paused = True
    with pytest.raises(DatabaseUnavailableError):
        ask(behind)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        errors = [f.exception(5) for f in [pool.submit(ask, behind) for _ in range(32)]]
    assert all(isinstance(error, DatabaseUnavailableError) for error in errors)
    assert time.monotonic() - began < 3.0
    proxy.paused = False
    wait_until(lambda: _answers(behind), "it is asked again", 5.0)
    with ThreadPoolExecutor(PLACES) as pool:
        assert set(pool.map(lambda _: ask(behind), range(20))) == {(1,)}


def test_where_threads_are_short_most_of_those_who_wait_are_given_up_early(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a free connection, and those that were lent last; not the first ones."""
    short = threading.Event()
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.05)
    with (
        contextlib.closing(
            Database(
                proxy.url,
                max_connections=4,
                silence_seconds=60.0,
                bulkhead=1,
                is_short=short.is_set,
            )
        ) as database,
        ThreadPoolExecutor(8) as pool,
    ):
        with contextlib.ExitStack() as lent:
            for _ in range(4):
                lent.enter_context(database.connection())
        proxy.paused = True
        first = pool.submit(ask, database)
        wait_until(lambda: database.lent() == 1, "it waits for its answer")
        calls = [pool.submit(ask, database) for _ in range(7)]
        wait_until(lambda: database.lent() == 4, "so do three more, and four for a connection")
        assert not any(call.done() for call in calls)
        short.set()
        for call in calls:
            assert isinstance(call.exception(10.0), DatabaseUnavailableError)
        assert not first.done()
        proxy.paused = False
        assert first.result(10.0) == (1,)
        wait_until(lambda: _answers(database), "all may again", 5.0)


@pytest.mark.soak
def test_few_connections_are_made_at_once_and_who_waits_for_a_turn_is_told(proxy: Proxy) -> None:
    """Nobody can reach a thread inside of libpq's connect."""
    proxy.open = False
    with (
        contextlib.closing(Database(proxy.url, max_connections=8, bulkhead=2)) as database,
        ThreadPoolExecutor(8) as pool,
    ):
        calls = [pool.submit(ask, database) for _ in range(8)]
        wait_until(lambda: database.lent() == 8 and proxy.accepted == 2, "two connect")
        database.abort(2)
        refused = [call for call in calls if isinstance(call.exception(20.0), Exception)]
        assert len(refused) == 8
        assert proxy.accepted <= 3, "the others were refused at once; the watch has asked"
        proxy.open = True
        wait_until(lambda: _answers(database), "all may again", 5.0)


def _answers(database: Database) -> bool:
    with contextlib.suppress(DatabaseUnavailableError):
        return ask(database) == (1,)
    return False


@pytest.mark.soak
def test_a_listener_that_hears_nothing_says_so_before_it_gives_up(proxy: Proxy) -> None:
    recorder, conditions = Recorder(), Conditions()
    with listening(proxy.url, recorder, heartbeat=2.0, conditions=conditions):
        wait_until(lambda: not conditions.held(), "it hears itself")
        proxy.flows.clear()
        wait_until(lambda: "has not come back for 1 s" in str(conditions.held()), "said", 3.9)
        wait_until(lambda: "listens hears nothing" in str(conditions.held()), "and why", 4.0)
        proxy.flows.set()


def test_what_is_slow_is_left_alone(behind: Database, sql: Session) -> None:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(1.5)%%'"
    with behind.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1.5)")
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)
    assert sql(asked)


def test_a_database_that_refuses_new_connections_is_not_silent(
    behind: Database, proxy: Proxy, sql: Session
) -> None:
    """As one that is full: what is connected goes on."""
    ask(behind)
    name = urlsplit(proxy.url).path[1:]
    elsewhere = proxy.url.replace(f"/{name}", "/postgres")
    with contextlib.closing(psycopg2.connect(elsewhere)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            with behind.connection() as used, used.cursor() as other:
                other.execute("SELECT pg_sleep(1.2), 3")
                assert (other.fetchone() or ())[1] == 3
        finally:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_the_watch_ends_with_its_pool(proxy: Proxy) -> None:
    def watches() -> int:
        return sum(thread.name == "benana-silence" for thread in threading.enumerate())

    before = watches()
    database = Database(proxy.url)
    assert watches() == before, "it begins with the first connection"
    with statement(database) as cursor:
        cursor.execute("SELECT 1")
    with transaction(database) as cursor:
        cursor.execute("SELECT 1")
    assert watches() == before + 1
    database.close()
    wait_until(lambda: watches() == before, "it has ended")


def test_listening_to_another_database_is_noticed(url: str, sql: Session) -> None:
    """As after a typing error: LISTEN works there, and nothing is ever heard."""
    other = f"{url.partition('?')[0].rpartition('/')[0]}/postgres?{url.partition('?')[2]}"
    recorder, conditions = Recorder(), Conditions()
    with listening(
        other, recorder, heartbeat=BEAT, conditions=conditions, rows_url=url
    ) as listener:
        (held,) = wait_until(
            lambda: [c for c in conditions.held() if "same database" in c.what],
            "it is said",
        )
        assert "changes are noticed 1 s late" in held.what
        assert "BENANA_LISTEN_DATABASE_URL" in held.what
        wait_until(lambda: recorder.everything() >= 3, "it polls")
        assert not listener.connected


def test_listening_past_a_pooler_is_heard(url: str, proxy: Proxy, sql: Session) -> None:
    recorder, conditions = Recorder(), Conditions()
    with listening(url, recorder, heartbeat=BEAT, conditions=conditions, rows_url=proxy.url):
        wait_until(lambda: not conditions.held(), "it is heard")
        sql("INSERT INTO plugins (name) VALUES ('heard')")
        wait_until(lambda: "heard" in recorder.heard(), "and so is a change")
