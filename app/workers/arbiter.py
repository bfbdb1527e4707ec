"""The gunicorn master: gunicorn's own, which no plugin can end.

gunicorn takes the exit codes 3 and 4 of a worker for a worker that could not boot, and stops the
server. A plugin can end its worker with any code; so that counts only as long as no worker served
yet.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

from app.errors import SettingsError
from app.serving.crash_notes import ProcessEnd, end_of_child
from app.serving.crashes import CrashedLoads
from app.workers.bell import Bell
from app.workers.drains import Drains
from app.workers.identity import as_user
from app.workers.new_configuration import read_anew
from app.workers.orphans import Orphans
from app.workers.rounds import Member, Plan, Rounds
from app.workers.worker import Worker

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
"""Before a worker is started in place of one that ended before it served: from the second time on,
and twice as long each time."""

TOGETHER_SECONDS = 1.0
"""Workers that end within so many seconds of the first of them count once."""


class Arbiter(GunicornArbiter):  # type: ignore[misc]
    """A master that says what workers did when they ended, replaces them, and ends what they leave.

    gunicorn has no setting for the master's class: `look_after` makes one.
    """

    _crashed: CrashedLoads
    _orphans: Orphans
    _supervisor: Callable[[], int | None]
    _served: bool
    _stops: bool
    _never_served: int
    _round_at: float
    _start_at: float
    _bell: Bell
    _rounds: Rounds
    _drains: Drains
    _former: Sequence[Any]
    """While HUP is followed, the workers of the configuration before."""
    _former_end: bool

    @classmethod
    def look_after(
        cls,
        master: Any,
        crashed: CrashedLoads,
        orphans: Orphans,
        supervisor: Callable[[], int | None] = lambda: None,
        *,
        drain_seconds: float = 900.0,
        max_draining: int | None = None,
    ) -> None:
        """Turn gunicorn's master into this one, before it has started a worker.

        Args:
            master: gunicorn's.
            crashed: keeps which loads have ended a worker.
            orphans: ends what a worker has left behind.
            supervisor: gives the process id of the embedded PostgreSQL's supervisor, None if there
                is none.
            drain_seconds: how long the last requests of a worker may take that a fresh one
                replaces.
            max_draining: as of `Rounds`.
        """
        master.__class__ = cls
        master._crashed = crashed
        crashed.on_held_back = master._renew_all
        master._orphans = orphans
        master._supervisor = supervisor
        master._served = master._stops = False
        master._former, master._former_end = (), False
        master._never_served = 0
        master._round_at = master._start_at = 0.0
        master._bell = Worker.bell = Bell()
        master._rounds = Rounds(max_draining)
        master._drains = Drains(drain_seconds)
        master._say_crashed()

    # --- what wakes it -----------------------------------------------------------------------

    def signal(self, sig: int, frame: Any) -> None:
        """Queue a signal, and wake the loop for it."""
        super().signal(sig, frame)
        self._bell.ring()

    def signal_chld(self, sig: int, frame: Any) -> None:
        """Queue that a child has ended, and wake the loop for it."""
        super().signal_chld(sig, frame)
        self._bell.ring()

    def wakeup(self) -> None:
        """Wake the loop."""
        super().wakeup()
        self._bell.ring()

    def wait_for_signals(self, timeout: float = 1.0) -> Any:
        """Wait for signals, or until a worker has something to say."""
        self._bell.wait(timeout)
        return super().wait_for_signals(timeout=0)

    # --- workers that end ----------------------------------------------------------------------

    def reap_workers(self) -> None:
        """Reap workers, and look at what they leave."""
        self._look_for_orphans()
        try:
            self._reap_workers()
        finally:
            self._look_for_orphans()

    def _reap_workers(self) -> None:
        while True:
            halt: HaltServer | None = None
            before = dict(self.WORKERS)
            ends = {pid: end_of_child(pid) for pid in before}
            try:
                super().reap_workers()
            except HaltServer as error:
                halt = error
            gone = {pid: worker for pid, worker in before.items() if pid not in self.WORKERS}
            crashed = self._look_at(gone, ends) if gone else []
            if halt is None:
                return
            if not (self._served or crashed or self._stops):
                raise halt
            for worker in gone.values():  # what gunicorn had left to do for the last of them
                if not worker.tmp._tmp.closed:
                    worker.tmp.close()
                    self.cfg.child_exit(self, worker)

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, and what those leave behind that have to be killed."""
        self._stops = True  # another one that cannot boot does not end it in the midst
        super().stop(graceful)
        self._orphans.end(self.WORKERS)  # gunicorn has killed them, and waits for none to be dead
        self.reap_workers()

    def _look_for_orphans(self) -> None:
        own = (self.reexec_pid, self.dirty_arbiter_pid, self._supervisor() or 0)
        self._orphans.look(self.WORKERS, own)

    def _look_at(self, gone: dict[int, Any], ends: dict[int, ProcessEnd]) -> list[str]:
        """Say what ended workers were doing; return a sentence for each load that ended one."""
        sharing = {pid: worker for pid, worker in gone.items() if _shares(worker)}
        workers = [*sharing.values(), *filter(_shares, self.WORKERS.values())]
        self._served = self._served or any(worker.activity.serving for worker in workers)
        early, busy = False, {}
        for pid, worker in sharing.items():
            end, doing = ends[pid], "; ".join(names := worker.activity.names())
            if names:
                busy[pid] = {name.partition(" ")[0] for name in names}
                self.log.error(
                    "Worker (pid:%s) ended (%s) while it answered: %s", pid, end.how, doing
                )
            early |= not worker.activity.serving and end.by_itself
        self._pace(early)
        told = [pid for pid, worker in gone.items() if self._drains.began(worker)]
        return self._say_crashed(ends, later=self.WORKERS, busy=busy, told=told)

    def _say_crashed(self, *ends: Any, **known: Any) -> list[str]:
        with as_user(self.cfg.uid, self.cfg.gid):
            sentences = self._crashed.collect(*ends, **known)
        for said in sentences:
            self.log.error("%s", said)
        return sentences

    def _renew_all(self) -> None:
        """Have fresh workers take all places: these still serve what is held back now."""
        for worker in filter(_shares, self.WORKERS.values()):
            worker.activity.ask_to_be_replaced()

    def _pace(self, early: bool) -> None:
        now = time.monotonic()
        if not (together := now - self._round_at < TOGETHER_SECONDS):
            self._round_at = now
        if not early:
            self._never_served = 0
        elif not together:
            self._never_served += 1
            if self._never_served > 1:
                pause = FIRST_PAUSE_SECONDS * 2.0 ** (self._never_served - 2)
                pause = min(pause, LONGEST_PAUSE_SECONDS)
                self._start_at = now + pause
                self.log.error(
                    "Workers ended before they served, %d times in a row; the next start in %g s",
                    self._never_served,
                    pause,
                )

    # --- how many there are --------------------------------------------------------------------

    def manage_workers(self) -> None:
        """Have as many workers accept as there should be, and replace those that ask for it."""
        for worker in self._former:
            self._let_go_on(worker)
        while self._follow_plan():
            pass  # in the place of one that has stopped accepting the next one boots at once
        self._drains.look(self)
        for worker in filter(_shares, self.WORKERS.values()):
            worker.activity.crew = self.num_workers
        self._look_for_orphans()

    def reload(self) -> None:
        """Follow the configuration anew; those of the old one serve until the new ones do.

        gunicorn has the old ones stop at once, and waits here for all of them. And it ends where
        the configuration cannot be used: here that changes nothing.
        """
        former, read = self.cfg, self.app.reload
        self.app.reload = lambda: read_anew(self.app, read, former)
        self._former = [w for w in self.WORKERS.values() if not self._drains.began(w)]
        try:
            super().reload()
        except SettingsError as error:
            os.environ.update(former.env)  # which gunicorn has taken back already
            self.log.error("%s", error)
        finally:
            self._former, self._former_end = (), False
            self.app.reload = read

    def end_former(self) -> None:
        """Have those of the configuration before stop at once; to be called by `on_reload`."""
        self._former_end = True

    def _let_go_on(self, worker: Any) -> None:
        """Have a worker of the configuration before end once others serve; at once, if it boots."""
        worker.is_former = True
        worker.age = math.inf  # gunicorn does not wait for it
        if self._former_end or not _serves(worker):
            self.kill_worker(worker.pid, signal.SIGTERM)

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a worker a signal; one that is to end counts no more from then on."""
        worker = self.WORKERS.get(pid)
        if worker is not None and sig in {signal.SIGTERM, signal.SIGQUIT}:
            self._drains.begin(worker, self.cfg.graceful_timeout)
            worker.age = math.inf  # HUP does not wait for it
        super().kill_worker(pid, sig)

    def _follow_plan(self) -> bool:
        """Do what is planned; return whether that lets more be planned."""
        now = time.monotonic()
        members = [self._member(pid, worker) for pid, worker in self.WORKERS.items()]
        may_start = now >= self._start_at
        plan = self._rounds.plan(members, self.num_workers, now, may_start=may_start)
        for member in plan.retire:
            worker = self.WORKERS[member.pid]
            if _asks(worker):
                self._drains.lengthen(worker)
            self.kill_worker(member.pid, signal.SIGTERM)
        if plan.start and may_start:
            self._start(plan)
        return bool(plan.retire)

    def _start(self, plan: Plan) -> None:
        """Start workers; one that is to take another's place learns that from its class."""
        Worker.relieves = plan.relief
        try:
            for _ in range(plan.start):
                self.spawn_worker()
        finally:
            Worker.relieves = False

    def _member(self, pid: int, worker: Any) -> Member:
        return Member(
            pid,
            worker.age,
            serving=_serves(worker),
            asks=_asks(worker) or getattr(worker, "is_former", False),
            in_the_way=_shares(worker) and worker.activity.in_the_way,
            drains=self._drains.began(worker),
        )


def _shares(worker: Any) -> bool:
    return hasattr(worker, "activity")  # not a worker of another class, chosen by `-k`


def _serves(worker: Any) -> bool:
    return not _shares(worker) or worker.activity.serving


def _asks(worker: Any) -> bool:
    return _shares(worker) and worker.activity.asks
