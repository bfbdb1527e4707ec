"""What plugins share of Python's logging: how it is, and how it is put back."""

import logging
from typing import Any

from app.loading.aspect import ABSENT
from app.logs import GUNICORN_LOGGERS

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
    logger.addHandler(handler)  # which does nothing where it is there
    if level is not None:
        handler.setLevel(level)
        handler.filters[:] = filters


def read_disabled() -> dict[Any, Any]:
    """Return of each logger whether it is disabled, by its name; None of what is no logger."""
    # A logger's class may be a plugin's: then its `__dict__`, to run none of its code.
    found = {
        name: item.disabled if type(item) is logging.Logger else vars(item).get("disabled")
        for name, item in logging.root.manager.loggerDict.copy().items()
    }
    found["root"] = logging.root.disabled
    return found


def put_disabled(name: str, value: Any) -> None:
    """Enable or disable a logger."""
    logging.getLogger(None if name == "root" else name).disabled = bool(value)


def silences(_key: Any, before: Any, after: Any) -> bool:
    """Tell whether a logger was enabled, and is not any more."""
    return before is False and after is True


def forget_loggers(generation: str) -> None:
    """Drop the loggers that are named after a generation's modules; it is gone.

    `logging` keeps each logger for ever, and so do the placeholders above it. Who still has one
    can go on using it.

    Args:
        generation: the name of its package.
    """
    known, inside = logging.root.manager.loggerDict, f"{generation}."
    with logging._lock:  # type: ignore[attr-defined]
        names = [name for name in known if name == generation or name.startswith(inside)]
        gone = {id(item): item for item in map(known.pop, names)}
        while gone and generation:
            generation = generation.rpartition(".")[0]
            above = known.get(generation)
            if isinstance(above, logging.PlaceHolder):
                kept = above.loggerMap
                above.loggerMap = {item: None for item in kept if id(item) not in gone}
