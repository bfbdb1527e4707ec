"""Names of columns out of the header of a file as people write it."""

import re
import unicodedata
from collections.abc import Sequence

from .columns import may_name_column

_MAX = 63


def rename(header: Sequence[str]) -> list[str]:
    """Return a name that a column can have for each name of a header, all different.

    `First Name` becomes `first_name`, `Größe` becomes `grosse`, the third of nothing but other
    scripts, or empty, `column_3`. Where several would have the same name, the one that is written
    so has it, else the first by code point; the others get a number. So the order of the header
    does not matter, and a name that a column can have stays.
    """
    wished = [_wish(name, number) for number, name in enumerate(header, start=1)]
    order = sorted(
        range(len(header)), key=lambda place: (header[place] != wished[place], header[place], place)
    )
    owners: dict[str, int] = {}
    for place in order:
        if may_name_column(wished[place]):
            owners.setdefault(wished[place], place)
    names = {place: name for name, place in owners.items()}
    taken = set(owners)
    for place in order:
        if place not in names:
            names[place] = _number(wished[place], taken)
            taken.add(names[place])
    return [names[place] for place in range(len(header))]


def may_have_become(name: str, place: int, columns: Sequence[str]) -> list[str]:
    """Return those of some columns whose name a name of a header may have got by `rename`.

    Args:
        name: of the header.
        place: the number of its field, from 1.
        columns: the names to look among.
    """
    wished = _wish(name, place)
    return [column for column in columns if column == wished or _is_numbered(column, wished)]


def number_names(count: int) -> list[str]:
    """Return the names of columns that came without a header: `column_1` and so on."""
    return [f"column_{number}" for number in range(1, count + 1)]


def _wish(name: str, number: int) -> str:
    if may_name_column(name):
        return name
    letters = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    simple = re.sub(r"[^a-z0-9]+", "_", letters.lower()).strip("_")
    if not simple:
        return f"column_{number}"
    return f"column_{simple}"[:_MAX] if simple[0].isdigit() else simple[:_MAX]


def _is_numbered(name: str, wished: str) -> bool:
    match = re.fullmatch(r"(.*)_([1-9][0-9]*)", name)
    return match is not None and match[1] == wished[: _MAX - len(match[2]) - 1]


def _number(name: str, taken: set[str]) -> str:
    """Return a name with a number behind it that is not taken."""
    number = 2
    while (found := f"{name[: _MAX - len(str(number)) - 1]}_{number}") in taken:
        number += 1
    return found
