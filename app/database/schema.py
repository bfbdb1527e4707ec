"""Applies `schema.sql`."""

import hashlib
import logging
import re
from typing import Any

import psycopg2

from app.database.connection import Connection
from app.database.locks import SCHEMA_LOCK, LockReport
from app.database.rows import only_row
from app.database.statements import refused
from app.database.tables import EXPECTED_TRIGGERS, FIRES, LOOK, TABLES, TRIGGERS, Tables
from app.errors import DatabaseRefusedError
from app.shipped import shipped_file

log = logging.getLogger(__name__)

SCHEMA_FILE = shipped_file("schema.sql")

LOCK_TIMEOUT = "10s"
"""How long the schema waits for a lock: it is applied once, and everything waits for it."""

_TEXT = SCHEMA_FILE.read_bytes()
# Its bytes decide, and not how this process would read them: they are the same on every host.
MARK = f"benana {hashlib.sha256(_TEXT).hexdigest()[:16]}"
"""The comment on the table `plugins` that says which `schema.sql` was applied."""

_BODIES = dict(
    re.findall(rb"FUNCTION (\w+)\(\) RETURNS TRIGGER AS \$\$(.*?)\$\$", _TEXT, re.DOTALL)
)
_CALLS = re.findall(rb"CREATE TRIGGER (\w+)\s[^;]*?EXECUTE FUNCTION (\w+)", _TEXT)
_EXPECTED_FUNCTIONS = ", ".join(
    f"('{trigger.decode()}', '{TRIGGERS[trigger.decode()]}', '{function.decode()}',"
    f" '{hashlib.md5(_BODIES[function], usedforsecurity=False).hexdigest()}')"
    for trigger, function in _CALLS
)
REPLACED = f"""
    ARRAY(SELECT DISTINCT name
        FROM (VALUES {_EXPECTED_FUNCTIONS}) expected (trigger, t, name, body)
        JOIN pg_trigger ON tgrelid = to_regclass(t) AND tgname = trigger
        JOIN pg_proc f ON f.oid = tgfoid AND md5(f.prosrc) <> body
        WHERE obj_description(to_regclass('plugins'), 'pg_class') = '{MARK}' ORDER BY name)
"""  # noqa: S608 - constants
"""The functions that our triggers call and that are not those of this `schema.sql` any more: they
were replaced after it was applied."""

_OURS = "to_regclass(format('%%I.%%I', current_schema(), t))"
_HERE = "to_regclass(format('%%I.plugins', current_schema()))"
"""The table in the schema where new ones are made; not the one of another Benana that the
search_path shows, too."""

_IS_CURRENT = f"""
    SELECT coalesce(obj_description({_HERE}, 'pg_class') = %s, false)
        AND (SELECT count(*) FROM pg_trigger JOIN (VALUES {EXPECTED_TRIGGERS}) expected (t, name)
            ON tgrelid = {_OURS} AND tgname = name AND {FIRES}) = {len(TRIGGERS)}
        AND NOT EXISTS (SELECT 1 FROM unnest(ARRAY[{", ".join(f"'{name}'" for name in TABLES)}]) t
            WHERE {_OURS} IS NULL)
        AND cardinality({REPLACED}) = 0
"""  # noqa: S608 - constants

_ANOTHER = f"""
    SELECT n.nspname, current_schema()
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass('plugins') AND {_HERE} IS NULL
        AND obj_description(c.oid, 'pg_class') LIKE 'benana %%'
"""  # noqa: S608 - constants


def apply_schema(
    connection: Connection,
    locks: LockReport | None = None,
    *,
    lock_timeout: str = LOCK_TIMEOUT,
    beginning: str = "",
) -> bool:
    """Bring a database to this schema.

    A database that has it already is not touched: its tables would be locked otherwise, and a
    session that left a transaction open would hold up the start.

    Args:
        connection: a connection outside of a transaction; its current schema gets the tables.
        locks: finds who holds a lock; None where nobody wants to know.
        lock_timeout: how long to wait for a lock, as PostgreSQL writes it.
        beginning: what the transaction begins with.

    Returns:
        Whether anything was applied.

    Raises:
        DatabaseBusyError: another session holds a lock.
        DatabaseUnavailableError: the database is away.
        DatabaseRefusedError: the database refuses, as for want of rights.
    """
    try:
        with connection, connection.cursor() as cursor:
            _lock(cursor, lock_timeout, beginning)
            cursor.execute("SELECT current_schema(), current_setting('search_path')")
            home, path = next(cursor)
            if home == "pg_catalog":
                raise DatabaseRefusedError(
                    f"schema.sql cannot be applied: the search_path of this role is {path}, "
                    "expected another schema than pg_catalog first, which takes no tables and is "
                    "searched first without being named; leave it out (in the URL, or by "
                    "ALTER ROLE)",
                    sqlstate="3F000",
                )
            if home is None:
                raise DatabaseRefusedError(
                    "schema.sql cannot be applied: the search_path of this role is "
                    f"{path or 'empty'}, expected a schema that exists and that the role may use; "
                    "CREATE SCHEMA, GRANT USAGE on it, or set another search_path (in the URL, or "
                    "by ALTER ROLE)",
                    sqlstate="3F000",
                )
            cursor.execute(_IS_CURRENT, (MARK,))
            if cursor.fetchone() == (True,):
                return False
            cursor.execute(_ANOTHER, ())
            if (row := cursor.fetchone()) is not None:
                log.warning(
                    "the schema %s holds the tables of a Benana; this one makes its own in the "
                    "schema %s, the first of its search_path",
                    *row,
                )
            cursor.execute(_TEXT)
            cursor.execute("COMMENT ON TABLE plugins IS %s", (MARK,))
            return True
    except psycopg2.Error as error:
        raise refused(error, locks, "schema.sql cannot be applied") from error


def fire_always(
    connection: Connection,
    locks: LockReport | None = None,
    *,
    lock_timeout: str = LOCK_TIMEOUT,
    beginning: str = "",
) -> tuple[str, ...]:
    """Make the triggers that notify fire also where a replica applies rows, if they do not.

    `pg_restore --disable-triggers` and `ALTER TABLE … ENABLE TRIGGER ALL` end that silently.

    Returns:
        The triggers that did not.

    Raises:
        DatabaseError: as `apply_schema`.
    """
    try:
        with connection, connection.cursor() as cursor:
            _lock(cursor, lock_timeout, beginning)
            cursor.execute(LOOK)
            names = Tables.read(only_row(cursor)).not_always
            for name in names:
                cursor.execute(f"ALTER TABLE {TRIGGERS[name]} ENABLE ALWAYS TRIGGER {name}")
            return names
    except psycopg2.Error as error:
        raise refused(error, locks, "the triggers cannot be set to ALWAYS") from error


def _lock(cursor: Any, lock_timeout: str, beginning: str) -> None:
    cursor.execute(
        f"{beginning}SET LOCAL lock_timeout = %s; SET LOCAL statement_timeout = 0;"
        " SELECT pg_advisory_xact_lock(%s)",
        (lock_timeout, SCHEMA_LOCK),
    )
