"""Locks of somebody else's: nobody waits long, the others go ahead, the holder is named."""

import contextlib
import datetime
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from app.database.locks import PUBLISH_LOCK, SCHEMA_LOCK, Holder
from app.database.pool import Database
from app.database.publication import KEPT_VERSIONS
from app.database.repository import Repository
from app.database.statements import statement, transaction
from app.database.timeouts import Timeouts
from app.errors import DatabaseBusyError, DatabaseUnavailableError, PluginError
from app.publishing import quiet_period
from app.publishing.attempt import PublishAttempt
from app.records import PluginSource
from tests.support.databases import Session
from tests.support.publications import (
    InstantTrial,
    artifact,
    digest,
    follow,
    publish,
    publisher_of,
    publisher_on,
    report,
)
from tests.support.waiting import wait_until

LOCK_SECONDS = 0.1

ROW = "UPDATE plugins SET description = 'mine' WHERE name = 'one'"
NEW_ROW = "INSERT INTO plugins (name) VALUES ('fresh')"
FAILURE = "UPDATE plugin_failures SET updated_at = now() WHERE name = 'one'"
PUBLISHING = f"SELECT pg_advisory_xact_lock({PUBLISH_LOCK})"
LOCK_TABLE = "LOCK TABLE plugins IN ACCESS EXCLUSIVE MODE"


@pytest.fixture
def impatient(url: str, sql: Session) -> Iterator[Repository]:
    """A repository that does not wait long for a lock, with a plugin `one`."""
    database = Database(url, max_connections=4, timeouts=Timeouts(lock_seconds=LOCK_SECONDS))
    repository = Repository(database)
    publish(repository, "one", "/one")
    repository.failures.record("one", "/p/one", {"message": "broken"})
    yield repository
    database.close()


@contextlib.contextmanager
def holding(url: str, statement: str) -> Iterator[int]:
    """Hold a lock as a person in psql does, who went for lunch; give the process id."""
    psql = psycopg2.connect(url, application_name="lunch")
    with contextlib.closing(psql), psql.cursor() as cursor:
        cursor.execute(statement)
        yield psql.info.backend_pid


KINDS: dict[str, tuple[str, Callable[[Repository], Any], str]] = {
    "table": (LOCK_TABLE, lambda r: r.list_rows(), "the table plugins"),
    "row": (ROW, lambda r: r.toggle("one"), "a row of plugins"),
    "row of a publish": (ROW, lambda r: publish(r, "one", "/one"), "a row of plugins"),
    "new row": (NEW_ROW, lambda r: publish(r, "fresh", "/fresh"), "a row"),
    "publishing": (PUBLISHING, lambda r: publish(r, "one", "/one"), "the lock of publishing"),
    "endpoints": (
        "LOCK TABLE plugin_endpoints IN SHARE MODE",
        lambda r: publish(r, "one", "/other"),
        "the table plugin_endpoints",
    ),
    "failure": (FAILURE, lambda r: publish(r, "one", "/one"), "a row of plugin_failures"),
}


QUICK = ("table", "row", "publishing")


@pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.soak) for kind in KINDS],
)
def test_who_holds_a_lock_is_named_and_the_call_goes_through_when_it_is_gone(
    impatient: Repository, url: str, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    held, call, what = KINDS[kind]
    caplog.set_level(logging.WARNING)
    with holding(url, held) as pid:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(DatabaseBusyError) as caught:
                call(impatient)
            assert time.monotonic() - began < LOCK_SECONDS + 1.0
        assert f"{what} is locked by pid {pid} (lunch, idle in transaction since" in str(
            caught.value
        )
        assert f"pg_terminate_backend({pid})" in str(caught.value)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"pid {pid} (lunch" in line
    assert held in line, "the log tells what the session ran"
    call(impatient)


def test_a_holder_is_named_as_far_as_this_role_may_see_it() -> None:
    since = datetime.datetime(2026, 11, 26, 10, 30, tzinfo=datetime.UTC)
    assert str(Holder(7, "psql", "idle in transaction", since, "UPDATE")) == (
        "pid 7 (psql, idle in transaction since 2026-11-26 10:30:00 UTC)"
    )
    assert str(Holder(7, "psql", None, None, None)) == "pid 7 (psql)"
    assert str(Holder(7, None, None, None, None)) == "pid 7 (an unnamed application)"
    forged = Holder(7, "psql\n[INFO] all is well", None, None, None)
    assert str(forged) == "pid 7 (psql [INFO] all is well)"
    prepared = Holder(0, None, None, None, None)
    assert (str(prepared), prepared.advice) == (
        "a prepared transaction (see pg_prepared_xacts)",
        "commit it or roll it back",
    )


def test_the_first_of_a_line_is_named(impatient: Repository, url: str) -> None:
    """`ALTER TABLE` waits for a reader, and everybody else waits for `ALTER TABLE`."""
    altering = psycopg2.connect(url, application_name="alter")
    with (
        ThreadPoolExecutor(1) as pool,
        contextlib.closing(altering),
        altering.cursor() as cursor,
        holding(url, "SELECT * FROM plugins") as reader,
    ):
        done = pool.submit(cursor.execute, LOCK_TABLE)
        wait_until(lambda: waits(url, altering.info.backend_pid), "it waits")
        with pytest.raises(DatabaseBusyError, match=f"table plugins is locked by pid {reader} "):
            impatient.list_rows()
        altering.cancel()
        with pytest.raises(psycopg2.Error):
            done.result(10)
        assert len(impatient.list_rows()) == 1


@pytest.mark.soak
def test_of_several_who_wait_for_one_row_each_is_told_in_time(url: str, sql: Session) -> None:
    """Each waits for its turn, and then for the holder: 2 s are 4 s then."""
    repository = Repository(Database(url, max_connections=4, timeouts=Timeouts(lock_seconds=2.0)))
    publish(repository, "one", "/one")

    def attempt() -> tuple[float, str]:
        began = time.monotonic()
        with pytest.raises(DatabaseBusyError) as caught:
            repository.toggle("one")
        return time.monotonic() - began, str(caught.value)

    with ThreadPoolExecutor(3) as pool, holding(url, ROW) as pid:
        found = []
        for number in range(1, 4):
            found.append(pool.submit(attempt))
            wait_until(
                lambda n=number: sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(n,)],
                "it waits",
            )
        told = [future.result(10) for future in found]
    assert all(f"a row of plugins is locked by pid {pid} (lunch" in text for _, text in told)
    assert max(seconds for seconds, _ in told) < 3.3, told


@pytest.mark.parametrize("kind", ["row", "publishing"])
def test_no_lock_is_held_while_the_quiet_period_is_waited_out(
    impatient: Repository, sql: Session, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet_period, "QUIET_SECONDS", 0.2)
    publisher = publisher_on(tmp_path, impatient, one=report("one", "/one"))
    probe = {
        "row": "SELECT count(*) FROM (SELECT 1 FROM plugins FOR UPDATE SKIP LOCKED) free",
        "publishing": f"SELECT pg_try_advisory_xact_lock({PUBLISH_LOCK})::int",
    }[kind]
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        done = pool.submit(follow, publisher, "one", PublishAttempt())
        free = 0
        while time.monotonic() < began + 0.17:
            free += 1
            assert sql(probe) == [(1,)]
        done.result(10)
    assert free > 3
    assert time.monotonic() - began >= 0.2


def waits(url: str, pid: int) -> bool:
    with contextlib.closing(psycopg2.connect(url)) as looking, looking.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", (pid,))
        return cursor.fetchone() is not None


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(ROW, id="row"),
        pytest.param(NEW_ROW, id="new row", marks=pytest.mark.soak),
        pytest.param(FAILURE, id="failure", marks=pytest.mark.soak),
    ],
)
def test_what_one_plugin_waits_for_does_not_hold_up_the_publishes_of_others(
    sql: Session, url: str, held: str
) -> None:
    """Each waits at most as long as a publish may hold the lock that all of them need."""
    database = Database(url, timeouts=Timeouts(lock_seconds=0.5))
    repository = Repository(database)
    publish(repository, "one", "/one")
    repository.failures.record("one", "/p/one", {"message": "broken"})
    name = "fresh" if held == NEW_ROW else "one"
    began = threading.Event()
    took: list[float] = []

    def attempt() -> None:
        began.set()
        with pytest.raises(DatabaseBusyError):
            publish(repository, name, f"/{name}", number=2)

    with ThreadPoolExecutor(2) as pool, holding(url, held):
        waiting = [pool.submit(attempt) for _ in range(2)]
        assert began.wait(10)
        while not all(future.done() for future in waiting):
            at = time.monotonic()
            publish(repository, "two", "/two", number=len(took))
            took.append(time.monotonic() - at)
        for future in waiting:
            future.result(10)
    assert max(took) < 0.4, took
    publish(repository, name, f"/{name}", number=2)
    database.close()


def test_two_publishers_of_one_new_plugin_both_end(repository: Repository, sql: Session) -> None:
    for same in (True, False):
        for _ in range(4):
            sql("TRUNCATE plugins, plugin_versions CASCADE")
            numbers = (1, 1) if same else (1, 2)
            with ThreadPoolExecutor(2) as pool:
                found = list(
                    pool.map(lambda n: publish(repository, "one", "/one", number=n), numbers)
                )
            assert sorted(generation for _, generation in found) == [1, 2]
            assert sql("SELECT count(*) FROM plugin_versions") == [(len(set(numbers)),)]


@pytest.mark.soak
def test_a_version_that_is_being_published_again_is_not_dropped_as_too_old(
    repository: Repository, sql: Session
) -> None:
    for number in range(1, KEPT_VERSIONS + 1):
        publish(repository, "one", "/one", number=number)
    with repository.publishing() as publication:
        publication.keep_version(artifact("one", 1), report("one", "/one"))
        publish(repository, "one", "/one", number=KEPT_VERSIONS + 1)
        row = publication.lock_row("one")
        publication.save(
            row,
            report("one").metadata,
            (),
            source_path="/p/one",
            binary_path=f"/b/one-{digest(1)}.pyz",
            source_digest=digest(1),
            status="active",
        )
    assert repository.find_artifact("one", digest(1)) is not None
    publish(repository, "one", "/one", number=KEPT_VERSIONS + 2)
    kept = {found[0] for found in sql("SELECT source_digest FROM plugin_versions")}
    assert digest(2) not in kept, "the honest old one goes"
    assert len(kept) <= KEPT_VERSIONS + 1


@pytest.mark.parametrize("gives_up", [False, True])
def test_two_who_keep_the_same_version_do_not_wait_for_each_other(
    repository: Repository, sql: Session, gives_up: bool
) -> None:
    """The second waits before it takes the row that the first still needs."""
    found = report("one", "/one")
    inserted, began = threading.Event(), threading.Event()

    def first() -> None:
        with repository.publishing() as publication:
            publication.keep_version(artifact("one", 1), found)
            inserted.set()
            assert began.wait(10)
            wait_until(
                lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"),
                "the second waits",
            )
            publication.lock_row("one")
            if gives_up:
                raise RuntimeError

    def second() -> None:
        assert inserted.wait(10)
        with repository.publishing() as publication:
            began.set()
            publication.keep_version(artifact("one", 1), found)
            publication.lock_row("one")

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(first), pool.submit(second)]
        assert isinstance(ends[0].exception(20), RuntimeError if gives_up else type(None))
        assert ends[1].exception(20) is None
    assert repository.find_artifact("one", digest(1)) is not None


# --- the publisher -----------------------------------------------------------------------------


def test_a_locked_row_keeps_a_scan_from_nothing_else(
    impatient: Repository, url: str, tmp_path: Path
) -> None:
    publisher = publisher_on(tmp_path, impatient, one=report("one", "/one"))
    with holding(url, ROW):
        assert publisher.scan(at_start=True) == ["one"]
        assert {row.name: row.version for row in impatient.list_rows()}.keys() == {"one", "fine"}
    assert publisher.scan() == []
    row = impatient.find_row("one")
    assert row is not None
    assert row.source_path == str(tmp_path / "plugins" / "one")


def test_a_folder_that_goes_while_its_row_is_locked_is_looked_at_again(
    impatient: Repository, url: str, tmp_path: Path
) -> None:
    publisher = publisher_on(tmp_path, impatient, one=report("one", "/one"))
    publisher.scan(at_start=True)
    (tmp_path / "plugins/one/main.py").unlink()
    (tmp_path / "plugins/one").rmdir()
    with holding(url, ROW):
        assert publisher.scan() == ["one"]
        assert impatient.find_row("one") is not None
    follow(publisher, "one", PublishAttempt())
    assert impatient.find_row("one") is None


@pytest.mark.parametrize("ends", ["in vain", "well"])
def test_what_a_look_left_to_a_call_is_looked_at_again_if_the_call_ends_in_vain(
    impatient: Repository, url: str, tmp_path: Path, ends: str
) -> None:
    """A reload by REST was at the source, and ended at the lock: the edit was live never."""
    looked: list[bool] = []

    class LookedAtMeanwhile(InstantTrial):
        def run(self, source: PluginSource, *rest: Any) -> Any:
            if source.name == "one" and not looked:
                looked.append(follow(publisher, "one", PublishAttempt()))
            return super().run(source, *rest)

    publisher_on(tmp_path, impatient, one=report("one", "/one"))
    trial: Any = LookedAtMeanwhile(one=report("one", "/one"))
    publisher = publisher_of(tmp_path / "plugins", tmp_path, impatient, trial)
    if ends == "in vain":
        with holding(url, ROW), pytest.raises(DatabaseBusyError):
            publisher.publish("one")
    else:
        publisher.publish("one")
    assert looked == [False], "somebody else was at it"
    assert publisher.refusals.due() == (["one"] if ends == "in vain" else [])
    if ends == "in vain":
        wait_until(lambda: not locked(impatient), "the lock is gone")
        assert follow(publisher, "one", PublishAttempt())
    assert publisher.refusals.due() == []


def locked(repository: Repository) -> bool:
    row = repository.find_row("one")
    assert row is not None
    return repository.is_locked(row)


def test_a_row_that_was_locked_before_is_not_waited_for_again(
    impatient: Repository, url: str, tmp_path: Path
) -> None:
    """Of a checkout under a lock on all rows, each folder would hold a thread for 2 s and more."""
    trials: list[str] = []

    class NotedTrial(InstantTrial):
        def run(self, source: PluginSource, *rest: Any) -> Any:
            trials.append(source.name)
            return super().run(source, *rest)

    publisher_on(tmp_path, impatient, one=report("one", "/one"))
    trial: Any = NotedTrial(one=report("one", "/one"))
    publisher = publisher_of(tmp_path / "plugins", tmp_path, impatient, trial)
    with holding(url, ROW):
        with pytest.raises(DatabaseBusyError, match="a row of plugins is locked by pid"):
            follow(publisher, "one", PublishAttempt())
        trials.clear()
        with pytest.raises(DatabaseBusyError, match="the row of one is still locked"):
            follow(publisher, "one", PublishAttempt(waits_for_lock=False))
        assert trials == [], "nothing is tried for a row that cannot be written"
        follow(publisher, "fine", PublishAttempt(waits_for_lock=False))

    def follows() -> bool:
        try:
            return follow(publisher, "one", PublishAttempt(waits_for_lock=False))
        except DatabaseBusyError:  # a session's locks last a moment longer than its connection
            return False

    wait_until(follows, "the lock is gone")
    assert trials == ["fine", "one"]


def test_an_error_that_cannot_be_recorded_is_logged_once(
    impatient: Repository, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_on(tmp_path, impatient, one=PluginError("one", "is broken"))
    with holding(url, ROW):
        for _ in range(2):
            with pytest.raises(DatabaseBusyError):
                follow(publisher, "one", PublishAttempt())
    assert caplog.text.count("is broken") == 1
    with pytest.raises(PluginError, match="is broken"):
        follow(publisher, "one", PublishAttempt())
    row = impatient.find_row("one")
    assert row is not None
    assert row.error is not None


# --- how long a statement may take -------------------------------------------------------------


@pytest.fixture
def brief(url: str) -> Iterator[Database]:
    database = Database(url, timeouts=Timeouts(lock_seconds=0.2, statement_seconds=0.2))
    yield database
    database.close()


def test_a_statement_that_takes_too_long_is_given_up(brief: Database) -> None:
    with pytest.raises(DatabaseBusyError, match="gave a statement up"), statement(brief) as cursor:
        cursor.execute("SELECT pg_sleep(5)")
    with statement(brief) as cursor:
        cursor.execute("SELECT 1")


def test_a_transaction_that_is_left_idle_gives_its_locks_back(
    brief: Database, sql: Session
) -> None:
    """A worker that is stopped in the middle of a publish must not stop all publishes."""
    with pytest.raises(DatabaseUnavailableError), Repository(brief).publishing() as publication:
        publication.lock_row("one")
        free = f"SELECT pg_try_advisory_xact_lock({PUBLISH_LOCK})"
        assert sql(free) == [(False,)]
        wait_until(lambda: sql(free) == [(True,)], "the lock is free")


@pytest.mark.parametrize("options", ["", "-c lock_timeout=0 -c statement_timeout=0"])
def test_the_bounds_hold_in_every_transaction_and_reach_nobody_else(url: str, options: str) -> None:
    """Options of a database URL replace what a startup packet says."""
    url = f"{url}&options={options.replace(' ', '%20').replace('=', '%3D')}" if options else url
    database = Database(url, max_connections=1, timeouts=Timeouts(1.5, 20))
    show = (
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),"
        " current_setting('idle_in_transaction_session_timeout')"
    )
    for _ in range(2):
        for opened, pace, limit in (
            (statement, "brief", "2s"),
            (statement, "normal", "20s"),
            (transaction, "normal", "20s"),
            (transaction, "bulk", "0"),
        ):
            with opened(database, pace=pace) as cursor:  # type: ignore[arg-type]
                cursor.execute(show)
                idle = "0" if pace == "bulk" else "20s"
                assert cursor.fetchone() == ("1500ms", limit, idle)
        with database.connection() as connection, connection.cursor() as cursor:
            cursor.execute(show)
            assert cursor.fetchone() == ("0", "0", "0")
    database.close()


def test_the_schema_does_not_wait_without_an_end(url: str) -> None:
    database = Database(url)
    with (
        holding(url, f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})") as pid,
        pytest.raises(DatabaseBusyError, match=f"the lock of the schema is locked by pid {pid}"),
    ):
        Repository(database).apply_schema(lock_timeout="100ms")
    assert Repository(database).apply_schema() is False
    database.close()


class SlowLink:
    """A link to the database that carries so many bytes a second each way."""

    def __init__(self, url: str, bytes_a_second: int) -> None:
        dsn = psycopg2.extensions.parse_dsn(url)
        host, port = dsn.get("host", "127.0.0.1"), dsn.get("port", "5432")
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
        self._pace = bytes_a_second
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = str(self._listening.getsockname()[1])
        self.url = psycopg2.extensions.make_dsn(url, host="127.0.0.1", port=port)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
                server = socket.socket(family)
                server.connect(self._target)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        with contextlib.suppress(OSError):
            while part := source.recv(16384):
                target.sendall(part)
                time.sleep(len(part) / self._pace)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@pytest.mark.soak
def test_a_large_archive_over_a_slow_link_takes_its_time(url: str, sql: Session) -> None:
    """PostgreSQL counts a transaction as idle while a statement comes in, and a statement as
    running while its answer goes out."""
    link = SlowLink(url, 1_500_000)
    database = Database(link.url, timeouts=Timeouts(lock_seconds=2.0, statement_seconds=0.3))
    repository = Repository(database)
    archive = os.urandom(600_000)  # in hexadecimal on the way: 0.8 s
    with repository.publishing() as publication:
        publication.keep_version(artifact("big", 1, archive), report("big", "/big"))
        publication.lock_row("big")
    found = repository.find_artifact("big", digest(1))
    assert found is not None
    assert found.archive == archive
    database.close()
    link.close()
