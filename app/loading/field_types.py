"""Which types a text can become, as a field of the path or a query parameter, and how."""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import math
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from falcon.constants import FALSE_STRINGS, TRUE_STRINGS

from app.loading.annotations import AnnotationError, is_bare, members, show
from app.loading.pydantic_types import is_of_pydantic, text_maker

Converter = Callable[[str], Any]
"""Converts a field's text; raises ValueError if the text does not fit, so the path is a 404."""

FIELD_TYPES = (
    "str, int, float, bool, UUID, Decimal, date, time, datetime, timedelta, an IP address, a Path, "
    "an Enum of texts or whole numbers, a Literal of those, or what pydantic makes of a text, as "
    "HttpUrl"
)
MAX_EXPONENT = 308
"""The largest exponent of a Decimal in a path, as of a float."""


def field_converter(annotation: Any) -> Converter | None:
    """Return the converter of a field with this annotation, None if the field stays text.

    Raises:
        AnnotationError: no text can be converted to it.
    """
    converters = [_convert_to(kind) for kind in members(annotation) if kind is not type(None)]
    if not converters or converters[0] is None:
        return None
    if len(converters) == 1:
        return converters[0]

    def first_that_fits(text: str) -> Any:
        for converter in converters:
            if converter is None:
                return text
            try:
                return converter(text)
            except ValueError:
                continue
        raise ValueError("none fits")

    return first_that_fits


def _convert_to(kind: Any) -> Converter | None:
    if is_bare(kind) or kind is str or kind is object:
        return None
    if typing.get_origin(kind) is typing.Literal:
        # None is what is left out.
        return _one_of(kind, [value for value in typing.get_args(kind) if value is not None])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _one_of(kind, list(kind))
    if isinstance(kind, type) and kind in _CONVERTERS:
        return _CONVERTERS[kind]
    if kind in _OF_PYDANTIC or is_of_pydantic(kind):
        found = text_maker(kind)
        if found is not None:
            return found
    raise AnnotationError(f"{show(kind)}, expected {FIELD_TYPES}")


def choice_text(value: Any) -> str | None:
    """Return the text that stands for one of several values, None if none does."""
    text = value.value if isinstance(value, enum.Enum) else value
    if isinstance(text, bool):
        return "true" if text else "false"
    if isinstance(text, int):
        return int.__repr__(text)
    return str.__str__(text) if isinstance(text, str) else None


def _one_of(kind: Any, values: typing.Iterable[Any]) -> Converter:
    known: dict[str, Any] = {}
    for value in values:
        text = choice_text(value)
        if text is None:
            raise AnnotationError(f"{show(kind)}, expected {FIELD_TYPES}")
        known[text] = value

    def convert(text: str) -> Any:
        try:
            return known[text]
        except KeyError:
            raise ValueError("not one of them") from None

    return convert


def _whole(text: str) -> int:
    if text.strip() != text:  # as Falcon's own converter
        raise ValueError("whitespace")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if text.strip() != text or not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _decimal(text: str) -> decimal.Decimal:
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise ValueError("no number") from None
    # A huge exponent is refused, as for a float: `int` or `:f` of it would take for ever.
    if text.strip() != text or not number.is_finite() or abs(number.adjusted()) > MAX_EXPONENT:
        raise ValueError("not finite")
    return number


def _truth(text: str) -> bool:
    if text in TRUE_STRINGS:
        return True
    if text in FALSE_STRINGS:
        return False
    raise ValueError("neither true nor false")


_CONVERTERS: dict[type, Converter] = {
    int: _whole,
    float: _finite,
    bool: _truth,
    uuid.UUID: uuid.UUID,
    decimal.Decimal: _decimal,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    datetime.datetime: datetime.datetime.fromisoformat,
}

_OF_PYDANTIC = (
    datetime.timedelta,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    pathlib.Path,
    pathlib.PurePath,
)
"""Types of the standard library that pydantic knows how to make of a text."""

_QUERY_VALUES = (str, int, float, decimal.Decimal, uuid.UUID, datetime.date, enum.Enum)
MANY: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    tuple: tuple,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
"""The types of parameters that may come several times, and what makes them of the values."""

_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def looks_like_query(annotation: Any, default: Any) -> bool:
    """Tell whether a parameter with a default looks as if the query string should fill it.

    One whose default is None does so, too, if it is of a type of data that no text can become:
    who calls it would wait for ever to be given one.
    """
    if is_bare(annotation):
        return default is None or isinstance(default, _QUERY_VALUES)
    try:
        for kind in members(annotation):
            if typing.get_origin(kind) in MANY or kind in MANY:
                for item in typing.get_args(kind):
                    if item is not ...:
                        field_converter(item)
            elif kind is not type(None):
                _convert_to(kind)
    except AnnotationError:
        return default is None and any(map(_is_data, members(annotation)))
    return True


def advice_for(annotation: Any) -> str:
    """Return where data of an annotation comes from that no text can become, if it is any."""
    if not any(map(_is_data, members(annotation))):
        return ""
    return "; a JSON body is called 'body', and all of a form is Annotated[…, Form()]"


def _is_data(kind: Any) -> bool:
    """Tell whether values of a type come in requests, and not what a plugin gives itself."""
    base = typing.get_origin(kind) or kind
    return (
        base in (bytes, typing.Literal, *MANY, *_OBJECTS)
        or typing.is_typeddict(base)
        or dataclasses.is_dataclass(base)
        or is_of_pydantic(base)
        or (isinstance(base, type) and issubclass(base, enum.Enum))
    )
