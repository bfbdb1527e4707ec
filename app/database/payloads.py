"""What a notification names, whoever wrote it."""

from json import loads

from app.records import is_plugin_name


def read_payload(payload: str) -> tuple[str | None, str | None]:
    """Return the plugin and the schema that a payload names, whoever wrote it.

    None where it names none: older triggers do not name the schema.
    """
    try:
        change = loads(payload)
        name, schema = change["name"], change.get("schema")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, None
    return (
        name if isinstance(name, str) and is_plugin_name(name) else None,
        schema if isinstance(schema, str) else None,
    )
