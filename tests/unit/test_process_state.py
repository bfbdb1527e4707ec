"""What of a process is looked at before and after a load, and how it is put back."""

import builtins
import datetime
import gc
import io
import json
import locale
import logging
import logging.config
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import types
import warnings
import weakref
from typing import Any
from unittest import mock

import pytest
from psycopg2.extensions import register_adapter
from psycopg2.extras import Json, register_default_jsonb

from app.errors import LoadError
from app.loading import process_changes
from app.loading.environment import hidden
from app.loading.logging_state import forget_loggers, read_disabled
from app.loading.patches import put_module, refuse_patches
from app.loading.process_aspects import ASPECTS
from app.loading.process_changes import ProcessChanges
from app.loading.process_state import difference, glance, snapshot


@pytest.fixture(autouse=True)
def nothing_lasts():
    """Whatever a test leaves behind is put back."""
    before = glance()
    yield
    for change in difference(before, glance()):
        change.undo()


def error_filter():
    warnings.simplefilter("error", ImportWarning)


def bare_config():
    logging.config.dictConfig({"version": 1, "root": {"level": "ERROR", "handlers": []}})


def forced_config():
    logging.basicConfig(force=True, level=logging.CRITICAL, handlers=[logging.NullHandler()])


def mute_handlers():
    for handler in logging.root.handlers:
        handler.setLevel(logging.CRITICAL + 1)


def filter_everything():
    logging.getLogger("gunicorn.error").addFilter(lambda _: False)


def stop_propagation():
    logging.getLogger("benana").propagate = False


def lower(name, soft):
    number = getattr(resource, name)
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))


HARMFUL = {
    "dictConfig": bare_config,
    "basicConfig": forced_config,
    "a handler's level": mute_handlers,
    "a logger's filter": filter_everything,
    "propagate": stop_propagation,
    "logging.disable": lambda: logging.disable(logging.CRITICAL),
    "root's level": lambda: logging.root.setLevel(logging.CRITICAL),
    "a disabled logger": lambda: setattr(logging.getLogger("another"), "disabled", True),
    "a disabled root": lambda: setattr(logging.root, "disabled", True),
    "warnings that raise": error_filter,
    "no warnings' filters": warnings.resetwarnings,
    "stdout": lambda: setattr(sys, "stdout", None),
    "stderr": lambda: setattr(sys, "stderr", io.StringIO()),
    "umask": lambda: os.umask(0o077),
    "folder": lambda: os.chdir("/"),
    "open files": lambda: lower("RLIMIT_NOFILE", 200),
    "a file's size": lambda: lower("RLIMIT_FSIZE", 2**30),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "timeout": lambda: socket.setdefaulttimeout(0.001),
    "gc off": gc.disable,
    "gc thresholds": lambda: gc.set_threshold(1),
    "switch interval": lambda: sys.setswitchinterval(10.0),
    "a low recursion limit": lambda: sys.setrecursionlimit(500),
    "threading.excepthook": lambda: setattr(threading, "excepthook", print),
    "sys.path emptied": sys.path.clear,
    "meta_path emptied": sys.meta_path.clear,
    "time.sleep": lambda: setattr(time, "sleep", lambda _: None),
    "os.environ": lambda: setattr(os, "environ", {}),
    "os.fork": lambda: setattr(os, "fork", lambda: 0),
    "time.time": lambda: setattr(time, "time", lambda: 0.0),
    "json.dumps": lambda: setattr(json, "dumps", lambda value: repr(value).encode()),
    "json.loads": lambda: setattr(json, "loads", lambda text: text),
    "a class of the standard library": lambda: setattr(threading, "Thread", print),
    "a module": lambda: put_module("json", types.SimpleNamespace()),
    "a module that is no module": lambda: put_module("subprocess", None),
    "a module that is removed": lambda: sys.modules.pop("socket"),
    "signal.alarm": lambda: signal.alarm(60),
    "a profile's timer": lambda: signal.setitimer(signal.ITIMER_PROF, 60.0, 60.0),
    "threading.stack_size": lambda: threading.stack_size(65536),
    "threading.setprofile": lambda: threading.setprofile(lambda *_: None),
    "sys.setprofile": lambda: sys.setprofile(lambda *_: None),
    "tracemalloc": tracemalloc.start,
    "psycopg2's types": lambda: register_default_jsonb(globally=True, loads=str),
    "psycopg2's adapters": lambda: register_adapter(list, Json),
    "os.stat": lambda: mock.patch("os.stat", side_effect=FileNotFoundError()).start(),
    "os.open": lambda: mock.patch("os.open", side_effect=OSError("no")).start(),
    "os.getcwd": lambda: mock.patch("os.getcwd", side_effect=OSError("no")).start(),
    "os.listdir": lambda: setattr(os, "listdir", lambda *_: []),
    "os.path.exists": lambda: mock.patch("os.path.exists", return_value=False).start(),
    "Path.exists": lambda: mock.patch("pathlib.Path.exists", return_value=False).start(),
    "Event.wait": lambda: mock.patch("threading.Event.wait", return_value=False).start(),
    "mkdtemp": lambda: mock.patch("tempfile.mkdtemp", return_value="/").start(),
    "datetime": lambda: mock.patch("datetime.datetime").start(),
    "open": lambda: setattr(builtins, "open", lambda _: None),
}


@pytest.fixture
def a_handler(monkeypatch):
    """A root logger as a worker has it, whatever pytest has done to it."""
    handler = logging.NullHandler()
    logging.getLogger("another")
    monkeypatch.setattr(locale, "setlocale", locale.setlocale)
    logging.root.addHandler(handler)
    yield handler
    logging.root.removeHandler(handler)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", HARMFUL)
def test_what_stops_or_silences_others_is_undone_at_once_and_named(name, a_handler, caplog):
    if name == "locale":
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    changes, before = ProcessChanges(), glance()
    with changes.loading("taker"):
        HARMFUL[name]()
        assert difference(before, glance()), "it is seen"
    left = [str(change) for change in difference(before, glance()) if change.harms]
    assert left == []
    assert a_handler in logging.root.handlers
    said = [r.getMessage() for r in caplog.records if r.name == process_changes.__name__]
    assert any(text.startswith("taker: its load changed what the server") for text in said), said


def test_all_that_is_undone_is_named(caplog):
    called = [(json, "dumps"), (json, "loads"), (time, "time"), (pickle, "dumps")]
    before = [getattr(module, name) for module, name in called]
    with ProcessChanges().loading("taker"):
        for module, name in called:
            setattr(module, name, print)
    assert [getattr(module, name) for module, name in called] == before
    [said] = [r.getMessage() for r in caplog.records if "which is undone" in r.getMessage()]
    for module, name in called:
        assert f"{module.__name__}.{name}" in said
    assert said.count("is builtins.print, it was") == 2


def test_a_module_that_is_imported_for_the_first_time_is_no_change(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", types.ModuleType("ctypes"))  # put back afterwards
    del sys.modules["ctypes"]
    changes, before = ProcessChanges(), glance()
    with changes.loading("taker"):
        put_module("ctypes", types.ModuleType("ctypes"))
        assert difference(before, glance()) == ()
    changes.disposed("taker")
    assert type(sys.modules["ctypes"]) is types.ModuleType


def test_our_log_goes_on_after_a_load_that_failed(a_handler):
    changes = ProcessChanges()
    with pytest.raises(ZeroDivisionError), changes.loading("taker"):
        bare_config()
        raise ZeroDivisionError
    assert a_handler in logging.root.handlers
    assert not logging.getLogger("another").disabled


HARMLESS = {
    "variable": (lambda: os.environ.update(D1_VARIABLE="x"), lambda: "D1_VARIABLE" in os.environ),
    "path": (lambda: sys.path.append("/d1"), lambda: "/d1" in sys.path),
    "filter": (
        lambda: warnings.filterwarnings("ignore", "d1"),
        lambda: any(item[0] == "ignore" and "d1" in str(item[1]) for item in warnings.filters),
    ),
    "patch": (
        lambda: setattr(subprocess, "Popen", print),
        lambda: vars(subprocess)["Popen"] is print,
    ),
    "hook": (lambda: setattr(sys, "excepthook", print), lambda: sys.excepthook is print),
    "handler": (
        lambda: logging.root.addHandler(logging.FileHandler(os.devnull)),
        lambda: any(type(h) is logging.FileHandler for h in logging.root.handlers),
    ),
    "recursion limit": (
        lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1000),
        lambda: sys.getrecursionlimit() >= 2000,
    ),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", HARMLESS)
def test_the_rest_stays_while_the_plugin_lives_is_named_once_and_goes_with_it(name, caplog):
    caplog.set_level(logging.INFO)
    make, is_there = HARMLESS[name]
    changes = ProcessChanges()
    assert not is_there()
    for generation in range(3):
        with changes.loading("rest"):
            make()
        assert is_there()
        if generation:
            changes.disposed("rest")  # the one before
            assert is_there()
    said = [r.getMessage() for r in caplog.records if r.name == process_changes.__name__]
    assert len(said) == len(set(said)) <= 2, said
    assert said[0].startswith("rest: its load, or a library"), said
    changes.disposed("rest")
    assert not is_there()


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_nothing_of_a_load_that_failed_stays(name):
    make, is_there = HARMLESS[name]
    with pytest.raises(ZeroDivisionError), ProcessChanges().loading("rest"):
        make()
        raise ZeroDivisionError
    assert not is_there()


def set_if_missing(value):
    """As `load_dotenv` does."""
    os.environ.setdefault("D1_VARIABLE", value)


def test_an_edited_env_file_counts_though_nothing_overrides_a_variable():
    changes = ProcessChanges()
    for value in ("one", "two", "three"):
        with changes.loading("dotenv"):
            set_if_missing(value)
        assert os.environ["D1_VARIABLE"] == value
    for _ in range(3):
        changes.disposed("dotenv")
    assert "D1_VARIABLE" not in os.environ


def test_a_variable_that_stays_the_same_stays_the_plugins():
    changes = ProcessChanges()
    for _ in range(2):
        with changes.loading("dotenv"):
            set_if_missing("one")
    changes.disposed("dotenv")  # the first generation
    assert os.environ["D1_VARIABLE"] == "one"
    changes.disposed("dotenv")
    assert "D1_VARIABLE" not in os.environ


def test_a_variable_that_the_new_version_leaves_out_goes_with_the_old_one():
    changes = ProcessChanges()
    with changes.loading("dotenv"):
        set_if_missing("one")
    with changes.loading("dotenv"):
        assert os.environ.get("D1_VARIABLE") is None
    assert os.environ["D1_VARIABLE"] == "one", "requests run in the old one still"
    changes.disposed("dotenv")
    assert "D1_VARIABLE" not in os.environ


def test_a_failed_load_leaves_the_variable_of_the_version_that_is_served():
    changes = ProcessChanges()
    with changes.loading("dotenv"):
        set_if_missing("served")
    with pytest.raises(ZeroDivisionError), changes.loading("dotenv"):
        set_if_missing("broken")
        raise ZeroDivisionError
    assert os.environ["D1_VARIABLE"] == "served"
    changes.disposed("dotenv")


def test_a_variable_is_hidden_from_the_load_alone():
    os.environ["D1_VARIABLE"] = "old"
    seen = []
    with hidden(["D1_VARIABLE"]):
        assert "D1_VARIABLE" not in os.environ
        assert "D1_VARIABLE" not in dict(os.environ)
        assert len(list(os.environ)) == len(os.environ)
        with pytest.raises(KeyError):
            del os.environ["D1_VARIABLE"]
        other = threading.Thread(target=lambda: seen.append(os.environ.get("D1_VARIABLE")))
        other.start()
        other.join()
    assert seen == ["old"]
    assert os.environ.pop("D1_VARIABLE") == "old"
    assert type(os.environ).__name__ == "_Environ"


def test_what_two_plugins_set_one_after_the_other_is_put_back_whoever_goes_first():
    for order in (["one", "two"], ["two", "one"]):
        changes = ProcessChanges()
        for name in ("one", "two"):
            with changes.loading(name):
                os.environ["D1_VARIABLE"] = name
        changes.disposed(order[0])
        assert os.environ["D1_VARIABLE"] == order[1]
        changes.disposed(order[1])
        assert "D1_VARIABLE" not in os.environ


def test_the_start_method_of_processes_can_be_set_by_each_generation():
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        changes = ProcessChanges()
        for _ in range(2):
            with changes.loading("spawns"):
                multiprocessing.set_start_method("spawn")
            assert multiprocessing.get_start_method() == "spawn"
        with pytest.raises(ZeroDivisionError), changes.loading("spawns"):
            raise ZeroDivisionError
        assert multiprocessing.get_start_method() == "spawn"
        changes.disposed("spawns")
        changes.disposed("spawns")
        assert multiprocessing.get_start_method(allow_none=True) is None
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_handlers_do_not_add_up():
    changes, before = ProcessChanges(), len(logging.root.handlers)
    for generation in range(4):
        with changes.loading("handler"):
            logging.root.addHandler(logging.NullHandler())
        if generation:
            changes.disposed("handler")
        assert len(logging.root.handlers) == before + 1
    changes.disposed("handler")
    assert len(logging.root.handlers) == before


def test_a_logger_that_is_there_since_another_is_gone_is_looked_at():
    loggers = logging.root.manager.loggerDict
    logging.getLogger("d1_goes")
    with ProcessChanges().loading("first"):
        pass
    del loggers["d1_goes"]  # as many as before are there
    logging.getLogger("d1_comes")
    with ProcessChanges().loading("taker"):
        logging.getLogger("d1_comes").disabled = True
    assert not logging.getLogger("d1_comes").disabled


def test_no_look_keeps_what_a_logger_holds():
    class OfPlugin(logging.Handler):
        pass

    logging.getLogger("d1_holds").addHandler(OfPlugin())
    kind = weakref.ref(OfPlugin)
    with ProcessChanges().loading("first"):
        pass
    del logging.root.manager.loggerDict["d1_holds"], OfPlugin
    gc.collect()
    assert kind() is None


def test_where_all_loggers_are_disabled_those_of_other_plugins_are_not_left_so():

    names = ("benana.plugins.d1_other", "_plugins.d1_other.g1.main", "d1_library")
    loggers = [logging.getLogger(name) for name in names]
    for configure in (
        lambda: logging.config.dictConfig({"version": 1}),
        disable_all,
    ):
        with ProcessChanges().loading("first"):
            configure()
            assert all(logger.disabled for logger in loggers)
        assert [logger.name for logger in loggers if logger.disabled] == []


def disable_all() -> None:
    for item in list(logging.root.manager.loggerDict.values()):
        if isinstance(item, logging.Logger):
            item.disabled = True


def test_a_look_costs_the_same_among_many_plugins():
    added = [f"_plugins.d1_many.g{number}.main" for number in range(500)]
    few = len(read_disabled())
    for name in added:
        logging.getLogger(name)
    try:
        assert len(read_disabled()) - few < 3
    finally:
        for name in added:
            forget_loggers(name.removesuffix(".main"))
    assert not set(added) & set(logging.root.manager.loggerDict)


class CountingName(str):
    """A logger's name that counts how often it is looked at."""

    looks = 0

    def startswith(self, *prefix: Any) -> bool:
        CountingName.looks += 1
        return super().startswith(*prefix)


def test_a_generation_that_goes_costs_the_same_among_many_plugins():
    others = [CountingName(f"_plugins.d1_other.g{number}.main") for number in range(50)]
    for name in others:
        logging.getLogger(name)
    names = [f"_plugins.d1_gone.g1.{module}" for module in ("main", "main.deep", "other")]
    loggers = [logging.getLogger(name) for name in names]
    read_disabled()
    CountingName.looks = 0
    forget_loggers("_plugins.d1_gone.g1")
    assert CountingName.looks == 0
    known = logging.root.manager.loggerDict
    assert not [name for name in known if name.startswith("_plugins.d1_gone.")]
    assert set(others) <= set(known)
    assert [logger.name for logger in loggers] == names
    for name in others:
        forget_loggers(name.removesuffix(".main"))


def test_a_logger_that_the_load_made_itself_may_be_disabled():
    changes = ProcessChanges()
    with changes.loading("own"):
        logging.getLogger("d1_made_by_the_load").disabled = True
    assert logging.getLogger("d1_made_by_the_load").disabled


class Weird:
    """An object of which nothing may be asked."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    def __hash__(self):
        raise RuntimeError


@pytest.mark.parametrize("put", [
    lambda: setattr(sys, "stdout", Weird()),
    lambda: setattr(time, "sleep", Weird()),
    lambda: setattr(json, "dumps", Weird()),
    lambda: vars(logging.root)["handlers"].append(Weird()),
])  # fmt: skip
def test_no_code_of_a_plugins_object_is_run(put):
    with ProcessChanges().loading("weird"):
        put()
    kept = [item for item in vars(logging.root)["handlers"] if type(item) is not Weird]
    logging.root.handlers[:] = kept


def test_the_wide_look_sees_a_patched_function_and_a_patched_method(monkeypatch):
    before = snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(json.JSONDecoder, "decode", lambda *_: None)
        patch.setattr(textwrap, "dedent", lambda *_: "")
        changes = difference(before, snapshot())
    told = " ".join(map(str, changes))
    assert "json.decoder.JSONDecoder.decode" in told
    assert "textwrap.dedent" in told
    assert not difference(before, snapshot())


def test_values_of_variables_are_never_told():
    os.environ["D1_VARIABLE"] = "before-secret"
    with hidden([]):
        before = glance()
        os.environ["D1_VARIABLE"] = "after-secret"
        (change,) = difference(before, glance())
    assert str(change) == "the environment variable D1_VARIABLE is another, it was another"
    del os.environ["D1_VARIABLE"]


def test_green_threads_are_refused_by_who_put_them_there(monkeypatch):
    refuse_patches("fine", "import")

    class Green(socket.socket):
        __module__ = "gevent._socket3"

    monkeypatch.setattr(socket, "socket", Green)
    with pytest.raises(LoadError) as caught:
        refuse_patches("green", "import")
    assert "socket.socket of gevent" in str(caught.value)
    assert caught.value.phase == "import"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time.time", lambda: 0.0),
        ("time.monotonic", mock.MagicMock()),
        ("datetime.datetime", type("Frozen", (datetime.datetime,), {"__module__": "frozen.api"})),
    ],
)
def test_who_moves_the_clock_is_refused(name, value):
    with mock.patch(name, value), pytest.raises(LoadError) as caught:
        refuse_patches("frozen", "import")
    refuse_patches("frozen", "import")
    assert f"it puts {name} of " in str(caught.value)
    assert "freeze_time" in str(caught.value)


def test_a_clock_that_is_moved_without_any_name_being_replaced_is_refused(monkeypatch):
    monkeypatch.setattr("app.loading.patches._time_of_system", lambda: time.time() - 3600)
    with pytest.raises(LoadError, match=r"it puts time\.time of a library in C in the place of"):
        refuse_patches("traveller", "import")


def test_a_look_is_fast():
    """A load takes 2 ms; two looks and their comparison are to take 0.1 ms of it."""
    best = min(_look_seconds() for _ in range(50))
    assert best < 0.001


def _look_seconds():
    began = time.perf_counter()
    with ProcessChanges().loading("quick"):
        pass
    return time.perf_counter() - began


def test_each_aspect_can_be_put_as_it_is():
    for aspect in ASPECTS:
        before = aspect.read()
        for key, value in list(before.items()):
            if aspect.name in {"sys.stdout", "umask", "the locale", "gc.isenabled()"}:
                aspect.put(key, value)
        assert aspect.read().keys() == before.keys()


def test_what_two_loads_at_once_have_seen_stays_as_long_as_one_of_the_plugins():
    changes = ProcessChanges()
    with changes.loading("slow"), changes.loading("fast"):
        os.environ["D1_VARIABLE"] = "slow"
    with changes.loading("fast"):
        pass
    changes.disposed("fast")
    assert os.environ["D1_VARIABLE"] == "slow", "the new version of fast did not set it again"
    changes.disposed("slow")
    assert "D1_VARIABLE" not in os.environ
