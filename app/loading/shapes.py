"""Which JSON an annotation of a handler's `body` allows."""

import collections.abc
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.loading.annotations import AnnotationError, is_bare, members, plain, show

BODY_TYPES = (
    "dict, list, str, int, float, bool, None, a Literal or a union of those, or bytes for the body "
    "as it came"
)
JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Which JSON an annotation allows: its name for messages, and a check of a value."""

    name: str
    fits: Callable[[Any], bool]
    null: bool = False

    def refusal(self, body: Any) -> str:
        """Say what is wrong with a body that does not fit."""
        kind = JSON_NAMES[type(body)]
        if self.name.startswith(f"{kind}, each"):
            kind = f"{kind} with something else in it"
        return f"found {kind}, expected {self.name}"


ANYTHING = Shape("JSON", lambda value: True, null=True)


def is_raw(annotation: Any) -> bool:
    """Tell whether the unparsed body is wanted: `bytes` or `bytes | None`."""
    return [kind for kind in members(annotation) if kind is not type(None)] == [bytes]


def allows_none(annotation: Any) -> bool:
    """Tell whether an annotation allows None."""
    return any(kind is type(None) for kind in members(annotation))


def body_shape(annotation: Any) -> Shape:
    """Return which JSON an annotation of `body` allows.

    Raises:
        AnnotationError: no JSON value has this type.
    """
    shapes = [_shape_of(kind) for kind in members(annotation)]
    if len(shapes) == 1:
        return shapes[0]
    if ANYTHING in shapes:
        return ANYTHING
    checks = [shape.fits for shape in shapes]
    return Shape(
        " or ".join(shape.name for shape in shapes),
        lambda value: any(fits(value) for fits in checks),
        null=any(shape.null for shape in shapes),
    )


def _shape_of(kind: Any) -> Shape:
    if is_bare(kind) or kind is object:
        return ANYTHING
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is None or kind is type(None):
        return Shape("null", lambda value: value is None, null=True)
    if origin is typing.Literal:
        return _literal(kind, arguments)
    base = origin or kind
    if base in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        key, item = arguments or (str, Any)
        if plain(key) is not str and not is_bare(key):
            raise AnnotationError(f"{show(kind)}, expected text as its keys, as JSON has them")
        return _container(dict, item)
    if base in (list, collections.abc.Sequence, collections.abc.MutableSequence):
        return _container(list, *(arguments or (Any,)))
    if base is float:
        return Shape(JSON_NAMES[float], lambda value: type(value) in (float, int))
    if base in (str, int, bool):
        return Shape(JSON_NAMES[base], lambda value: type(value) is base)
    raise AnnotationError(
        f"{show(kind)}, expected {BODY_TYPES}; write 'body: dict' and make the "
        f"{show(kind)} of it yourself"
    )


def _container(base: type, item: Any) -> Shape:
    inside = body_shape(item)
    if inside is ANYTHING:
        return Shape(JSON_NAMES[base], lambda value: type(value) is base)
    fits = inside.fits
    if base is list:
        return Shape(
            f"{JSON_NAMES[list]}, each item {inside.name}",
            lambda value: type(value) is list and all(map(fits, value)),
        )
    return Shape(
        f"{JSON_NAMES[dict]}, each value {inside.name}",
        lambda value: type(value) is dict and all(map(fits, value.values())),
    )


def _literal(kind: Any, values: tuple[Any, ...]) -> Shape:
    if not all(value is None or type(value) in (str, int, bool) for value in values):
        raise AnnotationError(f"{show(kind)}, expected a Literal of what JSON has")
    return Shape(
        " or ".join(repr(value) for value in values),
        lambda value: any(value == one and type(value) is type(one) for one in values),
        null=None in values,
    )
