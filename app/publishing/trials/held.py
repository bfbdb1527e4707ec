"""Trials that found in use what the served version of the same plugin holds."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.descendants import children_of
from app.errors import LoadError, PluginError
from app.isolation.board import Board, Word
from app.isolation.runtime_folder import RuntimeFolder
from app.plugin import PluginMetadata
from app.publishing.manifest import complete_metadata
from app.records import ACTIVE, PluginRow, PluginSource, TrialReport

_ADVICE = (
    "; if it fails because the served version holds what it wants, leave that out where "
    "`context.trial` is true"
)


def accept_in_use(
    artifacts_dir: Path, source: PluginSource, report: TrialReport, row: PluginRow | None
) -> TrialReport:
    """Return a trial's report, completed from the version before where the trial ended early.

    Args:
        artifacts_dir: what the processes of this host have in common.
        source: what was tried.
        report: what its trial found.
        row: the plugin's row, None if it has none, or for a check without a database.

    Raises:
        LoadError: nobody runs the plugin on this host, or somebody else holds what it wants.
    """
    error: dict[str, Any] = {"in_use": True, "outside": True, **(report.in_use or {})}
    if not _is_held_by_served_version(artifacts_dir, source.name, row, error.get("holder")):
        raise LoadError(source.name, **error)
    if not report.partial:
        return report
    known = PluginMetadata(source.name)
    if source.manifest.version is None and row is not None:
        known = PluginMetadata(source.name, row.version, row.description or "", row.author or "")
    endpoints = () if row is None else row.endpoints
    metadata = complete_metadata(known, source)
    return replace(report, metadata=metadata, endpoints=endpoints, partial=False)


def advise_exclusive(artifacts_dir: Path, error: PluginError) -> None:
    """Have an exclusive plugin's error in `initialize` say that its served version may be why.

    Args:
        artifacts_dir: what the processes of this host have in common.
        error: of the trial of the plugin's next version.
    """
    if error.phase != "initialize" or error.in_use or error.message.endswith(_ADVICE):
        return
    if running_version(artifacts_dir, error.plugin) is not None:
        error.message += _ADVICE


def _is_held_by_served_version(
    artifacts_dir: Path, plugin: str, row: PluginRow | None, holder: int | None
) -> bool:
    word = running_version(artifacts_dir, plugin)
    if word is not None:
        return holder is None or holder in _family(word.pid)
    # It may be served and not be exclusive yet: then one of this server's processes has it.
    served = row is not None and row.status == ACTIVE and row.binary_path is not None
    return served and holder is not None and holder in _family(os.getppid())


def running_version(artifacts_dir: Path, plugin: str) -> Word | None:
    """Return what the process of this host tells that runs a plugin, None if there is none."""
    word = Board(RuntimeFolder(artifacts_dir).board(plugin)).read()
    return word if word is not None and word.here and word.generation is not None else None


def _family(pid: int) -> set[int]:
    """Return a process and all that descend from it, as far as the system tells."""
    found, waiting = set(), [pid]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children_of(process)
    return found
