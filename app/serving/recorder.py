"""Reports what this process runs, to the database and to its host; never in anybody's way."""

import datetime
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable

from app.conditions import Conditions
from app.database.tables import Tables
from app.database.workers import HEARTBEAT_SECONDS, OVERDUE_SECONDS, WorkerRepository
from app.errors import DatabaseBusyError, DatabaseError, DatabaseRefusedError
from app.presence import own_presence
from app.serving.crashes import SETTLE_SECONDS
from app.serving.last_known_good import LastKnownGood
from app.threads import OwnThread
from app.worker_records import LoadRecord, WorkerReport

log = logging.getLogger(__name__)

REPORT = "report"
"""The condition that nothing can be reported."""

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
        last_known_good: LastKnownGood,
        report: Callable[[], WorkerReport],
        conditions: Conditions | None = None,
        seen: Callable[[Tables | None], None] = lambda _: None,
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Make it; the thread is to be started in the process that it reports.

        Args:
            workers: where it reports.
            last_known_good: the host's own files.
            report: tells what this process says of itself.
            conditions: where it holds that nothing can be reported.
            seen: is told with each heartbeat what state our tables are in; None if that is
                refused, as where one is missing.
            retry_seconds: how long it waits before it tries again what the database refused.
        """
        super().__init__("benana-recorder")
        self._workers = workers
        self._retry_seconds = retry_seconds
        self._last_good = last_known_good
        self._self_report = report
        self._conditions = conditions or Conditions()
        self._seen = seen
        self.id = ""
        """This process's name among all, once it is entered."""
        self._loads: dict[str, LoadRecord] = {}
        self._recorded: set[str] = set()
        """The plugins that the database has of this process, unless somebody deletes them."""
        self._changed: set[str] = set()
        self._gone: set[str] = set()
        """The plugins whose rows are gone, and which the database still has of this process."""
        self._beat_now = False
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

    def beat(self) -> None:
        """Report this process anew, soon: what it says of itself has changed; returns at once."""
        with self._wake:
            self._beat_now = True
            self._wake.notify_all()

    def forget(self, plugin: str) -> None:
        """Keep no memory of a plugin whose row is gone, in the database neither."""
        with self._wake:
            if self._loads.pop(plugin, None) is not None:
                self._gone.add(plugin)
                self._wake.notify_all()
            self._changed.discard(plugin)

    def _run(self) -> None:
        self._started_at = datetime.datetime.now(datetime.UTC)  # of this process: it may be a fork
        beat_at = 0.0
        while not self._stopped:
            try:
                if self._beat_now or time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_SECONDS
                    self._last_good.write(SETTLE_SECONDS)
                    self._expect_an_answer()
                    self._beat()
                    self._record_failures()
                self._expect_an_answer()
                self._report()
                self._conditions.clear(REPORT)
                self._wait(self._has_to_say, beat_at - time.monotonic())
                if self._changed:
                    self._wait(lambda: self._stopped, GATHER_SECONDS)
            except DatabaseError as error:
                self._complain(error)
                if isinstance(error, DatabaseRefusedError):
                    self._seen(None)
                self._registered = False  # all of it is told again when the database is back
                beat_at = 0.0
                self._wait(lambda: self._stopped, self._retry_seconds)
        self._last_good.write()
        if self._registered:
            try:
                self._workers.leave(self.id)
            except DatabaseError as error:
                log.debug("not taken off the list: %s", error)

    def _has_to_say(self) -> bool:
        return bool(self._stopped or self._changed or self._gone or self._beat_now)

    def _expect_an_answer(self) -> None:
        """Have it held that the database is silent, from when its answer is overdue."""
        self._conditions.expect(
            REPORT,
            "what this process runs is not recorded, and changes may not be noticed: the database "
            f"has not answered for {OVERDUE_SECONDS:g} s; what is loaded is served",
            OVERDUE_SECONDS,
        )

    def _complain(self, error: DatabaseError) -> None:
        self._conditions.hold(REPORT, f"what this process runs is not recorded: {error}")
        said = str(error) if isinstance(error, DatabaseRefusedError) else ""
        if said and said != self._complaint:
            log.error("what this process runs is not recorded: %s; trying again", said)
            self._complaint = said
        else:
            log.debug("nothing recorded: %s", error)

    def _beat(self) -> None:
        self._beat_now = False
        report = self._self_report()
        if self._registered and (
            tables := self._workers.heartbeat(self.id, report, len(self._recorded))
        ):
            self._seen(tables)
            return
        self._registered = False
        self._recorded.clear()
        # Under another id each time: the one before may be in a dump that is being restored.
        entry = str(uuid.uuid4())
        self._workers.register(
            entry,
            socket.gethostname(),
            own_presence(),
            os.getppid(),
            self._started_at,
            report,
            self.id,
        )
        self.id = entry
        self._registered = True
        with self._wake:
            self._changed.update(self._loads)
        if tables := self._workers.heartbeat(self.id, report):
            self._seen(tables)

    def _report(self) -> None:
        with self._wake:
            loads = [self._loads[name] for name in self._changed]
            gone = self._gone - self._loads.keys()
            self._changed.clear()
        if gone:
            self._workers.forget(self.id, gone)
            self._recorded -= gone
        with self._wake:
            self._gone -= gone | self._loads.keys()
        if not loads:
            return
        recorded = False
        try:
            recorded = self._workers.record(self.id, loads)
        finally:
            if not recorded:
                with self._wake:
                    self._changed.update(x.plugin for x in loads if x.plugin in self._loads)
        if recorded:
            self._recorded.update(load.plugin for load in loads)
            self._complaint = ""
            self._record_failures()
        else:
            self._beat()  # it was thought dead, and dropped

    def _record_failures(self) -> None:
        """Have the rows say what nobody can load; who reports last sees that all of them fail."""
        with self._wake:
            failed = [load for load in self._loads.values() if load.state == "failed"]
        if not failed:
            return
        try:
            self._workers.record_failures(failed)
        except DatabaseBusyError as error:
            log.debug("not recorded that nobody can load it: %s", error)  # at the next heartbeat

    def _wait(self, over: Callable[[], object], seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(over, max(0.0, seconds))
