"""Keeps `plugin_endpoints` as the versions have it that rows serve, whoever has changed it."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from app.conditions import Conditions, listed
from app.database.locks import PUBLISH_LOCK
from app.database.restores import REPLICATED, RESTORING, SETTLE_SECONDS, brought_by
from app.database.statements import Lender, statement, transaction
from app.database.tables import BY_PUBLISH
from app.errors import DatabaseBusyError, DatabaseReadOnlyError, DatabaseRefusedError

log = logging.getLogger(__name__)

CONDITION = "routes"
NAMED = 5

# Where a subscription replicates the endpoints, they come through it. Endpoints of no row stay
# where it was deleted in a session in which foreign keys do not count.
_ORPHANS = f"""
    {BY_PUBLISH}; DELETE FROM plugin_endpoints e WHERE NOT {RESTORING} AND NOT {REPLICATED}
        AND NOT EXISTS (SELECT 1 FROM plugins p WHERE p.id = e.plugin_id)
"""  # noqa: S608 - constants

_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"

_WRONG = """
    SELECT p.id, p.name FROM plugins p JOIN plugin_versions v
        ON v.plugin_name = p.name AND v.source_digest = plugin_digest(p.name, p.binary_path)
    LEFT JOIN (
        SELECT plugin_id, jsonb_agg(jsonb_build_array(method, path, handler) ORDER BY id) AS its
        FROM plugin_endpoints WHERE %s::text[] IS NULL OR plugin_id = ANY(%s) GROUP BY plugin_id
    ) recorded ON recorded.plugin_id = p.id
    WHERE jsonb_typeof(v.metadata->'endpoints') = 'array'
        AND v.metadata->'endpoints' <> coalesce(recorded.its, '[]')
        AND (%s::text[] IS NULL OR p.id = ANY(%s))
    ORDER BY p.name
"""

_RECORD_AGAIN = """
    DELETE FROM plugin_endpoints WHERE plugin_id = ANY(%s);
    INSERT INTO plugin_endpoints (plugin_id, method, path, handler)
        SELECT p.id, e.endpoint->>0, e.endpoint->>1, e.endpoint->>2
        FROM plugins p JOIN plugin_versions v ON v.plugin_name = p.name
            AND v.source_digest = plugin_digest(p.name, p.binary_path)
        CROSS JOIN jsonb_array_elements(v.metadata->'endpoints') WITH ORDINALITY e (endpoint, n)
        WHERE p.id = ANY(%s)
        ORDER BY p.id, e.n
"""


class RouteRecords:
    """Finds rows whose recorded routes are not those of their version, and puts them right.

    For the reconciler's thread alone.
    """

    def __init__(self, database: Lender, conditions: Conditions) -> None:
        self._database = database
        self._conditions = conditions
        self._wrong: dict[str, float] = {}
        """The rows whose record was wrong when it was looked at last, and since when."""
        self._in_vain: frozenset[str] = frozenset()
        """Those that were wrong as soon as they were written: somebody's trigger changes them."""
        self._refused = ""
        """Why they could not be put right, as it was said last."""
        self.look_at: float | None = None
        """When to look, in monotonic seconds; None for not at all."""

    def may_have_changed(self) -> None:
        """Have it looked at once: somebody may have changed what is recorded."""
        self.look_in(0.0)

    def look_in(self, seconds: float) -> None:
        """Have it looked in so many seconds, at the latest."""
        at = time.monotonic() + seconds
        self.look_at = at if self.look_at is None else min(at, self.look_at)

    def put_off(self) -> None:
        """Have it looked later, as while a table is missing."""
        self.look_at = time.monotonic() + SETTLE_SECONDS

    def look(self) -> None:
        """Hold a condition of what is wrong; put right what has been so for a while.

        Endpoints without a row are dropped. A database that is read only, as a standby, is looked
        at alone.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        now = time.monotonic()
        self.look_at = now + SETTLE_SECONDS
        try:
            with statement(self._database) as cursor:
                cursor.execute(_READ_ONLY, ())
                (read_only,) = cursor.fetchone()
            if not read_only:
                with statement(self._database, pace="brief") as cursor:
                    cursor.execute(_ORPHANS)
                    if cursor.rowcount:
                        log.warning("%d endpoints dropped, whose rows are gone", cursor.rowcount)
            with statement(self._database) as cursor:
                wrong = _read_wrong(cursor, None)
                bringer = "the database is read only" if read_only else None
                if wrong and not read_only:
                    bringer = brought_by(cursor)
            self._wrong = {row: self._wrong.get(row, now) for row in wrong}
            self._in_vain = self._in_vain.intersection(wrong)
            due = [row for row, since in self._wrong.items() if now - since >= SETTLE_SECONDS]
            due = [row for row in due if row not in self._in_vain]
            if due and bringer is None:
                self._record_again(due)
                right = set(due) - self._in_vain
                wrong = {row: name for row, name in wrong.items() if row not in right}
                self._wrong = {row: self._wrong[row] for row in wrong}
        except (DatabaseRefusedError, DatabaseBusyError, DatabaseReadOnlyError) as error:
            if str(error) != self._refused:
                log.warning("the routes of rows are not recorded again: %s; trying again", error)
            self._refused = str(error)
            return
        self._refused = ""
        if self._in_vain.issuperset(wrong):
            self.look_at = None  # until everything is compared again
        if wrong:
            what = _sentence(wrong, self._in_vain, bringer)
            self._conditions.hold(CONDITION, what)
        else:
            self._conditions.clear(CONDITION)

    def _record_again(self, due: list[str]) -> None:
        with transaction(self._database, pace="brief") as cursor:
            # The rows first and then the lock, as a publish does.
            cursor.execute(
                "SELECT 1 FROM plugins WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (due,)
            )
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (PUBLISH_LOCK,))
            still = _read_wrong(cursor, due)
            if not still:
                return  # another process has done it
            cursor.execute(f"{BY_PUBLISH}; {_RECORD_AGAIN}", (list(still), list(still)))
            in_vain = _read_wrong(cursor, due)
        self._in_vain |= in_vain.keys()
        if right := [name for row, name in still.items() if row not in in_vain]:
            log.warning(
                "%s: the routes are recorded again in plugin_endpoints, where they were not those "
                "of the version that is served",
                listed(right, NAMED),
            )


def _read_wrong(cursor: Any, rows: Sequence[str] | None) -> dict[str, str]:
    """Return the rows whose record is wrong, of all or of some: their ids and names."""
    some = None if rows is None else list(rows)
    cursor.execute(_WRONG, (some, some, some, some))
    return dict(cursor.fetchall())


def _sentence(wrong: dict[str, str], in_vain: frozenset[str], bringer: str | None) -> str:
    names = list(wrong.values())
    if in_vain.issuperset(wrong):
        end = "they were written, and something else stands there: does a trigger change them?"
    elif bringer is not None:
        end = f"they are recorded again by itself, but not while {bringer}"
    else:
        end = "they are recorded again by itself, soon"
    return (
        f"plugin_endpoints does not say which routes {listed(names, NAMED)} "
        f"{'has' if len(names) == 1 else 'have'}, as after a DELETE there, so that another plugin "
        f"may take them; {end}"
    )
