"""What one plugin may have of the connections that all of them share."""

import contextlib
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.database import supply
from app.database.pool import Database
from app.database.pool_shares import Share
from app.errors import DatabaseBusyError
from tests.support.waiting import wait_until

TIMEOUT = 0.1


@pytest.fixture
def pool(url: str) -> Iterator[Database]:
    made = Database(url, max_connections=4, reset=True, name="the plugins")
    yield made
    made.close()


def share(pool: Database, plugin: str, places: int = 2) -> Share:
    return pool.share(plugin, places, timeout=TIMEOUT, advice="set BENANA_PLUGIN_CONNECTIONS")


def use(opened: Share) -> int:
    with opened() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return connection.info.backend_pid


def test_a_plugin_that_keeps_its_connections_is_named_and_the_others_get_theirs(
    pool: Database, caplog: pytest.LogCaptureFixture
) -> None:
    greedy, honest = share(pool, "greedy"), share(pool, "honest")
    with greedy(), greedy(), ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(DatabaseBusyError) as caught:
                thread.submit(use, greedy).result()
            assert time.monotonic() - began < TIMEOUT + 0.5
            assert use(honest)
    text = str(caught.value)
    assert text.startswith("greedy holds 2, the oldest for ")
    assert "test_shares.py:" in text, "it says where they were taken"
    assert "all of the 2 database connections that it may hold at once" in text
    assert text.endswith("set BENANA_PLUGIN_CONNECTIONS")
    assert caplog.text.count("greedy holds 2") == 1, "not once a request"
    assert use(greedy)


def test_who_comes_while_nothing_comes_back_is_refused_at_once(pool: Database) -> None:
    """Its requests would hold the threads that the other plugins need."""
    greedy = share(pool, "greedy")
    with greedy(), greedy():
        with pytest.raises(DatabaseBusyError):
            use(greedy)
        began = time.monotonic()
        for _ in range(10):
            with pytest.raises(DatabaseBusyError):
                use(greedy)
        assert time.monotonic() - began < TIMEOUT


def test_as_long_as_connections_come_back_everybody_gets_one(pool: Database) -> None:
    busy = share(pool, "busy")

    def work(_: int) -> int:
        with busy() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.01)")
            return connection.info.backend_pid

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(work, range(24)))) <= 2


def test_a_block_within_a_block_of_one_thread_is_called_so(pool: Database) -> None:
    nested = share(pool, "nested")
    with contextlib.ExitStack() as stack:
        stack.enter_context(nested())
        stack.enter_context(nested())
        with pytest.raises(DatabaseBusyError, match="2 of them in the very thread that asks"):
            use(nested)
    with nested(), nested():
        pass


def test_all_who_hold_connections_of_a_pool_are_named(pool: Database) -> None:
    one, two, three = (share(pool, name) for name in ("one", "two", "three"))
    with one(), one(), two(), two(), pytest.raises(DatabaseBusyError) as caught:
        use(three)
    text = str(caught.value)
    assert text.startswith("all 4 connections of the plugins are lent: one holds 2, the oldest")
    assert ", and two holds 2, the oldest" in text
    assert use(three)


def test_the_next_generation_has_no_more_than_the_last_one_left(pool: Database) -> None:
    """One that never gives back holds up its own plugin, and gives back when it is collected."""
    kept = [share(pool, "leaky")() for _ in range(2)]
    for block in kept:
        block.__enter__()
    with pytest.raises(DatabaseBusyError, match="leaky holds 2"):
        use(share(pool, "leaky"))
    assert use(share(pool, "other"))
    kept.clear()
    del block
    gc.collect()
    assert use(share(pool, "leaky"))


def test_a_connection_that_cannot_be_made_costs_no_place(
    pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = share(pool, "mine")
    with monkeypatch.context() as patched:
        patched.setattr(supply, "connect", lambda *_, **__: 1 / 0)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                use(mine)
    assert use(mine)
    assert pool.lent() == 0


def test_many_threads_of_many_plugins_never_have_more_than_their_part(pool: Database) -> None:
    shares = [share(pool, name) for name in ("one", "two", "three")]
    most: list[int] = []

    def work(number: int) -> None:
        mine = shares[number % 3]
        with contextlib.suppress(DatabaseBusyError), mine():
            most.append(pool.lent(mine.holder))
            assert pool.lent() <= 4

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(150)))
    assert max(most) <= 2
    wait_until(lambda: not pool.lent(), "all came back")


@pytest.mark.parametrize("own", ["5s", "0"])
def test_a_plugins_session_has_a_timeout_of_its_own_that_it_may_change(url: str, own: str) -> None:
    pool = Database(url, max_connections=1, reset=True, settings={"statement_timeout": "7000"})
    for _ in range(2):
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("7s",)
            cursor.execute("SET statement_timeout = %s", (own,))
    pool.close()
