"""Repairs our tables after somebody else has restored, disabled or dropped parts of them."""

import logging
import time
from collections.abc import Callable, Sequence

from app.conditions import Conditions
from app.database.locks import PUBLISH_LOCK
from app.database.rows import only_row
from app.database.schema import apply_schema, fire_always
from app.database.statements import Lender, statement, transaction
from app.database.tables import LACKING, LOOK, Tables, silence_of
from app.errors import DatabaseBusyError, DatabaseRefusedError

log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0

BARE_SECONDS = 5.0
"""How long rows must be without endpoints before they get them back: a restore writes them last."""

LOCK_TIMEOUT = "100ms"
"""How long a repair waits for a lock: sessions that write rows would queue behind it."""

CONDITION = "tables"

_RESTORING = """
    EXISTS (SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pg_restore')
"""
# Where a subscription replicates the endpoints, they come through it. Endpoints of no row stay
# where it was deleted in a session in which foreign keys do not count.
_REPLICATED = """
    EXISTS (SELECT 1 FROM pg_subscription_rel WHERE srrelid = 'plugin_endpoints'::regclass)
"""
_ORPHANS = f"""
    DELETE FROM plugin_endpoints e WHERE NOT {_RESTORING} AND NOT {_REPLICATED}
        AND NOT EXISTS (SELECT 1 FROM plugins p WHERE p.id = e.plugin_id)
"""  # noqa: S608 - constants
_BARE = f"""
    SELECT array_agg(p.id ORDER BY p.id) FROM plugins p JOIN plugin_versions v
        ON v.plugin_name = p.name AND v.source_digest = plugin_digest(p.name, p.binary_path)
    WHERE NOT EXISTS (SELECT 1 FROM plugin_endpoints e WHERE e.plugin_id = p.id)
        AND jsonb_array_length(CASE jsonb_typeof(v.metadata->'endpoints')
            WHEN 'array' THEN v.metadata->'endpoints' ELSE '[]' END) > 0
        AND NOT {_RESTORING} AND NOT {_REPLICATED}
"""  # noqa: S608 - constants
_GIVE_BACK = """
    INSERT INTO plugin_endpoints (plugin_id, method, path, handler)
    SELECT p.id, e.endpoint->>0, e.endpoint->>1, e.endpoint->>2
    FROM plugins p JOIN plugin_versions v ON v.plugin_name = p.name
        AND v.source_digest = plugin_digest(p.name, p.binary_path)
    CROSS JOIN jsonb_array_elements(v.metadata->'endpoints') WITH ORDINALITY e (endpoint, n)
    WHERE p.id = ANY(%s) AND jsonb_typeof(v.metadata->'endpoints') = 'array'
        AND NOT EXISTS (SELECT 1 FROM plugin_endpoints o WHERE o.plugin_id = p.id)
    ORDER BY p.id, e.n
"""


class Upkeep:
    """Watches the state of our tables for one process, and repairs them.

    The recorder's thread calls `seen` with each heartbeat; the reconciler's calls `mend` before it
    compares everything, and `give_back_endpoints` once `look_at` has come.
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
        self._bare: frozenset[str] = frozenset()
        self._refused = ""
        """Why endpoints could not be given back, as it was said last."""
        self.schema: str | None = None
        """The schema of our tables; None while it is not known."""
        self.look_at: float | None = None
        """When to look for rows without endpoints, in monotonic seconds; None for not at all."""

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
    def broken(self) -> bool:
        """Whether a table or trigger was missing when everything was compared last."""
        return self._broken_since is not None

    # --- tables and triggers ---------------------------------------------------------------

    def mend(self) -> None:
        """Repair our tables, before everything is compared.

        A missing table `plugins` is never created, nor the triggers of an empty one: a restore is
        not finished, and the server keeps serving what it served last. A column is not made again
        either: where it was renamed, what it holds would be lost.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        self.rows_arrived()
        with statement(self._database) as cursor:
            cursor.execute(
                f"SELECT {_RESTORING} AS restoring, {LACKING} AS lacking, look.*"  # noqa: S608
                f" FROM ({LOOK}) look"
            )
            row = only_row(cursor)
        tables = Tables.read(row)
        self.schema = tables.schema
        if tables.is_whole:
            self._broken_since = None
            if tables.not_always:
                self._repair(_shortcoming(tables), fire_always)
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
        except (DatabaseRefusedError, DatabaseBusyError) as error:
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

    # --- endpoints -------------------------------------------------------------------------

    def rows_arrived(self) -> None:
        """Look in a while whether there are rows without endpoints."""
        if self.look_at is None:
            self.look_at = time.monotonic() + BARE_SECONDS

    def give_back_endpoints(self) -> None:
        """Give rows the endpoints of their version, where they came back without any.

        Those that were without them the last time, too: a restore brings the rows first. Endpoints
        without a row are dropped.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        self.look_at = time.monotonic() + BARE_SECONDS
        if self.broken:
            return
        try:
            with statement(self._database, pace="brief") as cursor:
                cursor.execute(_ORPHANS)
                if cursor.rowcount:
                    log.warning("%d endpoints dropped, whose rows are gone", cursor.rowcount)
            with statement(self._database) as cursor:
                cursor.execute(_BARE)
                bare = frozenset(cursor.fetchone()[0] or ())
            long = sorted(bare & self._bare)
            given = self._give_back(long) if long else 0
        except (DatabaseRefusedError, DatabaseBusyError) as error:
            if str(error) != self._refused:
                log.warning("rows without endpoints do not get them back: %s; trying again", error)
            self._refused = str(error)
            return
        self._refused = ""
        if given:
            log.warning("%d endpoints recorded again, which had not come back with rows", given)
        self._bare = bare.difference(long)
        if not self._bare:
            self.look_at = None

    def _give_back(self, rows: Sequence[str]) -> int:
        with transaction(self._database, pace="brief") as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (PUBLISH_LOCK,))
            cursor.execute(_GIVE_BACK, (rows,))
            return int(cursor.rowcount)


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
    return (
        f"the triggers {', '.join(tables.not_always)} do not fire where a replica applies rows, as "
        "after pg_restore --disable-triggers"
    )
