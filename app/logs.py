"""Log lines that nobody can forge: one event is one line, whoever's text is in it."""

import json
import logging
import re
import threading
import traceback
from pathlib import Path
from typing import Any

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"

ERROR_LOG = "gunicorn.error"
GUNICORN_LOGGERS = (ERROR_LOG, "gunicorn.access")

INDENT = "    "

# What ends a line, steers a terminal, turns the order of what is shown, or is no character: C0 and
# C1 with DEL, the line and paragraph separators, marks of direction, halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""Return a text with all that could make more than a line of it escaped, as in `\n`."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class LineFormatter(logging.Formatter):
    """Writes an event as one line; below it, indented, its traceback.

    The traceback keeps its lines for who reads it. They cannot be taken for events: those begin
    at the margin.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of an event."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        parts = [one_line(self.formatMessage(record))]
        # `exc_text` is what another handler made of it, and all there is where it was sent on.
        if record.exc_info:
            parts.append(_indented(self.formatException(record.exc_info)))
        elif record.exc_text:
            parts.append(_indented(record.exc_text))
        if record.stack_info:
            parts.append(_indented(self.formatStack(record.stack_info)))
        return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(INDENT + one_line(line) for line in text.rstrip("\n").split("\n"))


class _ToGunicorn(logging.Handler):
    """Hands an event on to gunicorn's error log, wherever that goes now.

    To the logger and not to its handlers: those are others after HUP, and an operator's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log = logging.getLogger(ERROR_LOG)

    def emit(self, record: logging.LogRecord) -> None:
        if self._log.isEnabledFor(record.levelno):
            self._log.handle(record)


def follow_gunicorn(configuration: Any) -> None:
    """Write what the server and its plugins log to gunicorn's error log, at its level.

    To be called once gunicorn has set its own log up: at the start, and again at HUP. Where the
    operator's `logconfig` says where the root logger's lines go, they go there.

    Args:
        configuration: gunicorn's settings.
    """
    threading.excepthook = _log_thread_error
    guard_log()
    protect_gunicorn()
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, _ToGunicorn)]
    if _configures_root(configuration):
        for handler in ours:
            root.removeHandler(handler)
        return
    root.setLevel(logging.getLogger(ERROR_LOG).getEffectiveLevel())
    if configuration.logconfig_dict or configuration.logconfig_json:
        root.handlers.clear()  # the console that gunicorn adds where root is not spoken of
    if not any(isinstance(handler, _ToGunicorn) for handler in root.handlers):
        root.addHandler(_ToGunicorn())


def guard_log() -> None:
    """Let who logs a line go on, whatever a handler or a record factory of a plugin raises."""
    logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign, assignment]
    logging.Logger.makeRecord = _make_record  # type: ignore[method-assign, assignment]


_plain_call_handlers, _plain_make_record = logging.Logger.callHandlers, logging.Logger.makeRecord
_told_of: set[str] = set()


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Pass a record to all handlers as logging does, past those that raise."""
    holder: logging.Logger | None = logger
    found = 0
    while holder is not None:
        found += len(holder.handlers)
        for handler in holder.handlers:
            try:
                if record.levelno >= handler.level:
                    handler.handle(record)
            except Exception as error:  # noqa: BLE001 - it is not who has logged the line that failed
                _tell_of("a handler", type(handler), error)
        holder = holder.parent if holder.propagate else None
    if not found:
        _plain_call_handlers(logger, record)  # which has a last resort


def _make_record(
    logger: logging.Logger,
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    arguments: Any,
    exc_info: Any,
    function: str | None = None,
    extra: Any = None,
    stack: str | None = None,
) -> logging.LogRecord:
    """Make a record as logging does; a plain one where a factory fails that is not its own."""
    plain = (name, level, path, line, message, arguments, exc_info, function)
    try:
        return _plain_make_record(logger, *plain, extra, stack)
    except Exception as error:
        factory = logging.getLogRecordFactory()
        record = logging.LogRecord(*plain, stack)
        taken = {"message", "asctime", *record.__dict__}
        if factory is logging.LogRecord or not taken.isdisjoint(extra or ()):
            raise  # it is who logs that is told
        record.__dict__.update(extra or {})
        _tell_of("the record factory", factory, error)
        return record


def _tell_of(what: str, culprit: Any, error: Exception) -> None:
    """Say once what raises while lines are logged."""
    named = f"{culprit.__module__}.{culprit.__qualname__}"
    if named not in _told_of:
        _told_of.add(named)
        logging.getLogger("benana").error(
            "%s of the log, %s, raises %s; what is logged goes on without it",
            what,
            named,
            traceback.format_exception_only(error)[-1].strip(),
        )


def _configures_root(configuration: Any) -> bool:
    """Tell whether the operator's own logging configuration is one of the root logger, too."""
    given: Any = configuration.logconfig_dict
    if not given and configuration.logconfig_json:
        try:
            given = json.loads(Path(configuration.logconfig_json).read_bytes())
        except (OSError, ValueError):  # gunicorn goes on without it
            return False
    return "root" in given if given else bool(configuration.logconfig)  # that file has to


def _log_thread_error(error: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, a plugin's own too, as the one event that it is."""
    if error.exc_type is SystemExit:
        return  # how a thread may end, as Python has it
    logging.getLogger("benana").error(
        "the thread %s ended with an error",
        error.thread.name if error.thread is not None else "of no name",
        exc_info=(error.exc_type, error.exc_value or error.exc_type(), error.exc_traceback),
    )


def protect_gunicorn() -> None:
    """Let gunicorn write its own log, and the access log if there is one, in such lines.

    Its settings choose where it is written to and how a line looks; a handler that they do not
    make (`logconfig`) stays as it is.
    """
    for name in GUNICORN_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            formatter = handler.formatter
            if getattr(handler, "_gunicorn", False) and formatter is not None:
                handler.setFormatter(LineFormatter(formatter._fmt, formatter.datefmt))
