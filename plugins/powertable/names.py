"""Names of columns out of the header of a file as people write it."""

import re
import unicodedata
from collections.abc import Sequence

from .columns import may_name_column

_MAX = 63


def rename(header: Sequence[str]) -> list[str]:
    """Return a name that a column can have for each name of a header, all different.

    `First Name` becomes `first_name`, `Größe` becomes `grosse`, the third of nothing but other
    scripts, or empty, `column_3`; where a name is taken, a number is added. The same header gives
    the same names each time. One that can stay as it is stays.
    """
    stays = [may_name_column(name) and header.index(name) == n for n, name in enumerate(header)]
    taken = {name for name, stay in zip(header, stays, strict=True) if stay}
    names = []
    for number, (name, stay) in enumerate(zip(header, stays, strict=True), start=1):
        found = name if stay else _free(_simplify(name) or f"column_{number}", taken)
        taken.add(found)
        names.append(found)
    return names


def number_names(count: int) -> list[str]:
    """Return the names of columns that came without a header: `column_1` and so on."""
    return [f"column_{number}" for number in range(1, count + 1)]


def _simplify(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    simple = re.sub(r"[^a-z0-9]+", "_", letters.lower()).strip("_")
    return f"column_{simple}"[:_MAX] if simple[:1].isdigit() else simple[:_MAX]


def _free(name: str, taken: set[str]) -> str:
    number = 1
    found = name
    while found in taken or not may_name_column(found):
        number += 1
        found = f"{name[: _MAX - len(str(number)) - 1]}_{number}"
    return found
