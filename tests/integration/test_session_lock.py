"""The lock of a session: one has it, and whoever loses the connection has lost it."""

from app.database.session_lock import SessionLock
from tests.support.databases import session
from tests.support.waiting import wait_until


def test_one_session_has_the_lock_of_a_name(database_url: str) -> None:
    first, second = SessionLock(database_url, "shop"), SessionLock(database_url, "shop")
    other = SessionLock(database_url, "mail")
    try:
        assert first.take()
        assert first.take()
        assert first.is_held()
        assert not second.take()
        assert not second.is_held()
        assert other.take()
        first.release()
        wait_until(second.take, "it is free")
    finally:
        for lock in (first, second, other):
            lock.release()


def test_a_session_that_ends_has_lost_the_lock(database_url: str) -> None:
    first, second = SessionLock(database_url, "shop"), SessionLock(database_url, "shop")
    try:
        assert first.take()
        with session(database_url) as opened:
            opened(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'benana-lock-shop'"
            )
        assert not first.is_held()
        wait_until(second.take, "it is free")
        assert not first.take()
    finally:
        first.release()
        second.release()


def test_without_a_database_nobody_has_it() -> None:
    lock = SessionLock("postgresql://127.0.0.1:1/none", "shop")
    assert not lock.take()
    assert not lock.is_held()
