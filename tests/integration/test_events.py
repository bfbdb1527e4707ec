"""The LISTEN thread on a real PostgreSQL, and behind proxies that misbehave."""

import contextlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from app.conditions import Conditions
from app.database import events
from app.database.async_steps import AsyncSteps
from app.database.connection import Connection
from app.database.events import ChangeListener
from app.database.pool import Database
from app.database.repository import Repository
from app.database.timeouts import ListenerTimes
from tests.support.databases import Session, empty, session
from tests.support.listening import Names, Recorder, listening
from tests.support.postgres_proxy import Proxy
from tests.support.waiting import wait_until

BEAT = 0.3
"""The heartbeat, in seconds, where a test waits for one to be missing."""


@pytest.fixture
def sql(url: str) -> Iterator[Session]:
    """A session of somebody else, on an empty table, before anybody listens."""
    with session(url) as opened:
        empty(opened)
        yield opened


def stop_quickly(listener: ChangeListener, seconds: float = 0.5) -> None:
    began = time.monotonic()
    listener.stop()
    assert time.monotonic() - began < seconds
    assert all(thread.name != "benana-listener" for thread in threading.enumerate())


def backend(sql: Session) -> int | None:
    """The process id of the listener's backend."""
    found = sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'benana-listener'"
        " AND datname = current_database() ORDER BY backend_start DESC"
    )
    return found[0][0] if found else None


SHORT = ListenerTimes(connect=BEAT, max_backoff=0.1, poll=0.05)
"""Tenths of a second, as far as a test does not look at their length."""


# --- names -----------------------------------------------------------------------------------


def test_everything_is_compared_first_and_then_names_are_handed_on(url: str, sql: Session) -> None:
    recorder = Recorder()
    sql("INSERT INTO plugins (name) VALUES ('before')")
    with listening(url, recorder) as listener:
        assert recorder.calls == [None]
        for statement in (
            "INSERT INTO plugins (name) VALUES ('one'), ('two')",
            "UPDATE plugins SET name = 'three' WHERE name = 'one'",
            "DELETE FROM plugins WHERE name = 'two'",
        ):
            since = len(recorder.calls)
            names = {"i": {"one", "two"}, "u": {"one", "three"}, "d": {"two"}}
            expected = names[statement[0].lower()]
            sql(statement)
            wait_until(lambda: recorder.heard(since) == expected, statement)
        assert recorder.everything() == 1
        stop_quickly(listener)


def test_a_truncate_compares_everything(url: str, sql: Session) -> None:
    recorder = Recorder()
    with listening(url, recorder):
        sql("TRUNCATE plugins CASCADE")
        wait_until(lambda: recorder.everything() == 2, "TRUNCATE was heard")


def test_a_change_is_noticed_within_a_tenth_of_a_second(url: str, sql: Session) -> None:
    recorder = Recorder()
    with listening(url, recorder):
        times = []
        for n in range(20):
            began = time.monotonic()
            sql(f"INSERT INTO plugins (name) VALUES ('n{n}')")
            wait_until(lambda: f"n{n}" in recorder.heard(), f"n{n}")
            times.append(time.monotonic() - began)
        assert sorted(times)[len(times) // 2] < 0.1, times


@pytest.mark.parametrize("slow", [False, True])
def test_a_burst_of_ten_thousand_from_many_sessions_is_complete(
    url: str, sql: Session, slow: bool
) -> None:
    recorder = Recorder()

    def insert(number: int) -> None:
        with session(url) as mine:
            for part in range(10):
                mine(
                    "INSERT INTO plugins (name) SELECT format('n%%s_%%s_%%s', %s, %s, n)"
                    " FROM generate_series(0, 249) n",
                    number,
                    part,
                )

    expected = {f"n{s}_{p}_{n}" for s in range(4) for p in range(10) for n in range(250)}
    with listening(url, recorder), ThreadPoolExecutor(4) as pool:
        if slow:
            recorder.go_on.clear()
        list(pool.map(insert, range(4)))
        committed = len(recorder.calls)
        recorder.go_on.set()
        wait_until(
            lambda: recorder.heard() >= expected or recorder.everything(committed),
            "every name was heard",
        )
        assert recorder.heard() <= expected
    sql("TRUNCATE plugins CASCADE")


def test_notifications_that_come_during_a_heartbeat_are_not_lost(
    proxy: Proxy, sql: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read together with the answer, so that `select` would not fire for them."""
    execute = AsyncSteps.execute
    beats = itertools.count()

    def with_company(
        steps: AsyncSteps, connection: Connection, statement: str, seconds: float
    ) -> None:
        if statement.startswith("NOTIFY"):
            for _ in range(3):
                sql(f"NOTIFY plugin_changes, '{json.dumps({'name': f'h{next(beats)}'})}'")
        # As long as a heartbeat is short, so is the time for its answer: a slow machine would make
        # it connect anew, and compare everything.
        execute(steps, connection, statement, max(seconds, 10.0))

    monkeypatch.setattr(AsyncSteps, "execute", with_company)
    recorder = Recorder()
    with listening(proxy.url, recorder, heartbeat=0.05):
        for n in range(10):
            wait_until(lambda: f"h{3 * n + 2}" in recorder.heard(), f"beat {n}")
            assert recorder.heard() >= {f"h{m}" for m in range(3 * n + 3)}
    assert recorder.everything() == 1


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        "{",
        "[]",
        "null",
        "1",
        '"name"',
        "{}",
        '{"name": null}',
        '{"name": 1}',
        '{"name": "../x"}',
        '{"name": "A"}',
        '{"name": "a\\n"}',
        '{"name": "\\ud800"}',
        '{"name": ["a"]}',
        '{"name": {"name": "a"}}',
        "[" * 7000,
        '{"name": "' + "x" * 7900 + '"}',
        '{"name": ' + "9" * 7900 + "}",
        "🍌" * 1999,
        "\x01\x7f",
        "NaN",
        '{"name": NaN}',
        '{"a":' * 1500,
    ],
)
def test_a_payload_that_nobody_of_ours_wrote_compares_everything(
    url: str, sql: Session, payload: str
) -> None:
    recorder = Recorder()
    with listening(url, recorder) as listener:
        first = backend(sql)
        sql("SELECT pg_notify('plugin_changes', %s)", payload)
        wait_until(lambda: recorder.everything() == 2, "everything is compared")
        sql("INSERT INTO plugins (name) VALUES ('after')")
        wait_until(lambda: "after" in recorder.heard(), "it goes on")
        assert listener.connected
        assert backend(sql) == first, "it is no reason to connect anew"
    assert recorder.heard() == {"after"}


def test_text_of_a_database_without_an_encoding_does_not_end_the_thread(
    postgres_url: str, url: str
) -> None:
    name = f"benana_test_{os.getpid()}_ascii"
    with session(postgres_url) as admin:
        admin(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
            " TEMPLATE template0"
        )
    parts = urlsplit(url)
    ascii_url = f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"
    database = Database(ascii_url)
    Repository(database).apply_schema()
    recorder = Recorder()
    with listening(ascii_url, recorder), psycopg2.connect(ascii_url) as other:
        for statement in (
            "INSERT INTO plugins (name, description) VALUES ('one', E'caf\\303\\251')",
            "INSERT INTO plugins (name, description) VALUES ('two', E'caf\\351')",
            "INSERT INTO plugins (name) VALUES ('three')",
        ):
            with other.cursor() as cursor:
                cursor.execute(statement)
            other.commit()
        wait_until(
            lambda: recorder.heard() >= {"three"} or recorder.everything() > 1, "it goes on", 5.0
        )
    other.close()
    database.close()


# --- the connection lost -------------------------------------------------------------------------


def test_a_terminated_backend_is_replaced_and_everything_compared(
    url: str, sql: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.database.events")
    recorder = Recorder()
    with listening(url, recorder, heartbeat=BEAT, times=SHORT):
        for round_number in range(1, 4):
            sql("SELECT pg_terminate_backend(%s)", backend(sql))
            wait_until(lambda: recorder.everything() > round_number, "it is back")
        sql("INSERT INTO plugins (name) VALUES ('after')")
        wait_until(lambda: "after" in recorder.heard(), "it listens again")
    said = [record.message for record in caplog.records]
    assert len(said) == 3, "one line for each: it is too short for a turn"
    assert all("listening again after 0." in message for message in said)
    assert all("the database is away" in message for message in said)


def test_what_changes_while_it_is_away_is_made_up_for(proxy: Proxy, sql: Session) -> None:
    recorder = Recorder()
    with listening(proxy.url, recorder, heartbeat=BEAT, times=SHORT) as listener:
        proxy.open = False
        proxy.cut()
        wait_until(lambda: not listener.connected, "it noticed")
        sql("INSERT INTO plugins (name) VALUES ('meanwhile')")
        since = len(recorder.calls)
        proxy.open = True
        wait_until(lambda: recorder.everything(since), "everything is compared")
    assert recorder.heard() == set()


def test_who_gets_no_connection_to_listen_on_has_the_rows_compared_meanwhile(
    url: str, sql: Session
) -> None:
    """With too many connections, changes waited for the next comparison: they were on others."""
    role = f"listener_{time.monotonic_ns()}"
    sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    their_url = make_dsn(url, user=role)
    recorder, conditions = Recorder(), Conditions()
    try:
        with (
            session(their_url),
            listening(
                their_url, recorder, wait=False, times=SHORT, conditions=conditions
            ) as listener,
        ):
            wait_until(lambda: recorder.everything() >= 3, "everything is compared")
            assert not listener.connected
            assert "too many connections" in conditions.held()[0].what
            sql(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            wait_until(lambda: listener.connected, "it listens")
    finally:
        sql(f"DROP ROLE {role}")


@pytest.mark.parametrize("lasts", [0.0, 0.3])
def test_an_outage_is_a_condition_and_a_line_only_if_it_was_too_short_for_a_turn(
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lasts: float,
) -> None:
    caplog.set_level(logging.INFO, "app.database.events")
    monkeypatch.setattr(events, "TURN_SECONDS", 0.3 if lasts else 60.0)
    recorder, conditions = Recorder(), Conditions()
    with listening(
        proxy.url, recorder, heartbeat=BEAT, times=SHORT, conditions=conditions
    ) as listener:
        proxy.open = False
        proxy.cut()
        tries = proxy.accepted
        began = time.monotonic()
        wait_until(
            lambda: proxy.accepted >= tries + 3 and time.monotonic() > began + lasts,
            "it tries again",
        )
        assert not listener.connected
        (held,) = conditions.held()
        assert held.what.startswith("changes are not noticed: the database is away (")
        assert caplog.records == []
        proxy.open = True
        wait_until(lambda: not conditions.held(), "it listens again")
    assert len(caplog.records) == (0 if lasts else 1)


def test_a_proxy_that_goes_silent_is_noticed(proxy: Proxy, sql: Session) -> None:
    recorder = Recorder()
    with listening(proxy.url, recorder, heartbeat=BEAT, times=SHORT) as listener:
        proxy.open = False
        proxy.flows.clear()
        wait_until(lambda: not listener.connected, "the silence is noticed", 3.0)
        sql("INSERT INTO plugins (name) VALUES ('meanwhile')")
        since = len(recorder.calls)
        proxy.open = True
        proxy.flows.set()
        wait_until(lambda: recorder.everything(since), "everything is compared")


@pytest.mark.soak
def test_a_frozen_backend_is_noticed_within_15_seconds(url: str, sql: Session) -> None:
    """With the deadlines as they are in use; keepalives do not see this."""
    recorder = Recorder()
    with listening(url, recorder):
        frozen = backend(sql)
        assert frozen is not None
        began = time.monotonic()
        os.kill(frozen, signal.SIGSTOP)
        try:
            wait_until(lambda: recorder.everything() >= 2, "it listens anew", 15.0)
            assert backend(sql) != frozen
            sql('NOTIFY plugin_changes, \'{"name": "after"}\'')
            wait_until(lambda: "after" in recorder.heard(), "it hears again")
        finally:
            os.kill(frozen, signal.SIGCONT)
    assert time.monotonic() - began < 15.0


def test_a_pooler_that_drops_notifications_is_polled_around(
    proxy: Proxy, sql: Session, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.drops_notifications = True
    recorder, conditions = Recorder(), Conditions()
    with listening(
        proxy.url, recorder, heartbeat=BEAT, times=SHORT, conditions=conditions
    ) as listener:
        wait_until(lambda: recorder.everything() >= 5, "it polls")
        (held,) = conditions.held()
        assert "LISTEN does not work" in held.what
        assert "set BENANA_LISTEN_DATABASE_URL" in held.what
        assert caplog.records == [], "the turn says it"
        assert not listener.connected, "changes are not noticed at once now"
        stop_quickly(listener)


def test_polling_keeps_no_connection_that_nobody_reads(proxy: Proxy, sql: Session) -> None:
    proxy.drops_notifications = True
    recorder = Recorder()
    with listening(proxy.url, recorder, heartbeat=BEAT, times=SHORT):
        wait_until(lambda: recorder.everything() >= 5, "it polls")
        wait_until(lambda: backend(sql) is None, "the connection is closed", 1.0)


def test_after_a_while_of_polling_it_listens_again(proxy: Proxy, sql: Session) -> None:
    times = replace(SHORT, poll_rounds=4)
    proxy.drops_notifications = True
    recorder, conditions = Recorder(), Conditions()
    with listening(proxy.url, recorder, heartbeat=BEAT, times=times, conditions=conditions):
        tries = proxy.accepted
        wait_until(lambda: proxy.accepted > tries + 1, "it polls, and tries LISTEN in between")
        assert conditions.held()
        proxy.drops_notifications = False
        counter = itertools.count()

        def heard() -> bool:
            sql(f"NOTIFY plugin_changes, '{json.dumps({'name': f'n{next(counter)}'})}'")
            return bool(recorder.heard())

        wait_until(heard, "it listens again")
        wait_until(lambda: not conditions.held(), "and says so")


@pytest.mark.parametrize("failing", [RuntimeError, ValueError, KeyError])
def test_a_callback_that_raises_does_not_end_the_thread(
    url: str,
    sql: Session,
    failing: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    raised: list[Names] = []

    def on_change(names: Names) -> None:
        if names == frozenset({"bad"}):
            raised.append(names)
            raise failing("a fault of ours")
        recorder(names)

    # pytest would make the thread's end an error of its own; it is looked at here instead.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with listening(url, on_change, times=SHORT):
        sql("INSERT INTO plugins (name) VALUES ('bad')")
        wait_until(lambda: raised, "it raised")
        since = len(recorder.calls)
        sql("INSERT INTO plugins (name) VALUES ('good')")
        wait_until(lambda: recorder.calls[since:], "it goes on", 3.0)


# --- the end -----------------------------------------------------------------------------------


def test_stop_returns_at_once_while_it_waits(url: str, sql: Session) -> None:
    recorder = Recorder()
    with listening(url, recorder) as listener:
        stop_quickly(listener)
        calls = len(recorder.calls)
        sql("INSERT INTO plugins (name) VALUES ('late')")
        wait_until(lambda: backend(sql) is None, "its backend ends")
        assert len(recorder.calls) == calls
        assert not listener.connected


def test_stop_returns_at_once_while_it_connects_into_a_black_hole(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.open = False
    recorder = Recorder()
    with listening(proxy.url, recorder, wait=False) as listener:
        wait_until(lambda: proxy.accepted, "it connects")
        stop_quickly(listener)
    assert recorder.calls == []
    assert "the database is away" not in caplog.text, "an orderly stop is no outage"


def test_stop_returns_at_once_while_packets_are_dropped() -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue of those that wait for accept() is full from now on
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        recorder = Recorder()
        url = f"postgresql://x@127.0.0.1:{full.getsockname()[1]}/x?sslmode=disable"
        with listening(url, recorder, wait=False) as listener:
            select.select([], [], [], 0.05)  # whether it connects already or not, it has to stop
            stop_quickly(listener)
    assert recorder.calls == []


def test_stop_returns_at_once_in_a_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()

    def long(_least: float, _most: float) -> float:
        waiting.set()
        return 60.0

    monkeypatch.setattr("app.database.events.random.uniform", long)
    with listening("postgresql:///x?host=/nowhere", Recorder(), wait=False) as listener:
        assert waiting.wait(5)
        stop_quickly(listener)


def test_stop_returns_at_once_while_it_polls(proxy: Proxy) -> None:
    times = replace(SHORT, poll=60.0)
    proxy.drops_notifications = True
    recorder = Recorder()
    with listening(proxy.url, recorder, heartbeat=BEAT, times=times) as listener:
        wait_until(lambda: recorder.everything() >= 2, "it polls")
        stop_quickly(listener)


def test_stop_returns_at_once_while_an_answer_is_awaited(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    listens, executing = threading.Event(), threading.Event()
    execute = AsyncSteps.execute

    def noted(steps: AsyncSteps, connection: Connection, statement: str, seconds: float) -> None:
        if statement.startswith("NOTIFY") and listens.is_set():
            proxy.flows.clear()  # here, so that no answer is on its way
            executing.set()
        execute(steps, connection, statement, seconds)

    monkeypatch.setattr(AsyncSteps, "execute", noted)
    with listening(proxy.url, recorder, heartbeat=1.0) as listener:
        listens.set()
        assert executing.wait(5)
        stop_quickly(listener)
    assert "the database is away" not in caplog.text, "an orderly stop is no outage"


def test_nothing_is_called_after_stop_in_the_middle_of_a_burst(url: str, sql: Session) -> None:
    for _ in range(10):
        recorder = Recorder()
        over = threading.Event()

        def notify(over: threading.Event = over) -> None:
            with session(url) as mine:
                while not over.is_set():
                    mine('NOTIFY plugin_changes, \'{"name": "again"}\'')

        thread = threading.Thread(target=notify)
        with listening(url, recorder) as listener:
            thread.start()
            wait_until(lambda: len(recorder.calls) > 5, "it is busy")
            stop_quickly(listener)
            calls = len(recorder.calls)
            sql("NOTIFY plugin_changes, 'x'")
            over.set()
            thread.join()
            assert len(recorder.calls) == calls


def test_stop_before_start_and_twice_does_no_harm(url: str) -> None:
    never = ChangeListener(url, Recorder())
    never.stop()
    recorder = Recorder()
    with listening(url, recorder) as listener:
        stop_quickly(listener)
        probe = os.open("/dev/null", os.O_WRONLY)  # takes the number of a closed pipe end
        try:
            listener.stop()
        finally:
            os.close(probe)


def test_fifty_reconnects_leak_no_file(proxy: Proxy, url: str) -> None:
    times = replace(SHORT, max_backoff=0.005)
    recorder = Recorder()

    def files() -> tuple[int, int]:
        """How many sockets are open, and how many other files."""
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()).startswith("socket:"))
        return sum(found), len(found) - sum(found)

    with listening(proxy.url, recorder, heartbeat=BEAT, times=times):
        sockets, others = files()
        threads = threading.active_count()
        for number in range(2, 52):
            proxy.cut()
            wait_until(lambda: recorder.everything() >= number, f"reconnect {number}")
        # The proxy's own ends and threads go in their own time.
        wait_until(lambda: files()[0] <= sockets, "all sockets are closed")
        assert files()[1] <= others
        wait_until(lambda: threading.active_count() <= threads, "no thread is left")
