"""Rows are read by name: a new column is in the schema, in its record and in what writes it."""

import dataclasses
from typing import Any

import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.rows import fetch_record, fetch_records
from app.database.statements import statement
from app.database.workers import WorkerRepository
from app.records import AUTO, ServedRow
from app.worker_records import LoadRecord
from tests.support.databases import Session
from tests.support.publications import artifact, digest, publish
from tests.support.workers import registered


def columns(sql: Session, table: str, record: Any, **elsewhere: Any) -> dict[str, Any]:
    """What a table has, in the column of each field's name."""
    return {
        field.name: sql(f"SELECT {field.name} FROM {table}")[0][0]
        for field in dataclasses.fields(record)
        if field.name not in elsewhere
    } | elsewhere


def values(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def test_each_field_of_a_plugins_row_is_the_column_of_its_name(
    repository: Repository, sql: Session
) -> None:
    publish(repository, "one", "/a", "/b", version="2", description="words", author="who")
    sql('UPDATE plugins SET error = \'{"message": "no"}\'')
    row = repository.find_row("one")
    assert row is not None
    [(sha256,)] = sql("SELECT archive_sha256 FROM plugin_versions")
    of_others = {"endpoints": row.endpoints, "reload": None, "finding": None}
    assert values(row) == columns(sql, "plugins", row, archive_sha256=sha256, **of_others)
    assert row.archive == (row.source_digest, sha256)
    assert repository.list_rows() == [row]
    assert [values(endpoint) for endpoint in row.endpoints] == [
        {"method": "GET", "path": path, "handler": "Plugin.get"} for path in ("/a", "/b")
    ]


@pytest.mark.parametrize("names", [None, ["one"]])
def test_each_field_that_decides_what_is_served_is_the_column_of_its_name(
    repository: Repository, sql: Session, names: list[str] | None
) -> None:
    publish(repository, "one", "/a")
    sql("UPDATE plugins SET error = '{\"generation\": 1}'")
    (row,) = repository.served_rows(names)
    sha256 = artifact("one", 1).sha256
    said: dict[str, Any] = {"unpublished": False, "load_error": True, "unstamped": False}
    said |= {"reload": AUTO, "reload_why": "", "watched": False}
    said |= {"exclusive": None, "endpoints": None}
    assert values(row) == columns(sql, "plugins", row, archive_sha256=sha256, **said)
    assert digest(1) in str(row.binary_path)
    sql('UPDATE plugin_versions SET metadata = metadata || \'{"exclusive": "host"}\'')
    (row,) = repository.served_rows(names)
    assert row.exclusive == "host"
    assert row.endpoints == [["GET", "/a", "Plugin.get"]]


def test_each_field_of_a_failure_is_the_column_of_its_name(
    repository: Repository, sql: Session
) -> None:
    repository.failures.record("bad", "/p/bad", {"message": "no"})
    row = repository.failures.find("bad")
    assert values(row) == columns(sql, "plugin_failures", row)
    assert repository.failures.list_all() == [row]


def test_each_field_of_a_process_and_its_load_is_the_column_of_its_name(
    sql: Session, database: Database
) -> None:
    workers = WorkerRepository(database)
    worker = registered(workers)
    load = LoadRecord("one", "id-1", 3, 4, "failed", {"message": "no"}, owner=True)
    assert workers.record(worker, [load])
    (row,) = workers.list_workers()
    assert values(row) == columns(sql, "plugin_workers", row, owns=["one"])
    (found,) = workers.loads_of("one")
    assert found.load == load
    assert (found.id, found.host, found.pid) == (row.id, row.host, row.pid)


def test_the_places_of_columns_do_not_matter(database: Database, sql: Session) -> None:
    with statement(database) as cursor:
        cursor.execute(
            "SELECT NULL AS more, true AS load_error, 'sha' AS archive_sha256, 'p' AS binary_path,"
            " 7 AS generation, 'one' AS name, 'active' AS status, 'id' AS id, false AS unpublished,"
            " false AS unstamped, 'auto' AS reload, '' AS reload_why, false AS watched,"
            " 'host' AS exclusive, NULL AS endpoints"
        )
        (row,) = fetch_records(cursor, ServedRow)
        wanted = ServedRow("id", "one", 7, "active", "p", "sha", load_error=True, exclusive="host")
        assert values(row) == values(wanted)


def test_a_column_that_a_record_needs_is_missed(database: Database, sql: Session) -> None:
    with statement(database) as cursor:
        cursor.execute("SELECT 'id' AS id, 'one' AS name")
        with pytest.raises(ValueError, match="not in list"):
            fetch_record(cursor, ServedRow)
