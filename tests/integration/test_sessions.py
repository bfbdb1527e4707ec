"""Sessions in databases and roles with settings of their own, and behind poolers."""

import contextlib
import datetime
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg2
import psycopg2.extras
import pytest

from app.conditions import Conditions
from app.database import sessions
from app.database.connection import Connection
from app.database.pool import Database
from app.database.repository import Repository
from app.database.sessions import OWN_SETTINGS, SHARED_SETTINGS, TRIGGERS_FIRE
from app.database.statements import statement, transaction
from app.database.timeouts import ListenerTimes, plugin_bounds
from app.database.trial_session import TrialSession
from app.errors import DatabaseUnavailableError
from tests.support.databases import session
from tests.support.listening import Recorder, listening
from tests.support.postgres_proxy import Proxy
from tests.support.server import free_port
from tests.support.waiting import wait_until

ODD = {
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "client_encoding": "latin1",
    "row_security": "on",
    "idle_session_timeout": "700",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "array_nulls": "off",
    "jit": "on",
    "session_replication_role": "replica",
}

Borrow = Callable[[], contextlib.AbstractContextManager[Connection]]


@pytest.fixture(
    params=[
        "database",
        pytest.param("role", marks=pytest.mark.soak),
        pytest.param("url", marks=pytest.mark.soak),
    ]
)
def odd_url(request: pytest.FixtureRequest, url: str) -> Iterator[str]:
    """A URL whose sessions have other settings than we rely on."""
    with session(url) as sql:
        (database,) = sql("SELECT current_database()")[0]
        if request.param == "url":
            options = " ".join(f"-c {k}={v.replace(' ', '')}" for k, v in ODD.items())
            yield f"{url}&options={quote(options)}"
            return
        of = f"DATABASE {database}" if request.param == "database" else "ROLE CURRENT_USER"
        for name, value in ODD.items():
            sql(f"ALTER {of} SET {name} = '{value}'" if "," not in value else
                f"ALTER {of} SET {name} = {value}")  # fmt: skip
        try:
            yield url
        finally:
            sql(f"SET default_transaction_read_only = off; ALTER {of} RESET ALL")


def shown(connection: Connection, *names: str) -> dict[str, str]:
    with connection.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
        found = {}
        for name in names:
            cursor.execute(f"SHOW {name}")
            (found[name],) = cursor.fetchone() or ()
    return found


OURS = {**OWN_SETTINGS, **TRIGGERS_FIRE, "datestyle": "ISO, MDY", "client_encoding": "UTF8"}
SHARED = {**SHARED_SETTINGS, "datestyle": "ISO, MDY", "client_encoding": "UTF8"}
VALUES = (
    "SELECT '2024-01-02 03:04:05+00'::timestamptz, interval '1 day 2 hours', '\\x00ff'::bytea,"
    " length('a\\\\b'), 'é'"
)


def check_values(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(VALUES)
        when, interval, raw, length, text = cursor.fetchone() or ()
    assert when == datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert interval == datetime.timedelta(days=1, hours=2)
    assert (bytes(raw), length, text) == (b"\x00\xff", 4, "é")


def test_our_own_sessions_are_as_we_rely_on(odd_url: str) -> None:
    with contextlib.closing(Database(odd_url)) as database:
        with transaction(database) as cursor:
            assert shown(cursor.connection, *OURS) == OURS
            check_values(cursor.connection)
            assert shown(cursor.connection, "transaction_isolation") == {
                "transaction_isolation": "read committed"
            }
            # A heartbeat must not be compiled, however dear its plan is said to be.
            assert shown(cursor.connection, "jit") == {"jit": "off"}
            cursor.execute("SELECT %s::jsonb[]", ([None],))  # psycopg2 sends '{NULL}'
            assert cursor.fetchone() == ([None],)
        with statement(database) as cursor:
            cursor.execute("INSERT INTO plugin_failures VALUES ('odd', '/p', '{}')")
        Repository(database).failures.forget("odd")
    recorder = Recorder()
    with listening(odd_url, recorder):
        assert recorder.calls == [None]


def test_a_plugins_session_is_as_psycopg2_needs_it_each_time(odd_url: str) -> None:
    """`DISCARD ALL` comes back to it: a role with German dates made every second use fail."""
    settings = {**SHARED_SETTINGS, **plugin_bounds(7)}
    with contextlib.closing(
        Database(odd_url, max_connections=1, reset=True, settings=settings)
    ) as database:
        for _ in range(3):
            with database.connection() as connection:
                assert shown(connection, *SHARED) == SHARED
                assert shown(connection, "statement_timeout") == {"statement_timeout": "7s"}
                check_values(connection)
                # The rest is the plugin's own affair.
                found = shown(connection, "timezone", "default_transaction_read_only")
                assert found == {"timezone": "Asia/Kolkata", "default_transaction_read_only": "on"}
                connection.rollback()
                connection.set_session(readonly=False)
                with connection.cursor() as cursor:
                    cursor.execute("SET datestyle = German; SET timezone = 'UTC'")
    rehearsal = TrialSession(odd_url, 5)
    with rehearsal.connection() as connection:
        assert shown(connection, *SHARED) == SHARED
        check_values(connection)
    rehearsal.close()


def test_options_of_a_url_count_beside_ours(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = quote(r'-c search_path="a\ b",public --work_mem=5MB -ctimezone=Asia/Tokyo')
    with (
        contextlib.closing(Database(f"{url}&options={options}")) as database,
        database.connection() as connection,
    ):
        assert shown(connection, "search_path", "work_mem", "timezone", "row_security") == {
            "search_path": '"a b",public',
            "work_mem": "5MB",
            "timezone": "UTC",
            "row_security": "off",
        }
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=6MB")
    with contextlib.closing(Database(url)) as database, database.connection() as connection:
        assert shown(connection, "work_mem", "row_security") == {
            "work_mem": "6MB",
            "row_security": "off",
        }


@pytest.mark.parametrize("reset", [False, True])
def test_a_setting_that_the_server_does_not_know_is_left_out(
    url: str, reset: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {**SHARED_SETTINGS, "idle_day_timeout": "0", "also_unknown": "on"}
    monkeypatch.setattr(sessions.log, "disabled", False)
    with (
        caplog.at_level(logging.INFO),
        contextlib.closing(Database(url, reset=reset, settings=newer)) as database,
    ):
        for _ in range(2):
            with database.connection() as connection, database.connection():
                assert shown(connection, *SHARED) == SHARED
        assert database.sessions.beginning == ""
    assert caplog.text.count("does not know idle_day_timeout") == 1
    assert caplog.text.count("does not know also_unknown") == 1


def test_an_unreachable_server_is_not_asked_twice(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO),
        contextlib.closing(Database("postgresql:///timezone?host=/nowhere/row_security")) as pool,
        pytest.raises(DatabaseUnavailableError),
        pool.connection(),
    ):
        pass
    assert caplog.text == ""


# --- behind PgBouncer ----------------------------------------------------------------------------


@pytest.fixture
def odd_database(url: str) -> Iterator[None]:
    """Other settings for each session with a database, as far as PgBouncer can be before it."""
    with session(url) as sql:
        (name,) = sql("SELECT current_database()")[0]
        odd = {**ODD, "idle_session_timeout": "0", "client_encoding": "utf8"}
        for setting, value in odd.items():
            sql(f"ALTER DATABASE {name} SET {setting} = {value if ',' in value else repr(value)}")
        try:
            yield
        finally:
            sql(f"SET default_transaction_read_only = off; ALTER DATABASE {name} RESET ALL")


@pytest.fixture(params=["", "options"])
def bouncer(
    request: pytest.FixtureRequest, url: str, open_path: Path, proxy: Proxy, odd_database: None
) -> Iterator[str]:
    """The URL of a PgBouncer that refuses startup parameters, or passes them over in silence."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    # The embedded PostgreSQL admits root and its own account alone, and PgBouncer is not for root.
    behind, port = urlsplit(proxy.url), free_port()
    user = behind.username
    (open_path / "users").write_text(f'"{user}" ""\n')
    ini = open_path / "pgbouncer.ini"
    ini.write_text(
        f"[databases]\n* = host=127.0.0.1 port={behind.port}\n"
        "[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {open_path / 'users'}\npool_mode = transaction\ndefault_pool_size = 1\n"
        f"logfile = {open_path / 'log'}\nignore_startup_parameters = {request.param}\n"
    )
    for path in (*open_path.iterdir(), open_path):
        path.chmod(0o777)
    command = [program, str(ini)]
    process = subprocess.Popen(
        command, user="nobody" if os.getuid() == 0 else None,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    through = f"postgresql://{user}@127.0.0.1:{port}{urlsplit(url).path}"

    def answers() -> bool:
        assert process.poll() is None, (open_path / "log").read_text()
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(through).close()
            return True
        return False

    try:
        wait_until(answers, "PgBouncer answers")
        yield through
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.soak
def test_behind_a_pooler_settings_are_made_in_each_transaction_and_leak_to_nobody(
    bouncer: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plugin = {**SHARED_SETTINGS, **plugin_bounds(7)}
        ours = {k: v for k, v in OURS.items() if k != "idle_session_timeout"}
        with (
            contextlib.closing(Database(bouncer)) as own,
            contextlib.closing(Database(bouncer, reset=True, settings=plugin)) as plugins,
        ):
            for _ in range(2):
                with transaction(own) as cursor:
                    cursor.execute("DELETE FROM plugin_failures")
                    assert shown(cursor.connection, *ours) == ours
                    check_values(cursor.connection)
                with statement(own) as cursor:
                    cursor.execute("INSERT INTO plugin_failures VALUES ('odd', '/p', '{}')")
                with plugins.connection() as connection:
                    for _ in range(2):
                        assert shown(connection, *SHARED) == SHARED
                        assert shown(connection, "statement_timeout", "timezone") == {
                            "statement_timeout": "7s",
                            "timezone": "Asia/Kolkata",
                        }
                        check_values(connection)
                        connection.commit()
                    with connection.cursor(cursor_factory=psycopg2.extras.DictCursor) as cursor:
                        cursor.execute("SHOW bytea_output")  # type: ignore[no-untyped-call]
                        assert dict(cursor.fetchall()[0]) == {"bytea_output": "hex"}
            assert own.sessions.pooled
            assert plugins.sessions.pooled
            Repository(own).apply_schema()
            rehearsal = TrialSession(bouncer, 5)
            with rehearsal.connection() as connection:
                assert shown(connection, *SHARED) == SHARED
            rehearsal.close()
        # The one server's session behind the pooler is what the database says.
        other = psycopg2.connect(bouncer)
        names = ("bytea_output", "row_security", "statement_timeout", "intervalstyle",
                 "session_replication_role")  # fmt: skip
        assert shown(other, *names) == {
            "bytea_output": "escape",
            "row_security": "on",
            "statement_timeout": "0",
            "intervalstyle": "sql_standard",
            "session_replication_role": "replica",
        }
        other.close()
    assert "in each transaction" in caplog.text


@pytest.mark.soak
def test_listen_behind_a_pooler_that_lends_for_each_transaction_is_not_believed(
    bouncer: str,
) -> None:
    """A session hears its own word there, with the answer, and nobody else's. It was ready."""
    recorder, conditions = Recorder(), Conditions()
    held: list[str] = []
    conditions.watch(lambda: held.append(", ".join(c.what for c in conditions.held())))
    times = ListenerTimes(poll=0.05, poll_rounds=4)
    with listening(
        bouncer, recorder, wait=False, heartbeat=0.5, times=times, conditions=conditions
    ):
        wait_until(lambda: recorder.everything() > 12, "LISTEN is tried again, and again in vain")
        assert "LISTEN does not work" in held[-1]
        assert "" not in held, "it was never as it should be"
