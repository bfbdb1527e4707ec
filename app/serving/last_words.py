"""What a process writes down at its end, and whom that names.

Whoever reads it is another process: the master, or the next one. faulthandler writes where the
interpreter was when a fatal signal came. Where a plugin ends its process by a call (`os._exit`,
`os.kill` of itself), nobody else could write it, so these calls are replaced while a worker serves:
each notes first whose code calls it. What C code ends is seen by nobody.
"""

import faulthandler
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.loading.started_threads import started_threads
from app.package.archive import path_within
from app.package.frames import innermost_plugin_frame
from app.records import ServedRow

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)

_CALLER = re.compile(r"^Ended by _plugins\.(?P<plugin>\w+)\.g(?P<generation>\d+)", re.MULTILINE)

_TOLD = "Told to end\n"
"""What a process writes down that was told to end."""

_ANSWERS = ("/gunicorn/workers/gthread.py", "/app/isolation/answering.py")
"""Files that are on the stack of each thread that answers a request."""

_CUT_OFF = "  ..."
"""What faulthandler writes in the place of the outermost frames of a deep stack."""

CRASHES = frozenset(
    signal.Signals[name]
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")
    if name in signal.Signals.__members__
)
"""The signals by which a process ends that has ended itself."""

_DEADLY = CRASHES | {signal.SIGKILL}

_VERSION = re.compile(r"/(?P<plugin>[a-z][a-z0-9_]*)/[0-9a-f]{32}/")
_IN_MEMORY = re.compile(r"(?P<plugin>[a-z][a-z0-9_]*)-[0-9a-f]{12}\.pyz/")


@dataclass(frozen=True, slots=True)
class Place:
    """A file within a plugin's folder, and a line; empty where nobody can tell."""

    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f" at {self.file}:{self.line}" if self.file else ""


def place_in(words: str, row: ServedRow) -> Place:
    """Return the innermost place of a row's version in the last words of a process."""
    if row.digest is not None:
        for match in _FRAME.finditer(words):
            path = path_within(row.name, row.digest, match["file"])
            if path is not None:
                return Place(path, int(match["line"]))
    return Place()


def named_in(words: str, rows: Iterable[ServedRow]) -> ServedRow | None:
    """Return which of some rows' generations has ended a process, by its last words.

    None where they name none: also where its code called another version's, which did it.
    """
    caller = _CALLER.search(words)
    if caller is not None:
        name, generation = caller["plugin"], int(caller["generation"])
        return next((r for r in rows if (r.name, r.generation) == (name, generation)), None)
    known = list(rows)
    for match in _FRAME.finditer(words):
        for row in known:
            if row.digest is not None and path_within(row.name, row.digest, match["file"]):
                return row
        if _plugin_of(match["file"]):
            return None
    return None


def plugins_in(words: str) -> list[str]:
    """Return the plugins that the last words of a process may name."""
    caller = _CALLER.search(words)
    if caller is not None:
        return [caller["plugin"]]
    found = [_plugin_of(match["file"]) for match in _FRAME.finditer(words)]
    return list(dict.fromkeys(filter(None, found)))


def _plugin_of(file: str) -> str:
    """Return whose version a file belongs to, empty where it is no plugin's."""
    match = _VERSION.search(file) or _IN_MEMORY.match(file)
    return "" if match is None else match["plugin"]


def ends_told(words: str) -> bool:
    """Tell whether a process was told to end, and had no other cause afterwards that it knew."""
    return words.endswith(_TOLD)


def is_of_request(words: str, *, busy: bool) -> bool:
    """Tell whether a process came to its end in a request.

    Args:
        words: its last words.
        busy: whether it answered one; if so, a stack that is cut off may have been that.
    """
    return any(file in words for file in _ANSWERS) or (busy and _CUT_OFF in words)


def may_be_load(words: str, row: ServedRow) -> bool:
    """Tell whether what seems to be of a request may be a row's load, whose stack is cut off."""
    answers = any(file in words for file in _ANSWERS)
    return not answers and place_in(words, row).file is not None


class LastWords:
    """Has this process note who ends it, from `watch` to `unwatch`."""

    def __init__(self) -> None:
        self._file = -1
        self._pid = 0
        self._told = False
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def watch(self, file: int) -> None:
        """Write last words to a file from now on.

        Args:
            file: its descriptor.
        """
        self.unwatch()
        self._file, self._pid = file, os.getpid()
        if self._told:
            self.note_told()
        self.record_faults()
        self._replace(os, "_exit", lambda *_: True)
        self._replace(os, "kill", self._ends_by_kill)
        self._replace(os, "killpg", self._ends_by_killpg)
        self._replace(signal, "raise_signal", lambda number: number in _DEADLY)
        self._replace(signal, "pthread_kill", lambda _thread, number: number in _DEADLY)

    def record_faults(self) -> None:
        """Have the interpreter write where it was when it crashed, whatever others have set."""
        if self._file >= 0 and os.getpid() == self._pid:
            faulthandler.enable(self._file, all_threads=False)
            faulthandler.cancel_dump_traceback_later()  # which may end the process

    def note_told(self) -> None:
        """Note that this process was told to end: who waits in vain for that kills it.

        For the handler of a signal: it takes no lock, and may be called before `watch`.
        """
        self._told = True
        if self._file >= 0 and os.getpid() == self._pid:
            with suppress(OSError):
                os.write(self._file, _TOLD.encode())

    def unwatch(self) -> None:
        """Note nothing any more."""
        self._file = -1
        for module, name, ours, original in self._replaced:
            if getattr(module, name) is ours:
                setattr(module, name, original)
        self._replaced.clear()

    def _replace(self, module: Any, name: str, ends: Callable[..., bool]) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                if self._file >= 0 and os.getpid() == self._pid and ends(*args, **kwargs):
                    self._note()
            except (OSError, TypeError, ValueError):
                pass  # the arguments are for the call itself to refuse
            return original(*args, **kwargs)

        call.__module__ = module.__name__  # where pickle finds it
        setattr(module, name, call)
        self._replaced.append((module, name, call, original))

    def _note(self) -> None:
        frame = innermost_plugin_frame(sys._getframe(2))
        thread = started_threads.generation_of(threading.current_thread())
        generation = frame.generation if frame is not None else thread
        if generation:
            os.write(self._file, f"Ended by {generation}\n".encode())
            faulthandler.dump_traceback(self._file, all_threads=False)

    def _ends_by_kill(self, pid: int, number: int) -> bool:
        return pid in {self._pid, 0, -1, -os.getpgrp()} and number in _DEADLY

    def _ends_by_killpg(self, group: int, number: int) -> bool:
        return group in {0, os.getpgrp()} and number in _DEADLY


last_words = LastWords()
"""One for the process, because what it replaces is one."""
