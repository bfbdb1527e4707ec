"""The small single-threaded process that trials are forked from (`python -m` this module).

It has Falcon and the loader imported, and has tried a small plugin itself: a trial costs a fork and
not an interpreter, and nothing that Python does only the first time. It
serves one parent over the socket on its standard input and ends when that is closed.

A request is one message of JSON with four file descriptors: the source, a file for the archive,
the report pipe and the status pipe. The child compiles and then loads. It writes a line `@phase` to
the report as it reaches each phase, `=file` as it compiles each file, and at the end one line of
JSON; the server writes the child's end to the status pipe. A parent that closes its end of the
status pipe has given the trial up.
"""

import faulthandler
import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.database.connection import Connection, Database
from app.errors import CompileError, DatabaseUnavailableError, PluginError
from app.publishing.compiler import compile_plugin
from app.publishing.parcel import read_parcel
from app.records import Artifact, Manifest, PluginSource
from app.serving.loader import Steps, load, make_context_factory
from app.serving.routes import find_conflict

MAX_REQUEST_BYTES = 64 * 1024
MEMORY_BYTES = 3 * 1024**3
FILE_BYTES = 256 * 1024**2
GRACE_SECONDS = 0.3
"""How long a trial that ran out of time has to say where it is, before it is killed."""


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


@dataclass(slots=True)
class _Child:
    """A trial: `compiled` is readable once it is compiled, and has `seconds` from then on."""

    pid: int
    status: int
    compiled: int
    deadline: float
    seconds: float
    timed_out: bool = False


def warm_up() -> None:
    """Try a small plugin in this process, and keep the children's collections off its memory."""
    source = PluginSource("first", Path(), {"main.py": _FIRST_PLUGIN}, Manifest(), "0" * 32)
    with tempfile.TemporaryDirectory(prefix="benana-trial-") as folder:
        request = {"database_url": "postgresql:///", "data_dir": folder}
        answer = _try(compile_plugin(source), request, Steps())
    if "metadata" not in answer:
        raise RuntimeError(f"the first trial failed: {answer}")
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at


def serve(control: socket.socket) -> None:
    """Fork a trial for each request, until the parent closes the socket."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            timeout = min((child.deadline - now for child in children.values()), default=None)
            for key, _ in selector.select(timeout if timeout is None else max(0.0, timeout)):
                if key.fileobj == wake_read:
                    with suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                elif isinstance(key.data, _Child) and key.fileobj == key.data.compiled:
                    selector.unregister(key.data.compiled)
                    if os.read(key.data.compiled, 1) and not key.data.timed_out:
                        key.data.deadline = time.monotonic() + key.data.seconds
                elif isinstance(key.data, _Child):
                    _kill_group(key.data.pid, signal.SIGKILL)  # given up
                else:
                    child = _accept(control, children)
                    if child is None:
                        for pid in children:
                            _kill_group(pid, signal.SIGKILL)
                        return
                    # A pipe's writing end is never readable: only its closing is an event.
                    selector.register(child.status, selectors.EVENT_READ, child)
                    selector.register(child.compiled, selectors.EVENT_READ, child)
            _reap(children, selector)
            _stop_late(children)


def _accept(control: socket.socket, children: dict[int, _Child]) -> _Child | None:
    message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
    if not message:
        return None
    request = json.loads(message)
    parcel, archive, report, status = fds
    compiled, has_compiled = os.pipe()
    pid = os.fork()
    if pid == 0:
        control.close()
        os.close(status)
        os.close(compiled)
        for other in children.values():
            os.close(other.status)
            os.close(other.compiled)
        _run_child(request, parcel, archive, report, has_compiled)
    for ours in (parcel, archive, report, has_compiled):
        os.close(ours)
    deadline = time.monotonic() + request["compile_seconds"]
    child = children[pid] = _Child(pid, status, compiled, deadline, request["seconds"])
    return child


def _reap(children: dict[int, _Child], selector: selectors.BaseSelector) -> None:
    for child in list(children.values()):
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            continue
        _kill_group(child.pid, signal.SIGKILL)  # what the plugin started goes with it
        end = {"code": os.waitstatus_to_exitcode(status), "timed_out": child.timed_out}
        for pipe in (child.status, child.compiled):
            with suppress(KeyError):
                selector.unregister(pipe)
        os.close(child.compiled)
        with suppress(BrokenPipeError):
            os.write(child.status, json.dumps(end).encode())
        os.close(child.status)
        del children[child.pid]


def _stop_late(children: dict[int, _Child]) -> None:
    now = time.monotonic()
    for child in children.values():
        if now < child.deadline:
            continue
        if child.timed_out:
            _kill_group(child.pid, signal.SIGKILL)
            child.deadline = now + 1.0
        else:
            child.timed_out = True
            child.deadline = now + GRACE_SECONDS
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGUSR1)  # faulthandler writes where it is


def _kill_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class _ReportedSteps(Steps):
    def __init__(self, report: int) -> None:
        self._report = report

    def reached(self, phase: str) -> None:
        os.write(self._report, f"@{phase}\n".encode())

    def compiles(self, path: str) -> None:
        """Note which file is compiled now."""
        os.write(self._report, f"={json.dumps(path)}\n".encode())


def _run_child(
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
    del source
    os.write(compiled, b"!")
    os.close(compiled)
    _limit_cpu(request["seconds"])
    return _try(artifact, request, steps)


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


def _try(artifact: Artifact, request: dict[str, Any], steps: Steps) -> dict[str, Any]:
    database = _trial_database(request["database_url"])
    make_context = make_context_factory(Path(request["data_dir"]), database, trial=True)
    try:
        loaded = load(artifact, make_context, steps=steps)
        conflict = find_conflict(artifact.plugin, [r.template for r in loaded.routes], {})
        if conflict is not None:
            raise conflict
        endpoints = [[e.method, e.path, e.handler] for r in loaded.routes for e in r.endpoints]
        steps.reached("cleanup")
        loaded.instance.cleanup(loaded.context)
    except PluginError as error:
        return {"error": error.as_record(), "trace": error.trace}
    except DatabaseUnavailableError as error:
        return {"unavailable": str(error)}
    except BaseException as error:  # noqa: BLE001 - of cleanup: SystemExit and all
        text = f"{type(error).__name__}: {error}"
        return {"error": {"phase": "cleanup", "message": text, "file": None, "line": None}}
    metadata = loaded.metadata
    return {
        "sha256": artifact.sha256,
        "metadata": [metadata.name, metadata.version, metadata.description, metadata.author],
        "endpoints": endpoints,
    }


def _trial_database(url: str | None) -> Any:
    pool = Database(url, max_connections=4, reset=True) if url else None

    @contextmanager
    def database() -> Iterator[Connection]:
        if pool is None:
            raise DatabaseUnavailableError("a check has no database; set DATABASE_URL to give one")
        with pool.connection() as connection:
            yield connection
            connection.rollback()

    return database


if __name__ == "__main__":
    warm_up()
    with socket.socket(fileno=os.dup(0)) as parent:
        serve(parent)
    sys.exit(0)
