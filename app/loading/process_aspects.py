"""What a process has one of, for all plugins and for the server: how it is read and put back."""

import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import warnings
from collections import Counter
from contextlib import suppress
from typing import Any

from app.loading import garbage
from app.loading.aspect import ABSENT, Aspect, always, never, one, where_it_was_there
from app.loading.environment import environment, put_variable
from app.loading.interpreter_aspects import INTERPRETER_ASPECTS
from app.loading.logging_state import (
    put_disabled,
    put_handler,
    put_logger,
    read_disabled,
    read_handlers,
    read_loggers,
    shown_setting,
    silences,
)
from app.loading.patches import (
    NEVER,
    put_attribute,
    put_module,
    read_all,
    read_modules,
    read_often_patched,
    shown,
    shown_module,
)

_open, _read, _close, _getcwd = os.open, os.read, os.close, os.getcwd  # a load may replace them

# --- warnings ----------------------------------------------------------------------------------


def _put_filter(item: Any, value: Any) -> None:
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    with suppress(ValueError):
        filters.remove(item)
    if value is not ABSENT:
        filters.append(item)
    with warnings.catch_warnings():
        pass  # which has Python forget what it decided by the filters before


def _filter_harms(_key: Any, before: Any, after: Any) -> bool:
    # One that raises and is gone was perhaps another thread's, for the length of a `with` block.
    return bool(after == "error") if before is ABSENT else bool(before != "error")


# --- lists of the import system ------------------------------------------------------------------


def _put_path(entry: Any, count: Any) -> None:
    wanted = 0 if count is ABSENT else count
    while sys.path.count(entry) > wanted:
        sys.path.remove(entry)
    sys.path += [entry] * (wanted - sys.path.count(entry))


def _is_no_new_one_of_ours(_key: Any, _before: Any, after: Any) -> bool:
    return not type(after).__module__.startswith("app.package.")  # it comes with the first load


def _put_finder(key: int, value: Any) -> None:
    if value is ABSENT:
        sys.meta_path[:] = [finder for finder in sys.meta_path if id(finder) != key]
    elif not any(finder is value for finder in sys.meta_path):
        sys.meta_path.append(value)


# --- numbers and names ---------------------------------------------------------------------------


def _read_umask() -> int:
    """Read it without setting it, which other threads would notice; macOS knows no other way."""
    if sys.platform == "linux":
        file = _open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = _read(file, 256)  # Name and Umask are the first two lines (proc(5))
        finally:
            _close(file)
        return int(head.partition(b"Umask:")[2].split(maxsplit=1)[0], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_folder() -> str:
    try:
        return _getcwd()  # half the time of pathlib's
    except OSError:
        return ""


def _put_folder(folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)


def _read_start_method() -> str | None:
    module = sys.modules.get("multiprocessing.context")
    return None if module is None else module._default_context.get_start_method(allow_none=True)


def _put_start_method(method: str | None) -> None:
    module = sys.modules["multiprocessing.context"]
    module._default_context.set_start_method(method, force=True)


def _read_loop_policy() -> Any:
    module = sys.modules.get("asyncio.events")
    return None if module is None else module._event_loop_policy


def _put_loop_policy(policy: Any) -> None:
    sys.modules["asyncio.events"].__dict__["_event_loop_policy"] = policy


def _patch_harms(path: str, _before: Any, _after: Any) -> bool:
    return path in NEVER


def _is_replaced(_path: str, before: Any, after: Any) -> bool:
    return before is not ABSENT and after is not ABSENT


def _put_signal(number: signal.Signals, handler: Any) -> None:
    with suppress(ValueError):  # only the main thread may
        signal.signal(number, handler)


_LIMITS = {
    f"of {what}": getattr(resource, name)
    for what, name in (
        ("open files", "RLIMIT_NOFILE"),
        ("memory", "RLIMIT_AS"),
        ("processes", "RLIMIT_NPROC"),
        ("processor time", "RLIMIT_CPU"),
        ("a file's size", "RLIMIT_FSIZE"),
    )
    if hasattr(resource, name)
}


def _put_limit(what: str, value: Any) -> None:
    with suppress(ValueError, OSError):  # a hard limit that was lowered stays so
        resource.setrlimit(_LIMITS[what], value)


START_METHOD = one("multiprocessing's start method", _read_start_method, _put_start_method, never)
HANDLERS = Aspect(
    "a handler of the logger",
    read_handlers,
    put_handler,
    where_it_was_there,
    plain=False,
    show=lambda value: f"at level {value[1]} with {len(value[2])} filters",
)
ENVIRONMENT = Aspect(
    "the environment variable", environment, put_variable, never, show=lambda _: "another"
)

_PATCH: dict[str, Any] = {"plain": False, "counts": _is_replaced, "show": shown}

ASPECTS: tuple[Aspect, ...] = (
    Aspect("the logger", read_loggers, put_logger, always, show=shown_setting),
    HANDLERS,
    Aspect(
        "the logger",
        read_disabled,
        put_disabled,
        always,
        counts=silences,
        show=lambda value: "disabled" if value else "enabled",
    ),
    one("the level of logging.disable", lambda: logging.root.manager.disable, logging.disable),
    Aspect(
        "the warnings' filter",
        lambda: {item: item[0] for item in warnings.filters},
        _put_filter,
        _filter_harms,
    ),
    one("sys.stdout", lambda: sys.stdout, lambda v: setattr(sys, "stdout", v), plain=False),
    one("sys.stderr", lambda: sys.stderr, lambda v: setattr(sys, "stderr", v), plain=False),
    one("umask", _read_umask, os.umask, show=oct),
    one("the current folder", _read_folder, _put_folder),
    Aspect(
        "the limit",
        lambda: {what: resource.getrlimit(number) for what, number in _LIMITS.items()},
        _put_limit,
        always,
    ),
    one(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    one("the sockets' default timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    one("gc.isenabled()", garbage.is_on, garbage.switch),
    one("the threshold of gc", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    one("the debugging of gc", gc.get_debug, gc.set_debug),
    one("sys.getswitchinterval()", sys.getswitchinterval, sys.setswitchinterval),
    one(
        "sys.getrecursionlimit()",
        sys.getrecursionlimit,
        sys.setrecursionlimit,
        lambda _, before, after: bool(after < before),
    ),
    one(
        "threading.excepthook",
        lambda: threading.excepthook,
        lambda value: setattr(threading, "excepthook", value),
        plain=False,
    ),
    one(
        "sys.excepthook",
        lambda: sys.excepthook,
        lambda value: setattr(sys, "excepthook", value),
        never,
        plain=False,
    ),
    one(
        "sys.unraisablehook",
        lambda: sys.unraisablehook,
        lambda value: setattr(sys, "unraisablehook", value),
        never,
        plain=False,
    ),
    Aspect("the entry of sys.path", lambda: Counter(sys.path), _put_path, where_it_was_there),
    Aspect(
        "the finder of sys.meta_path",
        lambda: {id(finder): finder for finder in sys.meta_path},
        _put_finder,
        where_it_was_there,
        plain=False,
        counts=_is_no_new_one_of_ours,
    ),
    Aspect(
        "the module",
        read_modules,
        put_module,
        always,
        plain=False,
        counts=where_it_was_there,
        show=shown_module,
    ),
    ENVIRONMENT,
    START_METHOD,
    one("asyncio's event loop policy", _read_loop_policy, _put_loop_policy, never, plain=False),
    Aspect("", read_often_patched, put_attribute, _patch_harms, **_PATCH),
    *INTERPRETER_ASPECTS,
)
"""What is looked at with each load."""

WIDE_ASPECTS: tuple[Aspect, ...] = (
    Aspect("", read_all, put_attribute, _patch_harms, **_PATCH),
    Aspect(
        "the handler of the signal",
        lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
        _put_signal,
        always,
        plain=False,
    ),
)
"""What takes milliseconds to look at."""
