"""Constraints of values: what `Annotated` says of one beside its type, as `Ge(1)` or a `Field`."""

import types
import typing
from collections.abc import Callable
from typing import Any

from app.loading.annotations import all_extras_of, extras_of, plain
from app.loading.markers import is_marker
from app.loading.pydantic_types import TOO_LARGE, adapter_of, errors_of, sentence

Check = Callable[[Any], Any]
"""Returns a value that keeps its constraints; raises ValueError, whose message says which not."""


def constraint_check(annotation: Any) -> Check | None:
    """Return what checks the constraints of an annotation, None if it has none.

    They are whatever pydantic takes: those of `annotated_types`, a `Field`, its validators.

    Raises:
        AnnotationError: they cannot be checked.
    """
    if not is_constrained(annotation):
        return None
    validate = adapter_of(annotation).validate_python
    import pydantic  # which the adapter has imported

    def check(value: Any) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError as error:
            reasons = dict.fromkeys(map(_reason, errors_of(error)))
        except OverflowError:
            reasons = {TOO_LARGE: None}
        raise ValueError("; ".join(reasons))

    return check


def is_constrained(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, has more than a type and a marker."""
    return not all(
        isinstance(extra, str) or is_marker(extra) for extra in all_extras_of(annotation)
    )


def takes_text(annotation: Any) -> bool:
    """Tell whether a validator, or `pydantic.Json`, wants what has come before it is converted."""
    return any(
        is_json(extra) or type(extra).__name__ in _BEFORE for extra in all_extras_of(annotation)
    )


def is_json_text(annotation: Any) -> bool:
    """Tell whether one text comes, whatever becomes of it: pydantic's `Json[…]`, or None beside."""
    if any(map(is_json, extras_of(annotation))):
        return True
    inner = plain(annotation)
    if typing.get_origin(inner) not in (typing.Union, types.UnionType):
        return False
    return any(map(is_json_text, typing.get_args(inner)))


def is_json(extra: Any) -> bool:
    """Tell whether what stands beside a type says that JSON of it comes, as in `Json[…]`."""
    return getattr(extra, "__name__", type(extra).__name__) == "Json"


_BEFORE = frozenset(("BeforeValidator", "PlainValidator", "WrapValidator"))
"""The validators of pydantic's that are given a value before it has its type."""


def _reason(error: Any) -> str:
    items = [place + 1 for place in error["loc"] if isinstance(place, int)]
    said = sentence(error["msg"])
    return f"item {items[0]}: {said}" if items else said
