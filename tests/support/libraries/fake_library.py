"""A library as plugins use them: it keeps in its registries what modules register at their import.

One function for each way to do so. It is on the path of the rehearsals' process alone.
"""

import functools
import logging
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

names: dict[str, Any] = {}
classes: dict[str, list[type]] = {}
jobs: list["Job"] = []
latest: list[Any] = []
_provider: Any = None
_settings: dict[str, Any] = {}
_hints: dict[Any, Any] = {}
_converters: dict[type, Any] = {}
_alive: "weakref.WeakSet[Any]" = weakref.WeakSet()
_filled: list[str] = []


class Job:
    """Something of the library's own, which refers to nothing of the plugin."""


class Hint:
    """What is asked of a class; two are equal if it is the same class."""

    __slots__ = ("kind",)

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        """Compare by the class."""
        return isinstance(other, Hint) and other.kind is self.kind

    def __hash__(self) -> int:
        """Return the class's hash."""
        return hash(self.kind)


class Handlers:
    """Replaces what it has by a longer copy each time."""

    def __init__(self) -> None:
        self.all: tuple[Job, ...] = ()

    def add(self) -> None:
        """Add one more."""
        self.all = (*self.all, Job())


handlers = Handlers()


def refuse_twice(name: str) -> None:
    """Register a name, once in a process."""
    if name in names:
        raise ValueError(f"{name} is already registered")
    names[name] = True


def keep_class(kind: type) -> type:
    """Keep a class under its name, beside those of the same name."""
    classes.setdefault(kind.__name__, []).append(kind)
    return kind


def keep_first(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what was registered first under a name."""
    return names.setdefault(name, function)


def add_job() -> None:
    """Have one more job run."""
    jobs.append(Job())


def set_provider(provider: Any) -> None:
    """Take a provider once, and only say so the second time."""
    global _provider
    if _provider is not None:
        log.warning("Overriding the provider is not allowed")
        return
    _provider = provider


def warn_twice(name: str) -> None:
    """Warn of a name that is used again."""
    if name in names:
        warnings.warn(f"{name} is defined again", stacklevel=2)
    names[name] = True


def replace(kind: type) -> type:
    """Take a class in the place of what has its name, and warn of it."""
    if kind.__name__ in names:
        warnings.warn(f"{kind} takes the place of another", stacklevel=2)
    names[kind.__name__] = kind
    return kind


def configure(module: str) -> None:
    """Be configured by the first one that does so."""
    _settings.setdefault("module", module)


def convert(kind: type) -> type:
    """Cache something for a class, as converters and dispatchers do."""
    _converters[kind] = object()
    _alive.add(kind)
    return kind


def remember(kind: type) -> type:
    """Cache something that refers to a class, by a key that is equal where the class is."""
    _hints[(Hint(kind), True)] = {"hint": kind}
    return kind


@functools.cache
def describe(kind: type) -> str:
    """Return a class's name, from a cache."""
    return kind.__name__


def fill() -> None:
    """Fill a cache the second time that it is asked: it grows once, and then no more."""
    _filled[:] = [*_filled, "one"][:2]


def filled_twice() -> bool:
    """Fill the cache, and tell whether it was filled before."""
    before = bool(_filled)
    fill()
    return before


def keep_latest(kind: type) -> type:
    """Keep the two classes that came last."""
    latest[:] = [*latest[-1:], kind]
    return kind


def start_thread() -> None:
    """Start a thread that goes on for ever."""
    threading.Thread(target=threading.Event().wait, name="exporter", daemon=True).start()
