"""One watchdog observer of the plugins' root, and whether it still sees."""

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from watchdog.observers.api import BaseObserver

from app.publishing.ignore import is_part

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

_SWAPS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileMovedEvent, FileDeletedEvent]
"""How a link is put into the place of another one."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What a folder that went away meanwhile ends in."""

Notice = Callable[[str, str, str], None]
"""Takes a folder of the root, the file's path and the type of the event."""

Tell = Callable[[str], None]
"""Takes why events are missing; empty if some were lost, and there are events again."""

Stir = Callable[[bool], None]
"""Takes whether what is called after an event is urgent."""


if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

    # watchdog's word, an error, for an observer that is being closed while an event comes.
    logging.getLogger("watchdog.observers.inotify").addFilter(
        lambda record: "when the thread is inactive" not in str(record.msg)
    )

    class _Inotify(InotifyFD):
        """Tells of what watchdog keeps to itself: folders without a watch, and lost events."""

        def __init__(self, tell: Tell) -> None:
            self._tell = tell
            try:
                super().__init__()
            except OSError:
                with suppress(AttributeError):
                    os.close(self._inotify_fd)  # of no use without the pipe that could not be made
                raise

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            # watchdog's own, without its warning where a folder is watched twice, as where one is
            # made with one in it: this thread would end where a plugin makes warnings errors.
            try:
                with self._lock:
                    watch = self._get_or_create_watch(path, mask)
                    watch.callbacks[id_] = callback
                    return watch.wd
            except OSError as error:
                if error.errno not in _GONE:
                    self._tell(_reason(error))
                raise

        def handle_event(self, event: InotifyEvent) -> None:
            super().handle_event(event)
            if event.is_queue_overflow:
                self._tell("")

    class Observer(InotifyObserver):
        """watchdog's own, with an `_Inotify`."""

        def __init__(self, tell: Tell) -> None:
            self._inotify_fd = _Inotify(tell)
            self._inotify_fd.start()
            BaseObserver.__init__(self, InotifyEmitter, inotify_fd=self._inotify_fd)

        def sees(self) -> bool:
            """Tell whether all of its threads are alive."""
            return _is_whole(self) and self._inotify_fd.is_alive()

else:
    from watchdog.observers import Observer as SystemObserver

    class Observer(SystemObserver):  # type: ignore[misc,valid-type,no-redef]
        """watchdog's own for this system."""

        def __init__(self, _tell: Tell) -> None:
            super().__init__()

        def sees(self) -> bool:
            """Tell whether all of its threads are alive."""
            return _is_whole(self)


def _is_whole(observer: BaseObserver) -> bool:
    emitters = observer.emitters
    return observer.is_alive() and bool(emitters) and all(e.is_alive() for e in emitters)


def _reason(error: Exception) -> str:
    """Return why there are no events, with what is to be done."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{text}; raise fs.inotify.max_user_watches"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        setting = (
            "fs.inotify.max_user_instances" if "inotify" in text else "the limit of open files"
        )
        return f"{text}; raise {setting}"
    return text


class FolderObserver(FileSystemEventHandler):
    """Tells of every file event below the root, by folder."""

    def __init__(self, root: Path, notice: Notice, stir: Stir) -> None:
        """Make it.

        Args:
            root: the plugins' root.
            notice: is told of events in the parts of a plugin.
            stir: is called after each event, those of hidden names included; with true if the
                observer itself has to be looked at.
        """
        self._root = root
        self._real_root = ""
        self._notice = notice
        self._stir = stir
        self._observer: Observer | None = None
        self._inode = (0, 0)
        self.trouble = ""
        """Why the system gives no events, or not of all folders; empty if it does."""
        self.lost = False
        """Whether events were lost since; there are events again."""

    def open(self) -> None:
        """Start to observe, as far as there are events; OSError if the root is gone."""
        status = self._root.stat()
        self._inode = status.st_dev, status.st_ino
        self._real_root = os.path.realpath(self._root)
        try:
            self._observer = self._start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            self.trouble = _reason(error)

    def _start(self) -> Observer:
        observer = Observer(self._tell)
        observer.name = "benana-observer"
        try:
            observer.schedule(self, self._real_root, recursive=True, event_filter=_CHANGES)
            links = frozenset(_links_to(self._root))
            for folder in {os.path.dirname(link) for link in links}:  # noqa: PTH120
                observer.schedule(_Links(links, self._stir), folder, event_filter=_SWAPS)
            observer.start()
        except (OSError, RuntimeError):
            observer.stop()  # it gives its inotify instance back
            raise
        return observer

    def close(self) -> None:
        """Stop to observe."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(1.0)
            self._observer = None

    def is_at_root(self) -> bool:
        """Tell whether the root is still the folder that is observed; OSError if it is gone."""
        status = self._root.stat()
        return (status.st_dev, status.st_ino) == self._inode and (
            os.path.realpath(self._root) == self._real_root
        )

    def alive(self) -> bool:
        """Tell whether the observer and its emitters work, if there are any."""
        return self._observer is None or self._observer.sees()

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
        self._stir(False)

    def _tell(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble
        self.lost = True
        self._stir(True)


class _Links(FileSystemEventHandler):
    """Calls back when one of the links that lead to the root is put into another's place."""

    def __init__(self, links: frozenset[str], stir: Stir) -> None:
        self._links = links
        self._stir = stir

    def on_any_event(self, event: FileSystemEvent) -> None:
        if {os.fsdecode(path) for path in (event.src_path, event.dest_path)} & self._links:
            self._stir(True)


def _links_to(path: Path) -> Iterator[str]:
    """Return the links that a path leads over, each by a path without links but its last part."""
    left, current = list(path.parts[::-1]), ""
    for _ in range(100):  # more than the kernel follows
        if not left:
            return
        part = left.pop()
        if part == "..":
            current = os.path.dirname(current)  # noqa: PTH120
            continue
        step = os.path.join(current, part)  # noqa: PTH118
        if os.path.islink(step):  # noqa: PTH114
            yield step
            target = os.readlink(step)  # noqa: PTH115
            left += Path(target).parts[::-1]
            current = "/" if target.startswith("/") else current
        else:
            current = step
