"""How a row of `plugins` is read, with its endpoints."""

from app.database.rows import Row, columns_of, object_of
from app.records import Endpoint, PluginRow, Reload

_OF_OTHERS = ("archive_sha256", "endpoints", "error", "reload", "finding")

PLUGIN_ROWS = f"""
    SELECT {columns_of(PluginRow, of="p", without=_OF_OTHERS)},
        coalesce(p.error, (SELECT f.error FROM plugin_failures f
        WHERE f.name = p.name AND f.updated_at >= p.updated_at)) AS error, coalesce((
        SELECT json_agg({object_of(Endpoint, of="e")} ORDER BY e.id)
        FROM plugin_endpoints e WHERE e.plugin_id = p.id), '[]') AS endpoints,
        v.archive_sha256, coalesce(v.reload, v.finding) AS reload, v.finding
    FROM plugins p LEFT JOIN plugin_versions v ON v.plugin_name = p.name
        AND v.source_digest = left(right(p.binary_path, 36), 32)
"""  # noqa: S608 - constants
"""What asks for rows; a WHERE or ORDER BY follows.

An error that the row itself may not hold, because somebody's trigger refuses that, stands among
the failures: it is the row's until the row changes.
"""


def read_plugin_row(row: Row) -> PluginRow:
    """Return the record of a row that `PLUGIN_ROWS` found."""
    endpoints = tuple(Endpoint(**endpoint) for endpoint in row.pop("endpoints"))
    found = {name: Reload.read(row[name]) for name in ("reload", "finding")}
    return PluginRow(**row | found, endpoints=endpoints)
