"""Our tables in databases as they are: other search_paths, schemas, publications, restores."""

import contextlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote, urlsplit

import psycopg2
import pytest

from app.conditions import Conditions
from app.database.pool import Database
from app.database.repository import Repository
from app.database.rows import only_row
from app.database.sessions import Sessions
from app.database.tables import COLUMNS, LOOK, TABLES, Tables
from app.database.upkeep import Upkeep
from app.errors import DatabaseRefusedError
from tests.support.databases import DIGEST, Session, apply, session
from tests.support.listening import Recorder, listening
from tests.support.waiting import wait_until

PATHS = ["''", "pg_catalog", 'nowhere, "Odd ""Name"""', "elsewhere, public"]
METADATA = {"version": "7", "endpoints": [["GET", "/p", "handler"]], "completed": True}


def in_schema(url: str, schema: str) -> str:
    """Return the URL for sessions whose current schema is another one, which is made."""
    with session(url) as sql:
        sql(f'CREATE SCHEMA "{schema}"')
    parts = urlsplit(url)
    path = quote(f'-c search_path="{schema}"'.replace(" ", r"\ ").replace(r"-c\ ", "-c "))
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{parts.query}&options={path}"


def as_role(url: str, role: str) -> str:
    user = urlsplit(url).query.partition("user=")[2].partition("&")[0]
    if not user:
        pytest.skip("the URL names its role elsewhere")
    return url.replace(f"user={user}", f"user={role}")


def keep(sql: Session, table: str, name: str) -> None:
    sql(f"INSERT INTO {table} VALUES (%s, %s, '', '', %s)", name, DIGEST, json.dumps(METADATA))


@pytest.fixture(scope="module")
def tables_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def sql(tables_url: str) -> Iterator[Session]:
    """A session on empty tables; whatever was done to them before is mended."""
    apply(tables_url)
    with session(tables_url) as opened:
        # Not `empty`: to how rows are deleted something was done, too.
        opened(
            "TRUNCATE plugins, plugin_endpoints, plugin_versions, plugin_failures,"
            " plugin_workers, plugin_loads"
        )
        yield opened


# --- search_path and schemas -------------------------------------------------------------------


def change_everything(sql: Session, home: str) -> None:
    """Insert, copy, set back, rename, delete and truncate, with all names written out."""
    keep(sql, f"{home}.plugin_versions", "a")
    sql(f"INSERT INTO {home}.plugins (name, source_path) VALUES ('a', '/p/a'), ('b', '/p/b')")
    sql(f"UPDATE {home}.plugins SET binary_path = '/x/a-{DIGEST}.pyz' WHERE name = 'a'")
    routes = f"SELECT path FROM {home}.plugin_endpoints"
    assert sql(routes) == [("/p",)]
    with sql.connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {home}.plugins WHERE name = 'a'")
        cursor.copy_expert(
            f"COPY {home}.plugins (name, binary_path) FROM STDIN CSV",
            io.StringIO(f"a,/x/a-{DIGEST}.pyz\n"),
        )
    assert sql(routes) == [("/p",)]
    keep(sql, f"{home}.plugin_versions", "b")
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        sql(f"UPDATE {home}.plugins SET binary_path = '/x/b-{DIGEST}.pyz' WHERE name = 'b'")
    sql(f"UPDATE {home}.plugins SET name = 'c', status = 'inactive' WHERE name = 'b'")
    sql(f"DELETE FROM {home}.plugins WHERE name = 'c'")
    sql(f"TRUNCATE {home}.plugins, {home}.plugin_endpoints, {home}.plugin_versions")


@pytest.mark.parametrize(
    ("path", "strings"),
    [
        ("''", "off"),
        *(pytest.param(path, "on", marks=pytest.mark.soak) for path in PATHS),
        *(pytest.param(path, "off", marks=pytest.mark.soak) for path in PATHS[1:]),
    ],
)
def test_every_change_works_under_every_search_path(sql: Session, path: str, strings: str) -> None:
    sql(f"SET search_path = {path}; SET standard_conforming_strings = {strings}")
    sql("LISTEN plugin_changes; LISTEN fence")
    change_everything(sql, "public")
    heard = sql.notified()
    assert [found["operation"] for found in heard] == [
        *("INSERT", "INSERT", "UPDATE", "DELETE", "INSERT", "UPDATE", "UPDATE", "UPDATE"),
        *("DELETE", "TRUNCATE", "TRUNCATE", "TRUNCATE"),
    ]
    assert {found["schema"] for found in heard} == {"public"}


def test_functions_of_the_names_of_postgresqls_own_are_not_called(sql: Session) -> None:
    """As orafce has them, whose documentation puts its schema before pg_catalog."""
    sql("DROP SCHEMA IF EXISTS oracle CASCADE; CREATE SCHEMA oracle")
    try:
        for signature in SHADOWED:
            name, _, rest = signature.partition(" RETURNS ")
            sql(
                f"CREATE FUNCTION oracle.{name} RETURNS {rest} LANGUAGE plpgsql"
                " AS 'BEGIN RAISE EXCEPTION ''not ours''; END'"
            )
        sql("SET search_path = oracle, public, pg_catalog")
        change_everything(sql, "public")
    finally:
        sql("DROP SCHEMA oracle CASCADE")


SHADOWED = (
    "pg_notify(text, text) RETURNS void",
    "clock_timestamp() RETURNS timestamptz",
    "octet_length(text) RETURNS integer",
    "right(text, integer) RETURNS text",
    "row_to_json(record) RETURNS json",
)


def test_the_schema_may_get_another_name(database_url: str) -> None:
    """Another Benana in a schema of the old name is left alone."""
    apply(database_url)
    with session(database_url) as sql:
        rename_and_change(sql)


def rename_and_change(sql: Session) -> None:
    sql('ALTER SCHEMA public RENAME TO "Other one"; CREATE SCHEMA public')
    apply(sql.connection.dsn)
    sql("LISTEN plugin_changes; LISTEN fence")
    change_everything(sql, '"Other one"')
    assert {found["schema"] for found in sql.notified()} == {"Other one"}


@pytest.mark.parametrize("way", [pytest.param("options", marks=pytest.mark.soak), "role"])
def test_two_benanas_in_one_database_do_not_meet(
    database_url: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    apply(database_url)
    other = in_schema(database_url, "Second one")
    recorders = [Recorder(), Recorder()]
    with (
        session(database_url) as admin,
        contextlib.ExitStack() as stack,
    ):
        role = f"second_{time.monotonic_ns()}"
        if way == "role":
            admin(
                f'CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA "Second one" TO {role};'
                f' ALTER ROLE {role} SET search_path = "Second one", public'
            )
            other = as_role(database_url, role)
        urls = [database_url, other]
        databases = [Database(url) for url in urls]
        for database in databases:
            stack.callback(database.close)
        assert Repository(databases[1]).apply_schema() is True
        assert Repository(databases[1]).apply_schema() is False
        assert Repository(databases[0]).apply_schema() is False
        for url, database, recorder, schema in zip(
            urls, databases, recorders, ["public", "Second one"], strict=True
        ):
            keeper = Upkeep(database, Conditions(), lambda: None)
            keeper.mend()
            assert keeper.schema == schema
            stack.enter_context(listening(url, recorder, schema=partial(getattr, keeper, "schema")))
        for number, schema in enumerate(["public", '"Second one"']):
            admin(f"INSERT INTO {schema}.plugins (name) VALUES ('own{number}')")
        admin('NOTIFY plugin_changes, \'{"name": "all"}\'')
        for number, (database, recorder) in enumerate(zip(databases, recorders, strict=True)):
            wait_until(lambda r=recorder: "all" in r.heard(), "an older trigger is heard")
            assert recorder.heard() == {f"own{number}", "all"}
            assert [row.name for row in Repository(database).served_rows()] == [f"own{number}"]
        if way == "role":
            admin(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert ("makes its own in the schema Second one" in caplog.text) == (way == "role")


# --- publications ------------------------------------------------------------------------------

PUBLISHED = (
    "SELECT tablename FROM pg_publication_tables WHERE pubname = 'everything' ORDER BY tablename"
)


@pytest.mark.parametrize(
    "migrated",
    [
        pytest.param(None, marks=pytest.mark.soak),
        pytest.param("FOR ALL TABLES", marks=pytest.mark.soak),
        "FOR TABLE plugins, plugin_workers",
    ],
)
def test_processes_are_not_for_publication(
    sql: Session, tables_url: str, migrated: str | None
) -> None:
    if migrated:
        sql("ALTER TABLE plugin_workers SET LOGGED; ALTER TABLE plugin_loads SET LOGGED")
        sql(f"CREATE PUBLICATION everything {migrated}")
        sql("COMMENT ON TABLE plugins IS 'an older one'")
        assert ("plugin_workers",) in sql(PUBLISHED)
        assert apply(tables_url) is True
    else:
        sql("CREATE PUBLICATION everything FOR ALL TABLES")
    found = {name for (name,) in sql(PUBLISHED)}
    sql("DROP PUBLICATION everything")
    assert "plugins" in found
    assert found.isdisjoint({"plugin_workers", "plugin_loads"})


# --- what others do to them ----------------------------------------------------------------------


@pytest.fixture
def broken_database(sql: Session) -> Iterator[Database]:
    """A pool on the database that `sql` breaks."""
    with contextlib.closing(Database(sql.connection.dsn)) as database:
        yield database


@pytest.fixture
def kept(broken_database: Database) -> tuple[Upkeep, Repository, Conditions, list[str]]:
    changes: list[str] = []
    conditions = Conditions()
    return (
        Upkeep(broken_database, conditions, lambda: changes.append("changed")),
        Repository(broken_database),
        conditions,
        changes,
    )


Kept = tuple[Upkeep, Repository, Conditions, list[str]]


def enabled(sql: Session) -> set[tuple[str]]:
    return set(sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname LIKE 'plugins_notify%%'"))


def test_triggers_that_were_disabled_meanwhile_are_noticed_and_fire_always_again(
    sql: Session, kept: Kept
) -> None:
    keeper, repository, conditions, changes = kept
    with contextlib.closing(Database(sql.connection.dsn)) as database:
        look = Looker(database)
        keeper.seen(look())
        keeper.seen(look())
        assert changes == []
        sql("ALTER TABLE plugins DISABLE TRIGGER ALL; ALTER TABLE plugins ENABLE TRIGGER ALL")
        keeper.seen(look())
        assert changes == ["changed"]
        keeper.mend()
        assert enabled(sql) == {("A",)}
        assert conditions.held() == ()
    assert repository.served_rows() == []


class Looker:
    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self) -> Tables:
        with self._database.connection() as connection, connection.cursor() as cursor:
            cursor.execute(LOOK)
            return Tables.read(only_row(cursor))


@pytest.mark.parametrize(
    "broken",
    [
        "DROP TRIGGER plugins_notify_row ON plugins",
        pytest.param("ALTER TABLE plugins DISABLE TRIGGER USER", marks=pytest.mark.soak),
        pytest.param(
            "ALTER TABLE plugins ENABLE REPLICA TRIGGER plugins_notify_update",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_a_missing_trigger_is_put_back_after_a_while(
    sql: Session, kept: Kept, broken_database: Database, broken: str
) -> None:
    keeper, repository, conditions, _ = kept
    sql("INSERT INTO plugins (name) VALUES ('there')")
    sql(broken)
    keeper.mend()
    (condition,) = conditions.held()
    assert "lacks the trigger" in condition.what
    with pytest.raises(DatabaseRefusedError, match="lacks the trigger"):
        repository.served_rows()
    with pytest.raises(DatabaseRefusedError, match="lacks the trigger"):
        repository.served_rows(["there", "gone"])
    assert len(repository.served_rows(["there"])) == 1
    soon = Upkeep(broken_database, conditions, lambda: None, grace_seconds=0.1)
    with session(f"{sql.connection.dsn}&application_name=pg_restore") as restoring:
        restoring("SELECT 1")
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            soon.mend()
            assert conditions.held(), "a restore is left alone"

    def well() -> bool:
        soon.mend()
        return conditions.held() == ()

    wait_until(well, "it is put back")
    assert enabled(sql) == {("A",)}
    assert len(repository.served_rows()) == 1


@pytest.mark.parametrize(
    "function", ["notify_plugin_change", "stamp_plugin_change", "record_plugin_routes"]
)
def test_a_function_that_somebody_has_replaced_is_named_and_put_back(
    sql: Session, kept: Kept, broken_database: Database, function: str
) -> None:
    """As by the set-up of an earlier system, whose functions have these names."""
    keeper, _, conditions, changes = kept
    look = Looker(broken_database)
    sql("INSERT INTO plugins (name) VALUES ('there')")
    keeper.seen(look())
    sql(
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'"
    )
    keeper.seen(look())
    assert changes == ["changed"], "a heartbeat sees it"
    keeper.mend()
    (condition,) = conditions.held()
    assert f"the function {function} is not what schema.sql makes any more" in condition.what
    soon = Upkeep(broken_database, conditions, lambda: None, grace_seconds=0.0)
    soon.mend()
    keeper.mend()
    assert conditions.held() == ()
    assert apply(sql.connection.dsn) is False
    sql("LISTEN plugin_changes; LISTEN fence; UPDATE plugins SET status = 'inactive'")
    assert [found["operation"] for found in sql.notified()] == ["UPDATE"]


def test_functions_of_another_version_are_left_alone(sql: Session, kept: Kept) -> None:
    """As while a newer release is rolled out: each would put its own back."""
    keeper, _, conditions, _ = kept
    sql(
        "CREATE OR REPLACE FUNCTION notify_plugin_change() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'; COMMENT ON TABLE plugins IS 'benana 0123456789abcdef'"
    )
    keeper.mend()
    assert conditions.held() == ()


RENAMED = {
    "what is served": ("plugins", "source_digest"),
    "what only operators read": ("plugins", "author"),
    "of a version": ("plugin_versions", "finding"),
    "of a process": ("plugin_loads", "owner"),
}


@pytest.mark.parametrize("column", RENAMED)
def test_a_column_that_is_renamed_is_named_until_it_is_back(
    sql: Session, kept: Kept, broken_database: Database, column: str
) -> None:
    _, _, conditions, changes = kept
    keeper = Upkeep(
        broken_database, conditions, lambda: changes.append("changed"), grace_seconds=0.0
    )
    look = Looker(broken_database)
    table, name = RENAMED[column]
    keeper.seen(look())
    sql(f"ALTER TABLE {table} RENAME COLUMN {name} TO other")
    try:
        keeper.seen(look())
        assert changes == ["changed"], "a heartbeat sees it"
        for _ in range(2):
            keeper.mend()
            (condition,) = conditions.held()
            assert f"the column {table}.{name} is missing" in condition.what
    finally:
        sql(f"ALTER TABLE {table} RENAME COLUMN other TO {name}")
    keeper.seen(look())
    assert changes == ["changed", "changed"]
    keeper.mend()
    assert conditions.held() == ()


def test_every_column_of_the_schema_is_looked_for(sql: Session) -> None:
    found = sql(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema()"
    )
    known = {(table, column) for table, its in COLUMNS.items() for column in its.split()}
    assert set(found) == known


@pytest.mark.parametrize("table", TABLES[1:])
def test_a_table_that_is_dropped_is_seen_by_a_heartbeat(
    sql: Session, kept: Kept, broken_database: Database, table: str
) -> None:
    keeper, _, conditions, changes = kept
    look = Looker(broken_database)
    keeper.seen(look())
    sql(f"DROP TABLE {table} CASCADE")
    keeper.seen(look())
    assert changes == ["changed"]
    keeper.mend()
    assert f"the table {table} is missing" in str(conditions.held())
    apply(sql.connection.dsn)
    keeper.seen(look())
    assert changes == ["changed", "changed"]
    keeper.mend()
    assert conditions.held() == ()


@pytest.mark.parametrize("broken", ["DROP TABLE plugins CASCADE", "DROP TRIGGER %s ON plugins"])
def test_a_table_is_never_made_anew_below_what_is_served(
    sql: Session, kept: Kept, broken_database: Database, broken: str
) -> None:
    _, repository, conditions, _ = kept
    keeper = Upkeep(broken_database, conditions, lambda: None, grace_seconds=0.0)
    sql(broken.replace("%s", "plugins_notify_row"))
    for _ in range(2):
        keeper.mend()
        assert conditions.held()
        with pytest.raises(DatabaseRefusedError):
            repository.served_rows()


def test_who_may_not_mend_says_so_and_goes_on(
    sql: Session, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"guest_{time.monotonic_ns()}"
    sql(f"CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    sql("ALTER TABLE plugins ENABLE TRIGGER USER")
    conditions = Conditions()
    database = Database(as_role(sql.connection.dsn, role))
    keeper = Upkeep(database, conditions, lambda: None)
    with caplog.at_level(logging.WARNING):
        keeper.mend()
        keeper.mend()
    assert Repository(database).served_rows() == []
    assert caplog.text.count("must be owner") == 1
    assert "must be owner" in conditions.held()[0].what
    database.close()
    sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_a_read_only_database_needs_is_said_and_not_taken_for_an_outage(
    sql: Session, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a standby; it read that the rows cannot be read."""
    keeper, repository, conditions, _ = kept
    sql("ALTER TABLE plugins ENABLE TRIGGER USER")  # and ALWAYS no more
    monkeypatch.setattr(Sessions, "beginning", "SET LOCAL transaction_read_only = on; ")
    keeper.mend()
    assert "cannot be mended here: it is read only" in conditions.held()[0].what
    assert repository.served_rows() == []
    monkeypatch.undo()
    keeper.mend()
    assert not conditions.held()


# --- triggers that do not fire for us ------------------------------------------------------------


@contextlib.contextmanager
def replica(sql: Session, of: str) -> Iterator[None]:
    """Have the sessions of a role or database be as those in which a replica applies rows."""
    sql(f"ALTER {of} SET session_replication_role = replica")
    try:
        yield
    finally:
        sql(f"ALTER {of} RESET session_replication_role")


@pytest.mark.parametrize("of", ["DATABASE", "ROLE"])
def test_our_triggers_fire_in_our_own_sessions_whatever_the_role_says(
    sql: Session, tables_url: str, of: str
) -> None:
    """Each toggle, reload and publish was refused: nothing had stamped the row."""
    sql("INSERT INTO plugins (name) VALUES ('a')")
    (database_name,) = sql("SELECT current_database()")[0]
    conditions = Conditions()
    with (
        replica(sql, f"DATABASE {database_name}" if of == "DATABASE" else "ROLE CURRENT_USER"),
        contextlib.closing(Database(tables_url)) as own,
        contextlib.closing(Database(tables_url, reset=True)) as of_plugins,
    ):
        for _ in range(2):
            with own.connection() as first, own.connection() as second:  # two sessions
                for connection in (first, second):
                    with connection.cursor() as cursor:
                        cursor.execute("SHOW session_replication_role")
                        assert cursor.fetchone() == ("origin",)
        Upkeep(own, conditions, lambda: None).mend()
        changed = Repository(own).toggle("a")
        with of_plugins.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW session_replication_role")
            assert cursor.fetchone() == ("replica",), "that is the plugin's own affair"
    assert changed is not None
    assert (changed.status, changed.generation) == ("inactive", 2)
    assert not conditions.held()


def test_a_role_that_cannot_have_our_triggers_fire_is_told_the_setting(
    sql: Session, kept: Kept
) -> None:
    """It read that nothing was expected to undo an UPDATE, and health was green."""
    sql("INSERT INTO plugins (name) VALUES ('a')")
    role = f"guest_{time.monotonic_ns()}"
    sql(f"CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    said = "session_replication_role is replica for this role or database"
    conditions = Conditions()
    url = as_role(sql.connection.dsn, role)
    with replica(sql, f"ROLE {role}"), contextlib.closing(Database(url)) as own:
        with pytest.raises(DatabaseRefusedError, match=said) as caught:
            Repository(own).toggle("a")
        assert "the generation stays 1" in str(caught.value)
        Upkeep(own, conditions, lambda: None).mend()
        assert [said in held.what for held in conditions.held()] == [True]
    with contextlib.closing(Database(url)) as own:
        Upkeep(own, conditions, lambda: None).mend()
        assert Repository(own).toggle("a") is not None
    assert not conditions.held()
    sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("disabled", "named"),
    [("ALL", "plugins_notify_row, plugins_notify_truncate"), ("plugins_stamp", "plugins_stamp")],
)
def test_a_change_that_no_trigger_stamps_names_those_that_are_disabled(
    sql: Session, tables_url: str, disabled: str, named: str
) -> None:
    sql("INSERT INTO plugins (name) VALUES ('a')")
    sql(f"ALTER TABLE plugins DISABLE TRIGGER {disabled}")
    try:
        with (
            contextlib.closing(Database(tables_url)) as database,
            pytest.raises(DatabaseRefusedError) as caught,
        ):
            Repository(database).toggle("a")
    finally:
        sql("ALTER TABLE plugins ENABLE TRIGGER ALL")
    assert "the generation stays 1, and no error was raised" in str(caught.value)
    assert f"plugins lacks the trigger{'s' * (disabled == 'ALL')} {named}" in str(caught.value)
    assert "disabled" in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere", "", "pg_catalog_of_mine, elsewhere_too"])
def test_a_search_path_without_a_schema_says_what_to_do(
    new_database: Callable[[], str], path: str
) -> None:
    """It was: null values cannot be formatted as an SQL identifier."""
    options = quote("-c search_path=" + path.replace(" ", r"\ "))
    database = Database(f"{new_database()}&options={options}")
    with contextlib.closing(database), pytest.raises(DatabaseRefusedError) as caught:
        Repository(database).apply_schema()
    said = str(caught.value)
    assert f"search_path of this role is {path or 'empty'}, expected a schema" in said
    assert "CREATE SCHEMA" in said


def test_a_search_path_that_begins_with_the_catalogue_says_what_to_do(
    new_database: Callable[[], str],
) -> None:
    """It was: permission denied to create pg_catalog.plugins."""
    options = quote(r"-c search_path=pg_catalog,public")
    database = Database(f"{new_database()}&options={options}")
    with contextlib.closing(database), pytest.raises(DatabaseRefusedError) as caught:
        Repository(database).apply_schema()
    assert "expected another schema than pg_catalog first" in str(caught.value)
