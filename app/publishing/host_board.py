"""The file in which the process that watches says how it goes, and its host's others read it.

One process writes, and never makes the file anew: what has its place on a disk can be written over
when that is full. The header is written last and makes the body count.
"""

import logging
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps, loads

from app.conditions import Condition
from app.files import make_private, open_regular
from app.health import ADOPTED

log = logging.getLogger(__name__)

# Were it a pipe, to open it for writing would wait for a reader without end.
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_CONDITIONS = 500
_ROOM_BYTES = 16_384
"""Written once, so that there is room for what comes."""

_HEADER = "{pid:010d} {beat:020d} {length:010d} {checksum:010d}\n"
_HEADER_BYTES = len(_HEADER.format(pid=0, beat=0, length=0, checksum=0))


@dataclass(frozen=True, slots=True)
class Word:
    """What was read: by whom it is, when it was written, and what it says.

    `beat` is in monotonic nanoseconds of the machine; `body` tells whether two say the same.
    """

    pid: int
    beat: int
    body: tuple[int, int]
    conditions: tuple[Condition, ...]


class Board:
    """The file, written by one process of a host and read by the others."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._written: tuple[int, int] | None = None
        """The length and the checksum of the body that was written last."""

    def write(self, conditions: Sequence[Condition]) -> None:
        """Say that this process lives, and what is not as it should be.

        Raises:
            OSError: the file cannot be written to.
        """
        told = [
            {"key": c.key, "what": c.what, "plugin": c.plugin, "since": c.since.isoformat()}
            for c in conditions[:_MAX_CONDITIONS]
        ]
        body = dumps(told).encode()
        length, checksum = len(body), zlib.crc32(body)
        header = _HEADER.format(
            pid=os.getpid(), beat=time.monotonic_ns(), length=length, checksum=checksum
        )
        file = os.open(self.path, _OPEN_FLAGS, 0o600)
        try:
            status = os.fstat(file)
            if status.st_mode & 0o077:
                make_private(file)
            if status.st_size < _ROOM_BYTES:
                os.pwrite(file, bytes(_ROOM_BYTES), 0)
                self._written = None
            if self._written != (length, checksum):
                os.pwrite(file, body, _HEADER_BYTES)
            os.pwrite(file, header.encode(), 0)  # last: it makes the body count
        except OSError:
            self._written = None
            raise
        finally:
            os.close(file)
        self._written = length, checksum

    def read(self, last: Word | None) -> Word | None:
        """Return what is said now, None if it is what was read last, or no word at all."""
        try:
            file, _ = open_regular(self.path)
            try:
                pid, beat, *body = map(int, os.pread(file, _HEADER_BYTES, 0).split())
                length, checksum = body
                if last is not None and (pid, beat) == (last.pid, last.beat):
                    return None
                if last is not None and last.body == (length, checksum):
                    return Word(pid, beat, last.body, last.conditions)
                raw = os.pread(file, length, _HEADER_BYTES)
                if zlib.crc32(raw) != checksum:
                    return None  # it is just being written
                conditions = tuple(map(_condition, loads(raw)))
                return Word(pid, beat, (length, checksum), conditions)
            finally:
                os.close(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("nothing is said in %s: %s", self.path, error)
            return None


def _condition(told: dict[str, str]) -> Condition:
    since = datetime.fromisoformat(told["since"]).astimezone(UTC)
    return Condition(ADOPTED + told["key"], told["what"], told["plugin"], since)
