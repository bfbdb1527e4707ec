"""Repairs our tables after somebody else has restored, disabled or dropped parts of them."""

import logging
import time
from collections.abc import Callable

from app.conditions import Conditions
from app.database.restores import RESTORING
from app.database.route_records import RouteRecords
from app.database.rows import only_row
from app.database.schema import REPLACED, apply_schema, fire_always
from app.database.statements import Lender, statement
from app.database.tables import LACKING, LOOK, REPLICA, REPLICA_SAID, Tables, silence_of
from app.errors import DatabaseBusyError, DatabaseReadOnlyError, DatabaseRefusedError

log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0

LOCK_TIMEOUT = "100ms"
"""How long a repair waits for a lock: sessions that write rows would queue behind it."""

CONDITION = "tables"


class Upkeep:
    """Watches the state of our tables for one process, and repairs them.

    The recorder's thread calls `seen` with each heartbeat; the reconciler's calls `mend` before it
    compares everything, and `look` once `look_at` has come.
    """

    def __init__(
        self,
        database: Lender,
        conditions: Conditions,
        changed: Callable[[], None],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Make it.

        Args:
            database: the server's own.
            conditions: what is not as it should be.
            changed: called when a table was created again or a trigger changed. Everything must be
                compared then: changes of rows may not have been notified.
            grace_seconds: how long a trigger must be missing before it is put back: a restore
                creates them last.
        """
        self._database = database
        self._conditions = conditions
        self._changed = changed
        self._grace_seconds = grace_seconds
        self._trace: str | None = None
        self._broken_since: float | None = None
        self._said = ""
        """What was said last of the tables."""
        self.schema: str | None = None
        """The schema of our tables; None while it is not known."""
        self.routes = RouteRecords(database, conditions)

    def seen(self, tables: Tables | None) -> None:
        """Take what a heartbeat found, None where it was refused.

        Calls `changed` if it is not what the last one found.
        """
        before, self._trace = self._trace, tables.trace if tables else ""
        if tables is not None:
            self.schema = tables.schema
        if before not in {None, self._trace}:
            self._changed()

    @property
    def look_at(self) -> float | None:
        """When to look at the recorded routes, in monotonic seconds; None for not at all."""
        return self.routes.look_at

    @property
    def broken(self) -> bool:
        """Whether a table or trigger was missing when everything was compared last."""
        return self._broken_since is not None

    def look(self) -> None:
        """Look at the recorded routes, unless a table or trigger is missing.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        if self.broken:
            self.routes.put_off()
        else:
            self.routes.look()

    def mend(self) -> None:
        """Repair our tables, before everything is compared.

        A missing table `plugins` is never created, nor the triggers of an empty one: a restore is
        not finished, and the server keeps serving what it served last. A column is not made again
        either: where it was renamed, what it holds would be lost.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        self.routes.may_have_changed()
        with statement(self._database) as cursor:
            cursor.execute(
                f"SELECT {RESTORING} AS restoring, {LACKING} AS lacking,"  # noqa: S608
                f" {REPLACED} AS replaced, {REPLICA} AS replica, look.* FROM ({LOOK}) look"
            )
            row = only_row(cursor)
        tables = Tables.read(row)
        self.schema = tables.schema
        if tables.is_whole:
            self._broken_since = None
            if tables.not_always:
                self._repair(_shortcoming(tables), fire_always)
            elif tables.replica:
                self._say(REPLICA_SAID)
            else:
                self._is_well()
            return
        self._say(f"{_shortcoming(tables)}; the server keeps serving what it served last")
        now = time.monotonic()
        if self._broken_since is None or row["restoring"]:
            self._broken_since = now
        known = tables.schema is not None and not tables.lacking
        if now - self._broken_since < self._grace_seconds or not known:
            return
        if not (tables.silent and self._is_empty()):
            self._repair(_shortcoming(tables), apply_schema)

    def _is_empty(self) -> bool:
        with statement(self._database) as cursor:
            cursor.execute("SELECT NOT EXISTS (SELECT 1 FROM plugins)")
            return bool(cursor.fetchone()[0])

    def _repair(self, what: str, action: Callable[..., object]) -> None:
        try:
            with self._database.connection() as connection:
                pool = self._database.pool
                beginning = pool.sessions.beginning
                action(connection, pool.locks, lock_timeout=LOCK_TIMEOUT, beginning=beginning)
        except (DatabaseRefusedError, DatabaseBusyError, DatabaseReadOnlyError) as error:
            self._say(f"{what}; it cannot be mended here: {error}")
        else:
            log.warning("%s; mended", what)
            self._is_well()

    def _say(self, what: str) -> None:
        self._conditions.hold(CONDITION, what)
        if what != self._said:
            log.warning("%s", what)
        self._said = what

    def _is_well(self) -> None:
        self._conditions.clear(CONDITION)
        if self._said:
            log.info("the tables in the schema %s are as they should be", self.schema)
        self._said = ""


def _shortcoming(tables: Tables) -> str:
    """Return the sentence that says what is not as it should be."""
    if tables.missing:
        several = len(tables.missing) > 1
        names = ", ".join(tables.missing)
        return f"the table{'s' * several} {names} {'are' if several else 'is'} missing"
    if tables.lacking:
        several = len(tables.lacking) > 1
        return (
            f"the column{'s' * several} {', '.join(tables.lacking)} {'are' if several else 'is'} "
            "missing, renamed or dropped by somebody: put back what was there"
        )
    if tables.not_firing:
        return silence_of(tables.not_firing)
    if tables.replaced:
        several = len(tables.replaced) > 1
        names = ", ".join(tables.replaced)
        return (
            f"the function{'s' * several} {names} {'are' if several else 'is'} not what schema.sql "
            "makes any more, replaced by somebody, so that changes may not be noticed"
        )
    return (
        f"the triggers {', '.join(tables.not_always)} do not fire where a replica applies rows, as "
        "after pg_restore --disable-triggers"
    )
