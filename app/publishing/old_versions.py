"""Old versions are dropped some time after a publish: whoever loads the new one goes first."""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from app.database.repository import Repository
from app.errors import DatabaseError
from app.records import artifact_name
from app.threads import start_thread

log = logging.getLogger(__name__)

REST_SECONDS = 0.2
"""How long nothing must have been published before old versions are dropped."""

MAX_REST_SECONDS = 5.0
"""How long they stay at most while one publish follows the other."""


class OldVersions:
    """Drops the oldest versions of plugins that were published, from the database and this host.

    Its thread runs only while there are any. What a process that ends has not dropped goes with
    the plugin's next publish.
    """

    def __init__(self, artifacts_dir: Path, repository: Repository) -> None:
        self._artifacts_dir = artifacts_dir
        self._repository = repository
        self._wake = threading.Condition()
        self._plugins: set[str] = set()
        self._first_at = self._last_at = 0.0
        """When the first and the last of them were published, in monotonic seconds."""
        self._runs = False

    def drop_soon(self, plugin: str) -> None:
        """Drop a plugin's oldest versions, once it is quiet; returns at once."""
        with self._wake:
            self._last_at = time.monotonic()
            if not self._plugins:
                self._first_at = self._last_at
            self._plugins.add(plugin)
            if not self._runs:
                start_thread("benana-old-versions", self._run)
                self._runs = True

    def _run(self) -> None:
        while plugins := self._take():
            for plugin in plugins:
                self._drop(plugin)

    def _take(self) -> set[str]:
        """Wait until it is quiet; return the plugins, none to end."""
        with self._wake:
            while self._plugins:
                due_at = min(self._last_at + REST_SECONDS, self._first_at + MAX_REST_SECONDS)
                if due_at <= (now := time.monotonic()):
                    break
                self._wake.wait(due_at - now)
            plugins, self._plugins = self._plugins, set()
            self._runs = bool(plugins)
            return plugins

    def _drop(self, plugin: str) -> None:
        try:
            with self._repository.publishing() as publication:
                pruned = publication.prune_versions(plugin)
        except DatabaseError as error:
            log.warning("%s: its oldest versions stay until its next publish: %s", plugin, error)
            return
        # Their folders go when what a worker served of them is out of its memory.
        drop_archives(self._artifacts_dir, (artifact_name(plugin, digest) for digest in pruned))


def drop_archives(folder: Path, file_names: Iterable[str]) -> None:
    """Remove archives from a host's folder; what cannot be removed is said."""
    for file_name in file_names:
        try:
            (folder / file_name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", file_name, error.strerror)
