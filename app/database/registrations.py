"""What psycopg2 has one of for a whole process: how values are read, and how they are written."""

from collections.abc import Mapping
from typing import Any

from psycopg2.extensions import UNICODE as DEFAULT
from psycopg2.extensions import adapters, string_types

_READ = {oid: f"{oid} ({caster.name})" for oid, caster in string_types.items()}
_WRITTEN = {key: key[0].__qualname__ for key in adapters}
"""Both as they are before any plugin, with their texts for a person. What a plugin adds for types
of its own changes nothing for others."""


def read_casters() -> Mapping[str, Any]:
    """Return what reads a column, by the number of its type."""
    return dict(zip(_READ.values(), map(string_types.get, _READ), strict=True))


def shown_caster(caster: Any) -> str:
    """Return what reads a column, in words."""
    known = type(caster) is type(DEFAULT)
    return f"psycopg2's {caster.name!r}" if known else f"an object of {type(caster).__qualname__}"


def put_caster(text: str, caster: Any) -> None:
    """Have columns of a type read as before."""
    string_types[int(text.partition(" ")[0])] = caster


def read_adapters() -> Mapping[str, Any]:
    """Return what writes a parameter, by its class."""
    return dict(zip(_WRITTEN.values(), map(adapters.get, _WRITTEN), strict=True))


def put_adapter(text: str, adapter: Any) -> None:
    """Have parameters of a class written as before."""
    key = next(key for key, known in _WRITTEN.items() if known == text)
    adapters[key] = adapter
