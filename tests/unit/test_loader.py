"""Loading: the contract, every phase's faults, and that a failed load leaves nothing behind."""

import contextlib
import gc
import importlib.util
import logging
import sys
import threading
import traceback
import typing
import weakref

import jinja2
import pytest

from app.errors import (
    ArtifactError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    LoadError,
)
from app.loading import garbage
from app.loading.context import make_context_factory
from app.loading.contract import contract_faults
from app.loading.loader import Kept, load
from app.plugin import PluginInterface, PluginMetadata
from app.records import ACTIVE, Artifact, ServedRow
from app.routing.table import RouteTable
from app.serving import collector
from app.serving.collector import Collector
from app.serving.load_queue import LoadQueue
from app.serving.row_loader import RowLoader
from tests.support.memory import collected
from tests.support.plugins import PLUGIN, artifact_of, no_database, plugin_text
from tests.support.wsgi import call, json_of


@pytest.fixture
def refusal(load_plugin):
    """Load a plugin that cannot be loaded; return the error."""

    def refuse(files, *, phase, **options) -> LoadError:
        with pytest.raises(LoadError) as caught:
            load_plugin(files, **options)
        error = caught.value
        assert error.plugin == options.get("name", "sample")
        assert error.phase == phase, str(error)
        assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]
        return error

    return refuse


def line_of(source, marker="HERE"):
    return next(n for n, line in enumerate(source.splitlines(), 1) if marker in line)


# --- a plugin that is fine -----------------------------------------------------------------


def test_a_plugin_is_loaded_and_served(load_plugin, app):
    plugin = load_plugin(PLUGIN, generation=4)
    assert (plugin.name, plugin.generation, plugin.label) == ("sample", 4, "sample-g4")
    assert plugin.metadata == PluginMetadata("sample", "1.0")
    builder = app.table.builder()
    builder.add("sample", plugin.routes)
    app.swap(builder.build())
    assert json_of(call(app, "/sample").read()) == {"ok": True}
    assert type(plugin.instance).__module__ == "_plugins.sample.g4.main"


def test_the_context_holds_what_is_promised(load_plugin, tmp_path):
    plugin = load_plugin({"main.py": PLUGIN}, config={"a": [1]})
    context = plugin.instance.context
    assert context is plugin.context
    assert (context.name, context.config, context.trial) == ("sample", {"a": [1]}, False)
    assert context.data_dir.is_dir()
    assert context.data_dir == tmp_path / "data" / "plugins" / "sample"
    assert not context.cancelled.is_set()
    assert context.logger.name == "benana.plugins.sample"


def test_a_plugin_needs_no_base_class(load_plugin):
    text = PLUGIN.replace("class Sample(PluginInterface):", "class Sample:")
    assert load_plugin(text).metadata.version == "1.0"


def test_another_entry_is_used(load_plugin):
    text = PLUGIN.replace("new_plugin", "make")
    assert load_plugin({"pkg/sub.py": text}, entry="pkg.sub:make").name == "sample"
    assert load_plugin({"plugin.py": PLUGIN}, entry="plugin:new_plugin").name == "sample"


def test_a_class_may_be_the_factory(load_plugin):
    text = PLUGIN.partition("def new_plugin")[0] + "\nnew_plugin = Sample\n"
    assert load_plugin(text).instance.__class__.__name__ == "Sample"


def test_static_and_class_methods_and_defaults_fit_the_contract(load_plugin):
    text = plugin_text().replace(
        "def cleanup(self, context):", "def cleanup(self, context=None, *more):"
    )
    text = text.replace("    def get_metadata(self):", "    @staticmethod\n    def get_metadata():")
    assert load_plugin(text).metadata.name == "sample"


def test_methods_of_the_instance_count(load_plugin):
    text = """\
        from types import SimpleNamespace
        from app.plugin import PluginMetadata
        def new_plugin():
            return SimpleNamespace(
                initialize=lambda context: None,
                get_metadata=lambda: SimpleNamespace(name="sample", version="2"),
                register_routes=lambda server: server.get("/sample", lambda: 1),
                cleanup=lambda context: None,
            )
        """
    plugin = load_plugin({"main.py": text})
    assert plugin.metadata == PluginMetadata("sample", "2", "", "")


def test_steps_are_told_in_their_order(tmp_path):
    phases = []

    class Steps:
        def reached(self, phase):
            phases.append(phase)

    context = make_context_factory(tmp_path, lambda _: no_database)
    plugin = load(artifact_of({"main.py": PLUGIN}), context, steps=Steps())  # type: ignore[arg-type]
    plugin.dispose()
    assert phases == ["import", "get_metadata", "initialize", "register_routes"]


# --- the contract --------------------------------------------------------------------------


def test_all_missing_methods_are_named_at_once(refusal):
    error = refusal(
        {"main.py": "class P: pass\n\ndef new_plugin(): return P()\n"}, phase="contract"
    )
    for part in (
        "initialize(context)",
        "get_metadata()",
        "register_routes(server)",
        "cleanup(context)",
    ):
        assert part in error.message
    assert (error.file, error.line) == ("main.py", 1)


def test_a_bare_subclass_has_overridden_nothing(refusal):
    text = """\
        from app.plugin import PluginInterface
        class P(PluginInterface): pass
        def new_plugin(): return P()
        """
    error = refusal({"main.py": text}, phase="contract")
    for method in ("initialize", "get_metadata", "register_routes", "cleanup"):
        assert method in error.message
    assert error.line == 2


def test_missing_wrong_and_coroutine_methods_are_named_together_with_the_classs_line(refusal):
    text = """\
        # a comment
        class P:
            def initialize(self): ...
            async def get_metadata(self): ...
            register_routes = 5
        def new_plugin():
            return P()
        """
    error = refusal({"main.py": text}, phase="contract")
    for part in (
        "missing cleanup(context)",
        "initialize()",
        "coroutine",
        "get_metadata",
        "register_routes is a int",
    ):
        assert part in error.message
    assert (error.file, error.line) == ("main.py", 2)


@pytest.mark.parametrize(
    "signature", ["self", "self, a, b", "self, *, context", "", "self, *, key"]
)
def test_a_signature_that_cannot_be_called_as_it_will_be_is_refused(refusal, signature):
    text = plugin_text().replace("def initialize(self, context):", f"def initialize({signature}):")
    error = refusal({"main.py": text}, phase="contract")
    assert "initialize(" in error.message
    assert "expected initialize(context)" in error.message


def test_a_class_instead_of_an_instance_is_refused(refusal):
    text = PLUGIN.replace("return Sample()", "return Sample")
    error = refusal(text, phase="contract")
    for method in ("initialize", "get_metadata", "register_routes", "cleanup"):
        assert method in error.message


@pytest.mark.parametrize("value", ["None", "5", "'text'", "[]", "object()"])
def test_a_factory_that_returns_something_else_is_refused(refusal, value):
    error = refusal({"main.py": f"def new_plugin():\n    return {value}\n"}, phase="contract")
    assert "missing" in error.message
    assert error.file == "main.py"


def test_a_missing_factory_is_named_with_what_was_found(refusal):
    error = refusal({"main.py": "x = 1\n"}, phase="factory")
    assert "new_plugin" in error.message
    assert error.file == "main.py"


def test_a_plugin_object_of_the_module_is_not_a_factory(refusal):
    text = PLUGIN.partition("def new_plugin")[0] + "\nnew_plugin = Sample()\n"
    error = refusal(text, phase="factory")
    assert "a Sample" in error.message
    assert error.file == "main.py"


def test_a_factory_that_needs_arguments_is_refused(refusal):
    error = refusal("def new_plugin(name):\n    pass\n", phase="factory")
    assert "name" in error.message


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_coroutine_factory_is_refused(refusal):
    assert "coroutine" in refusal("async def new_plugin():\n    pass\n", phase="contract").message
    gc.collect()


@pytest.mark.parametrize("error", ["ValueError('x')", "SystemExit(3)"])
def test_a_plugin_whose_attributes_raise_is_a_load_error(refusal, error):
    text = plugin_text(f"@property\ndef cleanup(self):\n    raise {error}\n", top="# nothing")
    refusal({"main.py": text}, phase="contract")


def test_contract_of_what_was_tried_is_looked_at_without_its_signatures():
    class Odd(PluginInterface):
        def initialize(self): ...  # type: ignore[override]
        def get_metadata(self): ...
        def register_routes(self, server): ...
        def cleanup(self, context): ...

    assert len(contract_faults(Odd())) == 1
    assert contract_faults(Odd(), tried=True) == []
    assert len(contract_faults(object(), tried=True)) == 1


def test_contract_faults_of_a_good_plugin_are_none():
    class Good(PluginInterface):
        def initialize(self, context): ...
        def get_metadata(self): ...
        def register_routes(self, server): ...
        def cleanup(self, context): ...

    assert contract_faults(Good()) == []

    class Bare(PluginInterface): ...

    assert len(contract_faults(Bare())) == 1  # type: ignore[abstract]


# --- metadata ------------------------------------------------------------------------------


def test_all_faults_of_the_metadata_are_named_at_once_with_the_methods_line(refusal):
    text = plugin_text(
        get_metadata="return PluginMetadata(\n"
        "    name='other', version='', description=5, author='a' * 256)"
    )
    error = refusal({"main.py": text}, phase="get_metadata")
    for part in ("name is 'other'", "version is ''", "description is 5", "255"):
        assert part in error.message
    assert error.file == "main.py"
    assert error.line == line_of(text, "def get_metadata")


@pytest.mark.parametrize("value", ["None", "5", "{}", "{'name': 'sample', 'version': '1'}"])
def test_metadata_of_another_kind_is_refused(refusal, value):
    error = refusal({"main.py": plugin_text(get_metadata=f"return {value}")}, phase="get_metadata")
    assert "name is None" in error.message
    assert "version is None" in error.message


@pytest.mark.parametrize(
    "arguments",
    [
        "version='x' * 101",
        "version='a\\0'",
        "version=1.0",
        "version=None",
        "version='1', description='x' * 65537",
        "version='1', author='\\0'",
    ],
)
def test_metadata_that_the_database_could_not_hold_is_refused(refusal, arguments):
    text = plugin_text(get_metadata=f"return PluginMetadata(name='sample', {arguments})")
    refusal({"main.py": text}, phase="get_metadata")


def test_metadata_that_utf_8_cannot_hold_is_refused(refusal):
    text = plugin_text(get_metadata="return PluginMetadata('sample', '1', '\\ud800')")
    refusal({"main.py": text}, phase="get_metadata")


def test_metadata_whose_attributes_raise_is_a_load_error(refusal):
    text = plugin_text(
        get_metadata="return Odd()",
        top="class Odd:\n    @property\n    def name(self): raise ValueError('odd')\n",
    )
    refusal({"main.py": text}, phase="get_metadata")


def test_description_and_author_may_be_none(load_plugin):
    text = plugin_text(get_metadata="return PluginMetadata('sample', '1', None, None)")
    assert load_plugin(text).metadata == PluginMetadata("sample", "1", "", "")


# --- failures in every phase ---------------------------------------------------------------

RAISERS = [
    "raise ValueError('boom')",
    "raise SystemExit(3)",
    "import sys; sys.exit()",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "1 / 0",
    "raise BaseException('x')",
    "assert False",
    "raise Exception",
]


@pytest.mark.parametrize("raiser", RAISERS)
@pytest.mark.parametrize(
    "phase", ["import", "factory", "get_metadata", "initialize", "register_routes"]
)
def test_whatever_is_raised_in_a_phase_is_a_load_error_with_its_place(refusal, phase, raiser):
    broken = f"{raiser}  # HERE"
    if phase == "import":
        text = PLUGIN + broken + "\n"
    elif phase == "factory":
        text = PLUGIN.replace("return Sample()", broken)
    else:
        text = plugin_text(**{phase: broken})
    error = refusal({"main.py": text}, phase=phase)
    assert (error.file, error.line) == ("main.py", line_of(text))
    assert "Traceback" in error.trace
    assert "# HERE" in error.trace


def test_the_place_is_the_plugins_innermost_frame_and_not_the_librarys(refusal):
    text = plugin_text(initialize="from .deep import go\ngo()")
    deep = "import json\n\ndef go():\n    json.loads('{')  # HERE\n"
    error = refusal({"main.py": text, "deep.py": deep}, phase="initialize")
    assert (error.file, error.line) == ("deep.py", 4)


def test_sys_exit_is_named_as_such(refusal):
    error = refusal({"main.py": "import sys\nsys.exit('bye')\n"}, phase="import")
    assert "sys.exit('bye')" in error.message
    assert error.line == 2


def test_a_syntax_error_at_run_time_has_its_place(refusal):
    error = refusal({"main.py": PLUGIN + "\ncompile('x = (', 'text', 'exec')\n"}, phase="import")
    assert error.file == "main.py"


def test_an_absolute_import_of_an_own_module_says_how_to_write_it(refusal):
    error = refusal({"main.py": "import helper\n", "helper.py": ""}, phase="import")
    assert "from . import helper" in error.message
    assert error.line == 1


def test_a_missing_library_says_where_to_install_it(refusal):
    error = refusal({"main.py": "\nimport no_such_library\n"}, phase="import")
    assert "install" in error.message
    assert (error.file, error.line) == ("main.py", 2)


def test_a_missing_relative_module_does_not_advise_to_install_it(refusal):
    error = refusal({"main.py": "from .nothing import x\n"}, phase="import")
    assert "install" not in error.message
    assert error.line == 1


@pytest.mark.parametrize(
    "exception",
    [
        "Rude()",
        "ModuleNotFoundError('x', name=5)",
        "ModuleNotFoundError('x', name='a\\0b')",
        "SystemExit(Rude())",
        "ImportError('x', name='y', path='z')",
        "SyntaxError('x', ('f', 1, 1, 't'))",
        "SyntaxError('x', (5, 'a', None, None))",
        "ExceptionGroup('g', [ValueError(1)])",
        "UnicodeDecodeError('utf-8', b'x', 0, 1, 'r')",
    ],
)
def test_an_exception_that_is_itself_broken_is_a_load_error_all_the_same(refusal, exception):
    top = (
        "class Rude(Exception):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\n"
    )
    text = plugin_text(top=top, initialize=f"raise {exception}  # HERE")
    error = refusal({"main.py": text}, phase="initialize")
    assert (error.file, error.line) == ("main.py", line_of(text))


def test_a_recursion_without_end_is_a_load_error(refusal):
    text = plugin_text(initialize="self.initialize(context)")
    assert "RecursionError" in refusal({"main.py": text}, phase="initialize").message


def test_the_faults_of_routes_are_named_with_the_line_of_the_first(refusal):
    text = plugin_text(
        register_routes="server.get('/ok', self.handle)\nserver.get('bad', self.handle)  # HERE\n"
        "server.get('/{x}', self.handle)\n"
    )
    error = refusal({"main.py": text}, phase="register_routes")
    assert "'bad'" in error.message
    assert "{x}" in error.message
    assert error.line == line_of(text)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("async def handle(self): yield 1", "coroutine function"),
        ("def handle(self, limit: bytes): ...", "parameter 'limit' is annotated bytes"),
        ("def handle(self, body: type('T', (), {})): ...", "body is annotated T"),
        ("def handle(self, number: complex): ...", "the field 'number' is annotated complex"),
        ("class handle: ...", "is the class"),
    ],
)
def test_a_handler_that_would_fail_at_every_request_is_refused_at_its_line(refusal, handler, said):
    template = "/sample/{number}" if "number" in handler else "/sample"
    text = plugin_text(
        handler,
        handle="...",
        register_routes=f"server.post({template!r}, self.handle)  # HERE\n",
    )
    error = refusal({"main.py": text}, phase="register_routes")
    assert said in error.message
    assert (error.file, error.line) == ("main.py", line_of(text))


@pytest.mark.parametrize("asked", ["initialize", "later", "never"])
def test_a_data_folder_is_made_when_it_is_asked_for_and_what_prevents_that_is_named(
    tmp_path, asked
):
    text = PLUGIN
    if asked == "initialize":
        line = "def initialize(self, context):"
        assert line in text
        text = text.replace(line, f"{line}\n        context.data_dir")
    artifact = artifact_of({"main.py": text})
    (tmp_path / "file").write_text("")
    make_broken = make_context_factory(tmp_path / "file", lambda _: no_database)
    if asked == "initialize":
        with pytest.raises(LoadError, match=r"data folder cannot be made .* BENANA_DATA_DIR"):
            load(artifact, make_broken)
    else:
        plugin = load(artifact, make_broken)
        assert repr(plugin.context)
        if asked == "later":
            with pytest.raises(OSError, match="BENANA_DATA_DIR"):
                print(plugin.context.data_dir)
        plugin.dispose()
    plugin = load(artifact, make_context_factory(tmp_path / "var", lambda _: no_database))
    assert (tmp_path / "var").exists() == (asked == "initialize")
    assert plugin.context.data_dir == tmp_path / "var" / "plugins" / "sample"
    assert plugin.context.data_dir.is_dir()
    with pytest.raises(AttributeError):
        plugin.context.data_dir = tmp_path  # type: ignore[misc]
    plugin.dispose()
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


def test_a_damaged_archive_is_never_imported(tmp_path):
    good = artifact_of({"main.py": "import app.ran_anyway"})
    bad = Artifact(good.plugin, good.digest, "0" * 64, good.archive)
    with pytest.raises(ArtifactError, match="reload"):
        load(bad, make_context_factory(tmp_path, lambda _: no_database))


# --- templates beside the code -------------------------------------------------------------

JINJA = """
import jinja2

from app.plugin import PluginInterface, PluginMetadata

def environment(*where):
    return jinja2.Environment(loader=jinja2.PackageLoader(*where), autoescape=True)

here = environment(__package__)
below = environment(__name__.rpartition(".")[0], "other/pages")
within = environment(f"{__package__}.web")
bare = environment(f"{__package__}.bare", ".")

class Sample(PluginInterface):
    def initialize(self, context): ...
    def get_metadata(self): return PluginMetadata("sample", "1")
    def register_routes(self, server): server.get("/sample/{name}", self.page)
    def cleanup(self, context): ...
    def page(self, name, resp):
        resp.content_type = "text/html"
        resp.text = here.get_template("page.html").render(name=name)

def new_plugin():
    return Sample()
"""
TEMPLATES = {
    "main.py": JINJA,
    "templates/base.html": "<h1>{% block body %}{% endblock %}</h1>",
    "templates/page.html": "{% extends 'base.html' %}{% block body %}Hi {{ name }}{% endblock %}",
    "templates/part/broken.html": "\n{{ 1 / 0 }}",
    "other/pages/x.txt": "other ü",
    "web/__init__.py": "",
    "web/templates/x.txt": "web",
    "bare/x.txt": "bare",
}


def test_jinjas_package_loader_finds_what_lies_beside_the_code(load_plugin, app):
    plugin = load_plugin(TEMPLATES)
    builder = app.table.builder()
    builder.add("sample", plugin.routes)
    app.swap(builder.build())
    assert call(app, "/sample/<Ada>").read() == b"<h1>Hi &lt;Ada&gt;</h1>"
    main = sys.modules[f"{plugin.importer.name}.main"]
    for environment, text in ((main.below, "other ü"), (main.within, "web"), (main.bare, "bare")):
        assert environment.get_template("x.txt").render() == text
    assert main.here.list_templates() == ["base.html", "page.html", "part/broken.html"]
    assert main.below.list_templates() == ["x.txt"]


def test_a_template_that_is_not_there_is_not_found_nor_is_one_outside(load_plugin):
    main = sys.modules[f"{load_plugin(TEMPLATES).importer.name}.main"]
    for name in ("none.html", "../main.py", "/etc/passwd", ""):
        with pytest.raises(jinja2.TemplateNotFound):
            main.here.get_template(name)


def test_each_generation_has_its_own_templates_and_its_errors_their_place(load_plugin):
    first = load_plugin(TEMPLATES)
    second = load_plugin(TEMPLATES | {"templates/base.html": "new"})
    old, new = (sys.modules[f"{plugin.importer.name}.main"].here for plugin in (first, second))
    assert old.get_template("base.html").render() == "<h1></h1>"
    assert new.get_template("base.html").render() == "new"
    with pytest.raises(ZeroDivisionError) as caught:
        old.get_template("part/broken.html").render()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    place = first.importer.place_of(frame.filename, frame.lineno)
    assert place == ("templates/part/broken.html", 2)


def test_a_generation_with_templates_is_collected_and_leaves_nothing_to_be_searched(
    load_plugin, quiet
):
    plugin = load_plugin(TEMPLATES, keep=False)
    main = sys.modules[f"{plugin.importer.name}.main"]
    main.here.get_template("page.html").render()
    with pytest.raises(ImportError):
        importlib.import_module(".missing", plugin.importer.name)
    label = plugin.importer.content.label
    assert importlib.util.find_spec(".missing", plugin.importer.name) is None
    reference = plugin.traces()[0]
    plugin.dispose()
    assert not [path for path in sys.path_importer_cache if path.startswith(label[:-1])]
    del plugin, main
    assert collected(reference)


TYPED = plugin_text(
    top="""\
        import dataclasses
        import typing
        import pydantic
        from app.plugin import Form, Produces
        T = typing.TypeVar("T")
        class Order(pydantic.BaseModel):
            number: int
            next: "typing.Optional[Order]" = None
        class Page(pydantic.BaseModel, typing.Generic[T]):
            items: typing.List[T]
            next: "typing.Optional[Page[T]]" = None
        @dataclasses.dataclass
        class Point:
            x: float
        def one(body: typing.Optional[Order]) -> typing.Annotated[Order, Produces("text/html")]: ...
        def two(body: typing.Union[Order, Point]) -> Page[Order]: ...
        def three(form: typing.Annotated[Point, Form()]) -> typing.Dict[str, Point]: ...
    """,
    register_routes='server.post("/a", one); server.post("/b", two); server.post("/c", three)',
)


def test_generations_with_types_are_collected_though_typing_has_cached_them(load_plugin, quiet):
    references = []
    for _ in range(20):
        plugin = load_plugin(TYPED, keep=False)
        references += plugin.traces()
        plugin.dispose()
        del plugin
        garbage.collect()
        alive = [reference for reference in references if reference() is not None]
        assert not alive, alive


def test_a_worker_collects_what_typing_has_cached(monkeypatch):
    monkeypatch.setattr(collector, "FREEZE_SECONDS", 1e6)  # nothing of other tests is to be frozen
    for collect in (Collector().collect, lambda: Collector().collect_thoroughly(1000)):
        order = type("Order", (), {})
        assert typing.Optional[order]  # noqa: UP045
        assert typing.Annotated[order, 1]
        reference = weakref.ref(order)
        del order
        assert collect()
        assert reference() is None


# --- cleanup after a failure ---------------------------------------------------------------

RECORDING = (
    "from app import plugin as shared\nevents = shared.__dict__.setdefault('_test_events', [])"
)


@pytest.fixture
def events():
    """Record what plugins do; they reach the list through a module of the server."""
    import app.plugin as shared

    shared._test_events = []  # type: ignore[attr-defined]
    yield shared._test_events  # type: ignore[attr-defined]
    del shared._test_events  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("initialize", ["init"]), ("register_routes", ["init", "routes", "cleanup"])],
)
def test_cleanup_runs_if_and_only_if_initialize_had_succeeded(refusal, events, phase, expected):
    bodies = {
        "initialize": "events.append('init')",
        "register_routes": "events.append('routes')",
        "cleanup": "events.append('cleanup')\nassert context.cancelled.is_set()",
    }
    bodies[phase] += "\nraise ValueError('boom')"
    error = refusal({"main.py": plugin_text(top=RECORDING, **bodies)}, phase=phase)
    assert events == expected
    assert "boom" in error.message


def test_cleanup_runs_if_a_route_was_faulty(refusal, events):
    text = plugin_text(
        top=RECORDING, register_routes="server.get('x', 5)", cleanup="events.append(1)"
    )
    refusal({"main.py": text}, phase="register_routes")
    assert events == [1]


def test_a_cleanup_that_fails_too_does_not_hide_the_first_error(refusal):
    text = plugin_text(
        register_routes="raise ValueError('first')", cleanup="raise SystemExit('second')"
    )
    error = refusal({"main.py": text}, phase="register_routes")
    assert "first" in error.message
    assert "second" not in error.message


@pytest.mark.parametrize("raiser", RAISERS)
def test_dispose_never_raises_and_forgets_in_any_case(load_plugin, raiser):
    plugin = load_plugin(plugin_text(cleanup=raiser))
    plugin.dispose()
    assert plugin.context.cancelled.is_set()
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


USES_DATABASE = "with context.database(): pass"


def test_dispose_does_not_raise_if_cleanup_wants_a_database_that_is_away(load_plugin):
    plugin = load_plugin(plugin_text(cleanup=USES_DATABASE))
    plugin.dispose()
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


@pytest.mark.parametrize("phase", ["initialize", "register_routes"])
def test_a_database_that_is_away_is_told_apart_and_leaves_nothing(load_plugin, phase, events):
    use = USES_DATABASE if phase == "initialize" else "with self.context.database(): pass"
    text = plugin_text(
        **{"initialize": "self.context = context", phase: use},
        top=RECORDING,
        cleanup="events.append('cleanup')",
    )
    with pytest.raises(DatabaseUnavailableError, match=f"sample: {phase}"):
        load_plugin(text)
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]
    assert events == ([] if phase == "initialize" else ["cleanup"])


def test_a_database_that_is_away_does_not_hide_the_error_of_the_routes(refusal):
    text = plugin_text(register_routes="raise ValueError('first')", cleanup=USES_DATABASE)
    assert "first" in refusal({"main.py": text}, phase="register_routes").message


# --- nothing stays -------------------------------------------------------------------------

TRACKED = """\
import threading
from app import plugin as shared
class Big:
    pass
big = Big()
shared._test_events.append(__import__('weakref').ref(big))
"""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kept", ["dropped", "kept"])
@pytest.mark.parametrize(
    "broken",
    [
        {"top": TRACKED + "1 / 0"},
        {"get_metadata": "return PluginMetadata('other', '1')"},
        {"get_metadata": "1 / 0"},
        {"initialize": "local = big\n1 / 0"},
        {"initialize": "self.me = self\nraise SystemExit(self)"},
        {"register_routes": "server.get('bad', self.handle)"},
        {"register_routes": "server.get('/x', self.handle)\n1 / 0"},
        {"register_routes": "1 / 0", "cleanup": "raise KeyError(big)"},
    ],
    ids=[
        "import",
        "metadata",
        "get_metadata",
        "initialize",
        "exit",
        "routes",
        "register",
        "cleanup",
    ],
)
def test_a_failed_load_is_collected_even_while_its_error_is_kept(load_plugin, events, broken, kept):
    # The reconciler keeps the error of each plugin that it could not load.
    error = None
    try:
        load_plugin(plugin_text(**{"top": TRACKED, **broken}), keep=False)
    except LoadError as caught:
        error = caught
    assert error is not None
    if kept == "dropped":
        error = None
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]
    assert collected(events[0]), "the generation is still alive"
    assert kept == "dropped" or "failed" in str(error)


@pytest.mark.usefixtures("quiet")
def test_a_plugin_that_served_and_failed_is_collected_after_its_end(load_plugin, app, events):
    plugin = load_plugin(
        plugin_text(
            "def fail(self):\n    local = big\n    raise ValueError(local)\n"
            "def leave(self):\n    raise SystemExit(big)\n"
            "def stream(self, resp):\n    resp.stream = (1 / 0 for _ in range(3))\n",
            top=TRACKED,
            register_routes="server.get('/a', self.fail)\nserver.get('/b', self.leave)\n"
            "server.get('/c/{x}', lambda x: x)\nserver.get('/d', self.stream)",
        ),
        keep=False,
    )
    builder = app.table.builder()
    builder.add("sample", plugin.routes)
    app.swap(builder.build())
    assert [call(app, path).status for path in ("/a", "/b", "/c/1")] == [500, 500, 200]
    answer = call(app, "/d")
    with contextlib.suppress(ZeroDivisionError):
        answer.read()
    builder = app.table.builder()
    builder.remove("sample")
    app.swap(builder.build())
    plugin.dispose()
    instance = weakref.ref(plugin.instance)
    del plugin, builder, answer
    assert collected(events[0])
    assert instance() is None


@pytest.mark.usefixtures("quiet")
def test_a_plugin_that_was_refused_for_a_conflict_is_collected(load_plugin, events):
    from app.errors import ConflictError

    first = load_plugin(PLUGIN.replace('"sample"', '"other"'), name="other")
    table_builder = RouteTable.empty().builder()
    table_builder.add("other", first.routes)
    plugin = load_plugin(plugin_text(top=TRACKED), keep=False)
    with contextlib.suppress(ConflictError):
        table_builder.add("sample", plugin.routes)
    table = table_builder.build()
    plugin.dispose()
    del plugin
    assert collected(events[0])
    assert set(table.owned) == {"other"}


def test_a_generation_waits_for_nobody_to_be_loaded_twice(load_plugin):
    barrier, errors = threading.Barrier(6), []

    def work():
        try:
            barrier.wait(10)
            for _ in range(5):
                plugin = load_plugin(PLUGIN, generation=1, keep=False)
                plugin.dispose()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (DatabaseRefusedError("the database refuses: permission denied", sqlstate="42501"), False),
        (DatabaseUnavailableError("the database is away"), True),
    ],
)
def test_an_archive_that_the_database_does_not_give_is_told_with_its_words(
    tmp_path, caplog, error, passing
):
    class Database:
        def find_artifact(self, plugin, digest):
            raise error

    loading = LoadQueue(RowLoader(Database(), None, tmp_path), print, print)  # type: ignore[arg-type]
    row = ServedRow("1", "sample", 1, ACTIVE, f"/b/sample-{'0' * 32}.pyz", "0" * 64)
    result = loading.load(row, 5.0)
    loading.close()
    assert result.error.message == str(error)
    assert result.error.transient is passing
    assert not caplog.records, "it is no fault of ours"


IMPORTED = """
import logging
logging._imports = vars(logging).get("_imports", 0) + 1
"""


@pytest.mark.parametrize("keeps", [True, False])
def test_an_initialize_that_is_tried_again_is_not_imported_again(tmp_path, monkeypatch, keeps):
    monkeypatch.setattr("logging._imports", 0, raising=False)
    text = IMPORTED + PLUGIN.replace(
        "def initialize(self, context):\n",
        "def initialize(self, context):\n        context.database().__enter__()\n",
    )
    kept = Kept() if keeps else None
    artifact = artifact_of({"main.py": text})
    away = make_context_factory(tmp_path, lambda _: no_database)
    with pytest.raises(DatabaseUnavailableError):
        load(artifact, away, generation=1, kept=kept)
    back = make_context_factory(tmp_path, lambda _: contextlib.nullcontext)
    loaded = load(artifact, back, generation=1, kept=kept)
    assert vars(logging)["_imports"] == (1 if keeps else 2)
    loaded.dispose()
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


def test_what_is_kept_for_a_retry_is_forgotten_where_there_is_none(tmp_path):
    text = PLUGIN.replace(
        "def initialize(self, context):\n",
        "def initialize(self, context):\n        raise OSError(28, 'no space left')\n",
    )
    kept = Kept()
    with pytest.raises(LoadError):
        load(
            artifact_of({"main.py": text}),
            make_context_factory(tmp_path, lambda _: no_database),
            kept=kept,
        )
    assert kept.importer is not None
    kept.forget()
    assert not [name for name in sys.modules if name.startswith("_plugins.sample.g")]


def test_the_loggers_of_a_generation_that_is_gone_are_dropped(load_plugin):
    top = """
        import logging

        LOGGERS = [logging.getLogger(name) for name in (__name__, __name__ + ".sub", "shop.own")]
        logging.getLogger(__package__ + ".deep.inside")
    """
    known = logging.root.manager.loggerDict
    before = set(known)
    first = load_plugin({"main.py": plugin_text(top=top)}, keep=False)
    kept = sys.modules[f"{first.key}.main"].LOGGERS[0]
    second = load_plugin({"main.py": plugin_text(top=top)}, keep=False)
    first.dispose()
    assert not [name for name in known if name.startswith(f"{first.key}.")]
    assert f"{second.key}.main" in known
    assert "shop.own" in known
    above = known["_plugins.sample"]
    assert isinstance(above, logging.PlaceHolder)
    assert not [item.name for item in above.loggerMap if item.name.startswith(first.key)]
    kept.warning("it can still be used")
    second.dispose()
    assert set(known) - before <= {"_plugins", "_plugins.sample", "shop", "shop.own"}
