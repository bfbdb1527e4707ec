"""What the unit tests share: plugins from text, compiled and loaded in this process."""

import http.server
import itertools
import logging
import os
import socketserver
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.admin import problems
from app.cli.commands import main
from app.libraries import PACKAGES
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, load
from app.package.finder import finder
from app.publishing.discovery import read_source
from app.records import Artifact, PluginSource
from app.routing.application import LiveApp
from tests.support.plugins import artifact_of, no_database, text


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


@pytest.fixture
def app() -> LiveApp:
    """A live application without routes, with the server's own error answers."""
    app = LiveApp()
    problems.install(app)
    return app


@pytest.fixture(autouse=True)
def no_generation_left_behind() -> Iterator[None]:
    """Keep what one failing test leaves in the import system away from the others."""
    yield
    finder._importers.clear()
    finder._places.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGES]:
        del sys.modules[name]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep pytest from holding log records, and with them exceptions and their frames."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder, with settings that point nowhere else."""
    for variable in [name for name in os.environ if name.startswith("BENANA_")]:
        monkeypatch.delenv(variable)
    for variable in ("DATABASE_URL", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, color: bool = False, **environ: str) -> Result:
        result = CliRunner().invoke(main, arguments, env=environ, color=color)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def nowhere():
    """Return the address of a port that nothing listens on."""
    with socketserver.TCPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_address[1]
    return f"127.0.0.1:{port}"
