"""Query parameters, headers and cookies that a handler takes: found once, read at each request.

All that is wrong with those of a request is said at once, in one 422.
"""

import collections.abc
import datetime
import decimal
import enum
import inspect
import typing
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import falcon

from app.loading.annotations import (
    AnnotationError,
    Converter,
    field_converter,
    is_bare,
    looks_like_query,
    members,
    show,
)
from app.plugin import Cookie, Header, Query

Where = Literal["query", "header", "cookie"]

_CALLED: dict[Where, str] = {
    "query": "query parameter",
    "header": "header",
    "cookie": "cookie",
}

REQUIRED: Any = inspect.Parameter.empty

_MANY: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    tuple: tuple,
    collections.abc.Sequence: list,
}
"""The types of parameters that may come several times, and what makes them of the values."""

_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "metadata")
"""What the objects have that `Annotated` constrains a value with (`annotated_types`, pydantic)."""

_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    uuid.UUID: "a UUID",
    decimal.Decimal: "a finite decimal number",
    datetime.date: "a date as 2026-01-31",
    datetime.time: "a time as 14:30",
    datetime.datetime: "a date and time as 2026-01-31T14:30:00",
}


@dataclass(frozen=True, slots=True)
class ValueFault:
    """What is wrong with a value of a request: its name, why, and where it was looked for."""

    name: str
    reason: str
    where: Where

    def as_json(self) -> dict[str, str]:
        """Return it as it stands in the problem's `errors`."""
        return {"name": self.name, "reason": self.reason, "where": self.where}


class UnfitRequest(falcon.HTTPUnprocessableEntity):
    """A 422 that names all that is wrong with a request, in `errors`."""

    def __init__(self, faults: Iterable[ValueFault]) -> None:
        self.faults = tuple(faults)
        said = "; ".join(f"{_CALLED[f.where]} {f.name!r}: {f.reason}" for f in self.faults)
        super().__init__(title="The request does not fit", description=f"{said}.")

    def to_dict(self, obj_type: Any = dict) -> Any:
        """Return the problem, with its `errors`."""
        found: Any = super().to_dict(obj_type)
        found["errors"] = [fault.as_json() for fault in self.faults]
        return found


@dataclass(frozen=True, slots=True)
class RequestValue:
    """A parameter that is filled with a value of the request.

    `name` is what it is called there, and `where` says where that is. `collect` makes the
    parameter of several values, None where one alone may come; `convert` makes one of its text,
    None where it stays text; `expected` says what a text has to be; `default` is `REQUIRED` where
    there is none.
    """

    parameter: str
    where: Where
    name: str
    convert: Converter | None
    collect: Callable[[Iterable[Any]], Any] | None
    expected: str
    default: Any

    def find(self, req: falcon.Request) -> Any:
        """Return what the request has of it: a text, a list of several, None for nothing."""
        if self.where == "query":
            return req.params.get(self.name)
        if self.where == "header":
            return req.get_header(self.name)
        return req.get_cookie_values(self.name)

    def read(self, found: Any) -> Any:
        """Return the value of what was found.

        Raises:
            ValueError: it does not fit; the message says why.
        """
        if self.collect is None:
            if type(found) is list:
                if len(found) > 1:
                    raise ValueError(f"found {len(found)} values, expected one")
                (found,) = found
            return self._one(found)
        return self.collect(self._one(each) for each in (found if type(found) is list else [found]))

    def _one(self, text: str) -> Any:
        if self.convert is None:
            return text
        try:
            return self.convert(text)
        except ValueError:
            shown = text if len(text) <= 80 else f"{text[:79]}…"
            raise ValueError(f"found {shown!r}, expected {self.expected}") from None


def request_value(name: str, annotation: Any, default: Any) -> RequestValue | None:
    """Return how a request fills a parameter, None where its default is the plugin's own affair.

    Args:
        name: the parameter's.
        annotation: its annotation; where there is none, its default's type counts.
        default: its default, `REQUIRED` if it has none.

    Raises:
        AnnotationError: no text can become it.
    """
    marker = marker_of(annotation)
    if marker is None and default is REQUIRED:
        if is_bare(annotation):
            return None
    elif marker is None and not looks_like_query(annotation, default):
        return None
    if is_bare(annotation):
        annotation = str if default is None else type(default)
    _refuse_bounds(annotation)
    source = _source(name, marker)
    kinds = [kind for kind in members(annotation) if kind is not type(None)]
    many = [kind for kind in kinds if _origin(kind) in _MANY]
    if not many:
        return RequestValue(
            name, *source, field_converter(annotation), None, _expected(kinds), default
        )
    items = [item for item in typing.get_args(many[0]) if item is not ...]
    if len(kinds) > 1 or len(items) > 1:
        raise AnnotationError(f"{show(annotation)}, expected one type of many values, as list[int]")
    item = items[0] if items else str
    of_item = [kind for kind in members(item) if kind is not type(None)]
    collect = _MANY[_origin(many[0])]
    return RequestValue(name, *source, field_converter(item), collect, _expected(of_item), default)


def marker_of(annotation: Any) -> Query | Header | Cookie | None:
    """Return what an `Annotated` says of where a parameter comes from, None if it says nothing."""
    for extra in getattr(annotation, "__metadata__", ()):
        if extra in (Query, Header, Cookie):  # the class itself, as `Annotated[str, Header]`
            marker: Query | Header | Cookie = extra()
            return marker
        if isinstance(extra, Query | Header | Cookie):
            return extra
    return None


def fill_values(
    req: falcon.Request, values: Iterable[RequestValue], fields: dict[str, Any]
) -> None:
    """Fill in what a request has of a handler's parameters.

    Raises:
        UnfitRequest: some do not fit, or are missing; all of them are named.
    """
    faults: list[ValueFault] = []
    for value in values:
        found = value.find(req)
        if found is not None:
            try:
                fields[value.parameter] = value.read(found)
            except ValueError as error:
                faults.append(ValueFault(value.name, str(error), value.where))
        elif value.default is REQUIRED:
            faults.append(ValueFault(value.name, "it is missing", value.where))
    if faults:
        raise UnfitRequest(faults)


def _source(parameter: str, marker: Query | Header | Cookie | None) -> tuple[Where, str]:
    if isinstance(marker, Header):
        return "header", marker.name or parameter.replace("_", "-")
    if isinstance(marker, Cookie):
        return "cookie", marker.name or parameter
    return "query", (marker.name if marker else "") or parameter


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


def _refuse_bounds(annotation: Any) -> None:
    """Refuse an `Annotated` whose constraints nothing would check."""
    for kind in [annotation, *typing.get_args(annotation)]:
        for extra in getattr(kind, "__metadata__", ()):
            if any(getattr(extra, bound, None) is not None for bound in _BOUNDS):
                raise AnnotationError(
                    f"{show(annotation)}, expected no constraints: they are not checked; check the "
                    "value in the handler"
                )


def _expected(kinds: list[Any]) -> str:
    return " or ".join(map(_expected_kind, kinds))


def _expected_kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return _EXPECTED.get(kind, "text")
