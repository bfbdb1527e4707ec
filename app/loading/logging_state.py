"""What plugins share of Python's logging: how it is, and how it is put back."""

import logging
import threading
from typing import Any

from app.libraries import PACKAGES
from app.loading.aspect import ABSENT
from app.logs import GUNICORN_LOGGERS

PLUGIN_LOGGER = "benana.plugins"
"""The logger above those that plugins are given; each of those is named after its plugin."""

_OWN = {
    "root": logging.root,
    **{name: logging.getLogger(name) for name in (*GUNICORN_LOGGERS, "benana", "app")},
}
"""The loggers that the server's own lines pass."""


def read_loggers() -> dict[Any, Any]:
    """Return what of our own loggers decides on a line, by logger and what it is."""
    found: dict[Any, Any] = {}
    for name, logger in _OWN.items():
        found[name, "level"] = logger.level
        found[name, "propagate"] = logger.propagate
        found[name, "filters"] = tuple(map(id, logger.filters))
    return found


def put_logger(key: tuple[str, str], value: Any) -> None:
    """Put one of these back; a filter that was removed is not found again."""
    name, what = key
    logger = _OWN[name]
    if what == "level":
        logger.setLevel(value)
    elif what == "propagate":
        logger.propagate = value
    else:
        logger.filters[:] = [item for item in logger.filters if id(item) in value]


def shown_setting(value: Any) -> str:
    """Return the text of one of these."""
    return logging.getLevelName(value) if type(value) is int else str(value)


def read_handlers() -> dict[Any, Any]:
    """Return the handlers of our own loggers, each with its level and its filters."""
    return {
        (name, id(handler)): (handler, *_settings_of(handler))
        for name, logger in _OWN.items()
        for handler in logger.handlers
    }


def release_kept_locks() -> list[str]:
    """Release logging's locks that the calling thread has, and return whose they were.

    Everybody else who logs a line would wait for them for ever, or who asks for a logger; only the
    thread that has a lock can release it, and tell that it has it. One of a handler that is not
    there any more is released where that is put back.
    """
    kept = ["logging's own lock"] if _release(logging._lock) else []  # type: ignore[attr-defined]
    for name, logger in _OWN.items():
        for handler in logger.handlers:
            if _release(_lock_of(handler)):
                kept.append(f"the lock of a handler of the logger {name}")
    return list(dict.fromkeys(kept))


_RLOCK: Any = type(threading.RLock())


def _lock_of(handler: logging.Handler) -> Any:
    """Return a handler's lock, and run no code of a plugin's handler for it."""
    try:
        return object.__getattribute__(handler, "__dict__").get("lock")
    except AttributeError:
        return None


def _release(lock: Any) -> bool:
    """Release a lock as often as the calling thread has taken it; tell whether it had it."""
    if type(lock) is not _RLOCK or not lock._is_owned():
        return False
    while lock._is_owned():
        lock.release()
    return True


def _settings_of(handler: logging.Handler) -> tuple[Any, tuple[Any, ...]]:
    """Return a handler's level and filters, and run no code of a plugin's handler for it."""
    try:
        names = object.__getattribute__(handler, "__dict__")
    except AttributeError:
        return None, ()
    return names.get("level"), tuple(names.get("filters", ()))


def put_handler(key: tuple[str, int], value: Any) -> None:
    """Put a handler back, or remove it."""
    logger = _OWN[key[0]]
    if value is ABSENT:
        for handler in [item for item in logger.handlers if id(item) == key[1]]:
            logger.removeHandler(handler)
        return
    handler, level, filters = value
    _release(_lock_of(handler))  # who removed it may have kept that
    logger.addHandler(handler)  # which does nothing where it is there
    if level is not None:
        handler.setLevel(level)
        handler.filters[:] = filters


class _KnownLoggers:
    """The names of all loggers, by whose they are: a generation's, or no plugin's.

    Each plugin has loggers of its own, so all of them are too many to be looked at with each load
    and each generation that goes: only those are that came since the last time.
    """

    def __init__(self) -> None:
        self._others: dict[str, None] = {}
        """Those of libraries and of the server."""
        self._generations: dict[str, set[str]] = {}
        """Those that are named after modules of a generation, by its package's name."""
        self._newest = ""
        """What was the last one of all when it was looked for more."""

    def others(self) -> dict[str, Any]:
        """Return those that are not plugins' by name, with those that came since the last time."""
        with logging._lock:  # type: ignore[attr-defined]
            loggers = self._look()
            return {name: loggers[name] for name in self._others if name in loggers}

    def drop(self, generation: str) -> list[Any]:
        """Drop those that are named after a generation's modules, and return them."""
        with logging._lock:  # type: ignore[attr-defined]
            loggers = self._look()
            names = self._generations.pop(generation, ())
            gone = [loggers.pop(name) for name in names if name in loggers]
            self._newest = next(reversed(loggers), "")
            return gone

    def _look(self) -> dict[str, Any]:
        """Note those that came since the last time, and return all."""
        loggers: dict[str, Any] = logging.root.manager.loggerDict
        newest = next(reversed(loggers), "")
        for name in reversed(loggers):  # they stand in the order in which they came
            if name == self._newest:
                break
            if name.startswith(f"{PACKAGES}."):
                parts = name.split(".", 3)  # the package of all plugins, the plugin, the generation
                if len(parts) > 2:
                    generation = ".".join(parts[:3])
                    self._generations.setdefault(generation, set()).add(name)
            elif not _is_of_plugin(name):
                self._others[name] = None
        self._newest = newest
        return loggers


_known_loggers = _KnownLoggers()
_CANARY = logging.getLogger("_benana_canary")
"""A logger that nobody names: it is disabled only where all are, as by `dictConfig`."""


def _is_of_plugin(name: str) -> bool:
    return name.startswith((f"{PACKAGES}.", f"{PLUGIN_LOGGER}."))


def read_disabled() -> dict[Any, Any]:
    """Return of each logger whether it is disabled, by its name; None of what is no logger.

    Those of plugins are looked at only where all may have been disabled.
    """
    loggers: dict[str, Any] = logging.root.manager.loggerDict
    looked_at = loggers.copy() if _CANARY.disabled else _known_loggers.others()
    # A logger's class may be a plugin's: then its `__dict__`, to run none of its code.
    found: dict[Any, Any] = {
        name: item.disabled if type(item) is logging.Logger else vars(item).get("disabled")
        for name, item in looked_at.items()
    }
    found["root"] = logging.root.disabled
    return found


def put_disabled(name: str, value: Any) -> None:
    """Enable or disable a logger."""
    logging.getLogger(None if name == "root" else name).disabled = value is True


def silences(name: Any, before: Any, after: Any) -> bool:
    """Tell whether a logger was enabled, and is not any more; of a plugin's, it may have been."""
    return after is True and (before is False or (before is ABSENT and _is_of_plugin(name)))


def forget_loggers(generation: str) -> None:
    """Drop the loggers that are named after a generation's modules; it is gone.

    `logging` keeps each logger for ever, and so do the placeholders above it. Who still has one
    can go on using it.

    Args:
        generation: the name of its package.
    """
    with logging._lock:  # type: ignore[attr-defined]
        gone = {id(item): item for item in _known_loggers.drop(generation)}
        known = logging.root.manager.loggerDict
        while gone and generation:
            generation = generation.rpartition(".")[0]
            above = known.get(generation)
            if isinstance(above, logging.PlaceHolder):
                kept = above.loggerMap
                above.loggerMap = {item: None for item in kept if id(item) not in gone}
