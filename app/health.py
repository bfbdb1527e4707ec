"""Ready, degraded or neither: one judgement for health checks, the admin API and the log.

*ready*: this process serves every active row at the row's generation, and its host, if it
publishes, sees edits and can write. *degraded*: it serves, but one of these is not so; a condition
says which. *starting* and *unavailable*: it is not to be asked, because it still starts, or
because nothing of what is registered is served. *draining*: it is asked no more, and ends its last
requests.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.conditions import Condition, Conditions
from app.threads import OwnThread
from app.turns import Turns

log = logging.getLogger(__name__)

READY = "ready"
DEGRADED = "degraded"
STARTING = "starting"
UNAVAILABLE = "unavailable"
DRAINING = "draining"

_FOR_ITS_HOST = "only for what the process that watches says of this host"
"""What the end of a turn adds where a process is not ready, and has nothing of its own to say."""

LOOK_SECONDS = 1.0
"""How often a process looks at itself where nothing tells of a change; a change is seen at once."""

GATHER_SECONDS = 0.05
"""How long a look waits for more to change: what has one cause comes together."""

ADOPTED = "host:"
"""How the keys of conditions begin that another process of the host holds and logs."""


class Serving(Protocol):
    """What a process knows of the plugins that it serves."""

    @property
    def registered(self) -> int | None:
        """How many plugins are to be served, None if that is not known."""

    @property
    def served(self) -> int:
        """How many plugins are served, in whatever generation."""


class Host(Protocol):
    """What a process knows of its host's publishing."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Have something called when what this process itself knows of its host changes."""

    def look(self) -> float:
        """Tell the other processes of the host what is known, or hear it from them.

        Returns:
            In how many seconds to look again at the latest.
        """

    def conditions(self) -> tuple[Condition, ...]:
        """Return what keeps the host from seeing edits, or from writing."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How a process is: one of the words above, and the reasons, the oldest first."""

    status: str
    reasons: tuple[Condition, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether the process is to be asked at all."""
        return self.status in {READY, DEGRADED, DRAINING}


class Health(OwnThread):
    """Judges a process, and says in the log what lasts, in the thread `benana-health`.

    A judgement reads memory alone: a health check waits for nobody.
    """

    def __init__(
        self,
        conditions: Conditions,
        serving: Serving,
        host: Host | None,
        on_turn: Callable[[], None],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Make it; the thread is to be started in the process that serves.

        Args:
            conditions: what is not as it should be with this process.
            serving: what it serves.
            host: what its host says; None if it publishes nothing.
            on_turn: called when the judgement is another one than before; must return at once.
            look_seconds: the time between two looks.
        """
        super().__init__("benana-health")
        self._conditions = conditions
        self._serving = serving
        self._host = host
        self._on_turn = on_turn
        self._look_seconds = look_seconds
        self._turns = Turns()
        self._stirred = False
        self.started = False
        """Whether this process has come to serve."""
        self.draining = False
        """Whether it takes no more requests, and ends its last ones."""
        conditions.watch(self.look_soon)
        if host is not None:
            host.watch(self.look_soon)

    @property
    def takes_requests(self) -> bool:
        """Whether this process has come to serve, and is not at its end."""
        return self.started and not self.draining

    def look_soon(self) -> None:
        """Have the thread look, because something has changed; returns at once."""
        if not self._stirred:
            with self._wake:
                self._stirred = True
                self._wake.notify_all()

    def report(self) -> HealthReport:
        """Judge this process as it is now."""
        host = () if self._host is None else self._host.conditions()
        held = (*self._conditions.held(), *host)
        reasons = tuple(sorted(held, key=lambda reason: reason.since))
        if self.draining:
            return HealthReport(DRAINING)
        if not self.started:
            return HealthReport(STARTING, reasons)
        registered = self._serving.registered
        if registered is None or (registered and not self._serving.served):
            return HealthReport(UNAVAILABLE, reasons)
        degraded = any(reason.degrades for reason in reasons)
        return HealthReport(DEGRADED if degraded else READY, reasons)

    def _run(self) -> None:
        before = None
        while not self._stopped:
            self._stirred = False
            wait = self._look_seconds
            try:
                report, wait = self._look()
                if report != before:
                    self._on_turn()
                before = report
            except Exception:
                # A fault of ours must not end the thread: the others would take the host for dead.
                log.exception("a look at this process's health failed")
            with self._wake:
                if self._wake.wait_for(lambda: self._stopped or self._stirred, max(0.0, wait)):
                    self._wake.wait_for(lambda: self._stopped, GATHER_SECONDS)

    def _look(self) -> tuple[HealthReport, float]:
        """Judge, and say what is to be said; return in how many seconds to look again."""
        wait = self._look_seconds
        if self._host is not None:
            wait = min(wait, self._host.look())
        report = self.report()
        if self.draining:
            return report, wait
        now = time.monotonic()
        own = [r for r in report.reasons if r.degrades and not r.key.startswith(ADOPTED)]
        said = report.status
        if said == DEGRADED and not own:
            said = f"{DEGRADED} {_FOR_ITS_HOST}"
        due = self._turns.look(said, report.serves, own, now)
        return report, min(wait, due - now)
