"""What annotations are made of, whatever they stand at."""

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any


class AnnotationError(Exception):
    """An annotation cannot be used here; the message shows it and says what is expected."""


def is_bare(annotation: Any) -> bool:
    """Tell whether an annotation is missing or `Any`."""
    return annotation is inspect.Parameter.empty or annotation is Any


def is_type(value: Any) -> bool:
    """Tell whether a value is a type, and not data that stands where one is expected."""
    return (
        value is None
        or is_bare(value)
        or isinstance(value, (type, typing.NewType, typing.TypeVar))
        or typing.get_origin(value) is not None
        or is_alias(value)
    )


def is_text(annotation: Any) -> bool:
    """Tell whether an annotation says no more than that a text comes, if that."""
    return is_bare(annotation) or annotation in (str, object)


def is_a(annotation: Any, base: type) -> bool:
    """Tell whether an annotation is `base` or a subclass, or a union that holds one."""
    return any(isinstance(kind, type) and issubclass(kind, base) for kind in members(annotation))


def members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone, each as `plain` returns it."""
    annotation = plain(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for each in typing.get_args(annotation) for part in members(each)]
    return [annotation]


def plain(annotation: Any) -> Any:
    """Return the type that an `Annotated`, a `NewType` or a type alias stands for."""
    while True:
        inner = _within(annotation)
        if inner is annotation:
            return annotation
        annotation = inner


def without_qualifiers(annotation: Any) -> Any:
    """Return an annotation of a TypedDict's field without what says whether it has to be there."""
    while typing.get_origin(annotation) in _QUALIFIERS:
        annotation = typing.get_args(annotation)[0]
    return annotation


_QUALIFIERS = (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", ...))


def extras_of(annotation: Any) -> tuple[Any, ...]:
    """Return what `Annotated` says beside the type, through names that stand for it."""
    found: tuple[Any, ...] = ()
    while True:
        inner = _within(annotation)
        if inner is annotation:
            return found
        found += getattr(annotation, "__metadata__", ())
        annotation = inner


def all_extras_of(annotation: Any) -> list[Any]:
    """Return what `Annotated` says beside the type, in an annotation and all it is made of."""
    return [extra for p in parts_of(annotation) for extra in getattr(p, "__metadata__", ())]


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, and each that it is made of; an alias that holds itself once."""
    waiting, known = [annotation], set()
    while waiting:
        part = waiting.pop()
        yield part
        inner = _within(part)
        if inner is not part:
            if id(part) not in known:
                known.add(id(part))
                waiting.append(inner)
        elif typing.get_origin(part) is not typing.Literal:
            waiting += typing.get_args(part)


def holds_itself(annotation: Any, within: tuple[Any, ...] = ()) -> bool:
    """Tell whether an alias in an annotation stands for something that holds it, as JSON does."""
    if is_alias(annotation):
        if any(annotation is each for each in within):
            return True
        within = (*within, annotation)
    inner = _within(annotation)
    if inner is not annotation:
        return holds_itself(inner, within)
    if typing.get_origin(annotation) is typing.Literal:
        return False
    return any(holds_itself(part, within) for part in typing.get_args(annotation))


def is_alias(annotation: Any) -> bool:
    """Tell whether an annotation is the name that `type X = …` gives, from Python 3.12 on."""
    return type(annotation).__name__ == "TypeAliasType"


def _within(annotation: Any) -> Any:
    """Return what an annotation stands for, itself where it stands for nothing else."""
    if typing.get_origin(annotation) is typing.Annotated:
        return annotation.__origin__
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    return annotation.__value__ if is_alias(annotation) else annotation


MAX_SHOWN = 300
"""How many characters of an annotation an error message shows."""


def show(annotation: Any) -> str:
    """Return an annotation as error messages show it."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
