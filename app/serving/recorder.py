"""Reports what this process runs, to the database and to its host; never in anybody's way."""

import datetime
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable

from app.database.tables import Tables
from app.database.workers import HEARTBEAT_SECONDS, WorkerRepository
from app.errors import DatabaseError, DatabaseRefusedError
from app.records import LoadRecord, ServedRow
from app.serving.lastgood import LastGood
from app.threads import OwnThread

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
GATHER_SECONDS = 0.01
"""How long a report waits for more to report; and other processes come to their swap first."""


class Recorder(OwnThread):
    """The thread `benana-recorder`: a heartbeat, and what changed since the last report.

    With each heartbeat it writes what is served into the host's own files, too.

    At its end it takes this process off the list.
    """

    def __init__(
        self,
        workers: WorkerRepository,
        last_good: LastGood,
        generations_alive: Callable[[], int],
        seen: Callable[[Tables | None], None] = lambda _: None,
    ) -> None:
        """Make it; nothing is started.

        Args:
            workers: where it reports to.
            last_good: the host's own files.
            generations_alive: how many generations are in memory.
            seen: is told with each heartbeat what state our tables are in; None if that is
                refused, as where one is missing.
        """
        super().__init__("benana-recorder")
        self._workers = workers
        self._last_good = last_good
        self._generations_alive = generations_alive
        self._seen = seen
        self._id = str(uuid.uuid4())
        self._loads: dict[str, LoadRecord] = {}
        self._changed: set[str] = set()
        self._registered = False
        self._complaint = ""
        """What the database said last when it refused."""

    def note(self, loads: Iterable[LoadRecord]) -> None:
        """Report what this process runs of some plugins, soon; returns at once."""
        with self._wake:
            for load in loads:
                if self._loads.get(load.plugin) != load:
                    self._loads[load.plugin] = load
                    self._changed.add(load.plugin)
            if self._changed:
                self._wake.notify_all()

    def served_elsewhere(self, rows: Collection[ServedRow]) -> set[str]:
        """Return the names of the rows whose generation another process serves.

        Raises:
            DatabaseUnavailableError: it cannot be asked.
        """
        return self._workers.served_names(rows)

    def forget(self, plugin: str) -> None:
        """Keep no memory of a plugin whose row is gone."""
        with self._wake:
            self._loads.pop(plugin, None)
            self._changed.discard(plugin)

    def _run(self) -> None:
        self._started_at = datetime.datetime.now(datetime.UTC)  # of this process: it may be a fork
        beat_at = 0.0
        while not self._stopped:
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_SECONDS
                    self._last_good.write()
                    self._beat()
                self._report()
                self._wait(lambda: self._stopped or self._changed, beat_at - time.monotonic())
                if self._changed:
                    self._wait(lambda: self._stopped, GATHER_SECONDS)
            except DatabaseError as error:
                self._complain(error)
                if isinstance(error, DatabaseRefusedError):
                    self._seen(None)
                self._registered = False  # all of it is told again when the database is back
                beat_at = 0.0
                self._wait(lambda: self._stopped, RETRY_SECONDS)
        self._last_good.write()
        if self._registered:
            try:
                self._workers.leave(self._id)
            except DatabaseError as error:
                log.debug("not taken off the list: %s", error)

    def _complain(self, error: DatabaseError) -> None:
        said = str(error) if isinstance(error, DatabaseRefusedError) else ""
        if said and said != self._complaint:
            log.error("what this process runs is not recorded: %s; trying again", said)
            self._complaint = said
        else:
            log.debug("nothing recorded: %s", error)

    def _beat(self) -> None:
        alive = self._generations_alive()
        if self._registered and (tables := self._workers.heartbeat(self._id, alive)):
            self._seen(tables)
            return
        self._registered = False
        # Under another id each time: the one before may be in a dump that is being restored.
        entry = str(uuid.uuid4())
        self._workers.register(
            entry, socket.gethostname(), os.getpid(), alive, self._started_at, self._id
        )
        self._id = entry
        self._registered = True
        with self._wake:
            self._changed.update(self._loads)
        if tables := self._workers.heartbeat(self._id, alive):
            self._seen(tables)

    def _report(self) -> None:
        with self._wake:
            loads = [self._loads[name] for name in self._changed]
            self._changed.clear()
        if not loads:
            return
        recorded = False
        try:
            recorded = self._workers.record(self._id, loads)
        finally:
            if not recorded:
                with self._wake:
                    self._changed.update(x.plugin for x in loads if x.plugin in self._loads)
        if recorded:
            self._complaint = ""
        else:
            self._beat()  # it was thought dead, and dropped

    def _wait(self, over: Callable[[], object], seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(over, max(0.0, seconds))
