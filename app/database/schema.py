"""Applies `schema.sql`."""

import hashlib
from pathlib import Path

import psycopg2

from app.database.connection import Connection
from app.database.locks import SCHEMA_LOCK, LockReport
from app.database.statements import refused

SCHEMA_FILE = Path(__file__).parents[2] / "schema.sql"

LOCK_PATIENCE = "10s"
"""How long the schema waits for a lock: it is applied once, and everything waits for it."""

_IS_CURRENT = """
    SELECT coalesce(obj_description(to_regclass('plugins'), 'pg_class') = %s, false)
        AND (SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('plugins')
             AND tgname IN ('plugins_stamp', 'plugins_version', 'plugins_routes_insert',
                            'plugins_routes_update', 'plugins_notify_row',
                            'plugins_notify_update', 'plugins_notify_truncate')) = 7
"""


def apply_schema(connection: Connection, locks: LockReport | None = None) -> bool:
    """Bring a database to this schema.

    A database that has it already is not touched: its tables would be locked otherwise, and a
    session that left a transaction open would hold up the start.

    Args:
        connection: a connection outside of a transaction.
        locks: finds who holds a lock; None where nobody wants to know.

    Returns:
        Whether anything was applied.

    Raises:
        DatabaseBusyError: another session holds a lock.
        DatabaseUnavailableError: the database is away.
        DatabaseRefusedError: the database refuses, as for want of rights.
    """
    text = SCHEMA_FILE.read_text()
    mark = f"benana {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SET LOCAL lock_timeout = %s; SET LOCAL statement_timeout = 0;"
                " SELECT pg_advisory_xact_lock(%s)",
                (LOCK_PATIENCE, SCHEMA_LOCK),
            )
            cursor.execute(_IS_CURRENT, (mark,))
            if cursor.fetchone() == (True,):
                return False
            cursor.execute(text)
            cursor.execute("COMMENT ON TABLE plugins IS %s", (mark,))
            return True
    except psycopg2.Error as error:
        raise refused(error, locks, "schema.sql cannot be applied") from error
