"""How the columns of a row are read that decide what is served of it."""

from app.database.tables import FIRES

# The digest that a path ends with, as `records.artifact_digest` reads it: `…-<32 digits>.pyz`.
_SERVED_COLUMNS = """p.id, p.name, p.generation, p.status, p.binary_path, v.archive_sha256,
    p.binary_path IS NULL AND p.source_path IS NOT NULL AS unpublished,
    coalesce(p.error ? 'generation', false) AS load_error,
    coalesce(p.source_digest <> left(right(p.binary_path, 36), 32), false)
        OR coalesce(p.version = '' AND v.metadata->>'version' <> '', false) AS unstamped,
    CASE WHEN (v.reload->>'forced')::boolean OR v.reload->>'how' = 'fresh' THEN v.reload->>'how'
        ELSE 'auto' END AS reload, coalesce(v.reload->>'why', '') AS reload_why,
    coalesce(v.answered->>'generation' = p.generation::text, false) AS watched,
    v.metadata->>'exclusive' AS exclusive,
    CASE WHEN v.metadata ? 'exclusive' THEN v.metadata->'endpoints' END AS endpoints"""
_SERVED_TABLES = """plugins p LEFT JOIN (SELECT plugin_name, source_digest, archive_sha256,
        metadata, answered, coalesce(reload, finding) AS reload FROM plugin_versions) v
    ON v.plugin_name = p.name AND v.source_digest = left(right(p.binary_path, 36), 32)"""

SERVED_ROW = f"SELECT {_SERVED_COLUMNS} FROM {_SERVED_TABLES} WHERE p.name = %s"  # noqa: S608
"""What asks for the row of one name: most changes are of one, and to plan it takes a fifth less."""

SERVED_ROWS = f"""
    SELECT {_SERVED_COLUMNS} FROM {_SERVED_TABLES}
    WHERE p.name = ANY(%s) ORDER BY p.created_at, p.name
"""  # noqa: S608 - constants
"""What asks for the rows of some names."""

SERVED_ROWS_AND_SILENCE = f"""
    SELECT whole.silent, {_SERVED_COLUMNS} FROM (
        SELECT ARRAY(SELECT unnest(%s::name[]) EXCEPT SELECT tgname FROM pg_trigger
            WHERE tgrelid = 'plugins'::regclass AND {FIRES} ORDER BY 1) AS silent) whole
    LEFT JOIN ({_SERVED_TABLES}) ON %s::text[] IS NULL OR p.name = ANY(%s)
    ORDER BY p.created_at, p.name
"""  # noqa: S608 - constants
"""The same, of all or of some; and, in the same snapshot, what tells of changes and is missing.

While a dump is restored, a row that is not there may be one that is not there yet.
"""
