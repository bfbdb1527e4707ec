"""Frozen records that travel between the rooms."""

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.plugin import PluginMetadata

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,62}")

ACTIVE = "active"
INACTIVE = "inactive"

HOT = "hot"
FRESH = "fresh"
AUTO = "auto"
HOST = "host"
CLUSTER = "cluster"
"""Among whose processes one alone runs an exclusive plugin: a host's, or those of all hosts."""


def is_plugin_name(text: str) -> bool:
    """Tell whether a text may name a plugin: 1 to 63 of a-z, 0-9 and _, a letter first."""
    return NAME_PATTERN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reload:
    """How a version goes live, kept with it in `plugin_versions`.

    `how` is HOT (loaded into the processes that run) or FRESH (new processes take their place);
    `why` says so in a sentence, and `advice` what the author can do about it; `forced` that the
    author has said so, so that it stands whatever is found out.
    """

    how: str
    why: str
    advice: str = ""
    forced: bool = False

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> "Reload | None":
        """Return what a record of the database says, None for None."""
        if record is None:
            return None
        how, why = str(record.get("how", HOT)), str(record.get("why", ""))
        return cls(how, why, str(record.get("advice", "")), bool(record.get("forced")))

    @property
    def shown(self) -> str:
        """What a person is told of `how`."""
        return "fresh workers" if self.how == FRESH else self.how

    def __str__(self) -> str:
        """Return the sentence that the log has of it."""
        how = "goes live by fresh workers" if self.how == FRESH else "goes live without new workers"
        return f"it {how}: {'. '.join(filter(None, (self.why, self.advice)))}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `plugin.yaml` says; every field may be left out there.

    `origins` are those of the pages that may call the plugin beside its own, None if all may;
    `hosts` are the names under which it may be called beside the server's; `ignore` are patterns
    of gitignore's syntax, of what in the folder is no part of the plugin; `reload` is AUTO, HOT or
    FRESH; `exclusive` is `HOST` or `CLUSTER` where one process alone may run it; `version_line` is
    where the version stands.
    """

    entry: str = "main:new_plugin"
    name: str | None = None
    description: str | None = None
    version: str | None = None
    author: str | None = None
    enabled: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    reload: str = AUTO
    exclusive: str | None = None
    version_line: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin's folder, read once: `files` maps relative POSIX paths to bytes.

    `digest` is 32 hexadecimal digits over all paths and bytes: the identity of the source.
    `executable` are the paths that may be run as programs; they are no part of the identity,
    because not every file system has such a mark.
    """

    name: str
    folder: Path
    files: Mapping[str, bytes]
    manifest: Manifest
    digest: str
    executable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One archive of one source: `sha256` (64 hexadecimal digits) is the hash of `archive`."""

    plugin: str
    digest: str
    sha256: str
    archive: bytes

    @property
    def file_name(self) -> str:
        """The archive's name in the artifacts folder."""
        return artifact_name(self.plugin, self.digest)

    def is_intact(self) -> bool:
        """Whether the archive's bytes match their hash."""
        return hashlib.sha256(self.archive).hexdigest() == self.sha256


def artifact_name(plugin: str, digest: str) -> str:
    """Return the file name of a plugin's archive of one source digest."""
    return f"{plugin}-{digest}.pyz"


_ARTIFACT_PATTERN = re.compile(r"([a-z][a-z0-9_]{0,62})-([0-9a-f]{32})\.pyz")


def artifact_digest(plugin: str, binary_path: str) -> str | None:
    """Return the source digest that a row's `binary_path` names, None if it names no archive.

    Only the last part counts: each host keeps its archives in a folder of its own.
    """
    match = _ARTIFACT_PATTERN.fullmatch(binary_path.rpartition("/")[2])
    return match[2] if match and match[1] == plugin else None


_VERSION_FOLDER = re.compile(r".*/[a-z][a-z0-9_]{0,62}/[0-9a-f]{32}/")


def file_in_version(filename: str) -> str:
    """Return a plugin's file as its author knows it, without the folder of its version."""
    return _VERSION_FOLDER.sub("", filename, count=1)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one route, as it is recorded in `plugin_endpoints`."""

    method: str
    path: str
    handler: str


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a trial found: the plugin's own metadata and the endpoints it registers.

    `places` are the file and line where each template is registered, where that is known.
    `exclusive` is what the manifest says. Where what only one can hold was `in_use`, that is the
    error, to be judged by who knows whether the version that is served has it; `partial` says that
    the trial came to an end there, without metadata and endpoints. `uncompiled` are the faults in
    files that no `import` statement can name.
    """

    metadata: PluginMetadata
    endpoints: tuple[Endpoint, ...]
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    exclusive: str | None = None
    in_use: Mapping[str, Any] | None = None
    partial: bool = False
    uncompiled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A row of `plugins`. `source_digest` is None while the row's source was never published."""

    id: str
    name: str
    description: str | None
    version: str
    author: str | None
    type: str
    status: str
    source_path: str | None
    binary_path: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime
    generation: int
    source_digest: str | None
    error: Mapping[str, Any] | None
    archive_sha256: str | None = None
    """The hash of the archive that `binary_path` names, None if that version is not kept."""
    endpoints: tuple[Endpoint, ...] = ()
    reload: Reload | None = None
    """How the version goes live that the row serves, None where that was not found out."""
    finding: Reload | None = None
    """What its rehearsal found for what comes after it, None if there was none yet."""

    @property
    def served(self) -> "ServedRow":
        """The part of the row that decides what is served."""
        return ServedRow(self.id, self.name, self.generation, self.status, self.binary_path)

    @property
    def digest(self) -> str | None:
        """The digest of the source that is served, None if `binary_path` names no archive."""
        return artifact_digest(self.name, self.binary_path or "")

    @property
    def archive(self) -> tuple[str, str] | None:
        """The digest and the SHA-256 of the archive that is served, None if it is not kept."""
        if self.digest is None or self.archive_sha256 is None:
            return None
        return self.digest, self.archive_sha256

    @property
    def unpublished(self) -> bool:
        """Whether the row names a source that is not published yet."""
        return self.source_digest is None and self.source_path is not None


@dataclass(frozen=True, slots=True)
class ServedRow:
    """The few columns of `plugins` that decide what a process serves.

    `archive_sha256` is the hash of the archive that `binary_path` names, None if that version is
    not known or was not asked for; `exclusive` is that version's `HOST` or `CLUSTER`, and
    `endpoints` its method, path and handler, each, where it is exclusive. What follows is said of
    the row, and decides nothing: `unpublished` whether it names a source of which there is no
    version at all, `load_error` whether its `error` says that this generation cannot be loaded,
    `unstamped` whether it says of its version what no trigger and no publish would have written,
    `reload` and `reload_why` how the version goes live and why: HOT if the author says so, FRESH,
    else AUTO, which is hot unless that fails; `watched` whether it is known of this generation
    which routes answered in the version before.
    """

    id: str
    name: str
    generation: int
    status: str
    binary_path: str | None
    archive_sha256: str | None = None
    unpublished: bool = field(default=False, compare=False)
    load_error: bool = field(default=False, compare=False)
    unstamped: bool = field(default=False, compare=False)
    reload: str = field(default=AUTO, compare=False)
    reload_why: str = field(default="", compare=False)
    watched: bool = field(default=False, compare=False)
    exclusive: str | None = field(default=None, compare=False)
    endpoints: Sequence[Sequence[str]] | None = field(default=None, compare=False)

    @property
    def digest(self) -> str | None:
        """The digest of the source that is served, None if `binary_path` names no archive."""
        return artifact_digest(self.name, self.binary_path or "")


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A folder that never was a valid plugin, and what is wrong with it."""

    name: str
    source_path: str
    error: Mapping[str, Any]
    updated_at: datetime.datetime
