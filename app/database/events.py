"""The LISTEN thread: it says which plugins have changed, and reads no row itself.

A notification is a hint. After every connect everything is compared, because earlier notifications
are lost, and again every 30 to 60 s, because one may get lost in other ways.
"""

import contextlib
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from app.conditions import Conditions
from app.database.async_steps import AsyncSteps, LostError
from app.database.connection import Connection, connection_options
from app.database.payloads import read_payload
from app.database.sessions import OWN_SETTINGS, Sessions
from app.database.sqlstates import reason_of
from app.database.timeouts import ListenerTimes
from app.settings import Settings
from app.threads import name_of_ended, start_thread
from app.turns import TURN_SECONDS

log = logging.getLogger(__name__)

CHANNEL = "plugin_changes"
FULL_COMPARISON_SECONDS = (30.0, 60.0)

OVERDUE_SECONDS = 1.0
_OVERDUE = (
    "changes may not be noticed: a notification to itself has not come back for "
    f"{OVERDUE_SECONDS:g} s; what is loaded is served"
)

OnChange = Callable[[frozenset[str] | None], None]
"""Called with the names that changed, or with None: compare everything."""


_SETTINGS = {**OWN_SETTINGS, "synchronous_commit": "local"}
"""A notification to itself need not be on a standby: it would wait for one that is away."""


class _NoListenError(Exception):
    """LISTEN does not work over this connection: a pooler in between, or a standby."""


class _StandbyError(_NoListenError):
    """It is a standby, which may become the primary."""


class ChangeListener:
    """Listens on `plugin_changes` in the thread `benana-listener`, over a connection of its own.

    Start it after the fork, stop it once. While it is not `connected`, its condition says why.
    """

    def __init__(
        self,
        url: str,
        on_change: OnChange,
        probe_seconds: float = Settings.heartbeat_seconds,
        conditions: Conditions | None = None,
        schema: Callable[[], str | None] = lambda: None,
        times: ListenerTimes | None = None,
        rows_url: str | None = None,
    ) -> None:
        """Make a listener.

        Args:
            url: where to connect.
            on_change: must return at once: a slow reader pins the queue.
            probe_seconds: how often a silent connection is tested, and how long an answer may take:
                a hung peer is noticed within twice of it.
            conditions: where it holds that changes are not noticed at once.
            schema: returns the schema of our tables: what is told of another one is another
                Benana's; None as long as it is not known, when everything is heard.
            times: how long it waits for other things.
            rows_url: where the rows are read and written, if that is another URL: it may be of
                another database, by mistake.
        """
        self._conditions = conditions or Conditions()
        self._schema = schema
        self._times = times or ListenerTimes()
        self._probe_seconds = probe_seconds
        options = connection_options(url, application_name="benana-listener")
        self._sessions = self._rows = Sessions(options, _SETTINGS)
        if rows_url not in {None, url}:
            options = connection_options(rows_url, application_name="benana-listener")
            self._rows = Sessions(options, _SETTINGS)
        self._on_change = on_change
        self._steps = AsyncSteps()
        self._stopped = self._steps.stopped
        self._thread: threading.Thread | None = None
        self._lost_at: float | None = None
        """Since when it does not listen, in monotonic seconds; None while it does."""
        self._lost = ""
        """Why, as it was seen first."""
        self._said_unheard = False
        self.connected = False
        """Whether changes are noticed at once now."""

    @property
    def ended_thread(self) -> str | None:
        """The thread's name, if it has ended though nobody told it to."""
        return name_of_ended(self._thread, told=self._stopped.is_set())

    def start(self) -> None:
        """Start the thread, in the process that is to run it."""
        self._steps.begin()
        self._conditions.hold("listening", "changes of the rows are not noticed yet")
        self._thread = start_thread("benana-listener", self._run)

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread at once; once is enough."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread is None:
            return
        self._steps.wake()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("%s did not end within %.0f s", self._thread.name, timeout)
            return
        self._steps.close()

    # --- the loop --------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            connection = None
            try:
                connection = self._steps.connect(self._sessions, self._times.connect)
                try:
                    self._listen(connection)
                except _NoListenError as error:
                    self.connected = False
                    self._poll(connection, error)
                failures = 0
            except (LostError, psycopg2.Error, OSError) as error:
                failures = 1 if self.connected else failures + 1
                if not self._stopped.is_set():
                    self._lose(self._why_lost(error))
                    if failures > 1:  # the rows may be there: of connections, one is lacking
                        self._on_change(None)
            except Exception as error:
                log.exception("the listener failed; starting over")
                self._lose(f"{type(error).__name__}: {error}")
            finally:
                self.connected = False
                if connection is not None:
                    with contextlib.suppress(psycopg2.Error):
                        connection.close()
            longest = min(self._times.max_backoff, 0.2 * 2 ** min(failures, 8))
            self._stopped.wait(random.uniform(0, longest))  # noqa: S311

    def _listen(self, connection: Connection) -> None:
        own = f"benana_{uuid.uuid4().hex}"
        try:
            self._steps.execute(
                connection, f'LISTEN {CHANNEL}; LISTEN "{own}"', self._probe_seconds
            )
        except (psycopg2.errors.ReadOnlySqlTransaction, psycopg2.errors.FeatureNotSupported):
            raise _StandbyError("the database is a standby, which refuses LISTEN") from None
        self.connected = True
        pid = self._steps.ask(connection, "pg_backend_pid()", self._probe_seconds)
        pooled = pid != connection.get_backend_pid()  # it tells a client a number of its own
        if pooled:
            self._conditions.hold(
                "listening",
                "changes are not noticed at once: no notification has come through the pooler yet; "
                "if none does, set BENANA_LISTEN_DATABASE_URL to a direct connection",
            )
        elsewhere = pooled or self._rows is not self._sessions
        self._on_change(None)
        now = time.monotonic()
        probe_at, compare_at, awaited = now, now + random.uniform(*FULL_COMPARISON_SECONDS), 0.0  # noqa: S311
        while not self._stopped.is_set():
            if self._drain(connection, own):
                awaited = 0.0
                self._hear_again()
                probe_at = time.monotonic() + self._probe_seconds
            now = time.monotonic()
            if awaited and now >= awaited:
                raise _NoListenError(self._unheard())
            if not awaited and now >= probe_at:
                # The notification may come with the answer: the deadline has to stand before.
                awaited = now + self._probe_seconds
                self._conditions.expect("listening", _OVERDUE, OVERDUE_SECONDS)
                self._notify(connection, own, elsewhere=elsewhere)
                elsewhere = False  # until everything is compared the next time
                continue
            if now >= compare_at:
                compare_at = now + random.uniform(*FULL_COMPARISON_SECONDS)  # noqa: S311
                elsewhere = self._rows is not self._sessions
                self._on_change(None)
            self._steps.wait(connection, min(awaited or probe_at, compare_at) - now)

    def _notify(self, connection: Connection, own: str, *, elsewhere: bool) -> None:
        """Notify ourselves; `elsewhere` over another connection, to where the rows are.

        A pooler that lends its connections for each transaction brings us our own word back with
        the answer, and nobody else's.
        """
        if not elsewhere:
            self._steps.execute(connection, f'NOTIFY "{own}"', self._probe_seconds)
            return
        with contextlib.closing(self._steps.connect(self._rows, self._times.connect)) as other:
            self._steps.execute(other, f'NOTIFY "{own}"', self._probe_seconds)

    def _unheard(self) -> str:
        """Say what may be the reason that a notification to ourselves did not come back."""
        if self._rows is self._sessions:
            return "a notification to itself did not come back: is there a pooler?"
        said = (
            "what is notified at DATABASE_URL is not heard at BENANA_LISTEN_DATABASE_URL: do both "
            "name the same database?"
        )
        if not self._said_unheard:
            self._said_unheard = True
            log.error("%s", said)
        return said

    def _drain(self, connection: Connection, own: str) -> bool:
        """Hand on all notifications that are here; return whether our own was among them."""
        while True:
            before = len(connection.notifies)
            # Over TLS one poll may bring one notification only.
            if connection.poll() != psycopg2.extensions.POLL_OK:
                break
            if len(connection.notifies) == before:
                break
        own_came = False
        names: set[str] = set()
        everything = False
        while connection.notifies:
            notification = connection.notifies.pop(0)
            if notification.channel == own:
                own_came = True
                continue
            name, schema = read_payload(notification.payload)
            if schema is not None and (self._schema() or schema) != schema:
                continue
            if name is None:
                everything = True
            else:
                names.add(name)
        if everything:
            self._on_change(None)
        elif names:
            self._on_change(frozenset(names))
        return own_came

    def _poll(self, connection: Connection, why: _NoListenError) -> None:
        """Compare everything once a second for a while, and until a standby is the primary."""
        standby = isinstance(why, _StandbyError)
        if not standby:
            connection.close()
        self._conditions.hold(
            "listening",
            f"changes are noticed {self._times.poll:.0f} s late, because LISTEN does not work: "
            f"{why}; set BENANA_LISTEN_DATABASE_URL to a direct connection to the primary",
        )
        for _ in range(self._times.poll_rounds):
            self._on_change(None)
            if self._stopped.wait(self._times.poll):
                return
            if standby and not self._steps.ask(
                connection, "pg_is_in_recovery()", self._probe_seconds
            ):
                return

    def _why_lost(self, error: Exception) -> str:
        if self._rows is not self._sessions:
            self._on_change(None)  # the rows may be there all the same
            return f"BENANA_LISTEN_DATABASE_URL cannot be reached ({reason_of(error)})"
        if isinstance(error, LostError) and self.connected:
            return f"the connection that listens hears nothing ({error})"
        return f"the database is away ({reason_of(error)})"

    def _lose(self, reason: str) -> None:
        """Hold that changes are not noticed; the log has it as a turn, if it lasts."""
        self._conditions.hold("listening", f"changes are not noticed: {reason}")
        if self._lost_at is None:
            self._lost_at, self._lost = time.monotonic(), reason

    def _hear_again(self) -> None:
        """Hold no more that changes are not noticed; what was too short for a turn is said here."""
        self._conditions.clear("listening")
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None and (lasted := time.monotonic() - lost_at) < TURN_SECONDS:
            log.info("listening again after %.1f s: %s", lasted, self._lost)
