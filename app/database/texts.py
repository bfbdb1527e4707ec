"""What PostgreSQL can hold, of texts that come from anywhere."""

import json
from collections.abc import Mapping
from typing import Any


def as_json(value: Mapping[str, Any] | None) -> str | None:
    """Return a record as the JSON that PostgreSQL takes; None stays None.

    With the characters as they are: PostgreSQL then names the encoding that lacks one.
    """
    return None if value is None else json.dumps(storable(value), ensure_ascii=False)


def storable(value: Any) -> Any:
    """Return a value whose texts PostgreSQL can hold: without NUL and lone surrogates."""
    if isinstance(value, str):
        return value.replace("\0", "�").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    return value
