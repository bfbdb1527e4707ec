"""Who may be about to bring rows back that are missing just now."""

from typing import Any

from app.database.rows import fetch_row

SETTLE_SECONDS = 2.0
"""How long something must be missing or wrong until it is put right: a restore may bring it."""

RESTORING = """
    EXISTS (SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pg_restore')
"""
REPLICATED = """
    EXISTS (SELECT 1 FROM pg_subscription_rel WHERE srrelid = 'plugin_endpoints'::regclass)
"""
"""Whether a subscription brings the endpoints."""

# As `psql -f` brings a dump: it says of itself only what it writes just now.
_BROUGHT_BY = f"""
    SELECT CASE
        WHEN {REPLICATED} THEN 'a subscription brings them'
        WHEN {RESTORING} THEN 'pg_restore is at work'
        ELSE (SELECT format('a session writes there (%%s, pid %%s)',
                coalesce(nullif(a.application_name, ''), 'without a name'), a.pid)
            FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.relation IN ('plugin_versions'::regclass, 'plugin_endpoints'::regclass)
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND l.granted AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock',
                    'ExclusiveLock', 'AccessExclusiveLock')
                AND a.application_name !~ '^benana' AND a.pid <> pg_backend_pid()
            ORDER BY a.pid LIMIT 1)
    END
"""  # noqa: S608 - constants


def brought_by(cursor: Any) -> str | None:
    """Say who may be about to bring versions and endpoints; None for nobody."""
    cursor.execute(_BROUGHT_BY, ())
    row = fetch_row(cursor) or {}
    return next(iter(row.values()), None)
