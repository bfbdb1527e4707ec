"""What keeps a generation in memory that should be gone, as far as it can be told from outside."""

import gc
import sys
import threading
from collections import Counter
from types import (
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

from app.serving.archive import GenerationPackage

MAX_NAMED = 5


def holders_of(survivors: list[object]) -> str:
    """Return a phrase that names the threads and the types that refer to a generation.

    It is slow, one look at the whole heap for each of the generation's objects, and meant for
    the one log line of a leak.
    """
    gc.unfreeze()  # what is frozen is no referrer to `gc`, and that is the whole server
    packages = [found for found in survivors if isinstance(found, GenerationPackage)]
    globals_of = [
        found
        for found in gc.get_referrers(*packages)
        if isinstance(found, dict) and "__name__" in found
    ]
    inside = _inside(globals_of, [found for found in survivors if isinstance(found, type)])
    threads = _threads(globals_of)
    types = _referrers(inside, [inside, survivors, globals_of, *globals_of])
    parts = []
    if threads:
        parts.append("running in it: " + ", ".join(threads[:MAX_NAMED]))
    if types:
        named = "; ".join(f"{name} ({n})" for name, n in types.most_common(MAX_NAMED))
        parts.append("referred to by: " + named)
    return "; ".join(parts) or "what holds it cannot be told"


def _inside(globals_of: list[dict[str, Any]], classes: list[type]) -> list[object]:
    """Return the classes, functions and instances that the generation's modules define."""
    names = {module["__name__"] for module in globals_of}
    functions = [
        found
        for module in globals_of
        for found in gc.get_referrers(module)
        if isinstance(found, FunctionType)
    ]
    named = [
        value
        for module in globals_of
        for value in module.values()
        if getattr(value, "__module__", None) in names
        or getattr(type(value), "__module__", None) in names
    ]
    instances = [f for c in classes for f in gc.get_referrers(c) if type(f) is c]
    every = [*named, *functions, *classes, *instances]
    return list({id(found): found for found in every}.values())


def _threads(globals_of: list[dict[str, Any]]) -> list[str]:
    found = []
    ids = {id(module) for module in globals_of}
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame: FrameType | None = frames.get(thread.ident or 0)
        while frame is not None and id(frame.f_globals) not in ids:
            frame = frame.f_back
        if frame is not None:
            found.append(f"the thread {thread.name!r}")
    return found


def _referrers(inside: list[object], ours: list[Any]) -> "Counter[str]":
    """Count who refers to what, without what is inside itself and our own lists."""
    own = {id(item) for item in [*inside, *ours, ours]}
    counted: Counter[str] = Counter()
    for item in inside:
        for referrer in gc.get_referrers(item):
            if id(referrer) in own or isinstance(referrer, FrameType):
                continue
            if isinstance(referrer, (GetSetDescriptorType, MemberDescriptorType)):
                continue  # of the class itself
            if _is_part_of_a_class(referrer, inside):
                continue
            counted[f"{_name(referrer)}, to {_what(item)}"] += 1
    return counted


def _what(item: object) -> str:
    if isinstance(item, (type, FunctionType)):
        return item.__qualname__
    return f"a {type(item).__qualname__}"


def _is_part_of_a_class(referrer: object, inside: list[object]) -> bool:
    if isinstance(referrer, dict):
        # A class's own namespace is not `vars(class)`, which is a proxy of it.
        return any(referrer == getattr(known, "__dict__", None) for known in inside)
    return isinstance(referrer, tuple) and any(
        referrer is known.__mro__ or referrer is known.__bases__
        for known in inside
        if isinstance(known, type)
    )


def _name(referrer: object) -> str:
    if isinstance(referrer, ModuleType):
        return f"the module {referrer.__name__}"
    if isinstance(referrer, dict) and "__name__" in referrer:
        return f"the module {referrer['__name__']}"
    if isinstance(referrer, FunctionType):
        return f"the function {referrer.__module__}.{referrer.__qualname__}"
    return f"{type(referrer).__module__}.{type(referrer).__qualname__}"
