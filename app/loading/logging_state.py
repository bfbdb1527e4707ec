"""What plugins share of Python's logging: how it is, and how it is put back."""

import logging
from operator import itemgetter
from typing import Any

from app.loading.aspect import ABSENT
from app.logs import GUNICORN_LOGGERS

_OWN = {
    "root": logging.root,
    **{name: logging.getLogger(name) for name in (*GUNICORN_LOGGERS, "benana", "app")},
}
"""The loggers that the server's own lines pass."""

_DISABLED = itemgetter("disabled")


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


class DisabledLoggers:
    """Which loggers are disabled; there are hundreds, and mostly nothing has changed."""

    def __init__(self) -> None:
        self._count = -1
        self._names: list[str] = []
        self._dicts: list[dict[str, Any]] = []
        self._values: list[bool] = []
        self._found: dict[Any, Any] = {}

    def read(self) -> dict[Any, Any]:
        """Return of each logger whether it is disabled, by its name."""
        loggers = logging.root.manager.loggerDict
        if len(loggers) != self._count:
            # Their `__dict__`: a logger's class may be a plugin's. A placeholder has no such entry.
            items = [("root", logging.root), *loggers.copy().items()]
            known = {name: vars(item) for name, item in items if "disabled" in vars(item)}
            self._count, self._names, self._dicts = len(items) - 1, [*known], [*known.values()]
            self._values = []
        values = list(map(_DISABLED, self._dicts))
        if values != self._values:
            self._values, self._found = values, dict(zip(self._names, values, strict=True))
        return self._found


def put_disabled(name: str, value: Any) -> None:
    """Enable or disable a logger."""
    logging.getLogger(None if name == "root" else name).disabled = bool(value)


def silences(_key: Any, before: Any, after: Any) -> bool:
    """Tell whether a logger was enabled, and is not any more."""
    return before is False and after is True
