"""Databases of other encodings, as far as their characters go."""

import contextlib
import os
from urllib.parse import urlsplit

import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.schema import SCHEMA_FILE
from app.database.workers import WorkerRepository
from app.errors import DatabaseRefusedError
from app.plugin import PluginMetadata
from app.presence import own_presence
from app.records import Artifact, Endpoint, TrialReport
from app.worker_records import LoadRecord, WorkerReport
from tests.support.databases import DIGEST, session
from tests.support.listening import Recorder, listening
from tests.support.waiting import wait_until

ENCODINGS = {
    "LATIN1": ("café ÿ", "日本 or 5 €"),
    "EUC_JP": ("日本", "5 €"),
    "SQL_ASCII": ("日本 café €", None),
}


@pytest.fixture(
    scope="module",
    params=[
        "LATIN1",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("EUC_JP", "SQL_ASCII")),
    ],
)
def encoded(request: pytest.FixtureRequest, postgres_url: str) -> tuple[str, str]:
    """The name of an encoding, and the URL of a database in it."""
    name = f"benana_test_{os.getpid()}_{request.param.lower()}"
    with session(postgres_url) as admin:
        provider = "LOCALE_PROVIDER libc" if admin.connection.server_version >= 150000 else ""
        admin(
            f"CREATE DATABASE {name} ENCODING '{request.param}' {provider} LOCALE 'C'"
            " TEMPLATE template0"
        )
    parts = urlsplit(postgres_url)
    return request.param, f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"


def publish(repository: Repository, name: str, text: str) -> None:
    metadata = PluginMetadata(name=name, version="1", description=text, author=text)
    report = TrialReport(metadata, (Endpoint("GET", f"/{name}", "get"),))
    artifact = Artifact(name, DIGEST, "0" * 64, b"\x00\xff")
    with repository.publishing() as publication:
        publication.keep_version(artifact, report)
        row = publication.lock_row(name)
        publication.save(
            row,
            metadata,
            report.endpoints,
            source_path=f"/p/{name}",
            binary_path=f"/x/{name}-{DIGEST}.pyz",
            source_digest=DIGEST,
            status="active",
        )


def test_what_fits_is_kept_and_what_does_not_is_refused_by_name(encoded: tuple[str, str]) -> None:
    encoding, url = encoded
    fits, does_not = ENCODINGS[encoding]
    recorder = Recorder()
    with contextlib.closing(Database(url)) as database, listening(url, recorder):
        repository, workers = Repository(database), WorkerRepository(database)
        repository.apply_schema()
        assert repository.apply_schema() is False
        publish(repository, "good", fits)
        row = repository.find_row("good")
        assert row is not None
        assert (row.description, row.author) == (fits, fits)
        with session(f"{url}&client_encoding=utf8") as sql:
            sql("UPDATE plugins SET description = 'x'")
            sql("UPDATE plugins SET binary_path = binary_path || '' , generation = generation + 1")
            assert sql("SELECT metadata->>'description' FROM plugin_versions") == [(fits,)]
        wait_until(lambda: "good" in recorder.heard(), "it is told")
        if does_not is not None:
            with pytest.raises(DatabaseRefusedError, match=encoding):
                publish(repository, "bad", does_not)
            assert repository.find_row("bad") is None
        assert repository.find_row("日本 €") is None
        # What is wrong is kept in any case, as far as it can be written.
        for text in filter(None, (fits, does_not)):
            error = {"message": f"expected {text}", "file": text, "line": 1}
            repository.failures.record(text, f"/p/{text}", error)
            failure = repository.failures.find(text)
            assert failure is not None
            assert (failure.error["message"] == error["message"]) == (text == fits)
            assert failure.error["message"].startswith("expected ")
            repository.failures.forget(text)
            assert repository.failures.find(text) is None
            row = repository.find_row("good")
            assert row is not None
            repository.record_error(row, error)
            repository.record_error(row, None)
            workers.register("w", "host", own_presence(), 1, row.created_at, WorkerReport())
            number = row.generation
            failed = [LoadRecord("good", row.id, number, number, "failed", error)]
            assert workers.record("w", failed)
            workers.record_failures(failed)
            again = repository.find_row("good")
            assert again is not None
            assert again.error is not None
            assert again.error["message"].startswith("expected ")


def test_bytes_of_no_encoding_are_named(encoded: tuple[str, str]) -> None:
    encoding, url = encoded
    if encoding != "SQL_ASCII":
        pytest.skip("only SQL_ASCII keeps them")
    with contextlib.closing(Database(url)) as database, session(url) as sql:
        repository = Repository(database)
        repository.apply_schema()
        sql("INSERT INTO plugins (name, description) VALUES ('bytes', E'caf\\351')")
        with pytest.raises(
            DatabaseRefusedError, match='invalid byte sequence for encoding "UTF8": 0xe9'
        ):
            repository.find_row("bytes")
        assert [row.name for row in repository.served_rows(["bytes"])] == ["bytes"]


def test_the_schema_is_ascii() -> None:
    assert SCHEMA_FILE.read_bytes().isascii()
