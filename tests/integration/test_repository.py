"""The repository and its pool on a real PostgreSQL."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from app.database import connection as connection_module
from app.database.connection import Database
from app.database.embedded import EmbeddedPostgres
from app.database.repository import KEPT_VERSIONS, Repository
from app.errors import ConflictError, DatabaseUnavailableError, PluginError
from app.plugin import PluginMetadata
from app.publishing.look import Look
from app.publishing.publisher import Publisher
from app.publishing.trial import TrialRunner
from app.records import ACTIVE, Artifact, Endpoint, TrialReport, artifact_name
from app.serving.routes import find_conflict
from tests.acceptance.server import wait_until
from tests.integration.test_schema import GO_ROWS, GO_TABLES, GO_TRIGGERS, Session, session

PLACES = 4
"""How many connections the pool of these tests lends at most."""


@pytest.fixture
def sql(url: str) -> Iterator[Session]:
    """A session of somebody else, on emptied tables."""
    with session(url) as opened:
        opened("TRUNCATE plugins, plugin_endpoints, plugin_versions, plugin_failures")
        yield opened


@pytest.fixture
def lent(url: str, repository: Repository) -> Iterator[Database]:
    """A pool as plugins have it: a connection that comes back is made as new."""
    database = Database(url, max_connections=PLACES, reset=True)
    yield database
    database.close()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A small pool, closed at the end."""
    database = Database(url, max_connections=PLACES)
    yield database
    database.close()


@pytest.fixture
def repository(sql: Session, database: Database) -> Repository:
    return Repository(database)


def digest(number: int) -> str:
    return f"{number:032x}"


def artifact(name: str, number: int, archive: bytes = b"zip") -> Artifact:
    return Artifact(name, digest(number), hashlib.sha256(archive).hexdigest(), archive)


def report(name: str, *paths: str) -> TrialReport:
    endpoints = tuple(Endpoint("GET", path, "Plugin.get") for path in paths)
    return TrialReport(PluginMetadata(name, "1.0"), endpoints)


def publish(
    repository: Repository, name: str, *paths: str, number: int = 1, **changes: str
) -> tuple[str, int]:
    """Publish as the publisher does, without a folder."""
    found = report(name, *paths)
    found = replace(found, metadata=replace(found.metadata, **changes))
    with repository.publishing() as publication:
        row = publication.lock_row(name)
        conflict = find_conflict(name, paths, publication.other_templates(name, paths))
        if conflict is not None:
            raise conflict
        publication.keep_version(artifact(name, number), found)
        saved = publication.save(
            row,
            found.metadata,
            found.endpoints,
            source_path=f"/p/{name}",
            binary_path=f"/b/{artifact_name(name, digest(number))}",
            source_digest=digest(number),
            status=ACTIVE,
        )
        publication.prune_versions(name)
    return saved


def backends(sql: Session) -> int:
    """How many other connections the database has."""
    return sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )[0][0]


# --- publications ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/a/{x}", "/a/{y}"), ("/{x}", "/{y}"), ("/a/{x:int}", "/a/{x}")],
)
def test_of_two_publishes_with_one_route_exactly_one_wins(
    repository: Repository, sql: Session, first: str, second: str
) -> None:
    barrier = threading.Barrier(2)

    def attempt(name: str, path: str) -> str:
        barrier.wait(10)
        try:
            publish(repository, name, path)
        except ConflictError:
            return "refused"
        return "won"

    for _ in range(10):
        sql("TRUNCATE plugins CASCADE")
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(attempt, ("one", "two"), (first, second)))
        assert sorted(found) == ["refused", "won"]
        assert sql("SELECT count(*) FROM plugin_endpoints") == [(1,)]


def test_publishes_serialise_whatever_isolation_the_database_defaults_to(
    new_database: Callable[[], str],
) -> None:
    url = new_database()
    with session(url) as sql:
        name = url.rpartition("/")[2].partition("?")[0]
        sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    database = Database(url)
    repository = Repository(database)
    repository.apply_schema()
    holding = threading.Event()
    go_on = threading.Event()

    def first() -> None:
        with repository.publishing() as publication:
            holding.set()
            go_on.wait(10)
            found = report("one", "/a")
            publication.save(
                None,
                found.metadata,
                found.endpoints,
                source_path="/p/one",
                binary_path="/b/one",
                source_digest=digest(1),
                status=ACTIVE,
            )

    with ThreadPoolExecutor(2) as pool, session(url) as sql:
        one = pool.submit(first)
        assert holding.wait(10)
        two = pool.submit(publish, repository, "two", "/a")
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "two waits")
        go_on.set()
        one.result(10)
        # Refused as a conflict, or as something to be tried again; never both with one route.
        with pytest.raises((ConflictError, DatabaseUnavailableError)):
            two.result(10)
    database.close()


def test_a_failed_publish_leaves_nothing(repository: Repository, sql: Session) -> None:
    publish(repository, "one", "/a", number=1)
    before = repository.list_rows()
    with pytest.raises(RuntimeError), repository.publishing() as publication:
        row = publication.lock_row("one")
        publication.keep_version(artifact("one", 2), report("one", "/b"))
        publication.save(
            row,
            PluginMetadata("one", "2.0"),
            (),
            source_path="/x",
            binary_path="/y",
            source_digest=digest(2),
            status=ACTIVE,
        )
        raise RuntimeError
    assert repository.list_rows() == before
    assert sql("SELECT source_digest FROM plugin_versions") == [(digest(1),)]


def test_a_publish_rewrites_the_endpoints_and_forgets_error_and_failure(
    repository: Repository, sql: Session
) -> None:
    first = publish(repository, "one", "/a", "/b")
    row = repository.find_row("one")
    assert row is not None
    repository.record_error(row, {"message": "broken"})
    repository.record_failure("one", "/p/one", {"message": "broken"})
    second = publish(repository, "one", "/c", number=2)
    assert second == (first[0], first[1] + 1)
    row = repository.find_row("one")
    assert row is not None
    assert (row.error, [e.path for e in row.endpoints]) == (None, ["/c"])
    assert repository.list_failures() == []


def test_an_inactive_plugin_stays_so_when_it_is_published(repository: Repository) -> None:
    publish(repository, "one", "/a")
    assert repository.toggle("one") is not None
    publish(repository, "one", "/a", number=2)
    row = repository.find_row("one")
    assert row is not None
    assert row.status == "inactive"


def test_a_session_that_holds_one_row_does_not_stop_the_publish_of_another(
    repository: Repository, sql: Session, url: str
) -> None:
    """Somebody ran `BEGIN; UPDATE plugins …` in psql and went for lunch."""
    publish(repository, "held", "/held")
    psql = psycopg2.connect(url)
    pool = ThreadPoolExecutor(2)
    try:
        with psql.cursor() as cursor:
            cursor.execute("UPDATE plugins SET description = 'mine' WHERE name = 'held'")
        held = pool.submit(publish, repository, "held", "/held", number=2)
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "held waits")
        other = pool.submit(publish, repository, "other", "/other")
        assert _done(other, 8.0), "the publish of another plugin waits for the held row"
    finally:
        psql.close()  # its transaction is rolled back
        pool.shutdown()
    with contextlib.suppress(DatabaseUnavailableError):  # given up, or made up for
        held.result()


def test_a_toggle_of_a_row_that_somebody_holds_gives_up(repository: Repository, url: str) -> None:
    """It would hold a request's thread for as long as psql stays open."""
    publish(repository, "held", "/held")
    psql = psycopg2.connect(url)
    pool = ThreadPoolExecutor(1)
    try:
        with psql.cursor() as cursor:
            cursor.execute("UPDATE plugins SET description = 'mine' WHERE name = 'held'")
        toggle = pool.submit(repository.toggle, "held")
        assert _done(toggle, 8.0), "the toggle waits without an end"
    finally:
        psql.close()
        pool.shutdown()
    assert isinstance(toggle.exception(), DatabaseUnavailableError)


def _done(future: Future[Any], seconds: float) -> bool:
    with contextlib.suppress(Exception):
        future.exception(seconds)
    return future.done()


# --- errors ------------------------------------------------------------------------------------


def test_an_error_is_noted_for_the_generation_that_it_belongs_to(repository: Repository) -> None:
    publish(repository, "one", "/a")
    old = repository.find_row("one")
    assert old is not None
    repository.record_error(old, {"message": "first"})
    found = repository.find_row("one")
    assert found is not None
    assert (found.error, found.generation) == ({"message": "first"}, old.generation)
    publish(repository, "one", "/a", number=2)
    repository.record_error(old, {"message": "late"})
    found = repository.find_row("one")
    assert found is not None
    assert found.error is None
    repository.record_error(found, None)
    assert repository.find_row("one") == found


def test_the_same_error_again_changes_nothing(repository: Repository, sql: Session) -> None:
    publish(repository, "one", "/a")
    row = repository.find_row("one")
    assert row is not None
    error = {"phase": "load", "message": "x", "file": None, "line": 3}
    repository.record_error(row, error)
    before = sql("SELECT xmin, updated_at FROM plugins")
    repository.record_error(row, dict(reversed(error.items())))
    assert sql("SELECT xmin, updated_at FROM plugins") == before


MESSAGES = {
    "plain": "it broke",
    "nul": "a\0b",
    "escaped_nul": "\\u0000 cannot be converted to text",
    "backslashes": "\\" * 7 + "u0000",
    "surrogate": "caf\udce9",
    "high_surrogate": "\ud800",
    "low_before_high": "\udc00\ud800",
    "emoji": "🍌",
    "quotes": "'\"%s %(x)s",
    "long": "x" * 1_000_000,
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_whatever_a_plugin_says_can_be_noted(repository: Repository, message: str) -> None:
    publish(repository, "one", "/a")
    row = repository.find_row("one")
    assert row is not None
    error = PluginError("one", message, file="main.py", line=1).as_record()
    repository.record_error(row, error)
    repository.record_failure("two", "/p/two", error)
    row, failure = repository.find_row("one"), repository.find_failure("two")
    assert row is not None
    assert row.error is not None
    assert failure is not None
    assert row.error == failure.error
    if "\0" not in message and message.isprintable():
        assert row.error == error


@pytest.mark.parametrize(
    "name",
    ["x" * 255, "x" * 4_000, "ä" * 255, "../x", "", " ", "a\nb", "a'b", "caf\udce9", "a\0b"],
    ids=["255", "4000", "umlauts", "dots", "empty", "blank", "newline", "quote", "bytes", "nul"],
)
def test_a_failure_of_any_folder_name_is_noted_and_forgotten(
    repository: Repository, name: str
) -> None:
    for message in ("first", "second"):
        repository.record_failure(name, f"/p/{name}", {"message": message})
    (found,) = repository.list_failures()
    assert found.error == {"message": "second"}
    assert repository.find_row(name) is None
    repository.forget_failure(name)
    assert repository.list_failures() == []


# --- versions ----------------------------------------------------------------------------------


def test_old_versions_are_dropped_but_never_the_one_in_use(
    repository: Repository, sql: Session
) -> None:
    for number in range(KEPT_VERSIONS):
        publish(repository, "one", "/a", number=number)
    publish(repository, "two", "/b", number=0)
    assert sql("SELECT count(*) FROM plugin_versions WHERE plugin_name = 'one'") == [
        (KEPT_VERSIONS,)
    ]
    publish(repository, "one", "/a", number=0)  # back to the oldest
    for number in range(100, 105):
        with repository.publishing() as publication:
            publication.keep_version(artifact("one", number), report("one", "/a"))
            dropped = publication.prune_versions("one")
        assert digest(0) not in dropped
    assert repository.find_artifact("one", digest(0)) == artifact("one", 0)
    assert repository.find_artifact("two", digest(0)) == artifact("two", 0)
    kept = {found for (found,) in sql("SELECT source_digest FROM plugin_versions"
                                      " WHERE plugin_name = 'one'")}  # fmt: skip
    assert kept == {digest(n) for n in (0, *range(5, KEPT_VERSIONS), *range(100, 105))}


@pytest.mark.parametrize(
    ("binary_path", "source_digest"),
    [(f"/other/host/{artifact_name('one', digest(1))}", "else"), ("/b/one.so", digest(1))],
    ids=["binary_path", "source_digest"],
)
def test_a_version_that_a_row_was_set_back_to_is_kept(
    repository: Repository, sql: Session, binary_path: str, source_digest: str
) -> None:
    for number in range(KEPT_VERSIONS + 1):
        publish(repository, "one", "/a", number=number)
    sql("UPDATE plugins SET binary_path = %s, source_digest = %s", binary_path, source_digest)
    with repository.publishing() as publication:
        for number in range(200, 200 + KEPT_VERSIONS):
            publication.keep_version(artifact("one", number), report("one"))
        dropped = publication.prune_versions("one")
    assert digest(1) not in dropped
    assert digest(2) in dropped
    assert repository.find_artifact("one", digest(1)) is not None


def test_the_first_archive_of_a_digest_stands(repository: Repository) -> None:
    with repository.publishing() as publication:
        first = publication.keep_version(artifact("one", 1, b"first"), report("one"))
        assert publication.keep_version(artifact("one", 1, b"second"), report("one")) == first
    assert repository.find_artifact("one", digest(1)) == artifact("one", 1, b"first")
    assert repository.version_hashes([("one", digest(1)), ("no", digest(1))]) == {
        ("one", digest(1)): first
    }


# --- over the Go design's rows --------------------------------------------------------------------


PLUGIN = """
from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("NAME", "1.0", "", "me")

    def register_routes(self, server):
        server.get("/NAME", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {}


# more
new_plugin = Plugin
"""


class InstantTrial:
    """Reports what a trial would, without a process of its own."""

    def __init__(self, **reports: TrialReport | PluginError) -> None:
        self._reports = reports

    def run(self, artifact: Artifact, _superseded: object = None) -> TrialReport:
        found = self._reports.get(artifact.plugin) or report(artifact.plugin, f"/{artifact.plugin}")
        if isinstance(found, PluginError):
            raise found
        return found

    def close(self) -> None:
        """Nothing runs."""


def publisher_on(
    tmp_path: Path, repository: Repository, **reports: TrialReport | PluginError
) -> Publisher:
    """A publisher of plugins whose folders exist, with these reports of their trials."""
    for name in ("fine", *reports):
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text("new_plugin = object\n")
    trial: Any = InstantTrial(**reports)
    return Publisher(tmp_path / "plugins", tmp_path / "bin", repository, trial)


def test_a_scan_goes_through_over_the_rows_of_the_go_design(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    """One of them has a name and one a status that the CHECKs would refuse."""
    url = new_database()
    with session(url) as go:
        go(GO_TABLES + GO_ROWS + GO_TRIGGERS)
    database = Database(url)
    repository = Repository(database)
    publisher = publisher_on(
        tmp_path, repository, powertable=report("powertable", "/pt"), other=report("other", "/o")
    )
    try:
        publisher.scan(at_start=True)
        rows = {row.name: row for row in repository.list_rows()}
    finally:
        database.close()
    assert rows.keys() == {"fine", "My-Plugin", "powertable", "other"}
    for name in ("fine", "powertable", "other"):
        assert rows[name].source_digest is not None, f"{name} was not published"
    assert rows["My-Plugin"].binary_path is None


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_whatever_one_plugin_says_the_others_are_published(
    repository: Repository, tmp_path: Path, message: str
) -> None:
    bad = PluginError("bad", message)
    publisher_on(tmp_path, repository, bad=bad).scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    assert [failure.name for failure in repository.list_failures()] == ["bad"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"", "me"', '"caf\\udce9", "me"'),
        ('"", "me"', '"", "caf\\udce9"'),
        ('"1.0"', '"\\ud800"'),
        ('"/bad"', '"/caf\\udce9"'),
        ("# more", 'Plugin.get.__qualname__ = "h\\udce9"'),
        ("# more", 'Plugin.get.__qualname__ = "h\\0"'),
    ],
    ids=["description", "author", "version", "path", "handler", "handler_nul"],
)
def test_whatever_one_plugin_registers_the_others_are_published(
    repository: Repository, tmp_path: Path, old: str, new: str
) -> None:
    for name in ("bad", "fine"):
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True)
        text = PLUGIN.replace("NAME", name)
        (folder / "main.py").write_text(text.replace(old, new) if name == "bad" else text)
    trial = TrialRunner(None)
    try:
        publisher = Publisher(tmp_path / "plugins", tmp_path / "bin", repository, trial)
        publisher.scan(at_start=True)
    finally:
        trial.close()
    assert "fine" in {row.name for row in repository.list_rows()}


def test_a_folder_whose_name_is_not_utf8_stops_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    publisher = publisher_on(tmp_path, repository)
    (tmp_path / "plugins" / os.fsdecode(b"caf\xe9")).mkdir()
    publisher.scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    for name in publisher.names_of("caf\udce9"):  # as the watcher does after an event
        with contextlib.suppress(PluginError):
            publisher.follow(name, Look())
    assert len(repository.list_failures()) == 1


def test_an_unmounted_root_unregisters_nothing(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_on(tmp_path, repository)
    publisher.scan(at_start=True)
    root, away = tmp_path / "plugins", tmp_path / "away"
    root.rename(away)
    root.mkdir()  # the mount point below the disk
    publisher.scan()
    publisher.follow("fine", Look())
    trial: Any = InstantTrial()
    Publisher(root, tmp_path / "bin", repository, trial).scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    assert repository.list_rows()[0].error is None
    assert caplog.text.count("is a disk not mounted?") == 2, "once for each process"
    root.rmdir()
    away.rename(root)
    publisher.scan()
    assert [row.name for row in repository.list_rows()] == ["fine"]
    shutil.rmtree(root / "fine")
    publisher.scan()
    assert repository.list_rows() == []


# --- the database away -------------------------------------------------------------------------


def calls(repository: Repository, row: Any) -> dict[str, Callable[[], Any]]:
    """All that a repository can do, by name."""
    return {
        "apply_schema": repository.apply_schema,
        "list_rows": repository.list_rows,
        "find_row": lambda: repository.find_row("one"),
        "unpublished_names": repository.unpublished_names,
        "names_of_source": lambda: repository.names_of_source("/p"),
        "served_rows": repository.served_rows,
        "served_rows_some": lambda: repository.served_rows(["one"]),
        "version_hashes": lambda: repository.version_hashes([("one", digest(1))]),
        "find_artifact": lambda: repository.find_artifact("one", digest(1)),
        "list_failures": repository.list_failures,
        "find_failure": lambda: repository.find_failure("one"),
        "publish": lambda: publish(repository, "one", "/a"),
        "record_error": lambda: repository.record_error(row, {"message": "x"}),
        "record_failure": lambda: repository.record_failure("one", "/p", {"message": "x"}),
        "forget_failure": lambda: repository.forget_failure("one"),
        "unregister": lambda: repository.unregister("one", "/p/one"),
        "toggle": lambda: repository.toggle("one"),
        "raise_generation": lambda: repository.raise_generation("one"),
    }


def test_every_call_says_so_while_the_server_is_away_and_works_when_it_is_back(
    open_path: Path,
) -> None:
    postgres = EmbeddedPostgres(open_path)
    database = Database(postgres.start())
    repository = Repository(database)
    try:
        repository.apply_schema()
        publish(repository, "one", "/a")
        row = repository.find_row("one")
        for name, call in calls(repository, row).items():
            call(), name
        publish(repository, "one", "/a")
        postgres.stop()
        for name, call in calls(repository, row).items():
            with pytest.raises(DatabaseUnavailableError) as caught:
                call()
            assert "\n" not in str(caught.value), name
        postgres.start()
        for call in calls(repository, repository.find_row("one")).values():
            call()
    finally:
        database.close()
        postgres.stop()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/none",
        "postgresql:///none?host=/nowhere",
        "postgresql://127.0.0.1:{port}/none",
        "postgresql://no-such-host.invalid/none",
    ],
)
def test_nobody_there_is_said_within_seconds(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        database = Database(url.format(port=silent.getsockname()[1]))
        repository = Repository(database)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            repository.list_rows()
        assert time.monotonic() - began < connection_module.CONNECT_SECONDS + 3.0


def test_a_table_that_is_not_there_is_the_database_that_refuses(
    new_database: Callable[[], str],
) -> None:
    database = Database(new_database())
    with pytest.raises(DatabaseUnavailableError, match="plugins"):
        Repository(database).list_rows()
    database.close()


# --- the pool ----------------------------------------------------------------------------------


def pid_of(database: Database) -> int:
    with database.connection() as connection:
        return connection.info.backend_pid


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def lend_all(database: Database, count: int = PLACES) -> list[int]:
    """Lend so many connections at once, and return their process ids."""
    with contextlib.ExitStack() as stack:
        lent = [stack.enter_context(database.connection()) for _ in range(count)]
        return [connection.info.backend_pid for connection in lent]


def test_a_connection_is_used_again(database: Database) -> None:
    assert len({pid_of(database) for _ in range(20)}) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_connection_comes_back_after_an_exception(
    database: Database, sql: Session, error: type[BaseException]
) -> None:
    first = pid_of(database)
    for _ in range(PLACES + 1):
        with pytest.raises(error), database.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO plugins (name) VALUES ('lost')")
            raise error
    assert pid_of(database) == first
    assert sql("SELECT count(*) FROM plugins") == [(0,)]


def test_a_connection_comes_back_after_a_failed_statement(database: Database) -> None:
    first = pid_of(database)
    for _ in range(PLACES + 1):
        with (
            pytest.raises(psycopg2.errors.UndefinedTable),
            database.connection() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT * FROM nowhere")
    assert pid_of(database) == first


def test_a_deferred_error_of_the_commit_is_told(database: Database, sql: Session) -> None:
    sql("CREATE TABLE IF NOT EXISTS late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with (
        pytest.raises(psycopg2.IntegrityError),
        database.connection() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO late VALUES (1), (1)")
    assert sql("SELECT count(*) FROM late") == [(0,)]
    assert lend_all(database)


def test_connections_that_the_server_closed_are_replaced_unnoticed(
    database: Database, sql: Session
) -> None:
    pids = lend_all(database)
    for pid in pids:
        sql("SELECT pg_terminate_backend(%s)", pid)
    wait_until(lambda: backends(sql) == 0, "the backends end")
    again = lend_all(database)
    assert not set(pids) & set(again)
    assert Repository(database).list_rows() == []


def test_a_connection_that_is_closed_while_it_is_lent_is_said_and_replaced(
    database: Database, sql: Session
) -> None:
    for _ in range(PLACES + 1):
        with pytest.raises(DatabaseUnavailableError), database.connection() as connection:
            sql("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    assert len(lend_all(database)) == PLACES


def test_a_connection_that_is_closed_before_its_commit_is_said(
    database: Database, sql: Session
) -> None:
    with pytest.raises(DatabaseUnavailableError), database.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO plugins (name) VALUES ('lost')")
        sql("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        wait_until(lambda: backends(sql) == 0, "the backend ends")
    assert sql("SELECT count(*) FROM plugins") == [(0,)]


def test_a_connection_that_its_user_closed_is_not_lent_again(database: Database) -> None:
    with contextlib.suppress(DatabaseUnavailableError), database.connection() as connection:
        connection.close()
    assert len(lend_all(database)) == PLACES


def test_an_exhausted_pool_waits_and_then_says_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "WAIT_SECONDS", 0.2)
    with contextlib.ExitStack() as stack:
        for _ in range(PLACES):
            stack.enter_context(database.connection())
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="no database connection"):
            pid_of(database)
        assert 0.2 <= time.monotonic() - began < 2.0
    assert len(lend_all(database)) == PLACES


def test_who_waits_gets_the_next_connection_that_comes_back(database: Database) -> None:
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        for _ in range(PLACES - 1):
            stack.enter_context(database.connection())
        with database.connection() as last:
            waiting = pool.submit(pid_of, database)
            wait_until(lambda: database._places._value == 0 and waiting.running(), "it waits")
            assert not waiting.done()
            pid = last.info.backend_pid
        assert waiting.result(5) == pid


def test_a_failed_connect_does_not_take_a_place_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "WAIT_SECONDS", 0.2)
    database = Database("postgresql:///none?host=/nowhere", max_connections=2)
    for _ in range(5):
        with pytest.raises(DatabaseUnavailableError, match="away"):
            pid_of(database)


def test_a_thousand_uses_by_many_threads_leak_nothing(database: Database, sql: Session) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def use(number: int) -> None:
        with contextlib.suppress(ZeroDivisionError), database.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT %s", (number,))
                assert cursor.fetchone() == (number,)
            if number % 7 == 0:
                connection.close() if number % 49 == 0 else 1 / 0

    def suppressed(number: int) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            use(number)

    before = open_files()
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(suppressed, range(1000)))
    finally:
        sys.setswitchinterval(interval)
    assert backends(sql) <= PLACES
    assert database._places._value == PLACES
    assert len(database._idle) <= PLACES
    assert open_files() <= before + PLACES
    database.close()
    wait_until(lambda: backends(sql) == 0, "all connections are closed")
    assert open_files() <= before


def test_a_pool_that_is_cut_ends_the_wait_of_everybody(database: Database, sql: Session) -> None:
    def sleep(_: int) -> None:
        with database.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    began = time.monotonic()
    with ThreadPoolExecutor(PLACES) as pool:
        waiting = [pool.submit(sleep, n) for n in range(PLACES)]
        wait_until(
            lambda: (
                sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                == [(PLACES,)]
            ),
            "all of them sleep",
        )
        database.cut()
        for future in waiting:
            assert isinstance(future.exception(5), DatabaseUnavailableError)
    assert time.monotonic() - began < 5.0
    assert len(lend_all(database)) == PLACES
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


def test_a_lent_connection_is_closed_when_it_comes_back_to_a_closed_pool(
    database: Database,
) -> None:
    with database.connection() as connection:
        database.close()
        assert connection.closed == 0
    assert connection.closed


def test_a_connection_is_clean_when_it_is_lent_again(lent: Database, sql: Session) -> None:
    """What one plugin sets on a connection must not reach the next."""
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = nowhere; SET statement_timeout = 17")
        cursor.execute("CREATE TEMP TABLE plugins AS SELECT 1 AS wrong")
    assert Repository(lent).list_rows() == []
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


def test_autocommit_does_not_outlive_its_user(lent: Database, sql: Session) -> None:
    with lent.connection() as connection:
        connection.autocommit = True
    with pytest.raises(RuntimeError), lent.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO plugins (name) VALUES ('half')")
        raise RuntimeError
    assert sql("SELECT name FROM plugins") == []


def test_a_cursor_factory_does_not_outlive_its_user(lent: Database) -> None:
    publish(Repository(lent), "one", "/a")
    with lent.connection() as connection:
        connection.cursor_factory = psycopg2.extras.RealDictCursor
    assert [row.name for row in Repository(lent).list_rows()] == ["one"]


def test_a_read_only_session_does_not_outlive_its_user(lent: Database) -> None:
    with lent.connection() as connection:
        connection.set_session(readonly=True)
    publish(Repository(lent), "one", "/a")


def test_a_session_lock_does_not_outlive_its_user(
    repository: Repository, lent: Database, sql: Session
) -> None:
    with lent.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(4711)")
    assert sql("SELECT pg_try_advisory_lock(4711)") == [(True,)]
    sql("SELECT pg_advisory_unlock(4711)")


def test_a_pool_is_not_shared_with_a_forked_child_that_only_ends(
    database: Database, url: str
) -> None:
    pid = pid_of(database)
    script = (
        "import os, sys\n"
        "from app.database.connection import Database\n"
        f"database = Database({url!r})\n"
        "with database.connection():\n"
        "    pass\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "with database.connection() as connection, connection.cursor() as cursor:\n"
        "    cursor.execute('SELECT 1')\n"
        "database.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pid_of(database) == pid
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
