"""What a process has one of in the interpreter and the driver: see `process_aspects`."""

import _tracemalloc
import logging
import signal
import sys
import threading
import tracemalloc
from collections.abc import Mapping
from typing import Any

from app.database.registrations import (
    put_adapter,
    put_caster,
    read_adapters,
    read_casters,
    shown_caster,
)
from app.loading.aspect import Aspect, always, never, one
from app.loading.patches import shown

_TIMERS = {
    "ITIMER_REAL (signal.alarm)": signal.ITIMER_REAL,
    "ITIMER_VIRTUAL": signal.ITIMER_VIRTUAL,
    "ITIMER_PROF": signal.ITIMER_PROF,
}


def _read_timers() -> Mapping[str, bool]:
    return {name: signal.getitimer(which) != (0.0, 0.0) for name, which in _TIMERS.items()}


def _put_timer(name: str, runs: bool) -> None:
    if not runs:
        signal.setitimer(_TIMERS[name], 0.0)


def _read_stack_size() -> int:
    size = threading.stack_size()  # which sets it to the default, too
    if size:
        threading.stack_size(size)
    return size


def _read_hooks() -> Mapping[str, Any]:
    """Return what traces and profiles new threads, and the one that loads; by who sets it."""
    return {
        "threading.settrace": threading.gettrace(),
        "threading.setprofile": threading.getprofile(),
        "sys.settrace": sys.gettrace(),
        "sys.setprofile": sys.getprofile(),
    }


def _put_hook(name: str, hook: Any) -> None:
    module, _, setter = name.partition(".")
    getattr(sys.modules[module], setter)(hook)


def _put_tracemalloc(on: bool) -> None:
    if on:
        tracemalloc.start()
    else:
        tracemalloc.stop()


_CODE: dict[str, Any] = {"plain": False, "show": shown}

INTERPRETER_ASPECTS: tuple[Aspect, ...] = (
    Aspect("the timer", _read_timers, _put_timer, always, show=lambda on: "on" if on else "off"),
    one("threading.stack_size()", _read_stack_size, threading.stack_size),
    Aspect("the hook of", _read_hooks, _put_hook, always, **_CODE),
    one("tracemalloc.is_tracing()", _tracemalloc.is_tracing, _put_tracemalloc),
    one(
        "the log's record factory",
        logging.getLogRecordFactory,
        logging.setLogRecordFactory,
        never,
        **_CODE,
    ),
    one("the class of loggers", logging.getLoggerClass, logging.setLoggerClass, never, **_CODE),
    Aspect(
        "psycopg2's reading of the type",
        read_casters,
        put_caster,
        always,
        plain=False,
        show=shown_caster,
    ),
    Aspect("psycopg2's writing of the class", read_adapters, put_adapter, always, **_CODE),
)
"""What is looked at with each load."""
