"""What a trial's own process does: compile a source, load it once and report.

See `trial_server`, which it is forked from.
"""

import faulthandler
import gc
import json
import logging
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from app.errors import ArtifactError, CompileError, DatabaseUnavailableError, LoadError, PluginError
from app.files import open_regular
from app.loading.context import make_context_factory
from app.loading.load_process import in_load_thread, prepare_process
from app.loading.loader import Steps, load
from app.loading.patches import refuse_patches
from app.package.archive import Archive
from app.package.version_folders import VersionFolders
from app.publishing.compiler import compile_plugin
from app.publishing.trials.import_guard import ImportGuard
from app.publishing.trials.parcel import read_parcel, seal
from app.publishing.trials.rehearsal_child import open_session, rehearse_archives
from app.publishing.trials.trial_limits import give_way, limit, limit_cpu
from app.publishing.trials.trial_memory import RAISE_IT, shortage, too_much
from app.records import Artifact, Manifest, PluginSource, artifact_name
from app.routing.conflicts import conflict_within

MAX_FORMER_BYTES = 4 * 1024 * 1024
"""A larger archive is mostly data: to read it and to check its hash takes as long as to compile."""

_FIRST_PLUGIN = b"""
import dataclasses
import enum
import typing

from app.plugin import PluginMetadata


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    colour: Colour = Colour.RED


class Plugin:
    def initialize(self, context):
        typing.get_type_hints(Item)

    def get_metadata(self):
        return PluginMetadata(name="first", version="1")

    def register_routes(self, server):
        server.get("/first", self.get)
        server.get("/first/{number:int}", self.get)

    def cleanup(self, context):
        pass

    def get(self, number: int = 0) -> dict:
        return {"number": number}


def new_plugin():
    return Plugin()
"""


def warm_up(folder: str) -> None:
    """Try a small plugin in this process, and keep the children's collections off its memory.

    Args:
        folder: see `try_first`.
    """
    try_first(folder)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at


def try_first(temporary: str) -> None:
    """Try a small plugin in this process.

    Args:
        temporary: a folder for its files, which somebody else removes: this process may be killed.

    Raises:
        RuntimeError: it did not pass; a fault of ours.
        OSError: there is no place for temporary files.
    """
    source = PluginSource("first", Path(), {"main.py": _FIRST_PLUGIN}, Manifest(), "0" * 32)
    with tempfile.TemporaryDirectory(dir=temporary) as folder:
        request = {
            "database_url": "postgresql:///",
            "folder": folder,
            "artifacts_dir": folder,
            "seconds": 1.0,
            "memory_bytes": 0,
        }
        artifact = compile_plugin(source)
        answer = in_load_thread(lambda: _try(artifact, request, Steps()))
    if "metadata" not in answer:
        raise RuntimeError(f"the first trial failed: {answer}")


class _ReportedSteps(Steps):
    def __init__(self, report: int) -> None:
        self._report = report
        self._phase = ""
        self.plugin = ""
        """Whose code runs; empty as long as none does."""
        self.exclusive = False
        """Whether one process alone runs the plugin, so that it may hold what is wanted here."""
        self.held: LoadError | None = None
        """What could not be had in `initialize`."""

    def reached(self, phase: str) -> None:
        if self.plugin:
            refuse_patches(self.plugin, self._phase)
        self._phase = phase
        os.write(self._report, f"@{phase}\n".encode())

    def goes_on(self, error: LoadError) -> bool:
        """Note what is in use, and go on: the version that is served may hold it."""
        if self.exclusive and error.is_held:
            self.held = error
        return self.held is not None

    def compiles(self, path: str) -> None:
        """Note which file is compiled now."""
        os.write(self._report, f"={json.dumps(path)}\n".encode())


def run_child(
    request: dict[str, Any], parcel: int, archive: int, report: int, compiled: int
) -> None:
    """Compile and try the plugin, or rehearse two, and end the process; never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        prepare_process()
        logging.disable()
        faulthandler.enable(file=report)
        faulthandler.register(signal.SIGUSR1, file=report, all_threads=True)
        steps = _ReportedSteps(report)
        limit(request["compile_seconds"], request["memory_bytes"])
        if "rehearse" in request:
            result = _rehearse(parcel, archive, compiled, request, steps)
        else:
            result = _compile_and_try(parcel, archive, compiled, request, steps)
        answer = json.dumps(result)
        os.write(report, b"\n")
        rest = memoryview(answer.encode() + b"\n")
        while rest:
            rest = rest[os.write(report, rest) :]
        os._exit(0)
    finally:
        os._exit(70)  # a fault of ours: without a report it counts as one


def _compile_and_try(
    parcel: int, archive: int, compiled: int, request: dict[str, Any], steps: "_ReportedSteps"
) -> dict[str, Any]:
    steps.reached(CompileError.phase)
    with os.fdopen(parcel, "rb") as file:
        source = read_parcel(file)
    uncompiled: list[str] = []
    try:
        former = _former_version(source.name, request)
        artifact = compile_plugin(source, steps.compiles, uncompiled.append, former=former)
        del former
        # Sealed before the plugin's own code runs: what it does cannot change the archive.
        with os.fdopen(archive, "wb") as file:
            file.write(artifact.archive)
            sealed = seal(file, Path(request["folder"]) / artifact.file_name)
    except PluginError as error:
        return {"error": error.as_record()}
    except MemoryError:
        taken = too_much(request["memory_bytes"])
        text = f"compiling it takes {taken}: make it smaller, or {RAISE_IT}"
        return {"error": CompileError(source.name, text).as_record()}
    ImportGuard(Path(request["plugins_dir"]), source.folder).install()
    steps.plugin = source.name
    versioned = source.manifest.version is not None
    steps.exclusive = source.manifest.exclusive is not None
    del source
    os.write(compiled, b"!")
    os.close(compiled)
    limit_cpu(request["seconds"])
    answer = in_load_thread(lambda: _try(artifact, request, steps, versioned, sealed))
    held = steps.held
    if held is not None:  # an error after it is of what was only half made
        answer["in_use"] = held.as_held()
    elif steps.exclusive and answer.get("is_in_use"):
        answer["in_use"] = {**answer["error"], "holder": answer["holder"]}
    return {**answer, "sha256": artifact.sha256, "uncompiled": uncompiled}


def _former_version(plugin: str, request: dict[str, Any]) -> Archive | None:
    """Return the version that the request names, None where everything is to be compiled.

    What is wrong with its archive is said by those who serve it.
    """
    if request["former"] is None:
        return None
    digest, sha256 = request["former"]
    try:
        handle, size = open_regular(Path(request["artifacts_dir"]) / artifact_name(plugin, digest))
        with os.fdopen(handle, "rb") as file:
            raw = file.read() if size <= MAX_FORMER_BYTES else b""
        return Archive.verified(Artifact(plugin, digest, sha256, raw))
    except (OSError, ArtifactError):
        return None


def _rehearse(
    older: int, newer: int, compiled: int, request: dict[str, Any], steps: Steps
) -> dict[str, Any]:
    logging.disable(logging.NOTSET)  # what libraries say is a sign
    give_way()
    ImportGuard(Path(request["plugins_dir"]), Path(request["source_folder"])).install()
    os.write(compiled, b"!")
    os.close(compiled)
    limit_cpu(request["seconds"])
    return in_load_thread(lambda: rehearse_archives(request, older, newer, steps))


def _try(
    artifact: Artifact,
    request: dict[str, Any],
    steps: Steps,
    versioned: bool = False,
    archive: Path | None = None,
) -> dict[str, Any]:
    session, lend = open_session(request)
    data = Path(request["folder"]) / "data"
    make_context = make_context_factory(data, lambda _: lend, trial=True)
    folders = VersionFolders(Path(request["artifacts_dir"]), archive=archive, thorough=True)
    try:
        try:
            loaded = load(artifact, make_context, steps=steps, versioned=versioned, folders=folders)
        except ArtifactError:
            # It can be tried all the same; who stores the archive says what is wrong with the disk.
            folders = VersionFolders(Path(request["folder"]), archive=archive)
            loaded = load(artifact, make_context, steps=steps, versioned=versioned, folders=folders)
        places = {r.template: r.place for r in loaded.routes if r.place is not None}
        conflict = conflict_within(artifact.plugin, loaded.routes)
        if conflict is not None:
            raise conflict
        endpoints = [[e.method, e.path, e.handler] for r in loaded.routes for e in r.endpoints]
        steps.reached("cleanup")
        loaded.clean_up()
        refuse_patches(artifact.plugin, "cleanup")
    except PluginError as fault:
        error = _patch_behind(fault)
        record = error.as_record()
        short = shortage(error.message, request["memory_bytes"])
        return {
            "error": {**record, "message": record["message"] + short},
            "trace": error.trace,
            "transient": error.transient,
            "outside": error.outside and not short,  # it is the plugin that takes so much
            "is_in_use": error.in_use,
            "holder": error.holder,
        }
    except DatabaseUnavailableError as error:
        return {"unavailable": str(error)}
    finally:
        folders.close()
        if session:
            session.close()
    metadata = loaded.metadata
    return {
        "metadata": [metadata.name, metadata.version, metadata.description, metadata.author],
        "endpoints": endpoints,
        "places": places,
    }


def _patch_behind(error: PluginError) -> PluginError:
    """Return what an error comes from: a thread that loads cannot be patched to its end."""
    try:
        refuse_patches(error.plugin, error.phase)
    except PluginError as patched:
        return patched
    return error
