"""Whatever a plugin's objects do when they are asked something: our threads do not ask."""

import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from app.conditions import Conditions
from app.errors import LoadError
from app.inspection import attribute_of, is_class, is_module, module_of, name_of, namespace_of
from app.routing.grace_periods import RunningRequests
from app.serving.leak_report import LeakReport
from app.serving.reclaimer import Reclaimer
from app.serving.referrers import describe_referrers
from tests.support.hostile import HOSTILE, asked
from tests.support.memory import collected
from tests.support.plugins import plugin_text
from tests.support.waiting import wait_until


@pytest.fixture
def hostile(load_plugin, quiet):
    """A loaded plugin full of hostile objects."""
    plugin = load_plugin({"main.py": plugin_text(top=HOSTILE)}, keep=False)
    asked()  # making them asks, too
    yield plugin
    plugin.importer.forget()


@pytest.fixture
def make_reclaimer():
    made = []

    def make():
        reclaimer = Reclaimer(RunningRequests())
        reclaimer.start()
        made.append(reclaimer)
        return reclaimer

    yield make
    for reclaimer in made:
        reclaimer.stop(1.0)


def test_types_are_asked_and_not_objects(hostile):
    main = sys.modules[f"{hostile.importer.name}.main"]
    names = namespace_of(main)
    thing, cls = names["LONELY"], names["Hostile"]
    assert [is_class(each) for each in (thing, cls, main, 1, int)] == [
        *(False, True, False, False, True)
    ]
    assert [is_module(each) for each in (thing, cls, main)] == [False, False, True]
    assert [name_of(each) for each in (thing, cls, asked, 1)] == [
        "Hostile",
        "Hostile",
        "asked",
        "int",
    ]
    assert [module_of(each) for each in (thing, cls)] == [main.__name__] * 2
    assert [module_of(each) for each in (names["Odd"], asked)] == ["?", asked.__module__]
    assert attribute_of(names["Named"](target=print), "_name") is not None
    assert asked() == []


def test_the_traces_of_a_generation_ask_nothing_and_miss_no_class(hostile):
    alive = [trace() for trace in hostile.traces()]
    names = {name_of(item) for item in alive if is_class(item)}
    assert {"Hostile", "Meta", "Text", "Named", "Plain", "Sample"} <= names
    assert alive[0] is hostile.importer
    assert asked() == []


def test_a_module_that_is_another_object_is_no_trouble(load_plugin):
    lazy = """
        import sys

        class Lazy:
            @property
            def __dict__(self):
                raise SystemExit

        sys.modules[__name__] = Lazy()
        """
    odd = """
        import sys
        import types

        class Odd(types.ModuleType):
            @property
            def __dict__(self):
                raise SystemExit

        sys.modules[__name__].__class__ = Odd
        """
    files = {"main.py": plugin_text(top="from . import lazy, odd"), "lazy.py": lazy, "odd.py": odd}
    plugin = load_plugin(files)
    main = sys.modules[f"{plugin.importer.name}.main"]
    alive = [trace() for trace in plugin.traces()]
    assert [name_of(item) for item in alive] == ["GenerationImporter", "Sample", "Odd"]
    assert alive[:2] == [plugin.importer, main.Sample]


def test_a_leak_of_hostile_objects_is_described_without_asking_them(load_plugin, quiet):
    plugin = load_plugin({"main.py": plugin_text(top=HOSTILE)}, keep=False)
    main = namespace_of(sys.modules[f"{plugin.importer.name}.main"])
    kept = type("Keeper", (), {})()
    kept.plain, kept.hostile = main["PLAIN"], main["LONELY"]
    go_on = threading.Event()
    thread = main["Named"](target=go_on.wait)
    thread.start()
    asked()
    traces, generation = plugin.traces(), plugin.key
    plugin.dispose()
    del plugin, main
    gc.collect()
    survivors = [item for trace in traces if (item := trace()) is not None]
    try:
        said = describe_referrers(survivors, generation)
    finally:
        go_on.set()
        threading.Thread.join(thread)
    assert "Keeper, to a Plain (1)" in said
    assert "Keeper, to a Hostile (1)" in said
    assert asked() == []


def test_a_leak_is_described_while_others_make_tuples(load_plugin, quiet):
    """A look at all objects holds tuples that are being made: SystemError where they are made."""
    plugin = load_plugin({"main.py": plugin_text()}, keep=False)
    survivors = [item for trace in plugin.traces() if (item := trace()) is not None]
    done, failed = threading.Event(), []

    def make_tuples():
        while not done.is_set():
            try:
                tuple((n, n) for n in range(30))
            except SystemError as error:
                failed.append(error)

    threads = [threading.Thread(target=make_tuples) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert describe_referrers(survivors, plugin.key)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        plugin.importer.forget()
    assert failed == []


def test_a_hostile_plugin_is_cleaned_up_and_so_are_the_others(load_plugin, make_reclaimer, quiet):
    reclaimer = make_reclaimer()
    references = []
    for top in (HOSTILE, "", HOSTILE, ""):
        plugin = load_plugin({"main.py": plugin_text(top=top)}, keep=False)
        references.append(weakref.ref(plugin.importer))
        asked()
        reclaimer.retire(plugin, 0)
        del plugin
        wait_until(lambda: reclaimer.waiting == 0, "it is cleaned up", 1.0)
    wait_until(lambda: all(map(collected, references)), "the memory comes back")
    assert asked() == []


@pytest.fixture
def events():
    """Two events that a plugin reaches by `sys`: it is inside, and it may go on."""
    shared: dict[str, Any] = vars(sys)
    shared["_inside"], shared["_go_on"] = inside, go_on = threading.Event(), threading.Event()
    yield inside, go_on
    go_on.set()
    del shared["_inside"], shared["_go_on"]


SLOW = """
import sys

class Slow:
    def __del__(self):
        sys._inside.set()
        sys._go_on.wait(20)
"""


@pytest.mark.parametrize(
    ("top", "methods"),
    [
        # Without routes, which are part of a cycle.
        (SLOW, {"initialize": "self.slow = Slow()", "register_routes": "pass"}),
        (SLOW + "KEPT = [Slow()]\nKEPT.append(KEPT)", {}),
        (SLOW + "KEPT = Slow()", {}),
    ],
    ids=["by its count", "in a cycle", "in a module"],
)
def test_a_finalizer_that_does_not_return_holds_up_no_other_cleanup(
    load_plugin, make_reclaimer, events, quiet, top, methods
):
    inside, go_on = events
    reclaimer = make_reclaimer()
    slow = load_plugin({"main.py": plugin_text(top=top, **methods)}, keep=False)
    reclaimer.retire(slow, 0)
    del slow
    assert inside.wait(10.0), "its finalizer runs"
    for _ in range(3):
        other = load_plugin(plugin_text(), keep=False)
        reclaimer.retire(other, 0)
        before = reclaimer.waiting
        wait_until(lambda n=before: reclaimer.waiting < n or n == 0, "it is cleaned up", 1.0)
        del other
    go_on.set()
    wait_until(lambda: reclaimer.waiting == 0, "and so is this one")


def test_garbage_of_a_generation_is_finalized_where_nobody_waits(
    load_plugin, make_reclaimer, quiet
):
    """And not by who happens to make many objects, as the thread that loads another plugin."""
    top = """
    import sys
    import threading

    class Noting:
        def __del__(self):
            sys._finalized.append(threading.current_thread().name)

    KEPT = [Noting()]
    KEPT.append(KEPT)
    """
    finalized = vars(sys)["_finalized"] = list[str]()
    reclaimer = make_reclaimer()
    for _ in range(5):
        reclaimer.retire(load_plugin(plugin_text(top=top), keep=False), 0)
    made: list[list[Any]] = []

    def make_many() -> bool:
        made.extend([] for _ in range(10_000))
        return len(finalized) == 5

    wait_until(make_many)
    assert set(finalized) == {"benana-collector"}
    wait_until(gc.isenabled, "Python collects by itself again")
    del vars(sys)["_finalized"]


def test_a_cleanup_of_which_nothing_comes_keeps_nobody_from_collecting():
    """As one that was given up, and ends long afterwards."""
    leaks = LeakReport(Conditions())
    leaks.start()
    try:
        leaks.expect()
        assert not gc.isenabled()
        wait_until(gc.isenabled, "Python collects by itself again", 3.0)
    finally:
        leaks.stop()
    leaks.expect()
    assert gc.isenabled(), "after its end nobody would hand it back"


# --- loading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        pytest.param(
            plugin_text(top="def __getattr__(name):\n    raise SystemExit(name)").replace(
                "new_plugin", "other"
            ),
            "import",
            id="a module without its factory",
        ),
        pytest.param(
            plugin_text()
            + "\nclass Odd:\n    @property\n    def initialize(self): raise SystemExit"
            "\n    def __getattr__(self, name): return lambda *_: None\nnew_plugin = Odd",
            "contract",
            id="a method",
        ),
        pytest.param(
            plugin_text() + "\nclass Fault(Exception):\n    @property\n"
            "    def __class__(self): raise SystemExit\n"
            "def new_plugin(): raise Fault",
            "factory",
            id="an error that cannot be read",
        ),
    ],
)
def test_whatever_a_plugin_raises_where_it_is_asked_is_an_error_of_its_load(
    load_plugin, text, phase
):
    with pytest.raises(LoadError) as caught:
        load_plugin(text)
    assert caught.value.phase == phase


def test_a_cleanup_that_cannot_even_be_asked_for_is_logged(load_plugin, caplog):
    body = """
    asked_for = 0

    def __getattribute__(self, name):
        if name == "cleanup" and object.__getattribute__(self, "asked_for"):
            raise SystemExit(name)
        return object.__getattribute__(self, name)
    """
    plugin = load_plugin(plugin_text(body))
    plugin.instance.asked_for = 1
    plugin.dispose()
    assert "cleanup failed: it called sys.exit('cleanup')" in caplog.text


def test_texts_of_a_class_of_the_plugins_become_plain_ones(load_plugin):
    top = "class Text(str):\n    __hash__ = str.__hash__\n    def __eq__(self, other): 1 / 0"
    plugin = load_plugin(
        plugin_text(
            top=top,
            register_routes="server.get(Text('/sample'), self.handle)",
            get_metadata="return PluginMetadata(name='sample', version=Text('1'))",
        )
    )
    assert [type(route.template) for route in plugin.routes] == [str]
    assert type(plugin.metadata.version) is str
