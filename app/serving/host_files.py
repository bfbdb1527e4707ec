"""What a host goes without where its own files, beside the archives, cannot be written."""

import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)

ARCHIVES = "archives stay in memory, and come from the database again after a start"
LAST_KNOWN_GOOD = "after a start without the database, older versions would be served"
FOLDERS = "plugins run from memory, and find no files beside their code"
MARKERS = "a plugin that ends its worker while it is loaded will be loaded again"

WITHOUT = (
    "archives come from the database into memory, plugins find no files beside their code (by "
    "__file__, in templates/) and start no processes that import them, compiled modules are not "
    "found, nothing is served after a start without the database, and a plugin that ends its "
    "worker while it is loaded is loaded again"
)


class HostFiles:
    """Says once what cannot be written and what follows, for all who write files of a host's own.

    Where a host publishes nothing, a read-only disk is no fault: `say_what_is_gone_without` tells
    of it for the whole server; where it publishes, the election looks whether it can write, and
    holds that. Safe to use from several threads.
    """

    def __init__(self, folder: Path, *, needed: bool = True) -> None:
        """Make it.

        Args:
            folder: the folder of the archives.
            needed: whether this host publishes, and so has to write.
        """
        self._folder = folder
        self._expected = not needed and is_read_only(folder)
        self._lock = threading.Lock()
        self._lacking: set[str] = set()
        """What is gone without."""

    def say_what_is_gone_without(self, data_dir: Path) -> None:
        """Say once, in the process that starts the others, what a read-only disk costs."""
        if not self._expected:
            return
        data = ""
        if is_read_only(data_dir):
            data = f"; {data_dir} is so, too: a plugin that asks for its data folder gets an error"
        log.info("%s is on a read-only file system: %s%s", self._folder, WITHOUT, data)

    def lacks(self, what: str, error: OSError) -> None:
        """Note that something could not be written, and what is gone without."""
        with self._lock:
            if self._expected or what in self._lacking:
                return
            self._lacking.add(what)
        log.warning(
            "%s cannot be written (%s): %s; make it writable", self._folder, error.strerror, what
        )

    def has(self, what: str) -> None:
        """Note that something could be written."""
        if what not in self._lacking:
            return
        with self._lock:
            self._lacking.discard(what)
            whole = not self._lacking
        if whole:
            log.info("%s can be written again", self._folder)


def is_read_only(folder: Path) -> bool:
    """Tell whether a folder, or the one in which it would be made, is on a read-only disk."""
    for path in (folder, *folder.parents):
        try:
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return False
