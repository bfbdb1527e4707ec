"""One watchdog observer of the plugins' root, and whether it still sees."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    EVENT_TYPE_MODIFIED,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from app.publishing.discovery import is_part

log = logging.getLogger(__name__)

BLIND_SCAN_SECONDS = 1.0
"""How often folders are compared where no events can be had."""

_CHANGES: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
"""Not the opening and closing of a file that is only read: each publish and each scan reads."""

Notice = Callable[[str, str, str], None]
"""Takes a folder of the root, the file's path and the type of the event."""


class FolderObserver(FileSystemEventHandler):
    """Tells of every file event below the root, by folder."""

    def __init__(self, root: Path, notice: Notice) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._notice = notice
        self._observer: BaseObserver | None = None
        self._inode = 0
        self.blind = False
        """Whether the system gives no events: all that is left is to compare."""

    def open(self) -> None:
        """Start to observe; OSError if the root is gone."""
        self._inode = self._root.stat().st_ino
        observer = Observer()
        observer.name = "benana-observer"
        observer.schedule(self, self._real_root, recursive=True, event_filter=_CHANGES)
        try:
            observer.start()
        except OSError as error:
            # Out of inotify watches or instances: fs.inotify.max_user_watches.
            self.blind = True
            log.warning(
                "%s: no file events (%s); comparing the folders every %.0f s instead",
                self._root,
                error.strerror,
                BLIND_SCAN_SECONDS,
            )
        else:
            self._observer = observer

    def close(self) -> None:
        """Stop to observe."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(1.0)

    def alive(self) -> bool:
        """Tell whether the observer, its emitter and its root are all still there.

        Raises:
            OSError: the root is gone.
        """
        if self._root.stat().st_ino != self._inode:
            return False
        if self._observer is None:
            return True
        emitters = self._observer.emitters
        return self._observer.is_alive() and bool(emitters) and all(e.is_alive() for e in emitters)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Tell of the folders that an event touches."""
        kind = event.event_type
        if kind == EVENT_TYPE_MODIFIED and (event.is_directory or sys.platform != "linux"):
            kind = ""  # no event of its closing will follow
        for path in (event.src_path, event.dest_path):
            relative = os.path.relpath(os.fsdecode(path), self._real_root) if path else "."
            parts = Path(relative).parts or (".",)
            # Not the root itself, nothing outside, and no part that tools leave behind.
            if parts[0] != ".." and all(is_part(part) for part in parts):
                self._notice(parts[0], relative, kind)
