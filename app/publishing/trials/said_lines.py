"""What libraries say while a plugin is loaded: their warnings, and their log's from WARNING on."""

import logging
import re
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any

from app.libraries import PACKAGES

MAX_LENGTH = 200

_OWN_LOGGERS = ("app.", "benana.", f"{PACKAGES}.")
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


class SaidLines:
    """Collects lines for the length of a `with` block, as they are before numbers go into them.

    What a plugin says itself, and what is said of garbage, is no sign of anything.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __enter__(self) -> "SaidLines":
        """Listen."""
        self._factory = logging.getLogRecordFactory()
        self._show = warnings.showwarning
        logging.setLogRecordFactory(self._make_record)
        warnings.showwarning = self._show_warning
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Listen no more."""
        logging.setLogRecordFactory(self._factory)
        warnings.showwarning = self._show

    def take(self) -> dict[str, str]:
        """Return what was said since the last time, by what is the same of it each time."""
        lines, self._lines = self._lines, []
        return {_NUMBERS.sub("0", line): line for line in lines}

    def _make_record(self, name: str, level: int, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._factory(name, level, *args, **kwargs)
        if level >= logging.WARNING and not f"{name}.".startswith(_OWN_LOGGERS):
            self._note(f"{name}: {record.msg}" if type(record.msg) is str else name)
        return record

    def _show_warning(
        self, message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any
    ) -> None:
        if not issubclass(category, (ResourceWarning, DeprecationWarning)):
            with suppress(Exception):  # a warning's text is its own code
                self._note(f"{category.__name__}: {message}")
        self._show(message, category, *args, **kwargs)

    def _note(self, line: str) -> None:
        self._lines.append(" ".join(line.split())[:MAX_LENGTH])
