"""Makes texts that come from anywhere storable in PostgreSQL, whatever its encoding."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

import psycopg2.extensions


def encoding_of(cursor: Any) -> str | None:
    """Return the codec of a database's encoding, None where it can hold every character."""
    name = cursor.connection.info.parameter_status("server_encoding") or "UTF8"
    # SQL_ASCII is none at all: it holds bytes, and ours are UTF-8.
    return None if name in {"UTF8", "SQL_ASCII"} else psycopg2.extensions.encodings.get(name)


def as_json(
    value: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, encoding: str | None = None
) -> str | None:
    """Return a record, or several, as the JSON that PostgreSQL takes; None stays None.

    Args:
        value: the record or records.
        encoding: as of `storable`.
    """
    # Not escaped: PostgreSQL names the encoding in which it has no such character only then.
    return None if value is None else dumps(storable(value, encoding), ensure_ascii=False)


def storable(value: Any, encoding: str | None = None) -> Any:
    """Return a value whose texts PostgreSQL can hold: without NUL and lone surrogates.

    Args:
        value: a text, or lists and mappings of them.
        encoding: for what has to be kept in any case, such as an error: what the database's
            encoding does not have is written with a backslash. None to have it refused.
    """
    if isinstance(value, str):
        text = value.replace("\0", "�" if encoding is None else "?")
        text = text.encode("utf-8", "backslashreplace").decode()
        return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text
    if isinstance(value, Mapping):
        return {storable(key, encoding): storable(item, encoding) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item, encoding) for item in value]
    return value
