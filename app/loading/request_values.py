"""Query parameters, headers and cookies that a handler takes: found once, read at each request.

All that is wrong with those of a request is said at once (`responders.py`).
"""

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

from app.loading.annotations import AnnotationError, is_bare, members, show
from app.loading.constraints import Check, constraint_check, is_json_text, takes_text
from app.loading.field_types import MANY, Converter, field_converter, looks_like_query
from app.loading.handler_signature import REQUIRED
from app.loading.markers import marker_of, source_of
from app.loading.request_faults import Where

_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    uuid.UUID: "a UUID",
    decimal.Decimal: "a finite decimal number",
    datetime.date: "a date as 2026-01-31",
    datetime.time: "a time as 14:30",
    datetime.datetime: "a date and time as 2026-01-31T14:30:00",
    datetime.timedelta: "a duration as PT1H30M",
}


@dataclass(frozen=True, slots=True)
class RequestValue:
    """A parameter that is filled with a value of the request.

    `name` is what it is called there, and `where` says where that is. `find` returns what a request
    (or its form) has of it: a text, a list of several, None for nothing; it is not asked for query
    parameters, which stand in `req.params`. `read` makes the value of that, and raises ValueError,
    whose message says what does not fit. Where one text alone is the usual case, `convert` makes
    the value of it without a word of what does not fit; None where it stays as it is (`is_text`).
    """

    parameter: str
    where: Where
    name: str
    default: Any
    find: Callable[[Any], Any] | None
    read: Callable[[Any], Any]
    convert: Converter | None
    is_text: bool


def _finder(where: Where, name: str) -> Callable[[falcon.Request], Any] | None:
    if where == "header":
        return lambda req: req.get_header(name)
    if where == "cookie":
        # Of several the first, as that of the path that is the most specific (RFC 6265, 5.4).
        return lambda req: (req.get_cookie_values(name) or (None,))[0]
    return None


def _listed_finder(name: str) -> Callable[[falcon.Request], Any]:
    """Return what finds the values of a header that is a list, as RFC 9110, 5.6.1 has it."""

    def find(req: falcon.Request) -> Any:
        parts = (req.get_header(name) or "").split(",")
        return [part.strip(" \t") for part in parts if part.strip(" \t")] or None

    return find


def _cookies_finder(name: str) -> Callable[[falcon.Request], Any]:
    return lambda req: req.get_cookie_values(name)


def _reader(
    convert: Converter | None,
    collect: Callable[[Iterable[Any]], Any] | None,
    expected: str,
    check: Check | None,
) -> Callable[[Any], Any]:
    """Return what makes a parameter's value.

    Args:
        convert: makes a value of a text, None where it stays text.
        collect: makes the parameter of several values, None where one alone may come.
        expected: what a text has to be, for the message.
        check: checks the value's constraints, None where it has none.
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

    make = read if collect is None else read_many
    return make if check is None else lambda found: check(make(found))


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
    elif not _is_filled(annotation, default):
        return None
    if is_bare(annotation):
        annotation = str if default is None else type(default)
    where, called = source_of(name, marker)
    find = _finder(where, called)
    kinds = [kind for kind in members(annotation) if kind is not type(None)]
    many = [] if is_json_text(annotation) else [kind for kind in kinds if origin_of(kind) in MANY]
    as_text = takes_text(annotation)
    check = constraint_check(annotation)
    if not many:
        convert = None if as_text else field_converter(annotation)
        read = _reader(convert, None, _expected(kinds), check)
        is_text = convert is None and check is None
        usual = convert if check is None else None
        return RequestValue(name, where, called, default, find, read, usual, is_text)
    items = [item for item in typing.get_args(many[0]) if item is not ...]
    if len(kinds) > 1 or len(items) > 1:
        raise AnnotationError(f"{show(annotation)}, expected one type of many values, as list[int]")
    item = items[0] if items else str
    of_item = [kind for kind in members(item) if kind is not type(None)]
    convert = None if as_text else field_converter(item)
    collect = list if as_text else MANY[origin_of(many[0])]
    read = _reader(convert, collect, _expected(of_item), check)
    if where == "header":
        find = _listed_finder(called)
    elif where == "cookie":
        find = _cookies_finder(called)
    return RequestValue(name, where, called, default, find, read, None, is_text=False)


def is_filled(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter is to be filled by a request, and not by its default alone."""
    return parameter.default is REQUIRED or _is_filled(parameter.annotation, parameter.default)


def _is_filled(annotation: Any, default: Any) -> bool:
    said = marker_of(annotation) is not None or takes_text(annotation)
    return said or looks_like_query(annotation, default)


def origin_of(kind: Any) -> Any:
    """Return `list` of `list[int]`, and what has no arguments as it is."""
    return typing.get_origin(kind) or kind


def _expected(kinds: list[Any]) -> str:
    return " or ".join(map(_expected_kind, kinds))


def _expected_kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        shown = [str(value) for value in typing.get_args(kind) if value is not None]
        return "one of " + ", ".join(shown)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    return "text" if kind is str or is_bare(kind) else f"a valid {show(kind)}"
