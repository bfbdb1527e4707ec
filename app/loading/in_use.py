"""What only one can hold, and somebody holds: whether an error says so, and who it is.

A port, a lock file or a device. The error of the system names neither the thing nor its holder
(`[Errno 98] Address already in use`), so both are looked up: which numbers in the plugin's code are
ports that somebody listens on, which of its files somebody has locked (proc_pid_net(5),
proc_locks(5)). Where the system does not tell (macOS, another user's process), nothing is said.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from app.errors import PluginError
from app.plugin import PluginContext

_IN_USE = frozenset((errno.EADDRINUSE, errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY))
_SQLITE_IN_USE = frozenset((5, 6))
"""SQLITE_BUSY and SQLITE_LOCKED, in the low byte of a result code (sqlite.org/rescode.html)."""

_LISTENING = b"0A"
_NUMBER = re.compile(r"[0-9]{1,5}")
_LOCK = re.compile(r"^\d+: \w+ +\w+ +\w+ +(?P<pid>\d+) [0-9a-f]+:[0-9a-f]+:(?P<inode>\d+) ", re.M)

_NAMED_PORT = re.compile(r"(?<![\d.])\d{1,5}(?!\d|\.\d)")
_NAMED_PATH = re.compile(r"'([^']+)'|\"([^\"]+)\"|(/[^\s'\"]*[^\s'\",;:.)])")
_MAX_TEXT = 4096

_ADVICE = (
    "; if one process alone can hold it, write `exclusive: host` into plugin.yaml: one process of "
    "each host runs the plugin then (`exclusive: cluster`: one of all hosts)"
)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds something: `what`, in the process `pid`, whose program is `program`."""

    what: str
    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.what} is held by pid {self.pid} ({self.program})"


def is_in_use(error: BaseException) -> bool:
    """Tell whether an error, or what it was raised from, says that something is in use.

    Libraries that do not raise OSError for it have its number all the same (`zmq.ZMQError.errno`).
    """
    for cause in _chain(error):
        number = getattr(cause, "errno", None)
        if type(number) is int and number in _IN_USE:
            return True
        code = getattr(cause, "sqlite_errorcode", None)
        if type(code) is int and code & 0xFF in _SQLITE_IN_USE:
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def advise(error: PluginError) -> None:
    """Have an error of a plugin that every process runs say how one alone runs it."""
    if error.in_use and not error.message.endswith(_ADVICE):
        error.message += _ADVICE


def find_holder(error: BaseException, is_own: Callable[[FrameType], bool]) -> Holder | None:
    """Return who holds what a plugin wanted, None where that cannot be told.

    Args:
        error: what the plugin raised.
        is_own: tells whether a frame runs the plugin's code.
    """
    frames = [frame for frame in _frames(error.__traceback__) if is_own(frame)]
    ports: set[int] = set()
    inodes: set[int] = set()
    for frame in frames:
        for value in _values(frame):
            ports.update(_ports(value))
            inodes.update(_inodes(value))
    with suppress(OSError, ValueError):
        return _listener(ports) or _locker(inodes)
    return None


def find_named_holder(error: BaseException) -> Holder | None:
    """Return who holds a port or a file that an error names, None if nobody does.

    Many libraries say "in use" in words of their own. That proves nothing: somebody listens on the
    port of each server that cannot be reached. It does where it is the plugin's served version who
    holds what is named, which the caller finds out.
    """
    for cause in _chain(error):
        try:
            said = str(cause)[:_MAX_TEXT]
        except BaseException:  # noqa: BLE001, S112 - that text is a plugin's own code
            continue
        ports = {int(number) for number in _NAMED_PORT.findall(said)}
        paths = {"".join(groups) for groups in _NAMED_PATH.findall(said)}
        with suppress(OSError, ValueError):
            found = (ports and _listener(ports)) or _locker(set(_inodes_of(paths)))
            if found:
                return found
            if isinstance(cause, FileExistsError):
                return _file_holder(paths)
    return None


def _inodes_of(paths: set[str]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError, ValueError):
            yield os.stat(path).st_ino  # noqa: PTH116 - of text alone


def _file_holder(paths: set[str]) -> Holder | None:
    """Return who has a file open, or has written its number into it, as into a PID file."""
    for path in paths:
        if Path(path).is_file():
            with open(path, "rb") as file:  # noqa: PTH123 - some bytes of it
                said = file.read(32).strip()
            pid = int(said) if said.isdigit() else _owner_of(os.path.realpath(path))
            if pid is not None:
                return Holder(path, pid, _program(pid))
    return None


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _values(frame: FrameType) -> Iterator[Any]:
    """Give what a frame's code may have meant: its constants, its variables, its module's."""
    yield from _constants(frame.f_code)
    for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
        yield value
        if type(value) is dict:
            yield from list(value.values())
        elif issubclass(type(value), PluginContext):
            yield from value.config.values()


def _constants(code: CodeType) -> Iterator[Any]:
    for value in code.co_consts:
        if type(value) is tuple:
            yield from value
        elif not isinstance(value, CodeType):
            yield value
            if type(value) is str and value in os.environ:
                yield os.environ[value]


def _ports(value: Any) -> Iterator[int]:
    if type(value) is str and _NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is int and 0 < value < 65536:
        yield value
    elif type(value) is tuple:
        yield from (part for part in value if type(part) is int and 0 < part < 65536)


def _inodes(value: Any) -> Iterator[int]:
    """Give the inode of an open file; `type` and not `isinstance`, which may ask the object."""
    if type(value).__module__ in {"_io", "io"} and hasattr(type(value), "fileno"):
        with suppress(OSError, ValueError):
            yield os.fstat(value.fileno()).st_ino
    elif type(value) is int and 2 < value < 65536:  # perhaps a descriptor
        with suppress(OSError):
            yield os.fstat(value).st_ino
    elif type(value) is str and value.startswith("/") and len(value) < 4096 and "\0" not in value:
        with suppress(OSError):
            yield Path(value).stat().st_ino


def _listener(ports: set[int]) -> Holder | None:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_bytes().splitlines()[1:]:
            fields = row.split()
            port = int(fields[1].rpartition(b":")[2], 16)
            if fields[3] == _LISTENING and port in ports:
                pid = _owner_of(f"socket:[{int(fields[9])}]")
                if pid is not None:
                    return Holder(f"port {port}", pid, _program(pid))
    return None


def _locker(inodes: set[int]) -> Holder | None:
    if not inodes:
        return None
    for match in _LOCK.finditer(Path("/proc/locks").read_text()):
        if int(match["inode"]) in inodes:
            pid = int(match["pid"])
            return Holder("its lock file", pid, _program(pid))
    return None


def _owner_of(wanted: str) -> int | None:
    """Return who has open what the system calls so: `socket:[1234]`, or a file's path."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        if os.readlink(descriptor) == wanted:  # noqa: PTH115 - of text alone
                            return int(process.name)
    return None


def _program(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        said = b" ".join(words[:3]).decode(errors="replace").strip()
        if said:
            return said[:100]
    return "its name is not known"
