"""Log lines that nobody can forge: one event is one line, whoever's text is in it."""

import logging
import re
import threading

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"

GUNICORN_LOGGERS = ("gunicorn.error", "gunicorn.access")

INDENT = "    "

# What ends a line, steers a terminal, turns the order of what is shown, or is no character: C0 and
# C1 with DEL, the line and paragraph separators, marks of direction, halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""Return a text with all that could make more than a line of it escaped, as in `\n`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def configure() -> None:
    """Write what the server and its plugins log to standard error, once for a process."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(FORMAT, DATE_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    threading.excepthook = _log_thread_error


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
