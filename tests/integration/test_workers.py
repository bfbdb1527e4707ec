"""The list of processes on a real PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from app.database.connection import Database
from app.database.workers import WorkerRepository
from tests.integration.test_schema import Session, session

LONG_AGO = "clock_timestamp() - interval '1 hour'"


@pytest.fixture
def workers(sql: Session, database: Database) -> WorkerRepository:
    return WorkerRepository(database)


def registered(workers: WorkerRepository, *, host: str = "here") -> str:
    """Enter a process and return its id."""
    worker = str(uuid4())
    workers.register(worker, host, 4711, 0)
    return worker


def dead(workers: WorkerRepository, sql: Session) -> str:
    """Enter a process that has not been heard of for an hour, and return its id."""
    worker = registered(workers)
    sql(f"UPDATE plugin_workers SET heartbeat_at = {LONG_AGO} WHERE id = '{worker}'")
    return worker


def entered(sql: Session) -> set[str]:
    return {worker for (worker,) in sql("SELECT id::text FROM plugin_workers")}


def test_the_dead_are_not_listed(workers: WorkerRepository, sql: Session) -> None:
    dead(workers, sql)
    registered(workers, host="there")
    (listed,) = workers.list_workers()
    assert listed.host == "there"
    assert len(workers.loads_of("any")) == 1


def test_a_heartbeat_drops_the_dead(workers: WorkerRepository, sql: Session) -> None:
    dead(workers, sql)
    one, other = registered(workers), registered(workers)
    assert workers.heartbeat(one, 3)
    assert entered(sql) == {one, other}
    assert {found.generations_alive for found in workers.list_workers()} == {3, 0}


def test_a_process_that_was_thought_dead_hears_it(workers: WorkerRepository, sql: Session) -> None:
    slow, other = dead(workers, sql), registered(workers)
    assert workers.heartbeat(other, 0)
    assert not workers.heartbeat(slow, 0), "it is to enter itself anew"


def test_who_leaves_last_leaves_nobody(workers: WorkerRepository, sql: Session) -> None:
    dead(workers, sql)
    one, other = registered(workers), registered(workers)
    workers.leave(one)
    assert entered(sql) == {other}
    dead(workers, sql)
    workers.leave(other)
    assert entered(sql) == set(), "nobody is left who would drop them"


def test_the_dead_hold_up_nobody(workers: WorkerRepository, sql: Session, url: str) -> None:
    gone, one, other = dead(workers, sql), registered(workers), registered(workers)
    with ThreadPoolExecutor(1) as pool, session(url) as dropping:
        dropping("BEGIN")
        dropping(f"DELETE FROM plugin_workers WHERE id = '{gone}'")
        assert pool.submit(workers.heartbeat, one, 0).result(5.0)
        pool.submit(workers.leave, other).result(5.0)
        dropping("COMMIT")
    assert entered(sql) == {one}
