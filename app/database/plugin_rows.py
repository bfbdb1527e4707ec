"""How a row of `plugins` is read, with its endpoints."""

from app.database.rows import Row, columns_of, object_of
from app.records import Endpoint, PluginRow

PLUGIN_ROWS = f"""
    SELECT {columns_of(PluginRow, of="p", without=("endpoints",))}, coalesce((
        SELECT json_agg({object_of(Endpoint, of="e")} ORDER BY e.id)
        FROM plugin_endpoints e WHERE e.plugin_id = p.id), '[]') AS endpoints
    FROM plugins p
"""  # noqa: S608 - constants
"""What asks for rows; a WHERE or ORDER BY follows."""


def read_plugin_row(row: Row) -> PluginRow:
    """Return the record of a row that `PLUGIN_ROWS` found."""
    endpoints = tuple(Endpoint(**endpoint) for endpoint in row.pop("endpoints"))
    return PluginRow(**row, endpoints=endpoints)
