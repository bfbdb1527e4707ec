"""What refers to a generation that should be gone: for the one log line of a leak.

All of it looks at a plugin's objects, and at everybody else's. It runs none of their code: it asks
types, and compares by identity.

It asks `gc` for what refers to something, never for all objects: `gc.get_objects` shows tuples that
other threads are still making, and who holds one makes their `tuple(...)` a SystemError (CPython
issue 15108). A request of another plugin would fail.
"""

import gc
import sys
import threading
from collections import Counter
from types import (
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
from typing import Any

from app.inspection import (
    UNKNOWN,
    attribute_of,
    is_class,
    is_module,
    module_of,
    mro_of,
    name_of,
    namespace_of,
    namespace_of_class,
)

MAX_NAMED = 5


def describe_referrers(survivors: list[object], generation: str) -> str:
    """Return a phrase that names the threads and the types that refer to a generation.

    It is slow, one look at the whole heap for each of the generation's objects, and meant for
    the one log line of a leak.

    Args:
        survivors: the generation's classes that are alive, and what else is known to be.
        generation: the name of its package.
    """
    gc.unfreeze()  # what is frozen is no referrer to `gc`, and that is the whole server
    # The importer is in all modules' globals, as their loader.
    globals_of = [item for item in gc.get_referrers(*survivors) if _is_globals(item, generation)]
    inside = _inside(globals_of, [item for item in survivors if is_class(item)])
    threads = _threads(globals_of)
    types = _referrers(inside, [inside, survivors, globals_of, *globals_of])
    parts = []
    if threads:
        parts.append("running in it: " + ", ".join(threads[:MAX_NAMED]))
    if types:
        named = "; ".join(f"{name} ({n})" for name, n in types.most_common(MAX_NAMED))
        parts.append("referred to by: " + named)
    return "; ".join(parts) or "what holds it cannot be told"


def _is_globals(item: object, generation: str) -> bool:
    """Tell whether an object is the globals of one of the generation's modules."""
    if type(item) is not dict or "__builtins__" not in item:
        return False
    name = item.get("__name__")
    return type(name) is str and (name == generation or name.startswith(f"{generation}."))


def _inside(globals_of: list[Any], classes: list[Any]) -> list[object]:
    """Return the classes, functions and instances that the generation's modules define."""
    names = {module["__name__"] for module in globals_of}
    functions = [
        item
        for module in globals_of
        for item in gc.get_referrers(module)
        if type(item) is FunctionType
    ]
    named = [
        value
        for module in globals_of
        for value in list(module.values())
        if module_of(value) in names or module_of(type(value)) in names
    ]
    instances = [f for c in classes for f in gc.get_referrers(c) if type(f) is c]
    every = [*named, *functions, *classes, *instances]
    return list({id(item): item for item in every}.values())


def _threads(globals_of: list[Any]) -> list[str]:
    running = []
    ids = {id(module) for module in globals_of}
    frames = sys._current_frames()
    for thread in threading.enumerate():
        number = attribute_of(
            thread, "_ident"
        )  # as its name, it may be a property of its own class
        frame: FrameType | None = frames.get(number) if type(number) is int else None
        while frame is not None and id(frame.f_globals) not in ids:
            frame = frame.f_back
        if frame is not None:
            running.append(f"the thread {_text(attribute_of(thread, '_name'))!r}")
    return running


def _referrers(inside: list[object], ours: list[Any]) -> "Counter[str]":
    """Count who refers to what, without what is inside itself and our own lists."""
    own = {id(item) for item in [*inside, *ours, ours]}
    own.update(id(part) for item in inside for part in _parts_of(item))
    counted: Counter[str] = Counter()
    for item in inside:
        for referrer in gc.get_referrers(item):
            # No set of types: it would ask a metaclass for their hash.
            if id(referrer) in own or any(type(referrer) is kind for kind in _NO_REFERRERS):
                continue
            counted[f"{_name(referrer)}, to {_what(item)}"] += 1
    return counted


_NO_REFERRERS = (FrameType, GetSetDescriptorType, MemberDescriptorType)
"""Frames, of which the threads are named; descriptors, which are of the class itself."""

_METHODS = (property, staticmethod, classmethod)


def _parts_of(item: object) -> list[object]:
    """Return what an object is made of, as a class's namespace, and what that is made of."""
    if type(item) is FunctionType:
        return [item.__dict__, item.__closure__, *(item.__closure__ or ())]
    parts = [p for p in gc.get_referents(item) if type(p) is dict or type(p) is tuple]
    if is_class(item):
        methods = list(namespace_of_class(item).values())
        return parts + [m for m in methods if any(type(m) is kind for kind in _METHODS)]
    attributes = _attributes_of(item) if parts else None
    return [part for part in parts if part is attributes]


def _attributes_of(item: object) -> object:
    for cls in mro_of(type(item)):
        descriptor = namespace_of_class(cls).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            return descriptor.__get__(item)
    return None


def _what(item: object) -> str:
    if is_class(item) or type(item) is FunctionType:
        return name_of(item)
    return f"a {name_of(item)}"


def _name(referrer: object) -> str:
    if is_module(referrer):
        return f"the module {_text(namespace_of(referrer).get('__name__'))}"
    if type(referrer) is dict and "__name__" in referrer:
        return f"the module {_text(referrer['__name__'])}"
    if type(referrer) is FunctionType:
        return f"the function {module_of(referrer)}.{name_of(referrer)}"
    return f"{module_of(type(referrer))}.{name_of(type(referrer))}"


def _text(value: object) -> str:
    return value if type(value) is str else UNKNOWN
