"""What a rehearsal's own process does: load archives beside each other, look, and report."""

import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.database.trial_session import TrialSession
from app.errors import BenanaError, DatabaseUnavailableError
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, Steps, load
from app.loading.process_changes import ProcessChanges
from app.package.version_folders import VersionFolders
from app.publishing.trials.rehearsal import Load, rehearse, without_number
from app.records import Artifact

Lend = Callable[[], AbstractContextManager[Any]]


def open_session(request: dict[str, Any]) -> tuple[TrialSession | None, Lend]:
    """Return the session that all of a request's loans share, and what lends it."""
    url = request["database_url"]
    if not url:
        return None, _no_database
    session = TrialSession(url, request["seconds"])
    return session, session.connection


def rehearse_archives(
    request: dict[str, Any], older: int, newer: int, steps: Steps
) -> dict[str, Any]:
    """Rehearse a version beside itself, and beside the one before it.

    Args:
        request: what the parent asks for, see `rehearser`.
        older: a file with the archive of the version before; empty where there is none.
        newer: a file with the version's archive.
        steps: is told what is loaded.

    Returns:
        What is reported: `reload` and `left`; `failed`, where it says nothing of the version.
    """
    wanted = request["rehearse"]
    session, lend = open_session(request)
    make_context = make_context_factory(
        Path(request["folder"]) / "data", lambda _: lend, trial=True
    )
    folders = VersionFolders(Path(request["artifacts_dir"]))
    folders.begin()
    changes = ProcessChanges()

    def loader_of(file: int, digest: str, sha256: str) -> Load:
        with os.fdopen(file, "rb") as archive:
            archive.seek(0)
            artifact = Artifact(wanted["plugin"], digest, sha256, archive.read())

        def load_it(generation: int) -> LoadedPlugin:
            steps.reached(f"load {generation}")
            with changes.loading(artifact.plugin):
                plugin = load(
                    artifact, make_context, generation=generation, tried=True, folders=folders
                )
            return replace(plugin, on_disposed=partial(changes.disposed, artifact.plugin))

        return load_it

    generation = wanted["generation"]
    try:
        load_older = loader_of(older, *wanted["older"]) if wanted["older"] else None
        load_newer = loader_of(newer, *wanted["newer"])
        result = rehearse(load_newer, generation, steps.reached, load_older)
    except BenanaError as error:
        return {"failed": without_number(str(error))}
    except Exception as error:  # noqa: BLE001 - a fault of ours, which costs the finding
        return {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    finally:
        folders.close()
        if session:
            session.close()
    return {"reload": asdict(result.reload), "left": result.left}


def _no_database() -> AbstractContextManager[Any]:
    raise DatabaseUnavailableError("a check has no database; set DATABASE_URL to give one")
