"""An artifact becomes a loaded plugin: import, factory, contract, initialize, routes.

Serving and trials load through the same steps, so what a trial accepts a worker can load.
"""

import logging
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from app.errors import BenanaError, DatabaseUnavailableError, LoadError, PluginError
from app.loading.callers import Surroundings, check_of
from app.loading.context import MakeContext
from app.loading.contract import create_instance, read_metadata
from app.loading.guarded_calls import guarded
from app.loading.library_entries import library_entries
from app.loading.logging_state import forget_loggers
from app.loading.own_app import OwnApp
from app.loading.registration import RouteCollector
from app.loading.routes import Route
from app.loading.started_threads import started_threads
from app.package.archive import Archive
from app.package.importer import GenerationImporter
from app.package.version_folders import VersionFolders
from app.plugin import PluginContext, PluginMetadata
from app.records import Artifact

log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One generation of a plugin, ready to be routed; call `dispose` once it is retired."""

    row_id: str
    name: str
    generation: int
    metadata: PluginMetadata
    routes: tuple[Route, ...]
    context: PluginContext
    importer: GenerationImporter
    instance: Any
    loaded_at: float
    """When its load began, in monotonic seconds."""
    own: OwnApp | None = None
    """What it has of its own as a `falcon.App` has it; None if nothing."""
    on_disposed: Callable[[], None] = _nothing
    """Called once it is cleaned up."""
    while_cleaning: Callable[[], AbstractContextManager[None]] = nullcontext
    """Makes what surrounds its `cleanup` and the end of its modules."""

    @property
    def label(self) -> str:
        """The generation's name in log lines and thread names, as `hello-g7`."""
        return f"{self.name}-g{self.generation}"

    @property
    def key(self) -> str:
        """The `Route.generation` of its routes; unique in the process."""
        return self.importer.name

    def cancel(self) -> None:
        """Tell the plugin that this generation is to stop."""
        self.context.cancelled.set()

    def traces(self) -> "list[weakref.ref[Any]]":
        """Return weak references that stay alive as long as anything of the generation does."""
        return self.importer.traces()

    def clean_up(self) -> None:
        """Tell the plugin that it is to stop, and call its `cleanup`.

        Raises:
            LoadError: it fails.
            DatabaseUnavailableError: it needed the database and it was away.
        """
        self.context.cancelled.set()
        guarded(self.name, "cleanup", self.importer, lambda: self.instance.cleanup(self.context))

    def dispose(self) -> None:
        """Clean the plugin up and forget its modules; a fault is logged, never raised."""
        with self.while_cleaning():
            try:
                self.clean_up()
            except BenanaError as error:
                log.warning("%s", error)
            finally:
                _forget(self.importer)
                self.on_disposed()


class Steps:
    """Is told how far a load has come; a trial reports it, to name the phase that it died in."""

    def reached(self, phase: str) -> None:
        """Note that a phase begins."""

    def goes_on(self, error: LoadError) -> bool:
        """Tell whether a load goes on though `initialize` has failed; a worker's never does."""
        return False


class Kept:
    """What a load has imported that failed in `initialize`, for its retry.

    Call `forget` where there is none.
    """

    def __init__(self) -> None:
        self.importer: GenerationImporter | None = None
        """What was imported; None if nothing is kept."""

    def take(self) -> GenerationImporter | None:
        """Return what is kept, and keep it no more."""
        importer, self.importer = self.importer, None
        return importer

    def forget(self) -> None:
        """Forget what is kept."""
        if (importer := self.take()) is not None:
            _forget(importer)


def load(
    artifact: Artifact,
    make_context: MakeContext,
    *,
    row_id: str = "",
    generation: int = 0,
    steps: Steps | None = None,
    surroundings: Surroundings | None = None,
    tried: bool = False,
    versioned: bool = False,
    folders: VersionFolders | None = None,
    kept: Kept | None = None,
) -> LoadedPlugin:
    """Load an artifact as one generation of its plugin.

    If it fails, nothing stays behind: the modules are forgotten, and `cleanup` has run if
    `initialize` had succeeded.

    Args:
        artifact: the plugin's archive.
        make_context: makes the context that `initialize` is given.
        row_id: the plugin's row in the database.
        generation: the number of this generation.
        steps: is told each phase before it begins.
        surroundings: the names under which the server is called, for a plugin that has its
            callers checked; None for the names of this machine.
        tried: whether the plugin's trial has passed.
        versioned: whether its manifest names a version, so that its metadata may leave it empty.
        folders: where its files are unpacked; None to have them in memory alone.
        kept: keeps what is imported where `initialize` fails for a reason that passes, and has it
            for the next call, which does not import it again; None to import it each time.

    Raises:
        ArtifactError: the archive does not match its hash, or its files cannot be unpacked.
        LoadError: the plugin cannot be imported, breaks its contract or fails in a method.
        DatabaseUnavailableError: the plugin needed the database and it was away.
    """
    try:
        importer = kept.take() if kept is not None else None
        if importer is None:
            importer = GenerationImporter(Archive.verified(artifact), generation, folders)
            library_entries.begin(artifact.plugin, importer.name)
        loaded = _load(
            importer,
            make_context,
            row_id,
            generation,
            steps or Steps(),
            tried,
            tried or versioned,
            kept,
        )
    except BenanaError as error:
        # Whoever keeps the error must not keep the plugin's frames with it.
        error.__context__ = error.__cause__ = None
        raise error.with_traceback(None) from None
    archive = loaded.importer.content
    check = check_of(archive.plugin, archive.origins, archive.hosts, surroundings)
    if check is not None:
        for route in loaded.routes:
            route.put_behind(check)
    return loaded


def _load(
    importer: GenerationImporter,
    make_context: MakeContext,
    row_id: str,
    generation: int,
    steps: Steps,
    tried: bool,
    versioned: bool,
    kept: Kept | None,
) -> LoadedPlugin:
    name, began = importer.content.plugin, time.monotonic()
    initializing = False
    try:
        steps.reached("import")
        module = guarded(name, "import", importer, importer.import_entry)
        instance = create_instance(name, importer, module, tried=tried)
        steps.reached("get_metadata")
        metadata = read_metadata(name, importer, instance, versioned=versioned)
        context = make_context(name, dict(importer.content.config))
        steps.reached("initialize")
        initializing = True
        try:
            # Asked for inside: what an object has under a name may be its own code.
            guarded(name, "initialize", importer, lambda: instance.initialize(context))
        except LoadError as error:
            if not steps.goes_on(error):
                raise
    except BenanaError as error:
        if kept is not None and initializing and _passes(error):
            kept.importer = importer
        else:
            _forget(importer)
        started_threads.fail(name, importer.name)
        raise
    loaded = LoadedPlugin(
        row_id, name, generation, metadata, (), context, importer, instance, began
    )
    try:
        steps.reached("register_routes")
        collector = RouteCollector(
            name,
            lambda frame: _frame_place(importer, frame),
            importer.name,
            tried=tried,
            context=context,
        )
        guarded(name, "register_routes", importer, lambda: instance.register_routes(collector))
        routes = guarded(name, "register_routes", importer, collector.finish)
    except BenanaError:
        loaded.dispose()
        started_threads.fail(name, importer.name)
        raise
    library_entries.loaded(importer.name)
    return replace(loaded, routes=routes, own=collector.own)


def _forget(importer: GenerationImporter) -> None:
    """Leave nothing of a generation behind, in the import system and in libraries."""
    library_entries.end(importer.content.plugin, importer.name)
    importer.forget()
    forget_loggers(importer.name)


def _frame_place(importer: GenerationImporter, frame: FrameType) -> tuple[str, int] | None:
    return importer.place_of(frame.f_code.co_filename, frame.f_lineno)


def _passes(error: BenanaError) -> bool:
    """Tell whether the same may succeed later."""
    if isinstance(error, PluginError):
        return error.passes
    return isinstance(error, DatabaseUnavailableError)
