"""What a trial's own process does: compile a source, load it once and report.

See `trial_server`, which it is forked from.
"""

import faulthandler
import gc
import json
import logging
import os
import resource
import signal
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from app.database.trial_session import TrialSession
from app.errors import CompileError, DatabaseUnavailableError, LoadError, PluginError
from app.loading.context import make_context_factory
from app.loading.guarded_calls import guarded
from app.loading.loader import Steps, load
from app.publishing.compiler import compile_plugin
from app.publishing.import_guard import ImportGuard
from app.publishing.parcel import read_parcel
from app.records import Artifact, Manifest, PluginSource
from app.routing.conflicts import find_conflict

MEMORY_BYTES = 3 * 1024**3
FILE_BYTES = 256 * 1024**2

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


def warm_up() -> None:
    """Try a small plugin in this process, and keep the children's collections off its memory."""
    source = PluginSource("first", Path(), {"main.py": _FIRST_PLUGIN}, Manifest(), "0" * 32)
    with tempfile.TemporaryDirectory(prefix="benana-trial-") as folder:
        request = {"database_url": "postgresql:///", "data_dir": folder, "seconds": 1.0}
        answer = _try(compile_plugin(source), request, Steps())
    if "metadata" not in answer:
        raise RuntimeError(f"the first trial failed: {answer}")
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at


class _ReportedSteps(Steps):
    def __init__(self, report: int) -> None:
        self._report = report
        self.exclusive = False
        """Whether one process alone runs the plugin, so that it may hold what is wanted here."""
        self.held: LoadError | None = None
        """What could not be had in `initialize`."""

    def reached(self, phase: str) -> None:
        os.write(self._report, f"@{phase}\n".encode())

    def goes_on(self, error: LoadError) -> bool:
        """Note what is in use, and go on: the version that is served may hold it."""
        if self.exclusive and error.in_use:
            self.held = error
        return self.held is not None

    def compiles(self, path: str) -> None:
        """Note which file is compiled now."""
        os.write(self._report, f"={json.dumps(path)}\n".encode())


def run_child(
    request: dict[str, Any], parcel: int, archive: int, report: int, compiled: int
) -> None:
    """Compile and try the plugin and end the process; never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        logging.disable()
        faulthandler.enable(file=report)
        faulthandler.register(signal.SIGUSR1, file=report, all_threads=True)
        steps = _ReportedSteps(report)
        _limit(request["compile_seconds"])
        answer = json.dumps(_compile_and_try(parcel, archive, compiled, request, steps))
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
    try:
        artifact = compile_plugin(source, steps.compiles)
        # Closed before the plugin's own code runs: what it does cannot change the archive.
        with os.fdopen(archive, "wb") as file:
            file.write(artifact.archive)
    except PluginError as error:
        return {"error": error.as_record()}
    except MemoryError:
        text = f"compiling it takes more than {MEMORY_BYTES:,} bytes of memory; make it smaller"
        return {"error": CompileError(source.name, text).as_record()}
    ImportGuard(Path(request["plugins_dir"]), source.folder).install()
    versioned = source.manifest.version is not None
    steps.exclusive = source.manifest.exclusive is not None
    del source
    os.write(compiled, b"!")
    os.close(compiled)
    _limit_cpu(request["seconds"])
    answer = _try(artifact, request, steps, versioned)
    held = steps.held
    if held is not None:  # an error after it is of what was only half made
        answer["in_use"] = {**held.as_record(), "holder": held.holder}
    elif steps.exclusive and answer.get("is_in_use"):
        answer["in_use"] = {**answer["error"], "holder": answer["holder"]}
    return {**answer, "sha256": artifact.sha256}


def _limit(seconds: float) -> None:
    _limit_cpu(seconds)
    for kind, amount in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, amount)


def _limit_cpu(seconds: float) -> None:
    """Allow so much CPU time from now on."""
    _lower(resource.RLIMIT_CPU, int(time.process_time() + seconds) + 1)


def _lower(kind: int, amount: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    # macOS refuses some of them; the wall clock bounds a trial in any case.
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (amount, hard))


def _try(
    artifact: Artifact, request: dict[str, Any], steps: Steps, versioned: bool = False
) -> dict[str, Any]:
    url = request["database_url"]
    session = TrialSession(url, request["seconds"]) if url else None
    lend = session.connection if session else _no_database
    make_context = make_context_factory(Path(request["data_dir"]), lambda _: lend, trial=True)
    try:
        loaded = load(artifact, make_context, steps=steps, versioned=versioned)
        places = {r.template: r.place for r in loaded.routes if r.place is not None}
        templates = [route.template for route in loaded.routes]
        conflict = find_conflict(artifact.plugin, templates, {}, places)
        if conflict is not None:
            raise conflict
        endpoints = [[e.method, e.path, e.handler] for r in loaded.routes for e in r.endpoints]
        steps.reached("cleanup")
        loaded.context.cancelled.set()
        cleanup = loaded.instance.cleanup
        guarded(artifact.plugin, "cleanup", loaded.importer, cleanup, loaded.context)
    except PluginError as error:
        return {
            "error": error.as_record(),
            "trace": error.trace,
            "transient": error.transient,
            "outside": error.outside,
            "is_in_use": error.in_use,
            "holder": error.holder,
        }
    except DatabaseUnavailableError as error:
        return {"unavailable": str(error)}
    finally:
        if session:
            session.close()
    metadata = loaded.metadata
    return {
        "sha256": artifact.sha256,
        "metadata": [metadata.name, metadata.version, metadata.description, metadata.author],
        "endpoints": endpoints,
        "places": places,
    }


def _no_database() -> AbstractContextManager[Any]:
    raise DatabaseUnavailableError("a check has no database; set DATABASE_URL to give one")
