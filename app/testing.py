"""Test a plugin without a server: its folder, loaded as a worker loads it, and a client.

In a file of pytest::

    import pytest

    from app.testing import load_plugin


    @pytest.fixture
    def hello():
        with load_plugin("plugins/hello", config={"greeting": "Ahoy"}) as plugin:
            yield plugin


    def test_it_greets(hello):
        assert hello.client.get("/hello").json == {"message": "Ahoy from hello!"}


    def test_it_refuses_a_list(hello):
        answer = hello.client.post_json("/hello", [1, 2], status=422)
        assert answer.json["title"] == "The request does not fit"

`client` is a `webtest.TestApp` (https://docs.pylonsproject.org/projects/webtest/): it raises for
an answer of 400 and above unless `status` says that it is expected. `checked_client` is one, too,
and raises also for an answer that the plugin's OpenAPI document does not say: a status, a content
type, or JSON that is not as the handler's annotations promise. `document` is that document.
"""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.admin import problems
from app.admin.openapi.document import LiveDocuments
from app.database.pool import Database
from app.errors import DatabaseUnavailableError, DiscoveryError, PluginError
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, load
from app.package.store import write_archive
from app.package.version_folders import VersionFolders
from app.plugin import PluginContext, PluginMetadata
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import read_source
from app.publishing.manifest import complete_metadata
from app.records import Endpoint, PluginSource
from app.routing.application import LiveApp
from app.routing.plugin_app import answer_by_own

try:
    with warnings.catch_warnings():
        # WebOb imports `cgi`, which says so: no fault of the test that runs with -W error.
        warnings.simplefilter("ignore", DeprecationWarning)
        import webtest

    from app.admin.openapi.answer_check import answer_fault
except ModuleNotFoundError as error:
    raise ImportError(
        f"app.testing needs WebTest and jsonschema ({error}); install them with: "
        "pip install 'benana[test]'"
    ) from error

__all__ = ["CheckedClient", "PluginUnderTest", "load_plugin"]


@dataclass(frozen=True, slots=True)
class PluginUnderTest:
    """A plugin that is loaded, and a client that calls its routes.

    `instance` is what `new_plugin()` returned, `context` what `initialize` was given, and
    `endpoints` what `register_routes` registered, in its order. `checked_client` raises for answers
    that `document` does not say.
    """

    name: str
    metadata: PluginMetadata
    endpoints: tuple[Endpoint, ...]
    instance: Any
    context: PluginContext
    client: webtest.TestApp
    checked_client: webtest.TestApp
    documents: LiveDocuments = field(repr=False)

    @property
    def document(self) -> Any:
        """The plugin's OpenAPI document."""
        found = self.documents.of_plugin(self.name)
        return json.loads(found.body) if found else {}


class CheckedClient(webtest.TestApp):  # type: ignore[misc]
    """A client that checks each answer against the document of the plugin that gave it."""

    def __init__(self, app: LiveApp, name: str, documents: LiveDocuments) -> None:
        super().__init__(app)
        self._live, self._name, self._documents = app, name, documents

    def do_request(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a request; AssertionError says what of its answer the document does not say."""
        answer = super().do_request(req, *args, **kwargs)
        match = self._live.table.search(req.path)
        document = self._documents.of_plugin(self._name)
        if match is not None and document is not None:
            fault = answer_fault(
                json.loads(document.body),
                req.method,
                match[1].route.template,
                answer.status_int,
                answer.headers.get("Content-Type", ""),
                answer.body,
            )
            if fault is not None:
                raise AssertionError(fault)
        return answer


@contextlib.contextmanager
def load_plugin(
    folder: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
    database_url: str | None = None,
) -> Iterator[PluginUnderTest]:
    """Load a plugin's folder for the length of a `with` block; `cleanup` runs at its end.

    It is loaded into this process, by the same steps as in a worker, and has an empty data folder
    of its own, which goes away with it.

    Args:
        folder: the plugin's folder; its name is the plugin's.
        config: what `context.config` holds; None for the `config` of its `plugin.yaml`.
        database_url: where `context.database` connects to; what the plugin writes there stays.
            None for nowhere: `context.database()` raises DatabaseUnavailableError.

    Raises:
        PluginError: the plugin cannot be loaded, or its `cleanup` fails; `file` and `line` say
            where. If the block itself raised, a failed `cleanup` becomes a note of that error.
        DatabaseUnavailableError: the plugin needs the database to be loaded, and there is none.
        SettingsError: the database's URL cannot be read.
    """
    # The name is that of the folder as it is called, also where it is a link.
    path = Path(os.path.abspath(folder))  # noqa: PTH100
    source = read_source(path.parent, path, path.name)
    if config is not None:
        source = _with_config(source, config)
    artifact = compile_plugin(source, passes_over=warnings.warn)
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="benana-test-"))
        folders = VersionFolders(Path(temporary))
        stack.callback(folders.close)
        write_archive(artifact, Path(temporary))
        connect: Callable[[], AbstractContextManager[Any]] = _no_database
        if database_url:
            connect = stack.enter_context(
                contextlib.closing(Database(database_url, reset=True))
            ).connection
        loaded = load(
            artifact,
            make_context_factory(Path(temporary) / "data", lambda _: connect),
            versioned=source.manifest.version is not None,
            folders=folders,
        )
        try:
            yield _under_test(replace(loaded, metadata=complete_metadata(loaded.metadata, source)))
        except BaseException as error:
            try:
                _clean_up(loaded)
            except PluginError as fault:
                error.add_note(str(fault))
            raise
        _clean_up(loaded)


def _with_config(source: PluginSource, config: Mapping[str, Any]) -> PluginSource:
    try:
        json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DiscoveryError(
            source.name, f"config is not JSON ({error}), expected what plugin.yaml could hold"
        ) from None
    return replace(source, manifest=replace(source.manifest, config=config))


def _no_database() -> AbstractContextManager[Any]:
    raise DatabaseUnavailableError("this test has no database; give load_plugin a database_url")


def _under_test(loaded: LoadedPlugin) -> PluginUnderTest:
    app = LiveApp()
    problems.install(app)
    answer_by_own(app, loaded.own, loaded.routes)
    builder = app.table.builder()
    builder.add(loaded.name, loaded.routes)
    app.swap(builder.build())
    documents = LiveDocuments(app, lambda _: loaded.metadata, has_token=False)
    return PluginUnderTest(
        name=loaded.name,
        metadata=loaded.metadata,
        endpoints=tuple(endpoint for route in loaded.routes for endpoint in route.endpoints),
        instance=loaded.instance,
        context=loaded.context,
        client=webtest.TestApp(app),
        checked_client=CheckedClient(app, loaded.name, documents),
        documents=documents,
    )


def _clean_up(loaded: LoadedPlugin) -> None:
    """Do what `LoadedPlugin.dispose` does, and raise what it only logs."""
    try:
        loaded.clean_up()
    finally:
        loaded.importer.forget()
