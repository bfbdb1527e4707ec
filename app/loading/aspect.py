"""One kind of thing that a process has one of, for all plugins and for the server."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class _Absent:
    """Stands for a value that is not there."""

    def __repr__(self) -> str:
        return "none"


ABSENT = _Absent()

Judge = Callable[[Any, Any, Any], bool]
"""Judges a change by its key, what was before and what is after."""


def always(_key: Any, _before: Any, _after: Any) -> bool:
    """Say yes."""
    return True


def never(_key: Any, _before: Any, _after: Any) -> bool:
    """Say no."""
    return False


def where_it_was_there(_key: Any, before: Any, _after: Any) -> bool:
    """Say whether something that was there was removed or replaced."""
    return before is not ABSENT


@dataclass(frozen=True, eq=False, slots=True)
class Aspect:
    """One kind of thing that a process has; several of it are told apart by keys.

    Attributes:
        name: what it is, for a person.
        read: gives the values by their keys; "" where there is but one.
        put: makes one of them what it is given, or removes it where that is `ABSENT`.
        harms: tells whether a change is undone at once.
        plain: whether values can be compared without running a plugin's code.
        counts: tells whether a change is one at all.
        show: gives a value's text.
    """

    name: str
    read: Callable[[], Mapping[Any, Any]]
    put: Callable[[Any, Any], None]
    harms: Judge
    plain: bool = True
    counts: Judge = always
    show: Callable[[Any], str] = str

    def called(self, key: Any) -> str:
        """Return what a key stands for, in words."""
        return " ".join(filter(None, [self.name, _text(key)]))

    def tell(self, key: Any, before: Any, after: Any) -> str:
        """Return a change in words."""
        what = self.called(key)
        if after is ABSENT:
            return f"{what} is removed"
        if before is ABSENT:
            return f"{what} is new"
        return f"{what} is {self.show(after)}, it was {self.show(before)}"


def one(
    name: str,
    read: Callable[[], Any],
    put: Callable[[Any], object],
    harms: Judge = always,
    **more: Any,
) -> Aspect:
    """Return an aspect of which there is but one; the rest of its attributes are in `more`."""

    def put_it(_key: Any, value: Any) -> None:
        put(value)

    return Aspect(name, lambda: {"": read()}, put_it, harms, **more)


def _text(key: Any) -> str:
    if isinstance(key, bytes):
        return os.fsdecode(key)
    if type(key) is tuple:  # a logger and what of it, or a filter of warnings
        return " ".join(str(part) for part in key if type(part) is str)
    return str(key) if isinstance(key, str) else ""
