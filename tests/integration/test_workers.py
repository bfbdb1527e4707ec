"""The list of processes on a real PostgreSQL."""

import datetime
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from app.conditions import Conditions
from app.database.connection import Database
from app.database.workers import WorkerRepository
from app.errors import PluginError
from app.records import LoadRecord
from app.serving import recorder as recorder_module
from app.serving.lastgood import LastGood
from app.serving.recorder import Recorder
from tests.acceptance.server import wait_until
from tests.integration.test_repository import MESSAGES
from tests.integration.test_schema import Session, session

LONG_AGO = "clock_timestamp() - interval '1 hour'"


@pytest.fixture
def workers(sql: Session, database: Database) -> WorkerRepository:
    return WorkerRepository(database)


def registered(workers: WorkerRepository, *, host: str = "here") -> str:
    """Enter a process and return its id."""
    worker = str(uuid4())
    workers.register(worker, host, 4711, 0, datetime.datetime.now(datetime.UTC))
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


# --- what they run -------------------------------------------------------------------------------

FAILED = LoadRecord("one", "id-1", 3, 4, "failed", {"message": "no"}, None)


def test_an_error_is_told_whoever_had_it(workers: WorkerRepository, sql: Session) -> None:
    fine, failing, late = (registered(workers, host=host) for host in ("a", "b", "c"))
    serving = replace(FAILED, generation=4, state="serving", error=None)
    assert workers.record(fine, [serving])
    assert workers.load_errors() == {}
    assert workers.record(failing, [FAILED, replace(FAILED, plugin="two", plugin_id="id-2")])
    assert workers.record(late, [replace(FAILED, error={"message": "later"})])
    assert workers.load_errors("one") == {("id-1", 4): {"message": "no"}}
    assert workers.load_errors().keys() == {("id-1", 4), ("id-2", 4)}
    assert workers.load_errors("three") == {}
    sql(f"UPDATE plugin_workers SET heartbeat_at = {LONG_AGO} WHERE id = '{failing}'")
    assert workers.load_errors() == {("id-1", 4): {"message": "later"}}
    assert workers.record(late, [serving])
    assert workers.load_errors() == {}


def test_who_is_not_entered_hears_it(workers: WorkerRepository, sql: Session) -> None:
    assert not workers.record(str(uuid4()), [FAILED])
    assert sql("SELECT count(*) FROM plugin_loads") == [(0,)]


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_whatever_a_plugin_says_can_be_recorded(workers: WorkerRepository, message: str) -> None:
    """PostgreSQL refused a NUL, and nothing of this process was recorded any more."""
    error = PluginError("one", message).as_record()
    assert workers.record(registered(workers), [replace(FAILED, error=error)])
    assert workers.load_errors().keys() == {("id-1", 4)}


# --- the thread that reports ---------------------------------------------------------------------


@pytest.fixture
def recorder(
    workers: WorkerRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorder]:
    """A running recorder that has entered its process."""
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.02)
    recorder = Recorder(workers, LastGood(tmp_path), lambda: 0, Conditions())
    recorder.start()
    wait_until(workers.list_workers, "it is entered")
    yield recorder
    recorder.stop()


def test_a_process_keeps_its_start_over_an_outage(
    workers: WorkerRepository, recorder: Recorder, sql: Session, database: Database
) -> None:
    (before,) = workers.list_workers()
    recorder.note([FAILED])
    wait_until(workers.load_errors, "it is recorded")
    with session(sql.connection.dsn) as lock:
        lock("BEGIN; LOCK TABLE plugin_loads IN ACCESS EXCLUSIVE MODE")
        recorder.note([replace(FAILED, reconciled=5)])
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "it waits")
        database.cut()
        lock("ROLLBACK")
    (after,) = wait_until(
        lambda: [w for w in workers.list_workers() if w.heartbeat_at > before.heartbeat_at],
        "it is entered again",
    )
    wait_until(lambda: workers.load_errors().keys() == {("id-1", 5)}, "it is recorded again")
    assert after.started_at == before.started_at


def test_a_process_that_was_dropped_enters_itself_at_its_next_report(
    workers: WorkerRepository,
    recorder: Recorder,
    sql: Session,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (before,) = workers.list_workers()
    sql("DELETE FROM plugin_workers")
    recorder.note([FAILED])
    wait_until(workers.load_errors, "it is recorded")
    (after,) = workers.list_workers()
    assert after.started_at == before.started_at
    assert not caplog.records


def test_a_database_that_refuses_a_report_is_named_once(
    workers: WorkerRepository,
    recorder: Recorder,
    sql: Session,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    sql("ALTER TABLE plugin_loads ADD CONSTRAINT mine CHECK (plugin_name <> 'one')")
    try:
        recorder.note([FAILED, replace(FAILED, plugin="two", plugin_id="id-2")])
        wait_until(lambda: "mine" in caplog.text, "it is said")
        beats = {worker.heartbeat_at for worker in workers.list_workers()}
        wait_until(lambda: {w.heartbeat_at for w in workers.list_workers()} - beats, "it tries on")
    finally:
        sql("ALTER TABLE plugin_loads DROP CONSTRAINT mine")
    wait_until(lambda: len(workers.load_errors()) == 2, "all is recorded")
    assert len(caplog.records) == 1
