"""What the embedded PostgreSQL's supervisor tells its server, through the pipe between them."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

from app.logs import DATE_FORMAT, FORMAT, LineFormatter, one_line

MAX_LINE = 1000  # characters: of four bytes each they still go through a pipe in one piece


def report(text: str) -> bool:
    """Tell the server; return whether it was told: it may have gone, or may not read any more."""
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())
        return True
    return False


class ServerLog(logging.StreamHandler[TextIO]):
    """Has events written to the server's log; to standard error, once there is no server."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter(FORMAT, DATE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())[:MAX_LINE]
        if not report(f"log {record.levelname} {text}"):
            super().emit(record)
