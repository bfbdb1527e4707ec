"""The plugin's `config:`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .columns import is_name

# A dropped table must never be one of somebody else's.
_FOREIGN_SCHEMAS = ("public", "information_schema")

MAX_COLUMNS = 400
"""More do not fit a page of PostgreSQL, whatever their types are."""

_MAXIMA = {"max_columns": MAX_COLUMNS, "page_size": 100_000, "max_page_size": 100_000}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `plugin.yaml` can set; sizes are in rows, columns and bytes."""

    schema: str = "powertable"
    page_size: int = 50
    max_page_size: int = 1000
    max_columns: int = 100
    max_insert_rows: int = 10_000
    max_import_bytes: int = 1 << 30

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Return the settings of a `config:` mapping; what is left out has its default.

        Raises:
            ValueError: names the key, what was found and what was expected.
        """
        known = [field.name for field in fields(cls)]
        for key, value in config.items():
            if key not in known:
                raise ValueError(f"config: found the key {key!r}, expected {', '.join(known)}")
            if key == "schema":
                _check_schema(value)
            else:
                _check_size(key, value)
        settings = cls(**config)
        if settings.page_size > settings.max_page_size:
            raise ValueError(
                f"config: found page_size {settings.page_size}, expected "
                f"max_page_size ({settings.max_page_size}) at most"
            )
        return settings


def _check_schema(value: object) -> None:
    foreign = value in _FOREIGN_SCHEMAS or str(value).startswith("pg_")
    if not isinstance(value, str) or not is_name(value) or foreign:
        raise ValueError(
            f"config: found schema {value!r}, expected 1 to 63 of a-z, 0-9 and _, a letter first, "
            "and neither public nor one of PostgreSQL's own"
        )


def _check_size(key: str, value: object) -> None:
    highest = _MAXIMA.get(key)
    if type(value) is not int or value < 1 or (highest is not None and value > highest):
        limit = "from 1 on" if highest is None else f"of 1 to {highest}"
        raise ValueError(f"config: found {key} {value!r}, expected a whole number {limit}")
