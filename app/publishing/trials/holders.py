"""Who in libraries refers to what a plugin defined: paths from libraries' modules downwards.

Only what a newer generation may come upon is followed. What is kept for the one object alone that
it is kept of (a dict's entry whose key is the class, a weak reference, `functools.lru_cache`) is a
cache, which costs memory and answers for nobody else; and a thread is no registry.
"""

import functools
import gc
import itertools
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from app.inspection import is_class, mro_of, name_of, namespace_of_class
from app.libraries import PACKAGES, generation_of, owner_of

Path = list[Any]
"""Objects, each referred to by the one before; the first is a module."""

MAX_NAMED = 3

_NOT_FOLLOWED = (
    ModuleType,  # each is where paths begin
    FrameType,
    CodeType,
    threading.Thread,
    logging.PlaceHolder,  # of the loggers that are named after a plugin's modules
    weakref.ref,
    type(functools.lru_cache(lambda: None)),
    str,
    bytes,
    int,
    float,
)


def plugin_of(item: object) -> str | None:
    """Return the generation that an object is of: a module, class, function or instance of it."""
    if type(item) is ModuleType:
        return generation_of(item.__dict__.get("__name__"))
    return owner_of(item)


def is_identity(key: object) -> bool:
    """Tell whether a dict's key is of one generation alone, so that no other comes upon its value.

    The key is what a plugin defined, holds it, or names its module; or is a weak reference. An
    object that is compared by its value holds a class where that is a part of the value.
    """
    if type(key) is str:
        return f"{PACKAGES}." in key
    if type(key) is tuple:
        return any(is_identity(part) for part in key)
    if issubclass(type(key), logging.Logger):
        return is_identity(key.name)  # type: ignore[attr-defined]
    if issubclass(type(key), weakref.ref) or plugin_of(key) is not None:
        return True
    return _is_value(type(key)) and any(is_class(p) and plugin_of(p) for p in _parts_of(key))


def _is_value(kind: type) -> bool:
    """Tell whether a library's objects of a class are equal by what they are made of."""
    bases = mro_of(kind)[:-1]
    return is_of_library(kind) and any("__eq__" in namespace_of_class(base) for base in bases)


def _parts_of(item: object) -> list[Any]:
    """Return what an object's own attributes refer to, in its slots or its namespace."""
    own = [part for part in gc.get_referents(item) if part is not type(item)]
    names = [list(dict.values(part)) for part in own if type(part) is dict]
    return [*own, *itertools.chain(*names)]


def is_of_library(kind: type) -> bool:
    """Tell whether a class is neither of Python's own modules, nor ours, nor a plugin's."""
    package = _package_of(kind)
    return package not in sys.stdlib_module_names and package not in {"app", PACKAGES}


def _package_of(kind: type) -> str:
    module = namespace_of_class(kind).get("__module__")
    return module.partition(".")[0] if type(module) is str else "builtins"


def find_paths(is_wanted: Callable[[object], bool]) -> list[Path]:
    """Return a shortest path from a library's module to each object that is wanted.

    Args:
        is_wanted: tells of an object; what lies behind a wanted one is not looked for.
    """
    modules = [m for name, m in list(sys.modules.items()) if _is_library(name, m)]
    parents: dict[int, Any] = {id(module): None for module in modules}
    queue: deque[Any] = deque(modules)
    # Whoever made an object for the look (as a `__dict__`) has it live: its id must stay its own.
    seen, paths = [*modules], []
    while queue:
        parent = queue.popleft()
        for child in _referents(parent):
            if id(child) in parents:
                continue
            parents[id(child)] = parent
            seen.append(child)
            if is_wanted(child):
                paths.append(_path(child, parents))
            elif _is_followed(child):
                queue.append(child)
    return paths


def _is_library(name: str, module: object) -> bool:
    return type(module) is ModuleType and name.partition(".")[0] not in {PACKAGES, "app"}


def _referents(parent: Any) -> Iterable[Any]:
    if issubclass(type(parent), dict):
        return [value for key, value in list(dict.items(parent)) if not is_identity(key)]
    return gc.get_referents(parent)


def _is_followed(item: Any) -> bool:
    kind = type(item)
    if not gc.is_tracked(item) or issubclass(kind, _NOT_FOLLOWED):
        return False
    return _package_of(kind) != "app"


def _path(item: Any, parents: dict[int, Any]) -> Path:
    path = [item]
    while (parent := parents[id(path[0])]) is not None:
        path.insert(0, parent)
    return path


def describe_place(path: Path) -> str:
    """Return where a path begins: the module, and its global where that is public; or a logger."""
    for item in reversed(path):
        if issubclass(type(item), logging.Logger):
            return f"the logger {item.name!r}"
    module = path[0].__dict__
    name = str(module.get("__name__"))
    inner = path[1:] if len(path) < 2 or path[1] is not module else path[2:]
    for attribute, value in list(module.items()):
        if inner and value is inner[0] and not attribute.startswith("_"):
            return f"{name}.{attribute}"
    return name


def describe_item(item: object) -> str:
    """Return what a plugin's object is called, running none of its code."""
    if type(item) is ModuleType:
        return f"the module {str(item.__dict__.get('__name__')).split('.', 3)[-1]}"
    if type(item) is FunctionType or is_class(item):
        return name_of(item)
    return f"an instance of {name_of(item)}"


def enumerate_names(names: Iterable[str]) -> str:
    """Return names as a person lists them, at most three of them."""
    named = list(dict.fromkeys(names))
    if len(named) > MAX_NAMED:
        named = [*named[: MAX_NAMED - 1], f"{len(named) - MAX_NAMED + 1} more"]
    return " and ".join([*[", ".join(named[:-1])] * bool(named[:-1]), *named[-1:]])


def kept_by_place(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Give each place that paths begin at, and what it keeps."""
    places: dict[str, list[str]] = {}
    for path in paths:
        places.setdefault(describe_place(path), []).append(describe_item(path[-1]))
    for place, names in places.items():
        yield place, enumerate_names(names)
