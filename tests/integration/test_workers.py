"""The list of processes on a real PostgreSQL."""

import contextlib
import datetime
import logging
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app import presence as presence_module
from app.conditions import Conditions
from app.database.pool import Database
from app.database.workers import WorkerRepository
from app.errors import PluginError
from app.presence import Presence, own_presence
from app.serving.last_known_good import LastKnownGood
from app.serving.recorder import Recorder
from app.worker_records import LoadRecord, WorkerReport
from tests.support.databases import Session, apply, session, undoing
from tests.support.publications import MESSAGES
from tests.support.waiting import wait_until
from tests.support.workers import registered

REPORT = WorkerReport()
LONG_AGO = "clock_timestamp() - interval '1 hour'"


@pytest.fixture
def workers(sql: Session, database: Database) -> WorkerRepository:
    return WorkerRepository(database)


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


@pytest.mark.parametrize("status", ["ready", "degraded", "unavailable", None])
def test_who_is_overdue_is_not_called_ready(
    workers: WorkerRepository, sql: Session, status: str | None
) -> None:
    registered(workers)
    since = "UPDATE plugin_workers SET status = %s, heartbeat_at = clock_timestamp() - interval"
    sql(f"{since} '2.5 s'", status)
    (listed,) = workers.list_workers()
    assert (listed.status, list(listed.reasons)) == (status, []), "a heartbeat may be late"
    sql(f"{since} '3.2 s'", status)
    (listed,) = workers.list_workers()
    assert listed.status == ("degraded" if status == "ready" else status)
    (reason,) = listed.reasons
    assert reason["what"].startswith("nothing was heard of it for 3.")
    assert reason["since"] == listed.heartbeat_at.astimezone(datetime.UTC).isoformat()


def test_who_was_killed_here_is_not_counted_for_as_long_as_its_heartbeat_lasts(
    workers: WorkerRepository, sql: Session
) -> None:
    for host in ("away", "here"):
        with subprocess.Popen(["sleep", "60"]) as process:
            here = presence_of(process.pid)
            presence = here if host == "here" else replace(here, machine="another")
            worker = entered_as(workers, host, presence)
            assert workers.record(worker, [FAILED])
            assert process.pid in {found.pid for found in workers.list_workers()}
            process.kill()
            process.wait()
    assert len(entered(sql)) == 2
    (left,) = workers.list_workers()
    assert left.host == "away", "of another machine only its heartbeat tells"
    (load,) = workers.loads_of("one")
    assert load.host == "away"
    assert workers.load_errors().keys() == {("id-1", 4)}
    workers.leave(left.id)
    assert workers.load_errors() == {}, "what the dead said is of no account"
    assert entered(sql) == set(), "who leaves drops them"


def test_who_comes_drops_who_was_killed(workers: WorkerRepository, sql: Session) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        entered_as(workers, "here", presence_of(process.pid))
        process.kill()
    worker = registered(workers)
    assert entered(sql) == {worker}


def test_a_worker_says_how_it_is(workers: WorkerRepository) -> None:
    conditions = Conditions()
    conditions.hold("load:one", "generation 3 cannot be loaded: \0\ud800", "one")
    report = WorkerReport(2, "degraded", conditions.held(), crew=3)
    worker = registered(workers)
    assert workers.heartbeat(worker, report)
    (listed,) = workers.list_workers()
    assert (listed.status, listed.generations_alive) == ("degraded", 2)
    (reason,) = listed.reasons
    assert reason["plugin"] == "one"
    assert reason["what"].startswith("generation 3 cannot be loaded")
    assert reason["since"] == conditions.held()[0].since.isoformat()
    assert workers.heartbeat(worker, WorkerReport(2, "ready"))
    (listed,) = workers.list_workers()
    assert (listed.status, listed.reasons) == ("ready", [])


def test_a_worker_of_an_older_version_is_one_all_the_same(
    workers: WorkerRepository, sql: Session
) -> None:
    sql("INSERT INTO plugin_workers (id, host, pid) VALUES ('old', 'here', 1)")
    (listed,) = workers.list_workers()
    assert (listed.status, listed.reasons) == (None, [])
    (load,) = workers.loads_of("one")
    assert (load.id, load.crew) == ("old", None)


def test_a_heartbeat_drops_the_dead(workers: WorkerRepository, sql: Session) -> None:
    dead(workers, sql)
    one, other = registered(workers), registered(workers)
    assert workers.heartbeat(one, WorkerReport(3))
    assert entered(sql) == {one, other}
    assert {found.generations_alive for found in workers.list_workers()} == {3, 0}


def test_a_process_that_was_thought_dead_hears_it(workers: WorkerRepository, sql: Session) -> None:
    slow, other = dead(workers, sql), registered(workers)
    assert workers.heartbeat(other, REPORT)
    assert not workers.heartbeat(slow, REPORT), "it is to enter itself anew"


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
        assert pool.submit(workers.heartbeat, one, REPORT).result(5.0)
        pool.submit(workers.leave, other).result(5.0)
        dropping("COMMIT")
    assert entered(sql) == {one}


def presence_of(pid: int) -> Presence:
    started = presence_module._look_up(pid)
    return Presence(own_presence().machine, pid, started)


def entered_as(workers: WorkerRepository, host: str, presence: Presence) -> str:
    worker = str(uuid4())
    workers.register(worker, host, presence, 1, datetime.datetime.now(datetime.UTC), REPORT)
    return worker


# --- what they run -------------------------------------------------------------------------------

# As they were until milliseconds and recorded_at were dropped from what is written.
OLD_COLUMNS = """
    ALTER TABLE plugin_loads ADD COLUMN milliseconds DOUBLE PRECISION,
        ADD COLUMN recorded_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp();
    COMMENT ON TABLE plugins IS 'older'
"""
OLD_RECORD = """
    INSERT INTO plugin_loads (worker_id, plugin_name, plugin_id, generation,
        reconciled, state, error, milliseconds)
    SELECT w.id, l.* FROM (SELECT id FROM plugin_workers WHERE id = %s FOR KEY SHARE) w,
        unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],
            %s::jsonb[], %s::float8[]) l
    ON CONFLICT (worker_id, plugin_name) DO UPDATE SET
        plugin_id = EXCLUDED.plugin_id, generation = EXCLUDED.generation,
        reconciled = EXCLUDED.reconciled, state = EXCLUDED.state, error = EXCLUDED.error,
        milliseconds = EXCLUDED.milliseconds, recorded_at = clock_timestamp()
"""


def test_workers_of_an_older_version_report_beside_newer_ones_after_an_upgrade(
    database_url: str,
) -> None:
    with contextlib.closing(Database(database_url)) as database, session(database_url) as sql:
        apply(database_url)
        sql(OLD_COLUMNS)
        workers = WorkerRepository(database)
        old, new = registered(workers, host="a"), registered(workers, host="b")

        def old_records(generation: int) -> None:
            loads = ["one"], ["id-1"], [generation], [generation], ["serving"], [None], [1.5]
            sql(OLD_RECORD, old, *loads)

        old_records(1)
        assert apply(database_url) is True
        for generation in (2, 3):
            old_records(generation)
            assert workers.record(new, [LoadRecord("one", "id-1", generation, 3, "serving")])
            found = [(w.host, w.load and w.load.generation) for w in workers.loads_of("one")]
            assert found == [("a", generation), ("b", generation)]


def test_a_new_database_has_no_column_that_nobody_reads(sql: Session) -> None:
    found = sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'plugin_loads'"
    )
    read = {field.name for field in fields(LoadRecord)} - {"plugin"}
    assert {name for (name,) in found} == read | {"worker_id", "plugin_name"}


FAILED = LoadRecord("one", "id-1", 3, 4, "failed", {"message": "no"})


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


@pytest.fixture
def row(sql: Session) -> str:
    """The row of a plugin, in its generation 4."""
    sql(
        "INSERT INTO plugins (id, name, version, binary_path, generation)"
        " VALUES ('id-1', 'one', '1', '/x', 4)"
    )
    return "id-1"


def error_of(sql: Session) -> Any:
    ((error,),) = sql("SELECT error FROM plugins WHERE name = 'one'")
    return error


BROKEN = replace(FAILED, error={"message": "no", "generation": 4})


def test_what_no_process_can_load_is_said_by_the_row(
    workers: WorkerRepository, sql: Session, row: str
) -> None:
    one, two = registered(workers), registered(workers)
    assert workers.record(one, [BROKEN])
    workers.record_failures([BROKEN])
    assert error_of(sql) is None, "the other one has not tried yet"
    assert workers.record(two, [replace(BROKEN, generation=None, state="loading", error=None)])
    workers.record_failures([BROKEN])
    assert error_of(sql) is None, "it is just trying"
    assert workers.record(two, [replace(BROKEN, error={"message": "late", "generation": 4})])
    workers.record_failures([replace(BROKEN, error={"message": "late", "generation": 4})])
    assert error_of(sql) == {"message": "late", "generation": 4}


def test_a_killed_process_is_not_waited_for_to_fail(
    workers: WorkerRepository, sql: Session, row: str
) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        entered_as(workers, "here", presence_of(process.pid))
        process.kill()
    worker = registered(workers)
    assert workers.record(worker, [BROKEN])
    workers.record_failures([BROKEN])
    assert error_of(sql) == BROKEN.error
    assert entered(sql) == {worker}


@pytest.mark.parametrize(
    "other",
    [
        {"state": "serving", "generation": 4, "error": None},
        {"reconciled": 3},
        {"plugin_id": "of another row"},
    ],
    ids=["serves it", "failed before", "another row"],
)
def test_what_one_process_can_load_is_no_error_of_the_row(
    workers: WorkerRepository, sql: Session, row: str, other: dict[str, Any]
) -> None:
    one, two = registered(workers), registered(workers)
    assert workers.record(one, [BROKEN])
    assert workers.record(two, [replace(BROKEN, **other)])
    workers.record_failures([BROKEN])
    assert error_of(sql) is None


@pytest.mark.parametrize(
    "change",
    ['error = \'{"phase": "compile"}\'', "status = 'inactive'", "generation = generation + 1"],
)
def test_what_a_row_says_already_is_not_written_over(
    workers: WorkerRepository, sql: Session, row: str, change: str
) -> None:
    sql(f"UPDATE plugins SET {change}")
    before = error_of(sql)
    assert workers.record(registered(workers), [BROKEN])
    workers.record_failures([BROKEN])
    assert error_of(sql) == before


@pytest.mark.parametrize(
    "change",
    [
        "generation = generation + 1",
        "status = 'inactive'",
        "binary_path = NULL",
        "id = 'another'",
        "source_path = '/elsewhere'",
    ],
)
def test_a_changed_row_does_not_keep_the_error_of_what_it_was(
    sql: Session, row: str, change: str
) -> None:
    sql("UPDATE plugins SET error = '{\"generation\": 4}'")
    assert error_of(sql) == {"generation": 4}
    sql("UPDATE plugins SET description = 'more'")
    assert error_of(sql) == {"generation": 4}, "it is the same generation"
    sql(f"UPDATE plugins SET {change}")
    assert error_of(sql) is None


def test_an_error_of_the_source_lasts_as_long_as_the_source(sql: Session, row: str) -> None:
    sql('UPDATE plugins SET error = \'{"phase": "compile"}\'')
    sql("UPDATE plugins SET generation = generation + 1")
    assert error_of(sql) == {"phase": "compile"}, "the newest source is as broken as before"
    sql("UPDATE plugins SET source_path = '/elsewhere'")
    assert error_of(sql) is None


def test_an_error_that_comes_with_the_change_is_of_the_changed_row(sql: Session, row: str) -> None:
    sql("UPDATE plugins SET error = '{\"generation\": 4}'")
    sql("UPDATE plugins SET generation = 5, error = '{\"generation\": 5}'")
    assert error_of(sql) == {"generation": 5}


def test_a_row_that_is_gone_leaves_no_error(workers: WorkerRepository, sql: Session) -> None:
    worker = registered(workers)
    assert workers.record(worker, [FAILED, replace(FAILED, plugin="two", plugin_id="id-2")])
    workers.forget(worker, ["one"])
    assert workers.load_errors().keys() == {("id-2", 4)}
    (load,) = workers.loads_of("one")
    assert load.load is None


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
def recorder(workers: WorkerRepository, tmp_path: Path) -> Iterator[Recorder]:
    """A running recorder that has entered its process."""
    recorder = Recorder(workers, LastKnownGood(tmp_path), WorkerReport, retry_seconds=0.02)
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
        database.abort()
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


def test_a_plugin_that_is_gone_is_forgotten_in_the_database(
    workers: WorkerRepository, recorder: Recorder
) -> None:
    recorder.note([FAILED, replace(FAILED, plugin="two", plugin_id="id-2")])
    wait_until(lambda: len(workers.load_errors()) == 2, "both are recorded")
    recorder.forget("one")
    recorder.forget("never was")
    wait_until(lambda: workers.load_errors().keys() == {("id-2", 4)}, "it is forgotten")
    recorder.forget("two")
    recorder.note([replace(FAILED, plugin="two", plugin_id="id-3")])  # it is back at once
    wait_until(lambda: workers.load_errors().keys() == {("id-3", 4)}, "the new one counts")


def test_what_nobody_can_load_is_said_by_the_row_soon(
    recorder: Recorder, sql: Session, row: str
) -> None:
    recorder.note([BROKEN])
    wait_until(lambda: error_of(sql) == BROKEN.error, "the row says so", 1.0)


def test_a_turn_is_reported_at_once(workers: WorkerRepository, recorder: Recorder) -> None:
    (before,) = workers.list_workers()
    recorder.beat()
    wait_until(
        lambda: workers.list_workers()[0].heartbeat_at > before.heartbeat_at, "it beats", 0.5
    )


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


@pytest.mark.parametrize("table", ["plugin_loads", "plugin_workers"])
def test_a_trigger_that_undoes_a_report_in_silence_is_named(
    workers: WorkerRepository, tmp_path: Path, sql: Session, table: str
) -> None:
    """All was ready, and everybody waited for what this process ran."""
    conditions = Conditions()
    recorder = Recorder(
        workers, LastKnownGood(tmp_path), WorkerReport, conditions, retry_seconds=0.02
    )
    with undoing(sql, table):
        recorder.start()
        try:
            recorder.note([FAILED])
            wait_until(
                lambda: f"INSERT on {table} that may do so: quiet" in str(conditions.held()),
                "it is a reason",
            )
        finally:
            sql("DROP TRIGGER quiet ON " + table)
        wait_until(workers.load_errors, "it is recorded")
        wait_until(lambda: not conditions.held(), "it is over")
    recorder.stop()
