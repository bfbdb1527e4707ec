"""What the unit tests share: plugins from text, compiled and loaded in this process."""

import contextlib
import gc
import hashlib
import itertools
import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import falcon
import falcon.testing
import pytest

from app.admin import problems
from app.errors import DatabaseUnavailableError
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, load
from app.loading.routes import Route
from app.package import importer
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import digest_of, read_source
from app.records import Artifact, Manifest, PluginSource
from app.routing.application import LiveApp

PLUGIN = """\
from app.plugin import PluginInterface, PluginMetadata

class Sample(PluginInterface):
    def initialize(self, context):
        self.context = context

    def get_metadata(self):
        return PluginMetadata(name="sample", version="1.0")

    def register_routes(self, server):
        server.get("/sample", self.handle)

    def cleanup(self, context):
        pass

    def handle(self):
        return {"ok": True}

def new_plugin():
    return Sample()
"""


def text(content: str | bytes) -> bytes:
    """Return a file's content as bytes, a text without its common indentation."""
    return content if isinstance(content, bytes) else textwrap.dedent(content).encode()


def source_of(files: Mapping[str, str | bytes], name: str = "sample", **manifest: Any):
    """Make a plugin's source in memory, without a folder."""
    raw = {path: text(content) for path, content in files.items()}
    return PluginSource(name, Path("/nowhere") / name, raw, Manifest(**manifest), digest_of(raw))


def artifact_of(files: Mapping[str, str | bytes], name: str = "sample", **manifest: Any):
    """Compile a plugin from texts."""
    return compile_plugin(source_of(files, name, **manifest))


def plugin_text(body: str = "", *, top: str = "", **methods: str) -> str:
    """Return a valid plugin's text with some methods' bodies replaced and others added."""
    bodies = {
        "initialize": "self.context = context",
        "get_metadata": "return PluginMetadata(name='sample', version='1.0')",
        "register_routes": "server.get('/sample', self.handle)",
        "cleanup": "pass",
        "handle": "return {'ok': True}",
    } | methods
    arguments = {
        "initialize": "self, context",
        "register_routes": "self, server",
        "cleanup": "self, context",
    }
    lines = ["from app.plugin import PluginInterface, PluginMetadata", textwrap.dedent(top)]
    lines.append("class Sample(PluginInterface):")
    for method, code in bodies.items():
        lines.append(f"    def {method}({arguments.get(method, 'self')}):")
        lines.append(textwrap.indent(textwrap.dedent(code), "        "))
    lines.append(textwrap.indent(textwrap.dedent(body), "    "))
    lines.append("def new_plugin():\n    return Sample()\n")
    return "\n".join(lines)


@contextlib.contextmanager
def no_database() -> Iterator[None]:
    raise DatabaseUnavailableError("the database is away")
    yield


@pytest.fixture
def plugins_root(tmp_path: Path) -> Path:
    root = tmp_path / "plugins"
    root.mkdir()
    return root


@pytest.fixture
def make_plugin(plugins_root: Path) -> Callable[..., Path]:
    """Write a plugin's folder and return it."""

    def make(files: Mapping[str, str | bytes], name: str = "sample") -> Path:
        folder = plugins_root / name
        folder.mkdir(exist_ok=True)
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text(content))
        return folder

    return make


@pytest.fixture
def read_plugin(make_plugin, plugins_root: Path) -> Callable[..., PluginSource]:
    """Write a plugin's folder and read it as the publisher does."""

    def read(files: Mapping[str, str | bytes], name: str = "sample") -> PluginSource:
        return read_source(plugins_root, make_plugin(files, name), name)

    return read


@pytest.fixture
def load_plugin(tmp_path: Path) -> Iterator[Callable[..., LoadedPlugin]]:
    """Load plugins from texts (or artifacts); what is loaded is forgotten at the end."""
    loaded: list[LoadedPlugin] = []
    numbers = itertools.count(1)

    def load_one(
        files: Mapping[str, str | bytes] | Artifact | str,
        name: str = "sample",
        *,
        generation: int | None = None,
        keep: bool = True,
        database: Any = no_database,
        **manifest: Any,
    ) -> LoadedPlugin:
        if isinstance(files, str):
            files = {"main.py": files}
        artifact = files if isinstance(files, Artifact) else artifact_of(files, name, **manifest)
        plugin = load(
            artifact,
            make_context_factory(tmp_path / "data", lambda _: database),
            generation=next(numbers) if generation is None else generation,
        )
        if keep:
            loaded.append(plugin)
        return plugin

    yield load_one
    for plugin in loaded:
        plugin.importer.forget()


def resource(**responders: Callable[..., None]) -> Any:
    """Make a Falcon resource from responders."""
    return SimpleNamespace(**responders)


def json_of(raw: bytes) -> Any:
    """Parse an answer as strictly as a client in another language would."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(raw.decode("utf-8"), parse_constant=refuse)


class Answer:
    """A WSGI answer, with what a test asks of it."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.calls: list[tuple[str, list[tuple[str, str]]]] = []
        self.body: Any = None
        self.body = app(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        # PEP 3333: a second call is an error unless it passes the exception on.
        assert not self.calls or exc_info is not None, "start_response was called twice"
        self.calls.append((status, headers))

    @property
    def status(self) -> int:
        return int(self.calls[-1][0].split(" ")[0])

    @property
    def headers(self) -> dict[str, str]:
        return {key.lower(): value for key, value in self.calls[-1][1]}

    def read(self) -> bytes:
        try:
            return b"".join(self.body)
        finally:
            self.close()

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


def call(app: Any, path: str = "/", method: str = "GET", **environ: Any) -> Answer:
    """Call a WSGI application once."""
    return Answer(app, falcon.testing.create_environ(path, method=method) | environ)


@pytest.fixture
def app() -> LiveApp:
    """A live application without routes, with the server's own error answers."""
    app = LiveApp()
    problems.install(app)
    return app


def put(app: LiveApp, owner: str, routes: Mapping[str, Any]) -> str:
    """Swap an owner's routes (template → resource, or a function for GET) for others.

    Returns their generation, which no others have.
    """
    builder = app.table.builder()
    builder.remove(owner)
    generation = f"_plugins.{owner}.g{app.table.number + 1}"
    made = tuple(
        Route(
            owner,
            template,
            resource(on_get=target) if callable(target) else target,
            generation=generation,
        )
        for template, target in routes.items()
    )
    builder.add(owner, made)
    app.swap(builder.build())
    return generation


def collected(reference: Callable[[], Any]) -> bool:
    """Tell whether a weak reference's object is gone, after a full collection."""
    for _ in range(3):
        if reference() is None:
            return True
        gc.collect()
    return reference() is None


@pytest.fixture(autouse=True)
def no_generation_left_behind() -> Iterator[None]:
    """Keep what one failing test leaves in the import system away from the others."""
    yield
    importer._finder._importers.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == importer.ROOT]:
        del sys.modules[name]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep pytest from holding log records, and with them exceptions and their frames."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
