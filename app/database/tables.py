"""The state of our tables and triggers, which others may drop, restore or disable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = {
    "plugins": "id name description version author type path binary_path source_path status"
    " created_at updated_at generation source_digest error",
    "plugin_endpoints": "id plugin_id method path handler type created_at updated_at",
    "plugin_versions": "plugin_name source_digest archive archive_sha256 metadata created_at reload"
    " answered finding",
    "plugin_failures": "name source_path error updated_at",
    "plugin_workers": "id host pid generations_alive started_at heartbeat_at machine started master"
    " crew status reasons",
    "plugin_loads": "worker_id plugin_name plugin_id generation reconciled state error owner",
}
"""The columns that `schema.sql` makes."""

TABLES = tuple(COLUMNS)
NOTIFIERS = ("plugins_notify_row", "plugins_notify_truncate", "plugins_notify_update")
"""The triggers that tell of changes of what is served."""
ALWAYS = {
    **dict.fromkeys(NOTIFIERS, "plugins"),
    "plugin_endpoints_notify": "plugin_endpoints",
    "plugin_versions_notify": "plugin_versions",
}
"""These, and those that tell of what somebody changes in what is kept of the rows; each with its
table. They fire also where rows are applied by a replica."""
TRIGGERS = {
    **ALWAYS,
    "plugins_routes_insert": "plugins",
    "plugins_routes_update": "plugins",
    "plugins_stamp": "plugins",
    "plugins_version": "plugins",
}
"""All triggers of ours, each with its table."""

BY_PUBLISH = "SET LOCAL benana.publishing = 'on'"
"""For the triggers, which do for psql what a publish does itself, and tell of what it does not."""

FIRES = "tgenabled IN ('O', 'A')"
"""Whether a trigger fires in an ordinary session (`pg_trigger` in PostgreSQL's documentation)."""

EXPECTED_TRIGGERS = ", ".join(f"('{table}', '{name}')" for name, table in TRIGGERS.items())
"""The tables and triggers, as the rows of `VALUES`."""

REPLICA = "current_setting('session_replication_role') = 'replica'"
"""Whether triggers of this session do not fire, but those that do for a replica."""

LACKING = f"""
    ARRAY(SELECT concat(t, '.', c)
        FROM (VALUES {", ".join(f"('{table}', '{its}')" for table, its in COLUMNS.items())})
            expected (t, its), unnest(string_to_array(its, ' ')) c
        WHERE to_regclass(t) IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_attribute
            WHERE attrelid = to_regclass(t) AND attname = c AND NOT attisdropped))
"""  # noqa: S608 - constants
"""The columns that tables of ours lack, as `table.column`."""

# A table that was dropped and created has another oid. A trigger that was disabled and enabled, as
# `pg_restore --disable-triggers` does, has another xmin, and so has a function that was replaced.
# Whether this role may read all rows is
# asked for, too: who hides them tells nobody; and the columns, which may be renamed.
LOOK = f"""
    SELECT n.nspname AS schema, obj_description(c.oid, 'pg_class') AS mark,
        ARRAY(SELECT t FROM unnest(ARRAY[{", ".join(f"'{name}'" for name in TABLES)}]) t
            WHERE to_regclass(t) IS NULL) AS missing,
        coalesce((SELECT json_object_agg(tgname, tgenabled) FROM pg_trigger
            JOIN (VALUES {EXPECTED_TRIGGERS}) expected (t, name)
                ON tgrelid = to_regclass(t) AND tgname = name), '{{}}') AS triggers,
        concat_ws(' ', c.oid, to_regclass('plugin_versions')::oid,
            to_regclass('plugin_endpoints')::oid,
            (SELECT string_agg(concat_ws(' ', oid, xmin, tgenabled), ' ' ORDER BY oid)
                FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (c.oid,
                    to_regclass('plugin_versions')::oid, to_regclass('plugin_endpoints')::oid)),
            (SELECT string_agg(DISTINCT concat_ws(' ', f.oid, f.xmin), ' ') FROM pg_trigger
                JOIN pg_proc f ON f.oid = tgfoid WHERE NOT tgisinternal AND tgrelid = c.oid),
            (SELECT sum(hashtext(concat_ws(' ', attrelid, attname, atttypid))::bigint)
                FROM unnest(ARRAY[{", ".join(f"'{name}'" for name in TABLES)}]) t
                JOIN pg_attribute ON attrelid = to_regclass(t) AND attnum > 0
                    AND NOT attisdropped),
            (SELECT string_agg(concat_ws(' ', has_table_privilege(read, 'SELECT'),
                row_security_active(read)), ' ')
                FROM unnest(ARRAY[c.oid, to_regclass('plugin_versions')::oid]) read)) AS trace
    FROM (SELECT to_regclass('plugins')::oid AS oid) c
    LEFT JOIN pg_class r ON r.oid = c.oid LEFT JOIN pg_namespace n ON n.oid = r.relnamespace
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that this session's search_path finds. Made by `read` of a row of `LOOK`."""

    schema: str | None
    """Where they are; None without the table `plugins`."""
    mark: str | None
    """The comment that says which `schema.sql` was applied."""
    missing: tuple[str, ...]
    """The tables that are not there."""
    triggers: tuple[tuple[str, str], ...]
    """The triggers of ours, each with its `tgenabled`."""
    trace: str
    """Changes with whatever of them is created again, dropped, enabled, replaced or granted."""
    lacking: tuple[str, ...] = ()
    """The columns that tables lack, as `table.column`; where that was asked for (`LACKING`)."""
    replaced: tuple[str, ...] = ()
    """The functions of our triggers that are not ours any more; where that was asked for."""
    replica: bool = False
    """Whether triggers do not fire in this session (`REPLICA`); where that was asked for."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Tables":
        """Make it from a row of `LOOK`."""
        triggers = tuple(sorted(row["triggers"].items()))
        return cls(
            *(row["schema"], row["mark"], tuple(row["missing"]), triggers, row["trace"]),
            tuple(row.get("lacking", ())),
            tuple(row.get("replaced", ())),
            bool(row.get("replica")),
        )

    @property
    def not_firing(self) -> tuple[str, ...]:
        """The triggers that are missing, or do not fire in an ordinary session."""
        enabled = dict(self.triggers)
        return tuple(name for name in TRIGGERS if enabled.get(name) not in {"O", "A"})

    @property
    def silent(self) -> bool:
        """Whether one of them is one that tells of changes."""
        return not set(NOTIFIERS).isdisjoint(self.not_firing)

    @property
    def not_always(self) -> tuple[str, ...]:
        """Those that tell of changes, but not where a replica applies rows."""
        enabled = dict(self.triggers)
        return tuple(name for name in ALWAYS if enabled.get(name) == "O")

    @property
    def is_whole(self) -> bool:
        """Whether all tables, columns and triggers are there, and fire."""
        return not (self.missing or self.lacking or self.not_firing or self.replaced)


def silence_of(triggers: Sequence[str]) -> str:
    """Return the sentence that says which triggers do not tell of changes."""
    by_table: dict[str, list[str]] = {}
    for name in triggers:
        by_table.setdefault(TRIGGERS[name], []).append(name)
    lacks = ", ".join(
        f"the table {table} lacks the trigger{'s' * (len(names) > 1)} {', '.join(names)}"
        for table, names in by_table.items()
    )
    several = len(triggers) > 1
    return f"{lacks}, or {'they are' if several else 'it is'} disabled, as while a dump is restored"


REPLICA_SAID = (
    "session_replication_role is replica for this role or database, so that our triggers do not "
    "fire, and this role may not set it: ALTER ROLE or ALTER DATABASE … RESET "
    "session_replication_role, or (PostgreSQL 15) GRANT SET ON PARAMETER session_replication_role"
)
"""The sentence that says what `REPLICA` means for our own sessions."""
