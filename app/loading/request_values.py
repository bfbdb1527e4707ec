"""Query parameters, headers and cookies that a handler takes: found once, read at each request.

All that is wrong with those of a request is said at once (`request_faults.py`).
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
from typing import Any

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
from app.loading.request_faults import ValueFault, Where
from app.plugin import Cookie, Header, Query

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
class RequestValue:
    """A parameter that is filled with a value of the request.

    `name` is what it is called there, and `where` says where that is. `find` returns what a request
    has of it: a text, a list of several, None for nothing. `read` makes the value of that, and
    raises ValueError, whose message says what does not fit. Both are plain functions: they are
    called at each request.
    """

    parameter: str
    where: Where
    name: str
    find: Callable[[falcon.Request], Any]
    read: Callable[[Any], Any]
    required: bool


def _finder(where: Where, name: str) -> Callable[[falcon.Request], Any]:
    if where == "query":
        return lambda req: req.params.get(name)
    if where == "header":
        return lambda req: req.get_header(name)
    return lambda req: req.get_cookie_values(name)


def _reader(
    convert: Converter | None, collect: Callable[[Iterable[Any]], Any] | None, expected: str
) -> Callable[[Any], Any]:
    """Return what makes a parameter's value.

    Args:
        convert: makes a value of a text, None where it stays text.
        collect: makes the parameter of several values, None where one alone may come.
        expected: what a text has to be, for the message.
    """

    def one(text: str) -> Any:
        if convert is None:
            return text
        try:
            return convert(text)
        except ValueError:
            shown = text if len(text) <= 80 else f"{text[:79]}…"
            raise ValueError(f"found {shown!r}, expected {expected}") from None

    def read(found: Any) -> Any:
        if type(found) is not list:
            return one(found)
        if len(found) > 1:
            raise ValueError(f"found {len(found)} values, expected one")
        return one(found[0])

    def read_many(found: Any) -> Any:
        assert collect is not None  # noqa: S101 - for the type checker
        return collect(map(one, found if type(found) is list else [found]))

    return read if collect is None else read_many


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
        read = _reader(field_converter(annotation), None, _expected(kinds))
        return RequestValue(name, *source, _finder(*source), read, default is REQUIRED)
    items = [item for item in typing.get_args(many[0]) if item is not ...]
    if len(kinds) > 1 or len(items) > 1:
        raise AnnotationError(f"{show(annotation)}, expected one type of many values, as list[int]")
    item = items[0] if items else str
    of_item = [kind for kind in members(item) if kind is not type(None)]
    read = _reader(field_converter(item), _MANY[_origin(many[0])], _expected(of_item))
    return RequestValue(name, *source, _finder(*source), read, default is REQUIRED)


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
) -> list[ValueFault]:
    """Fill in what a request has of a handler's parameters; return what is wrong with them."""
    faults: list[ValueFault] = []
    for value in values:
        found = value.find(req)
        if found is not None:
            try:
                fields[value.parameter] = value.read(found)
            except ValueError as error:
                faults.append(ValueFault(value.name, str(error), value.where))
        elif value.required:
            faults.append(ValueFault(value.name, "it is missing", value.where))
    return faults


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
