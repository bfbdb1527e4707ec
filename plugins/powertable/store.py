"""The tables of the plugin's schema: made, dropped and described.

Nothing is kept between calls: each one locks the table against a DROP, reads its columns from
PostgreSQL's catalogue and works with them in the same transaction. So all processes agree, and so
does who alters a table in psql.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import falcon
import psycopg2
import psycopg2.errors
from psycopg2 import sql

from .answers import ShownTable
from .columns import ID, NAME_RULE, Column, Table, column_from_catalog, is_name
from .values import show

Cursor = Any

REFUSALS = (
    psycopg2.DataError,
    psycopg2.IntegrityError,
    psycopg2.errors.ProgramLimitExceeded,
    # What somebody has written in a trigger.
    psycopg2.errors.PlpgsqlError,
    psycopg2.errors.RaiseException,
    psycopg2.errors.AssertFailure,
    psycopg2.errors.NoDataFound,
    psycopg2.errors.TooManyRows,
)
"""What PostgreSQL raises where a value, a constraint or a trigger refuses a row."""

_MESSAGE_CHARACTERS = 300

# Tables without the identity column are somebody else's.
_TABLES = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated <> '' OR a.attidentity <> '', a.atthasdef
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p')
  AND (%(table)s IS NULL OR c.relname = %(table)s)
  AND EXISTS (SELECT FROM pg_attribute i
              WHERE i.attrelid = c.oid AND i.attname = 'id' AND i.attidentity <> '')
ORDER BY c.relname, a.attnum
"""


class TableStore:
    """The tables of one schema; `database` opens a connection for one transaction."""

    def __init__(self, database: Callable[[], AbstractContextManager[Any]], schema: str) -> None:
        self._database = database
        self.schema = schema

    def create_schema(self, fill: Callable[[Cursor], None]) -> None:
        """Make the schema if it is not there, from any number of processes at once.

        Args:
            fill: makes what else has to be in it, one process at a time.
        """
        with self._database() as connection, connection.cursor() as cursor:
            # IF NOT EXISTS alone fails when two processes get there at once, and it asks for the
            # right to create schemas even where an administrator has made this one.
            key = f"benana-plugin:{self.schema}"
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
            cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", (self.schema,))
            if cursor.rowcount == 0:
                schema = sql.Identifier(self.schema)
                cursor.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            fill(cursor)

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Open a transaction whose dates and times are read and written as ISO, in UTC.

        Raises:
            falcon.HTTPUnprocessableEntity: PostgreSQL cannot compute with a value, or a constraint
                or a trigger that was added in psql refuses it.
        """
        try:
            with self._database() as connection, connection.cursor() as cursor:
                cursor.execute("SET LOCAL TIME ZONE 'UTC'; SET LOCAL datestyle TO 'ISO, YMD'")
                yield cursor
        except REFUSALS as error:
            raise falcon.HTTPUnprocessableEntity(
                title="Value refused", description=f"PostgreSQL: {message_of(error)}."
            ) from error

    def list_tables(self, cursor: Cursor) -> list[ShownTable]:
        """Return every table with its columns and its exact number of rows."""
        answer = []
        for name in [table.name for table in self._read_catalog(cursor, None)]:
            # One that is dropped meanwhile is left out, and does not end the transaction.
            cursor.execute("SAVEPOINT listing")
            try:
                answer.append(self.describe(cursor, self.find_table(cursor, name)))
            except falcon.HTTPNotFound:
                cursor.execute("ROLLBACK TO SAVEPOINT listing")
            cursor.execute("RELEASE SAVEPOINT listing")
        return answer

    def describe(self, cursor: Cursor, table: Table) -> ShownTable:
        """Return a table with its columns and its exact number of rows."""
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
        return {**table.as_json(), "rows": cursor.fetchone()[0]}

    def find_table(self, cursor: Cursor, name: str) -> Table:
        """Return a table, which nobody can drop or alter before the transaction ends.

        Raises:
            falcon.HTTPNotFound: there is none of that name.
        """
        tables: list[Table] = []
        if is_name(name):
            lock = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE")
            try:
                cursor.execute(lock.format(sql.Identifier(self.schema, name)))
            except (
                psycopg2.errors.InvalidSchemaName,
                psycopg2.errors.UndefinedTable,
                psycopg2.errors.WrongObjectType,
            ):
                raise _no_table(name) from None
            tables = self._read_catalog(cursor, name)
        if not tables:
            raise _no_table(name)
        return tables[0]

    def create_table(self, cursor: Cursor, name: str, columns: Sequence[Column]) -> Table:
        """Make a table.

        Raises:
            falcon.HTTPConflict: the name is taken, perhaps by another table's index.
        """
        table = Table(self.schema, name, tuple(columns))
        identity = sql.SQL("{} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        definitions = [identity.format(sql.Identifier(ID)), *map(_definition, columns)]
        statement = sql.SQL("CREATE TABLE {} ({})")
        try:
            cursor.execute(statement.format(table.identifier, sql.SQL(", ").join(definitions)))
        except (
            psycopg2.errors.DuplicateTable,
            # How the loser of a race hears of it, depending on how far it came.
            psycopg2.errors.DuplicateObject,
            psycopg2.errors.UniqueViolation,
        ):
            raise falcon.HTTPConflict(
                title="Table exists", description=f'The table name "{name}" is taken.'
            ) from None
        return table

    def create_like(self, cursor: Cursor, table: Table, name: str) -> Table:
        """Make an empty table with the columns and checks of another, and ids of its own."""
        made = Table(self.schema, name, table.columns, stands_for=table.name)
        cursor.execute(
            sql.SQL(
                "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
                " INCLUDING GENERATED INCLUDING IDENTITY)"
            ).format(made.identifier, table.identifier)
        )
        return made

    def drop_table(self, cursor: Cursor, name: str) -> None:
        """Drop a table and its rows.

        Raises:
            falcon.HTTPNotFound: there is none of that name.
            falcon.HTTPConflict: something that was made in psql, such as a view, needs it.
        """
        table = self.find_table(cursor, name)
        try:
            cursor.execute(sql.SQL("DROP TABLE {}").format(table.identifier))
        except psycopg2.errors.DependentObjectsStillExist as error:
            raise falcon.HTTPConflict(
                title="Table in use", description=f"PostgreSQL: {error.diag.message_detail}"
            ) from None

    def _read_catalog(self, cursor: Cursor, name: str | None) -> list[Table]:
        cursor.execute(_TABLES, {"schema": self.schema, "table": name})
        columns: dict[str, list[Column]] = {}
        unseen: dict[str, dict[str, str]] = {}
        for table, column_name, sql_type, *properties in cursor.fetchall():
            found = columns.setdefault(table, [])
            column = column_from_catalog(column_name, sql_type, *properties)
            if column is not None:
                found.append(column)
            elif column_name != ID:
                unseen.setdefault(table, {})[column_name] = sql_type
        return [
            Table(self.schema, table, tuple(found), unseen.get(table, {}))
            for table, found in columns.items()
            if found and is_name(table)
        ]


def _definition(column: Column) -> sql.Composable:
    name, kind = sql.Identifier(column.name), column.type
    parts = [name, sql.SQL(kind.definition or kind.sql)]
    if column.required:
        parts.append(sql.SQL("NOT NULL"))
    if kind.bounds:
        # The constraint is named like the column: so COPY's error tells which one it was.
        check = sql.SQL(f"CONSTRAINT {{0}} CHECK ({kind.bounds})")
        parts.append(check.format(name))
    return sql.SQL(" ").join(parts)


def check_table_name(name: str) -> None:
    """Check the name of a table.

    Raises:
        falcon.HTTPUnprocessableEntity: no table can have it.
    """
    if not is_name(name):
        raise falcon.HTTPUnprocessableEntity(
            title="Bad values",
            description=f"Found the table name {show(name)}, expected {NAME_RULE}.",
        )


def message_of(error: psycopg2.Error) -> str:
    """Return PostgreSQL's own words without the point at their end, cut where they are long."""
    message = (error.diag.message_primary or str(error)).rstrip(".")
    long = len(message) > _MESSAGE_CHARACTERS
    return message[: _MESSAGE_CHARACTERS - 1] + "…" if long else message


def _no_table(name: str) -> falcon.HTTPNotFound:
    return falcon.HTTPNotFound(
        title="No such table", description=f"There is no table named {show(name)}."
    )
