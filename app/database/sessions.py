"""The settings that our sessions need, whatever a role, a database or a URL sets."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from app.database import inherited
from app.database.cursors import routed
from app.database.sqlstates import reason_of

log = logging.getLogger(__name__)

_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE

SHARED_SETTINGS = {
    "datestyle": "ISO,MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
}
"""What psycopg2 needs to read and write values; with it, `client_encoding`."""

OWN_SETTINGS = {
    **SHARED_SETTINGS,
    "timezone": "UTC",
    "row_security": "off",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "array_nulls": "on",
    "idle_session_timeout": "0",
    "jit": "off",
}
"""What the server's own sessions need as well: hidden rows are an error, writes are allowed, and
several sessions may write at once. `jit`: with `enable_seqscan = off` each small statement counts
as dear, and a heartbeat was compiled for a second each time."""

TRIGGERS_FIRE = {"session_replication_role": "origin"}
"""What a session that writes our rows needs as well, and only some roles may set: PostgreSQL would
refuse the startup packet of the others. So it is set where it is found to be otherwise."""

_BETWEEN_TRANSACTIONS = "idle_session_timeout"
"""The one setting that means nothing inside a transaction."""

_REFUSED = ("startup parameter", "command-line option", "options")
"""What a pooler's refusal holds: PgBouncer's `unsupported startup parameter: options`, and RDS
Proxy's `currently doesn't support command-line options`."""


def set_local(settings: Mapping[str, str]) -> list[str]:
    """Return the statements that make settings for the transaction they are in."""
    return [f"SET LOCAL {name} = {value!r}" for name, value in settings.items()]


class Sessions:
    """Opens sessions with fixed settings: `connect`, then `look` at the new connection.

    The settings are sent in the startup packet: that costs nothing, wins over what the role, the
    database and the URL set, and `DISCARD ALL` returns to it. A pooler may refuse them there, or
    give the same server session to others. Then they are set in each transaction instead
    (`beginning`), and never for a session.
    """

    def __init__(
        self, options: Mapping[str, Any], settings: Mapping[str, str], *, triggers: bool = False
    ) -> None:
        """Make it; nothing is connected.

        Args:
            options: psycopg2's arguments; the `options` among them count, too, where `settings` do
                not say otherwise.
            settings: what is fixed, beside `client_encoding`.
            triggers: whether our triggers are to fire there, too, as far as the role may say so.
        """
        self._options = {**options, "client_encoding": "utf8"}
        # libpq takes the variable only where it is given no options.
        self._given = self._options.pop("options", None) or os.environ.get("PGOPTIONS", "")
        # Replaced and never changed: several threads connect.
        self._at_start = dict(settings)
        self._in_each: dict[str, str] = {}
        self._triggers = triggers
        self._read_only = False
        """Whether the server takes no writes, as a standby."""

    @property
    def options(self) -> dict[str, Any]:
        """psycopg2's arguments."""
        fixed = {name: value.replace(" ", r"\ ") for name, value in self._at_start.items()}
        ours = [f"-c {name}={value}" for name, value in fixed.items()]
        return {**self._options, "options": " ".join(filter(None, [self._given, *ours]))}

    @property
    def beginning(self) -> str:
        """What a transaction begins with; empty where the startup packet has done it."""
        settings = dict(self._in_each)
        # Of the one that has begun.
        if "default_transaction_isolation" in settings:
            isolation = settings["default_transaction_isolation"]
            settings = {"transaction_isolation": isolation, **settings}
        if "default_transaction_read_only" in settings and not self._read_only:
            settings = {"transaction_read_only": "off", **settings}
        return "".join(f"{text}; " for text in set_local(settings))

    @property
    def pooled(self) -> bool:
        """Whether the startup packet is not enough."""
        return bool(self._in_each)

    def connect(self, **options: Any) -> Any:
        """Connect once; again only where a setting was what was refused.

        Raises:
            psycopg2.OperationalError: the server cannot be reached or refuses.
        """
        while True:
            before = self._at_start
            try:
                return inherited.note(psycopg2.connect(**self.options, **options))
            except psycopg2.OperationalError as error:
                # Or another thread has learned it meanwhile.
                if not self.learn(error) and self._at_start is before:
                    raise

    def begin_to_connect(self) -> Any:
        """Return an asynchronous connection, which is still to be made (by its `poll`)."""
        return inherited.note(psycopg2.connect(**self.options, async_=True))

    def learn(self, error: psycopg2.Error) -> bool:
        """Leave out of the startup packet what was refused; return whether anything was."""
        said = reason_of(error)
        reason = said.rpartition("failed: ")[2].lower()
        named = [name for name in self._at_start if re.search(rf"\b{name}\b", reason)]
        unknown = "unrecognized configuration parameter" in reason
        if not named and any(text in reason for text in _REFUSED):
            named = list(self._at_start)
        if not named:
            return False
        refused = {name: self._at_start[name] for name in named}
        self._at_start = {k: v for k, v in self._at_start.items() if k not in named}
        if unknown:
            log.info("the database does not know %s, which is left out", ", ".join(named))
        else:
            log.info("%s; settings are made in each transaction instead", said)
            self._set_in_each(refused)
        return True

    def look(self, connection: Any) -> None:
        """Find out whether there is a pooler in between, which may give the session to others.

        Args:
            connection: a new one, in autocommit; it costs a round trip.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_backend_pid(), pg_is_in_recovery(),"
                " current_setting('session_replication_role') = 'replica'"
            )
            pid, self._read_only, no_triggers = cursor.fetchone()
        if pid != connection.info.backend_pid and self._at_start.keys() - self._in_each.keys():
            if not self._in_each:
                log.info("a pooler is before the database: settings are made in each transaction")
            self._set_in_each(self._at_start)
        if no_triggers and self._triggers:
            self._have_triggers_fire(connection)

    def _have_triggers_fire(self, connection: Any) -> None:
        """Set what a role or database has set otherwise, if this role may: else it is refused."""
        of_session = not self.pooled
        with connection.cursor() as cursor, suppress(psycopg2.errors.InsufficientPrivilege):
            for name, value in TRIGGERS_FIRE.items():
                cursor.execute("SELECT set_config(%s, %s, %s)", (name, value, not of_session))
            if not of_session:
                self._set_in_each(TRIGGERS_FIRE)

    def _set_in_each(self, settings: Mapping[str, str]) -> None:
        more = {k: v for k, v in settings.items() if k != _BETWEEN_TRANSACTIONS}
        self._in_each = {**self._in_each, **more}


class PooledConnection(psycopg2.extensions.connection):
    """A connection behind a pooler, for a plugin's statements.

    Each transaction begins with the settings, which costs one round trip more; with `autocommit`
    there is no transaction, and no settings.
    """

    beginning = ""
    cursor_factory: Any

    def cursor(self, name: Any = None, cursor_factory: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        factory = cursor_factory or self.cursor_factory or psycopg2.extensions.cursor
        if isinstance(factory, type):
            factory = routed(factory)
        return super().cursor(name, cursor_factory=factory, **kwargs)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a statement of a cursor; one that begins a transaction makes the settings first."""
        if not self.autocommit and self.get_transaction_status() == _IDLE and self.beginning:
            with super().cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
                cursor.execute(self.beginning)
        return function(*arguments)
