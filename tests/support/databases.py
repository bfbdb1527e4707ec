"""Sessions of somebody on a database, and the schema applied as a server does."""

import contextlib
import json
import select
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.errors

from app.database.schema import apply_schema

PLACES = 4
"""How many connections the pool of these tests lends at most."""


class Session:
    """A psql session in autocommit, which can listen."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def __call__(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def payloads(self) -> list[str]:
        """Return all payloads that were notified before this call, in their order."""
        marks = 0
        self("NOTIFY fence")  # notifications come in the order of the commits
        payloads = []
        deadline = time.monotonic() + 10.0
        while not marks:
            assert time.monotonic() < deadline, "the fence did not come back"
            self.connection.poll()
            while self.connection.notifies:
                found = self.connection.notifies.pop(0)
                if found.channel == "fence":
                    marks += 1
                else:
                    payloads.append(found.payload)
            if not marks:
                select.select([self.connection], [], [], 1.0)
        return payloads

    def notified(self) -> list[dict[str, Any]]:
        payloads = self.payloads()
        assert all(len(payload.encode()) < 8000 for payload in payloads)
        return [json.loads(payload) for payload in payloads]


@contextlib.contextmanager
def session(url: str) -> Iterator[Session]:
    opened = Session(url)
    try:
        yield opened
    finally:
        opened.connection.close()


def empty(sql: Session) -> None:
    """Delete all rows of our tables: a `TRUNCATE` makes new files, and takes 20 times as long."""
    tables = ("plugins", "plugin_versions", "plugin_failures", "plugin_workers", "plugin_loads")
    sql("; ".join(f"DELETE FROM {table}" for table in tables))


@contextlib.contextmanager
def undoing(sql: Session, table: str) -> Iterator[None]:
    """Have a trigger `quiet` of somebody's undo each INSERT into a table, without an error."""
    sql(
        "CREATE OR REPLACE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END';"
        f" CREATE TRIGGER quiet BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION quiet()"
    )
    try:
        yield
    finally:
        sql("DROP FUNCTION quiet CASCADE")


def apply(url: str) -> bool:
    connection = psycopg2.connect(url)
    try:
        return apply_schema(connection)
    finally:
        connection.close()


DIGEST = "0123456789abcdef0123456789abcdef"
