"""What is wrong with a request, all of it in one answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import falcon

Where = Literal["path", "query", "header", "cookie", "body", "form"]
"""In which part of a request a value is looked for."""

_CALLED: dict[Where, str] = {
    "path": "field",
    "query": "query parameter",
    "header": "header",
    "cookie": "cookie",
    "body": "body",
    "form": "form field",
}


MAX_NAME = 100
"""How many characters of a name an answer shows; the names of a body's fields are its client's."""

MAX_REASON = 500
"""How many characters of a reason an answer shows: it may hold what the client sent."""


@dataclass(slots=True)
class ValueFault:
    """What is wrong with a value of a request: its name, why, and where it was looked for.

    A name or a reason without end is cut in its midst.
    """

    name: str
    reason: str
    where: Where

    def __post_init__(self) -> None:
        """Cut what is too long."""
        self.name = _cut(self.name, MAX_NAME)
        self.reason = _cut(self.reason, MAX_REASON)

    def __str__(self) -> str:
        if self.where == self.name:
            return f"{self.where}: {self.reason}"
        return f"{_CALLED[self.where]} {self.name!r}: {self.reason}"

    def as_json(self) -> dict[str, str]:
        """Return it as it stands in the problem's `errors`."""
        return {"name": self.name, "reason": self.reason, "where": self.where}


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def with_fault(
    faults: list[ValueFault] | None, name: str, where: Where, reason: object
) -> list[ValueFault]:
    """Return the faults that are known of a request, and one more."""
    return [*(faults or ()), ValueFault(name, str(reason), where)]


class UnfitRequest(falcon.HTTPUnprocessableEntity):
    """A 422 that names all that is wrong with a request, in `errors`."""

    def __init__(self, faults: Iterable[ValueFault]) -> None:
        self.faults = tuple(faults)
        said = "; ".join(map(str, self.faults))
        super().__init__(title="The request does not fit", description=f"{said}.")

    def to_dict(self, obj_type: Any = dict) -> Any:
        """Return the problem, with its `errors`."""
        found: Any = super().to_dict(obj_type)
        found["errors"] = [fault.as_json() for fault in self.faults]
        return found
