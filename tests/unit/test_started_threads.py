"""Which generation a thread belongs to, and what is said of threads that go on."""

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.admin.views import show_reason
from app.conditions import Conditions
from app.errors import LoadError
from app.health import Health
from app.loading.started_threads import started_threads
from app.routing.application import LiveApp
from app.serving.left_threads import LeftThreads
from app.threads import start_thread
from tests.support.plugins import plugin_text
from tests.support.waiting import wait_until
from tests.support.wsgi import call


@pytest.fixture
def over():
    """Set it to end what was started; a plugin reaches it by `sys`."""
    event = vars(sys)["_over"] = threading.Event()
    yield event
    event.set()
    del vars(sys)["_over"]


@pytest.fixture
def app():
    return LiveApp()


@pytest.fixture
def noted(app, over):
    """Note who starts threads, as a worker does."""
    started_threads.watch(app.running.generation_here)
    yield started_threads
    started_threads.unwatch()
    over.set()
    wait_until(lambda: not started_threads.running(), "all have ended")


def names(generation: str) -> list[str]:
    return sorted(thread.name for thread in started_threads.running().get(generation, ()))


START = """
import sys
import threading

def start(name):
    threading.Thread(target=sys._over.wait, name=name, daemon=True).start()
"""


def test_what_is_started_in_any_of_its_calls_is_a_generations_own(load_plugin, app, noted):
    plugin = load_plugin(
        plugin_text(
            top=START + "start('at import')",
            initialize="start('at its start')",
            register_routes="start('at its routes')\nserver.get('/sample', self.handle)",
            handle="start('at a request')\nreturn {}",
            cleanup="start('at its end')",
        )
    )
    builder = app.table.builder()
    builder.add("sample", plugin.routes)
    app.swap(builder.build())
    call(app, "/sample").read()
    plugin.dispose()
    assert names(plugin.key) == [
        *("at a request", "at import", "at its end", "at its routes", "at its start")
    ]


def library() -> Any:
    """A plugin's class and handler that are a library's: no frame of the plugin is on the stack."""

    def start(name: str) -> None:
        threading.Thread(target=vars(sys)["_over"].wait, name=name, daemon=True).start()

    class Ready:
        def initialize(self, context: Any) -> None:
            start("of initialize")

        def get_metadata(self) -> Any:
            from app.plugin import PluginMetadata

            return PluginMetadata("sample", "1")

        def register_routes(self, server: Any) -> None:
            server.get("/sample", self.handle)

        def cleanup(self, context: Any) -> None:
            start("of cleanup")

        def handle(self) -> dict[str, Any]:
            start("of a request")
            return {}

    return Ready


def test_what_a_library_starts_is_of_the_generation_that_it_works_for(load_plugin, app, noted):
    vars(sys)["_library"] = library()
    plugin = load_plugin("import sys\nnew_plugin = sys._library")
    builder = app.table.builder()
    builder.add("sample", plugin.routes)
    app.swap(builder.build())
    call(app, "/sample").read()
    plugin.dispose()
    assert names(plugin.key) == ["of a request", "of cleanup", "of initialize"]


def test_whoever_calls_a_function_of_a_plugin_starts_its_threads(load_plugin, noted):
    """As for a stream, which is made after its request has ended."""
    plugin = load_plugin(plugin_text(top=START))
    vars(sys.modules[f"{plugin.importer.name}.main"])["start"]("of a stream")
    assert names(plugin.key) == ["of a stream"]


def test_a_thread_of_a_thread_is_of_the_same_generation(load_plugin, noted):
    vars(sys)["_child"] = child = threading.Event()

    def start_child() -> None:
        threading.Thread(target=vars(sys)["_over"].wait, name="child", daemon=True).start()
        child.set()

    vars(sys)["_start_child"] = start_child
    top = "import sys, threading\nthreading.Thread(target=sys._start_child).start()"
    plugin = load_plugin(plugin_text(top=top))
    assert child.wait(10.0)
    wait_until(lambda: names(plugin.key) == ["child"])


def test_a_pool_is_of_who_gives_it_work_and_others_are_nobodys(load_plugin, noted, over):
    plugin = load_plugin(
        plugin_text(
            top="import sys\nfrom concurrent.futures import ThreadPoolExecutor\n"
            "POOL = ThreadPoolExecutor(2, 'pool')\nWORK = POOL.submit(sys._over.wait)"
        )
    )
    with ThreadPoolExecutor(1, "ours") as pool:
        pool.submit(int)
        assert names(plugin.key) == ["pool_0"]
        assert started_threads.running().keys() == {plugin.key}
    over.set()
    vars(sys.modules[f"{plugin.importer.name}.main"])["POOL"].shutdown()


def test_a_thread_that_has_ended_is_kept_by_nobody(load_plugin, noted, over):
    plugin = load_plugin(plugin_text(top=START + "start('short')"), generation=77)

    def noted_of_it() -> list[str]:
        return [key for _, key in started_threads._noted.values() if key == plugin.key]

    assert noted_of_it() == [plugin.key]
    over.set()
    wait_until(lambda: gc.collect() >= 0 and not noted_of_it())


def test_somebody_who_has_replaced_start_meanwhile_is_let_be(noted):
    ours = threading.Thread.start
    seen: list[threading.Thread] = []

    def theirs(thread: threading.Thread) -> None:
        seen.append(thread)
        ours(thread)

    threading.Thread.start = theirs  # type: ignore[method-assign, assignment]
    try:
        started_threads.unwatch()
        assert threading.Thread.start is theirs
        thread = threading.Thread(target=int)
        thread.start()
        thread.join(10.0)
        assert seen == [thread]
    finally:
        threading.Thread.start = ours  # type: ignore[method-assign]


def test_a_load_that_fails_leaves_its_threads_to_no_later_one(load_plugin, app, over):
    told: list[tuple[str, str]] = []
    started_threads.watch(app.running.generation_here, lambda *failed: told.append(failed))
    try:
        for method in ("initialize", "register_routes", "initialize"):
            body = {method: "start(f'of {__name__}')\n1 / 0"}
            with pytest.raises(LoadError):
                load_plugin(plugin_text(top=START, **body), generation=5)
        plugin = load_plugin(plugin_text(), generation=5)
        assert [plugin for plugin, _ in told] == ["sample"] * 3
        running = started_threads.running()
        assert [len(running[name]) for _, name in told] == [1, 1, 1]
        assert plugin.key not in running
    finally:
        started_threads.unwatch()


# --- what is said of those that go on --------------------------------------------------------


@pytest.fixture
def conditions():
    return Conditions()


@pytest.fixture
def running():
    """What runs, by generation: set by a test."""
    return {}


@pytest.fixture
def left(conditions, running):
    return LeftThreads(conditions, lambda: running, grace_seconds=0.0)


def waiting(name: str) -> threading.Thread:
    return threading.Thread(name=name)


def test_a_plugin_is_said_once_to_leave_threads_and_the_condition_has_the_number(
    left, conditions, running, caplog
):
    for number in range(1, 11):
        running[f"one.g{number}"] = [waiting("exporter"), waiting(f"Thread-{number} (run)")]
        left.add("one", f"one.g{number}")
        left.look()
    (held,) = conditions.held()
    assert held.plugin == "one"
    assert held.what == (
        "20 threads that 10 earlier generations started go on after the end: 'exporter' (10), "
        "'Thread-N (run)' (10); end them in cleanup, or let them wait for context.cancelled"
    )
    (record,) = caplog.records
    assert record.message.startswith(
        "one: 2 threads that an earlier generation started go on after the end: 'exporter', "
        "'Thread-1 (run)'; "
    )
    assert len(left.generations) == 10


def test_threads_that_end_after_all_are_forgotten(left, conditions, running, caplog):
    running["one.g1"] = [waiting("slow")]
    left.add("one", "one.g1")
    left.look()
    assert "1 thread that an earlier generation started goes on" in caplog.text
    assert len(conditions.held()) == 1
    assert left.next_look() is not None
    running.clear()
    left.look()
    assert conditions.held() == ()
    assert left.generations == frozenset()
    assert left.next_look() is None


def test_threads_have_a_moment_to_end(conditions, running, caplog):
    left = LeftThreads(conditions, lambda: running, grace_seconds=60.0)
    running["one.g1"] = [waiting("ending")]
    left.add("one", "one.g1")
    left.look()
    assert not caplog.records
    assert 0 < (left.next_look() or 0) <= 60


def test_the_servers_own_threads_are_no_plugins(load_plugin, noted, conditions, over, caplog):
    vars(sys)["_start_thread"] = start_thread
    top = "import sys\nsys._start_thread('benana-loader', sys._over.wait)"
    plugin = load_plugin(plugin_text(top=top))
    left = LeftThreads(conditions, noted.running, grace_seconds=0.0)
    left.add("sample", plugin.key)
    left.look()
    assert conditions.held() == ()


def test_what_does_not_degrade_is_a_reason_of_a_process_that_is_ready(left, conditions, running):
    class Serving:
        registered = served = 1

    health = Health(conditions, Serving(), None, lambda: None)
    health.started = True
    running["one.g1"] = [waiting("exporter")]
    left.add("one", "one.g1")
    left.look()
    report = health.report()
    assert (report.status, len(report.reasons)) == ("ready", 1)
    assert show_reason(report.reasons[0])["degrades"] is False
    conditions.hold("rows", "away")
    assert health.report().status == "degraded"
