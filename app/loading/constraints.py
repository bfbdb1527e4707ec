"""Constraints of values: what `Annotated` says of one beside its type, as `Ge(1)` or a `Field`."""

import typing
from collections.abc import Callable
from typing import Any

from app.loading.pydantic_types import adapter_of, errors_of, sentence
from app.plugin import Cookie, Form, Header, Query

Marker = Query | Header | Cookie | Form
MARKERS = (Query, Header, Cookie, Form)
"""The classes whose objects say where a parameter comes from."""

Check = Callable[[Any], Any]
"""Returns a value that keeps its constraints; raises ValueError, whose message says which not."""


def is_marker(extra: Any) -> bool:
    """Tell whether what `Annotated` adds says where a parameter comes from."""
    return extra in MARKERS if isinstance(extra, type) else isinstance(extra, MARKERS)


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
        raise ValueError("; ".join(reasons))

    return check


def is_constrained(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, has more than a type and a marker."""
    if isinstance(annotation, typing.NewType):
        return is_constrained(annotation.__supertype__)
    if type(annotation).__name__ == "TypeAliasType":  # `type X = …`, from Python 3.12 on
        return is_constrained(annotation.__value__)
    if typing.get_origin(annotation) is typing.Literal:
        return False
    extras = getattr(annotation, "__metadata__", ())
    if not all(isinstance(extra, str) or is_marker(extra) for extra in extras):
        return True
    return any(map(is_constrained, typing.get_args(annotation)))


def _reason(error: Any) -> str:
    items = [place + 1 for place in error["loc"] if isinstance(place, int)]
    said = sentence(error["msg"])
    return f"item {items[0]}: {said}" if items else said
