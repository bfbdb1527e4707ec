"""What the calls answer: the types that the OpenAPI document shows."""

from typing import Any, NotRequired, TypedDict

from app.plugin import Answer

from .exact_json import write_json

Json = dict[str, Any]


class ShownColumn(TypedDict):
    """A column; `generated` and `default` are there where they are true."""

    name: str
    type: str
    required: bool
    generated: NotRequired[bool]
    default: NotRequired[bool]


class NamedColumns(TypedDict):
    """A table with its columns."""

    name: str
    columns: list[ShownColumn]


class ShownTable(NamedColumns):
    """A table with its columns and the exact number of its rows."""

    rows: int


class Tables(TypedDict):
    """All tables."""

    tables: list[ShownTable]


class RowPage(TypedDict):
    """Some rows, and how many there are in all."""

    rows: list[Json]
    page: int
    page_size: int
    total: int


class Ids(TypedDict):
    """The ids of new rows, in the order in which these were sent."""

    ids: list[int | str]


class ImportStates(TypedDict):
    """The imports of the last days, the newest first."""

    imports: list[Json]


ImportResult = TypedDict(
    "ImportResult",
    {
        "imported": int,
        "import": int,
        "name": str,
        "columns": list[ShownColumn],
        "delimiter": str,
        "encoding": str,
        "blank_lines": int,
        "mapping": NotRequired[list[Json]],
        "dry_run": NotRequired[bool],
        "would_import": NotRequired[int],
        "rows": NotRequired[list[Json]],
    },
)


def exact(answer: Any, *, made: str = "") -> Answer[Any]:
    """Return an answer whose decimals keep their digits.

    Args:
        answer: what is answered.
        made: the table that was made for it, if one was.
    """
    headers = {"Content-Type": "application/json"}
    if made:
        headers["Location"] = f"/powertable/{made}"
    return Answer(write_json(answer), 201 if made else None, headers)
