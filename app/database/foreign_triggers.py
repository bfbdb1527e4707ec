"""Triggers that others have put on our tables: one may undo a change without an error."""

from typing import Any

from app.database.tables import FIRES, REPLICA, REPLICA_SAID, TRIGGERS, silence_of
from app.errors import DatabaseRefusedError

# Of the bits of tgtype (`pg_trigger.h`): 1 for each row, 2 before, 4 on INSERT, 16 on UPDATE.
_OTHERS = """
    SELECT string_agg(tgname, ', ' ORDER BY tgname) FROM pg_trigger
    WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgname <> ALL(%s)
        AND tgtype & 3 = 3 AND tgtype & %s <> 0 AND tgenabled <> 'D'
"""
_OURS = f"""
    SELECT {REPLICA}, ARRAY(SELECT unnest(%s::name[]) EXCEPT SELECT tgname FROM pg_trigger
        WHERE tgrelid = to_regclass('plugins') AND {FIRES} ORDER BY 1)
"""  # noqa: S608 - constants
_BITS = {"INSERT": 4, "UPDATE": 16}


def undone(
    cursor: Any, plugin: str | None, operation: str, what: str, table: str = "plugins"
) -> DatabaseRefusedError:
    """Return the refusal of a change that PostgreSQL took and a trigger then undid.

    Args:
        cursor: of the transaction that made it.
        plugin: whose row it is; None for one that is of no plugin alone.
        operation: `INSERT` or `UPDATE`.
        what: what was found, as `the row is not changed`.
        table: which of our tables it is.
    """
    cursor.execute(_OTHERS, (table, list(TRIGGERS), _BITS[operation]))
    (names,) = cursor.fetchone()
    who = f"triggers before {operation} on {table} that may do so: {names}" if names else (
        f"expected that nothing undoes an {operation} of {table}"
    )  # fmt: skip
    return DatabaseRefusedError(
        f"the database refuses: {what}, and no error was raised; {who}",
        sqlstate="",
        plugin=plugin,
        raised=True,
    )


def stands_still(cursor: Any, name: str, generation: int) -> DatabaseRefusedError:
    """Return the refusal of a change that no process would see; it says why ours did not fire."""
    what = f"the generation stays {generation}"
    cursor.execute(_OURS, ([name for name, table in TRIGGERS.items() if table == "plugins"],))
    replica, silent = cursor.fetchone()
    if not (replica or silent):
        return undone(cursor, name, "UPDATE", what)
    why = silence_of(silent) if silent else REPLICA_SAID
    return DatabaseRefusedError(
        f"the database refuses: {what}, and no error was raised; {why}",
        sqlstate="",
        plugin=name,
        raised=True,
    )
