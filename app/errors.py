"""Every way in which Benana fails, as sentences a person can act on.

`admin/problems.py` maps them to HTTP answers, once.
"""

from typing import Any


class BenanaError(Exception):
    """The base of all errors that Benana raises itself."""


class SettingsError(BenanaError):
    """A setting cannot be used; the message names it and says what is expected."""


class EmbeddedDatabaseError(BenanaError):
    """The embedded PostgreSQL cannot be started."""


class DatabaseError(BenanaError):
    """The database does not do what it was asked for."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached now; what was asked for can be tried again."""


class DatabaseRefusedError(DatabaseError):
    """The database is there and says no: asked for the same again, it says so again.

    `sqlstate` is PostgreSQL's code of five characters, empty where the driver itself refused;
    `constraint` the name of the broken one, None if it was none; `plugin` the plugin concerned,
    None where that is not known; `raised` says that somebody wrote this refusal, in a trigger.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str,
        constraint: str | None = None,
        plugin: str | None = None,
        raised: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.raised = raised
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.plugin = plugin

    def __str__(self) -> str:
        return self.message if self.plugin is None else f"{self.plugin}: {self.message}"


class DatabaseBusyError(DatabaseUnavailableError):
    """The database answers, but somebody keeps what is needed: a lock, or all connections.

    The message says who.
    """


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The database answers, but takes no changes now."""


class SupersededError(BenanaError):
    """A publish was given up because its source changed again meanwhile."""


class UnknownPluginError(BenanaError):
    """Neither a row nor a folder has this name."""

    def __init__(self, plugin: str) -> None:
        super().__init__(f"There is no plugin named {plugin!r}.")
        self.plugin = plugin


class PluginError(BenanaError):
    """A plugin is at fault: which one, in which phase, what was found and what was expected.

    `file` is relative to the plugin's folder, `line` counts from 1; both are None where a fault
    has no place. `trace` is the traceback as text, for the log alone. `transient` says that the
    same may succeed in a moment, as where two processes create one table at once; `outside` that
    its cause lies outside of the plugin, as a full disk does, and may go without an edit; `in_use`
    that it wants what only one can hold, as a port, and somebody holds it: the process `holder`,
    where that is known. Where it is not said to be in use, `holder` has what the error names.
    """

    phase = "plugin"

    def __init__(
        self,
        plugin: str,
        message: str,
        *,
        phase: str | None = None,
        file: str | None = None,
        line: int | None = None,
        trace: str = "",
        transient: bool = False,
        outside: bool = False,
        in_use: bool = False,
        holder: int | None = None,
    ) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.message = message
        self.phase = phase or self.phase
        self.file = file
        self.line = line
        self.trace = trace
        self.transient = transient
        self.outside = outside
        self.in_use = in_use
        self.holder = holder

    @property
    def of_host(self) -> bool:
        """Whether it is the trouble of the host that tried it, and says nothing of the source."""
        return self.outside and isinstance(self, (TrialError, ArtifactError))

    @property
    def passes(self) -> bool:
        """Whether the same may succeed later, with the plugin as it is."""
        return self.transient or self.outside

    @property
    def is_held(self) -> bool:
        """Whether it says what is in use, or names what somebody holds."""
        return self.in_use or self.holder is not None

    @property
    def place(self) -> str:
        """The place of the fault as `file:line`, as `file`, or empty."""
        if self.file is None:
            return ""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        return f"{self.plugin}: {self.phase} failed: {self.message}{place}"

    def as_record(self) -> dict[str, Any]:
        """Return the error as it is kept in the database and shown by the API."""
        return {
            "phase": self.phase,
            "message": self.message,
            "file": self.file,
            "line": self.line,
        }

    def as_held(self) -> dict[str, Any]:
        """Return the error as a trial reports it whose plugin's served version may be behind it."""
        told = {key: getattr(self, key) for key in ("holder", "in_use", "outside")}
        return {**self.as_record(), **told}


class DiscoveryError(PluginError):
    """The plugin's folder or its manifest cannot be used."""

    phase = "discover"


class TooLargeError(DiscoveryError):
    """The plugin's folder holds more than a plugin may."""


class TrialError(PluginError):
    """The trial itself cannot be made: the disk is full, or no process can be started."""

    phase = "trial"


class RehearsalError(PluginError):
    """It cannot be told how a version takes being loaded beside an older one."""

    phase = "rehearsal"


class CompileError(PluginError):
    """A module of the plugin does not compile."""

    phase = "compile"


class ArtifactError(PluginError):
    """An archive cannot be written, is missing, or does not match its hash."""

    phase = "artifact"


class LoadError(PluginError):
    """The plugin cannot be imported, breaks its contract, or fails in one of its methods."""

    phase = "load"


class CrashedLoadError(LoadError):
    """Loading this generation has ended a worker of this host; it is not loaded again."""


class ConflictError(PluginError):
    """A route of the plugin is owned by somebody else."""

    phase = "register_routes"
