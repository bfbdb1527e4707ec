"""An artifact becomes a loaded plugin: import, factory, contract, initialize, routes.

Serving and trials load through the same steps, so that what a trial accepts a worker can load.
"""

import inspect
import logging
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

from app.database.sqlstates import comes_from_outside, is_transient
from app.errors import BenanaError, DatabaseUnavailableError, LoadError, PluginError
from app.loading.callers import Surroundings, check_of
from app.loading.registration import Route, RouteCollector
from app.package.archive import Archive, GenerationImporter
from app.plugin import PluginContext, PluginInterface, PluginMetadata
from app.records import Artifact

log = logging.getLogger(__name__)

T = TypeVar("T")

_METHODS: dict[str, tuple[str, ...]] = {
    "initialize": ("context",),
    "get_metadata": (),
    "register_routes": ("server",),
    "cleanup": ("context",),
}

MakeContext = Callable[[str, dict[str, Any]], PluginContext]
"""Makes a plugin's context from its name and the `config` of its manifest."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One generation of a plugin, ready to be routed."""

    row_id: str
    name: str
    generation: int
    metadata: PluginMetadata
    routes: tuple[Route, ...]
    context: PluginContext
    package: GenerationImporter
    instance: Any
    loaded_at: float
    """When its load began, in monotonic seconds."""

    @property
    def label(self) -> str:
        """The generation's name in log lines and thread names."""
        return f"{self.name}-g{self.generation}"

    @property
    def key(self) -> str:
        """What its routes have as `Route.generation`: no two in a process are equal."""
        return self.package.name

    def traces(self) -> "list[weakref.ref[Any]]":
        """Return references to what is alive as long as anything of the generation is."""
        return self.package.traces()

    def dispose(self) -> None:
        """Clean the plugin up and forget its modules; a fault is logged, never raised."""
        self.context.cancelled.set()
        try:
            guarded(self.name, "cleanup", self.package, self.instance.cleanup, self.context)
        except BenanaError as error:
            log.warning("%s", error)
        finally:
            self.package.forget()


class Steps:
    """How far a load has come; a trial passes it on, so that a killed one can name its phase."""

    def reached(self, phase: str) -> None:
        """Note that a phase begins."""


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
) -> LoadedPlugin:
    """Load an artifact as one generation of its plugin.

    With `surroundings` the server says by which names it is called, for a plugin that has its
    callers checked; without them, by those of this machine. With `tried` its trial has passed.
    With `versioned` its manifest names a version, so that its metadata may leave it empty.

    On failure nothing stays behind: the modules are forgotten, and `cleanup` has run if
    `initialize` had succeeded.

    Raises:
        ArtifactError: the archive does not match its hash.
        LoadError: the plugin cannot be imported, breaks its contract or fails in a method.
        DatabaseUnavailableError: the plugin needed the database and it was away.
    """
    try:
        loaded = _load(
            artifact, make_context, row_id, generation, steps or Steps(), tried, tried or versioned
        )
    except BenanaError as error:
        # Whoever keeps the error shall not keep the plugin's frames with it.
        error.__context__ = error.__cause__ = None
        raise error.with_traceback(None) from None
    archive = loaded.package.content
    check = check_of(archive.plugin, archive.origins, archive.hosts, surroundings)
    if check is not None:
        for route in loaded.routes:
            route.put_behind(check)
    return loaded


def _load(
    artifact: Artifact,
    make_context: MakeContext,
    row_id: str,
    generation: int,
    steps: Steps,
    tried: bool,
    versioned: bool,
) -> LoadedPlugin:
    name, began = artifact.plugin, time.monotonic()
    package = GenerationImporter(Archive.verified(artifact), generation)
    try:
        steps.reached("import")
        module = guarded(name, "import", package, package.import_entry)
        instance = _create(name, package, module)
        steps.reached("get_metadata")
        metadata = _metadata(name, package, instance, versioned)
        context = make_context(name, dict(package.content.config))
        steps.reached("initialize")
        guarded(name, "initialize", package, instance.initialize, context)
    except BenanaError:
        package.forget()
        raise
    loaded = LoadedPlugin(row_id, name, generation, metadata, (), context, package, instance, began)
    try:
        steps.reached("register_routes")
        collector = RouteCollector(
            name, lambda frame: _frame_place(package, frame), package.name, tried=tried
        )
        guarded(name, "register_routes", package, instance.register_routes, collector)
        routes = collector.finish()
    except BenanaError:
        loaded.dispose()
        raise
    return replace(loaded, routes=routes)


def guarded(
    plugin: str,
    phase: str,
    package: GenerationImporter,
    function: Callable[..., T],
    *arguments: Any,
) -> T:
    """Call into a plugin; whatever it raises, SystemExit included, becomes a `LoadError`.

    The error holds the traceback as text and not the exception: that would keep the plugin's
    frames, and with them its whole generation, alive.

    Raises:
        LoadError: with the file and line of the plugin's innermost frame.
        DatabaseUnavailableError: the plugin asked for the database while it was away.
    """
    try:
        return function(*arguments)
    except DatabaseUnavailableError as error:
        raise type(error)(f"{plugin}: {phase} failed: {error}") from None
    except PluginError as error:
        error.plugin = plugin
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin must not end the process
        raise _as_load_error(plugin, phase, package, error) from None


def _as_load_error(
    plugin: str, phase: str, package: GenerationImporter, error: BaseException
) -> LoadError:
    place = None
    for frame in traceback.extract_tb(error.__traceback__):
        place = package.place_of(frame.filename, frame.lineno) or place
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        place = package.place_of(error.filename, error.lineno) or place
    said = _safe(str, error)
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SystemExit):
        code = "" if error.code is None else _safe(repr, error.code)
        text = f"it called sys.exit({code}), expected a return"
    if isinstance(error, ModuleNotFoundError) and error.name and isinstance(error.name, str):
        if package.content.module_path(error.name):
            text += f"; write 'from . import {error.name}': a plugin's own modules are relative"
        elif not error.name.startswith("_plugins."):
            text += "; install it into the server's environment"
    return LoadError(
        plugin,
        text,
        phase=phase,
        file=place[0] if place else None,
        line=place[1] if place else None,
        trace="".join(traceback.format_exception(error)),
        transient=is_transient(error),
        outside=comes_from_outside(error),
    )


def _safe(function: Callable[[Any], str], item: Any) -> str:
    try:
        return function(item)
    except BaseException:  # noqa: BLE001 - the text of a plugin's own exception is its own code
        return "<no text>"


def _frame_place(package: GenerationImporter, frame: FrameType) -> tuple[str, int] | None:
    return package.place_of(frame.f_code.co_filename, frame.f_lineno)


def _create(name: str, package: GenerationImporter, module: Any) -> Any:
    module_name, _, factory_name = package.content.entry.partition(":")
    file = (package.content.module_path(module_name) or ("", False))[0]
    line: int | None
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        found = "nothing of that name" if factory is None else f"a {type(factory).__name__}"
        raise LoadError(
            name,
            f"{file} has {found} under {factory_name!r}, expected a function "
            f"{factory_name}() that returns the plugin",
            phase="factory",
            file=file,
        )
    instance = guarded(name, "factory", package, factory)
    faults = guarded(name, "contract", package, contract_faults, instance)
    if faults:
        file, line = _defined_at(package, type(instance)) or (file, None)
        raise LoadError(
            name,
            f"{factory_name}() returned a {type(instance).__name__}: " + "; ".join(faults),
            phase="contract",
            file=file,
            line=line,
        )
    return instance


def _defined_at(package: GenerationImporter, item: Any) -> tuple[str, int] | None:
    """Return where a plugin's class or method is defined, None if that is not known."""
    try:
        _, line = inspect.findsource(item)
        return package.place_of(inspect.getfile(item), line + 1)
    except (OSError, TypeError):
        return None


def contract_faults(instance: object) -> list[str]:
    """Return all that is wrong with a plugin's methods, as phrases; empty if nothing is."""
    missing = []
    faults = []
    for method, parameters in _METHODS.items():
        inherited = getattr(type(instance), method, None) is getattr(PluginInterface, method)
        function = None if inherited else getattr(instance, method, None)
        expected = f"{method}({', '.join(parameters)})"
        if function is None:
            missing.append(expected)
        elif not callable(function):
            faults.append(f"{method} is a {type(function).__name__}, expected a method {expected}")
        elif inspect.iscoroutinefunction(function):
            faults.append(f"{method} is a coroutine function, expected a plain method {expected}")
        else:
            try:
                inspect.signature(function).bind(*parameters)
            except TypeError:
                found = f"{method}{inspect.signature(function)}"
                faults.append(f"the signature is {found}, expected {expected}")
            except ValueError:
                if inspect.ismethod(function):
                    faults.append(f"{method} takes no self, expected {expected}")
                continue  # a built-in without a signature: the call itself will tell
    if missing:
        faults.insert(0, f"missing {', '.join(missing)}")
    return faults


def _metadata(
    name: str, package: GenerationImporter, instance: Any, versioned: bool
) -> PluginMetadata:
    faults, values = guarded(name, "get_metadata", package, _metadata_values, name, instance)
    if not versioned and values.get("version") == "":
        faults.append("version is '', expected 1 to 100 characters, here or in plugin.yaml")
    if faults:
        file, line = _defined_at(package, instance.get_metadata) or (None, None)
        raise LoadError(name, "; ".join(faults), phase="get_metadata", file=file, line=line)
    return PluginMetadata(**values)


def _metadata_values(name: str, instance: Any) -> tuple[list[str], dict[str, str]]:
    found = instance.get_metadata()
    faults = []
    values: dict[str, str] = {}
    for key, limit in (("name", 63), ("version", 100), ("description", 65536), ("author", 255)):
        value = getattr(found, key, None)
        if value is None and key in {"description", "author"}:
            value = ""
        if not isinstance(value, str):
            faults.append(f"{key} is {value!r}, expected text")
        elif (
            "\0" in value
            or not _is_utf8(value)
            or len(value) > limit
            or (not value and key == "name")
        ):
            faults.append(f"{key} is {value[:40]!r}, expected 1 to {limit} characters")
        else:
            values[key] = value
    if values.get("name", name) != name:
        faults.append(f"name is {values['name']!r}, expected {name!r}, the name of the folder")
    return faults, values


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Context(PluginContext):
    """A context whose data folder is made when it is asked for: not every plugin needs one, and
    not every host has a disk that can be written to."""

    __slots__ = ()

    @property
    def data_dir(self) -> Path:
        folder = cast(Path, _DATA_DIR.__get__(self))
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the data folder cannot be made ({error.strerror}); make it writable or set "
                "BENANA_DATA_DIR",
                str(folder),
            ) from None
        return folder

    @data_dir.setter
    def data_dir(self, folder: Path) -> None:  # for `__init__` alone: the class is frozen
        _DATA_DIR.__set__(self, folder)


_DATA_DIR: Any = vars(PluginContext)["data_dir"]
"""The slot in which a context keeps the folder's path."""


def make_context_factory(
    data_dir: Path, database_of: Callable[[str], Callable[[], Any]], *, trial: bool = False
) -> MakeContext:
    """Return how contexts are made in this process.

    Args:
        data_dir: the server's data folder; each plugin gets `plugins/<name>` in it.
        database_of: gives, for a plugin's name, what opens a pooled connection for a `with` block.
        trial: whether plugins are only tried here.
    """

    def make(name: str, config: dict[str, Any]) -> PluginContext:
        return _Context(
            name=name,
            config=config,
            logger=logging.getLogger(f"benana.plugins.{name}"),
            database=database_of(name),
            data_dir=data_dir / "plugins" / name,
            trial=trial,
        )

    return make
