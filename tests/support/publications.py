"""Publications without a folder and without a trial."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.conditions import Conditions
from app.database.repository import Repository
from app.errors import PluginError
from app.plugin import PluginMetadata
from app.publishing.attempt import PublishAttempt
from app.publishing.compiler import compile_plugin
from app.publishing.publisher import Publisher
from app.publishing.refusals import Refusals
from app.records import ACTIVE, Artifact, Endpoint, PluginSource, TrialReport, artifact_name
from app.routing.conflicts import find_conflict


def digest(number: int) -> str:
    return f"{number:032x}"


def artifact(name: str, number: int, archive: bytes = b"") -> Artifact:
    archive = archive or f"{name} {number}".encode()
    return Artifact(name, digest(number), hashlib.sha256(archive).hexdigest(), archive)


def report(name: str, *paths: str) -> TrialReport:
    endpoints = tuple(Endpoint("GET", path, "Plugin.get") for path in paths)
    return TrialReport(PluginMetadata(name, "1.0"), endpoints)


def publish(
    repository: Repository, name: str, *paths: str, number: int = 1, **changes: str
) -> tuple[str, int]:
    """Publish as the publisher does, without a folder."""
    found = report(name, *paths)
    found = replace(found, metadata=replace(found.metadata, **changes))
    with repository.publishing() as publication:
        row = publication.lock_row(name)
        conflict = find_conflict(name, paths, publication.other_templates(name, paths))
        if conflict is not None:
            raise conflict
        publication.keep_version(artifact(name, number), found)
        saved = publication.save(
            row,
            found.metadata,
            found.endpoints,
            source_path=f"/p/{name}",
            binary_path=f"/b/{artifact_name(name, digest(number))}",
            source_digest=digest(number),
            status=ACTIVE,
        )
        publication.prune_versions(name)
    return saved


MESSAGES = {
    "plain": "it broke",
    "nul": "a\0b",
    "escaped_nul": "\\u0000 cannot be converted to text",
    "backslashes": "\\" * 7 + "u0000",
    "surrogate": "caf\udce9",
    "high_surrogate": "\ud800",
    "low_before_high": "\udc00\ud800",
    "emoji": "🍌",
    "quotes": "'\"%s %(x)s",
    "long": "x" * 1_000_000,
}


class InstantTrial:
    """Reports what a trial would, without a process of its own."""

    def __init__(self, **reports: TrialReport | PluginError) -> None:
        self.reports = reports

    def run(self, source: PluginSource, *_others: object) -> tuple[Artifact, TrialReport]:
        found = self.reports.get(source.name) or report(source.name, f"/{source.name}")
        if isinstance(found, PluginError):
            raise found
        return compile_plugin(source), found

    def close(self) -> None:
        """Nothing runs."""

    def rehearser(self, *_: Path) -> None:
        """Nothing is rehearsed: the thread that would is not started."""


def publisher_on(
    tmp_path: Path, repository: Repository, **reports: TrialReport | PluginError
) -> Publisher:
    """A publisher of plugins whose folders exist, with these reports of their trials."""
    for name in ("fine", *reports):
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text("new_plugin = object\n")
    trial: Any = InstantTrial(**reports)
    return publisher_of(tmp_path / "plugins", tmp_path, repository, trial)


def publisher_of(
    root: Path,
    tmp_path: Path,
    repository: Repository,
    trial: Any,
    conditions: Conditions | None = None,
) -> Publisher:
    """A publisher of the folders below a root."""
    held = conditions or Conditions()
    return Publisher(root, tmp_path / "bin", repository, trial, Refusals(held), conditions=held)


def follow(publisher: Publisher, folder: str, attempt: PublishAttempt) -> bool:
    """Have the plugins of a folder follow it, as the watcher does after an event."""
    rows = publisher.find_rows(folder)
    published = [publisher.follow(name, row, attempt) for name, row in rows.items()]
    return any(published)
