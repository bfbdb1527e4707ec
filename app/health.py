"""Ready, degraded or neither: one judgement for health checks, the admin API and the log.

*ready*: this process serves every active row at the row's generation, and its host, if it
publishes, sees edits and can write. *degraded*: it serves, but one of these is not so; a condition
says which. *starting* and *unavailable*: it is not to be asked, because it still starts, or
because nothing of what is registered is served.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.conditions import Condition, Conditions
from app.threads import OwnThread

log = logging.getLogger(__name__)

READY = "ready"
DEGRADED = "degraded"
STARTING = "starting"
UNAVAILABLE = "unavailable"

LOOK_SECONDS = 0.5
TURN_SECONDS = 2.0
"""What lasts so long is said in the log: less is an edit under way, or a round of workers."""

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

    def look(self) -> None:
        """Tell the other processes of the host what is known, or hear it from them."""

    def conditions(self) -> tuple[Condition, ...]:
        """Return what keeps the host from seeing edits, or from writing."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How a process is: one of the four words above, and the reasons, the oldest first."""

    status: str
    reasons: tuple[Condition, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether the process is to be asked at all."""
        return self.status in {READY, DEGRADED}


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
        self._lasting: dict[str, _Lasting] = {}
        self.started = False
        """Whether this process has come to serve."""

    def report(self) -> HealthReport:
        """Judge this process as it is now."""
        host = () if self._host is None else self._host.conditions()
        held = (*self._conditions.held(), *host)
        reasons = tuple(sorted(held, key=lambda reason: reason.since))
        if not self.started:
            return HealthReport(STARTING, reasons)
        registered = self._serving.registered
        if registered is None or (registered and not self._serving.served):
            return HealthReport(UNAVAILABLE, reasons)
        return HealthReport(DEGRADED if reasons else READY, reasons)

    def _run(self) -> None:
        before = None
        while not self._stopped:
            try:
                if self._host is not None:
                    self._host.look()
                found = self.report()
                self._log_turns(found)
                if found != before:
                    self._on_turn()
                before = found
            except Exception:
                # A fault of ours must not end the thread: the others would take the host for dead.
                log.exception("a look at this process's health failed")
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, self._look_seconds)

    def _log_turns(self, report: HealthReport) -> None:
        """Say what has lasted for a while, and that it has ended."""
        now = time.monotonic()
        held = {r.key: r for r in report.reasons if not r.key.startswith(ADOPTED)}
        for key in self._lasting.keys() - held.keys():
            ended = self._lasting.pop(key)
            if ended.said:
                log.info(
                    "no longer: %s; it lasted %.0f s, and this process is %s",
                    ended.reason,
                    now - ended.began,
                    report.status,
                )
        for key, reason in held.items():
            lasting = self._lasting.setdefault(key, _Lasting(now, reason))
            if not lasting.said and now - lasting.began >= TURN_SECONDS:
                lasting.reason, lasting.said = reason, True
                log.warning(
                    "%s since %s: %s", report.status, f"{reason.since:%Y-%m-%d %H:%M:%S %Z}", reason
                )


class _Lasting:
    """A condition that is held: since when, in monotonic seconds, and whether the log says so."""

    __slots__ = ("began", "reason", "said")

    def __init__(self, began: float, reason: Condition) -> None:
        self.began = began
        self.reason = reason
        self.said = False
