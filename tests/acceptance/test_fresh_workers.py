"""An edit by fresh workers: no request is lost, no stream is cut, and there are as many workers."""

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.plugins import source
from tests.support.requester import Requester, counting, number_of
from tests.support.server import MakeServer, Server, ask
from tests.support.waiting import wait_until

ONCE = """
import logging
if "{name}" in vars(logging).setdefault("_registry", set()):
    raise RuntimeError("{name} is registered already")
logging._registry.add("{name}")
"""
"""Statements of a module that stand for a library's registry: a second load in a process raises."""


def once(name: str, number: int, **more: str) -> str:
    """Return a plugin that can be loaded once in a process."""
    prelude = ONCE.format(name=name) + more.pop("prelude", "")
    return counting(name, number, prelude=prelude, **more)


def write(server: Server, name: str, number: int, **more: str) -> None:
    """Write such a plugin, which says so in its manifest."""
    if not (server.plugins / name / "plugin.yaml").exists():
        server.write(name, "reload: fresh\n", "plugin.yaml")
    server.write(name, once(name, number, **more))


def size(server: Server) -> int:
    return int(server.environment["WEB_CONCURRENCY"])


def numbers(server: Server, name: str, count: int = 12) -> set[int | None]:
    """Return what new connections get."""
    return {number_of(server.get(f"/{name}")) for _ in range(count)}


def wait_new(server: Server, name: str, number: int, seconds: float = 30.0) -> float:
    """Wait until every new connection gets an edit; return the seconds that it took."""
    began = time.monotonic()
    wait_until(
        lambda: numbers(server, name) == {number}, f"{name} is {number}\n{server.log()}", seconds
    )
    return time.monotonic() - began


def first(server: Server, name: str) -> None:
    """Have the first version served by all."""
    write(server, name, 1)
    server.wait_everywhere(f"/{name}", lambda answer: number_of(answer) == 1, 20.0)


@contextlib.contextmanager
def stream(server: Server, name: str, until: Path) -> Iterator[http.client.HTTPResponse]:
    """Give a stream that runs until a file is there; its first line is read."""
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", f"/{name}/stream?until={until}&seconds=60")
        response = connection.getresponse()
        assert response.readline()
        yield response


def is_whole(response: http.client.HTTPResponse) -> bool:
    return response.read().decode().splitlines()[-1].startswith("end ")


@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.soak), 2, pytest.param(4, marks=pytest.mark.soak)]
)
def test_an_edit_replaces_all_workers_and_no_request_fails(
    make_server: MakeServer, count: int
) -> None:
    server = make_server(WEB_CONCURRENCY=str(count)).start()
    first(server, "one")
    before = server.workers()
    with (
        Requester(server, "one", threads=4) as kept,
        Requester(server, "one", threads=2, fresh=True) as fresh,
    ):
        for number in (2, 3):
            write(server, "one", number)
            wait_new(server, "one", number)
            wait_until(lambda: len(server.workers()) == count, "the old ones are gone")
    kept.assert_flawless()
    fresh.assert_flawless()
    assert not server.workers() & before
    assert server.get("/plugins/one").json["reload"] == {
        "how": "fresh workers",
        "why": "plugin.yaml says reload: fresh",
        "advice": None,
    }
    assert (
        "one: generation 2 waits for fresh workers: plugin.yaml says reload: fresh" in server.log()
    )
    wait_until(lambda: server.log().count("Fresh workers: the round is over") == 2, "both are over")


@pytest.mark.soak
def test_streams_run_through_a_round_and_the_next_round_waits_for_them(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    server.write("other", counting("other", 1))
    wait_new(server, "other", 1)
    first(server, "one")
    gate = server.home / "gate"
    with stream(server, "one", gate) as own, stream(server, "other", gate) as other:
        write(server, "one", 2)
        wait_new(server, "one", 2)
        write(server, "one", 3)
        waits = "that round waits for the "
        wait_until(lambda: waits in server.log(), "the next one waits")
        assert numbers(server, "one") == {2}
        wait_until(
            lambda: any(
                "waits for fresh workers" in reason["what"]
                for reason in server.get("/plugins/one").json["reasons"]
            ),
            "a reason",
        )
        gate.touch()
        assert is_whole(own)
        assert is_whole(other)
    wait_new(server, "one", 3)
    wait_until(lambda: len(server.workers()) == 2, "two workers")


@pytest.mark.soak
def test_an_edit_among_a_hundred_plugins_is_there_in_seconds_beside_a_long_stream(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="4")
    for number in range(100):
        name = f"plugin{number}"
        server.write(name, counting(name, 1))
    server.start()
    first(server, "one")
    gate = server.home / "gate"
    with (
        stream(server, "plugin7", gate) as other,
        stream(server, "one", gate) as own,
        Requester(server, "plugin5", threads=4, pause=0.01) as kept,
        Requester(server, "one", threads=2, fresh=True, pause=0.01) as fresh,
    ):
        write(server, "one", 2)
        wait_until(lambda: "a round begins" in server.log(), "a round")
        took = wait_new(server, "one", 2)
        wait_until(lambda: len(server.workers()) <= 6, "those without a stream are gone")
        gate.touch()
        assert is_whole(own)
        assert is_whole(other)
    kept.assert_flawless()
    fresh.assert_flawless()
    print(f"every new connection got it after {took:.1f} s; {kept.summary()}; {fresh.summary()}")
    assert took < 6.0  # 3 s on a machine that has nothing else to do
    wait_until(lambda: len(server.workers()) == 4, "as many as before")


@pytest.mark.soak
def test_a_fresh_worker_that_cannot_boot_leaves_the_old_ones_serving(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    flag = server.home / "flag"
    ends = f"if not context.trial and os.path.exists({str(flag)!r}):\n    os._exit(3)"
    server.write("bad", counting("bad", 1, initialize=ends))
    wait_new(server, "bad", 1)
    first(server, "one")
    before = server.workers()
    flag.touch()
    with Requester(server, "one", threads=4) as kept:
        write(server, "one", 2)
        wait_until(lambda: "takes nobody's place" in server.log(), "one has tried", 30.0)
        assert numbers(server, "one") == {1}
        assert numbers(server, "bad") == {1}
        assert before <= server.workers()
        flag.unlink()
        server.write("bad", counting("bad", 2))
        wait_new(server, "one", 2, 40.0)
        assert numbers(server, "bad") == {2}
    kept.assert_flawless()
    wait_until(lambda: len(server.workers()) == 2, "two workers")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("sent", "count"),
    [
        pytest.param(signal.SIGHUP, 2, id="HUP"),
        pytest.param(signal.SIGTTIN, 3, id="TTIN"),
        pytest.param(signal.SIGTTOU, 1, id="TTOU"),
        pytest.param(signal.SIGKILL, 2, id="the death of one that asks"),
    ],
)
def test_the_number_of_workers_is_right_after_what_comes_between(
    make_server: MakeServer, sent: signal.Signals, count: int
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    first(server, "one")
    before = server.workers()
    assert server.process is not None
    with contextlib.ExitStack() as stack:
        killed: dict[int, float] = {}
        kept = stack.enter_context(Requester(server, "one", threads=4))
        write(server, "one", 2)
        wait_until(lambda: "a round begins" in server.log(), "a round", 20.0)
        if sent == signal.SIGKILL:
            pid = min(before)
            os.kill(pid, sent)
            killed[pid] = time.monotonic()
        else:
            os.kill(server.process.pid, sent)
        wait_new(server, "one", 2)
        wait_until(lambda: len(server.workers()) == count, f"{count} workers\n{server.log()}", 40.0)
    kept.assert_flawless(killed=killed)
    assert not server.workers() & before


def test_wait_ends_when_no_connection_leads_to_an_old_worker(server: Server) -> None:
    first(server, "waited")
    with server.each_worker() as connections:
        old = list(connections.values())
        answer = server.post("/plugins/waited/reload?wait=40")
        assert answer.status == 200, answer.body
        assert answer.json["workers"]["total"] == size(server)
        for connection in old:
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(connection, "GET", "/waited")
    assert {server.get("/waited").json["generation"] for _ in range(12)} == {2}


@pytest.mark.soak
def test_off_and_on_again_is_another_load_in_another_process(server: Server) -> None:
    first(server, "toggled")
    before = server.workers()
    server.post("/plugins/toggled/toggle?wait=20")
    assert server.get("/toggled").status == 404
    assert server.post("/plugins/toggled/toggle?wait=40").status == 200
    assert numbers(server, "toggled") == {1}
    wait_until(lambda: not server.workers() & before, "all are fresh")


@pytest.mark.soak
def test_several_edits_at_once_are_one_round(server: Server) -> None:
    for name in ("first", "second", "third"):
        first(server, name)
    rounds = server.log().count("a round begins")
    for name in ("first", "second", "third"):
        write(server, name, 2)
    for name in ("first", "second", "third"):
        wait_new(server, name, 2)
    wait_until(lambda: len(server.workers()) == size(server), "as many as before")
    assert server.log().count("a round begins") - rounds <= 2


@pytest.mark.soak
def test_a_host_that_publishes_nothing_replaces_its_workers_too(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    first(server, "one")
    server.stop()
    server.environment["BENANA_WATCH"] = "off"
    server.start()
    before = server.workers()
    server.sql("UPDATE plugins SET generation = generation + 1 WHERE name = 'one'")
    wait_until(
        lambda: {server.get("/one").json["generation"] for _ in range(12)} == {2}, "it is loaded"
    )
    wait_until(lambda: not server.workers() & before, "all are fresh")


@pytest.mark.soak
def test_a_load_that_fails_beside_the_one_before_is_made_by_fresh_workers(server: Server) -> None:
    server.write("twice", once("twice", 1))
    server.wait_everywhere("/twice", lambda answer: number_of(answer) == 1, 20.0)
    server.write("twice", once("twice", 2))
    wait_new(server, "twice", 2)
    reload = server.get("/plugins/twice").json["reload"]
    assert reload["how"] == "fresh workers"
    assert "twice is registered already" in reload["why"]


@pytest.mark.soak
def test_where_the_author_says_hot_that_load_stays_a_failure(server: Server) -> None:
    wait_until(lambda: len(server.workers()) == size(server), "none drains still")
    server.write("said", "reload: hot\n", "plugin.yaml")
    server.write("said", once("said", 1))
    server.wait_everywhere("/said", lambda answer: number_of(answer) == 1, 20.0)
    before = server.workers()
    server.write("said", once("said", 2))
    error: Any = wait_until(lambda: (server.plugin("said") or {}).get("error"), "the row says it")
    assert "said is registered already" in error["message"]
    assert numbers(server, "said") == {1}
    assert server.workers() == before


@pytest.mark.soak
def test_a_version_that_fails_in_a_fresh_worker_leaves_the_one_before(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    first(server, "one")
    with Requester(server, "one", threads=4) as kept:
        write(
            server, "one", 2, initialize="if not context.trial:\n    raise RuntimeError('not here')"
        )
        error: Any = wait_until(
            lambda: (server.plugin("one") or {}).get("error"), "the row says it", 40.0
        )
        assert "not here" in error["message"]
        wait_until(lambda: len(server.workers()) == 2, f"two workers\n{server.log()}", 20.0)
        rounds = server.log().count("a round begins")
        settled = threading.Event()
        assert not settled.wait(3.0)
        assert server.log().count("a round begins") == rounds, "it is tried once"
        assert numbers(server, "one") == {1}
        write(server, "one", 3)
        wait_new(server, "one", 3)
    kept.assert_flawless()
    wait_until(lambda: server.plugin("one")["error"] is None, "no error")


def test_a_queue_for_each_worker_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.arguments = ["--reuse-port"]
    assert "leave it out" in server.refused()


KEEPS_THE_FIRST = """
import logging
FIRST = vars(logging).setdefault("_first", {{}}).setdefault("{name}", NUMBER)
"""
"""Statements of a module that stand for a library that goes on with what it was given first."""


def failing(name: str, number: int, when: str, prelude: str = "") -> str:
    """Return a plugin whose requests fail where a condition holds."""
    text = counting(name, number, prelude=prelude)
    return text.replace(
        "    def get(self):\n",
        f"    def get(self):\n        if {when}:\n            raise LookupError('what is it?')\n",
    )


@pytest.mark.soak
def test_a_version_that_fails_at_each_use_is_served_by_fresh_workers(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_MAX_NEW_FAILURES="5").start()
    keeps = KEEPS_THE_FIRST.format(name="one")
    server.write("one", failing("one", 1, "FIRST != NUMBER", keeps))
    server.wait_everywhere("/one", lambda answer: number_of(answer) == 1, 20.0)
    server.write("one", failing("one", 2, "FIRST != NUMBER", keeps))
    wait_new(server, "one", 2)
    reload = server.get("/plugins/one").json["reload"]
    assert reload["how"] == "fresh workers"
    assert "requests failed that were answered in the version before" in reload["why"]
    assert "LookupError" in reload["why"]


@pytest.mark.soak
def test_a_version_that_fails_in_fresh_workers_too_is_set_back_until_it_is_edited(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_MAX_NEW_FAILURES="5").start()
    server.write("one", failing("one", 1, "False"))
    server.wait_everywhere("/one", lambda answer: number_of(answer) == 1, 20.0)
    server.write("one", failing("one", 2, "True"))
    wait_until(lambda: numbers(server, "one") == {None}, "it fails")
    wait_new(server, "one", 1, 60.0)
    error = server.plugin("one")["error"]
    assert error["phase"] == "request"
    assert "requests failed that were answered in the version before" in error["message"]
    server.write("other", counting("other", 1))  # the folders are looked at
    wait_new(server, "other", 1)
    assert numbers(server, "one") == {1}
    assert server.plugin("one")["error"] == error
    server.write("one", failing("one", 3, "False"))
    wait_new(server, "one", 3)
    assert server.plugin("one")["error"] is None


HOLDERS = {
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import time\n"
        "ThreadPoolExecutor(2, 'jobs').submit(time.sleep, 600)\n",
        "pool g1: its thread 'jobs_0' still runs",
    ),
    "at_exit": (
        "import atexit, time\natexit.register(time.sleep, 600)\n",
        "at_exit g1: what it has registered with atexit at main.py:2 has not returned",
    ),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", ["pool", "at_exit"])
def test_what_holds_up_the_end_of_a_worker_is_named_and_holds_up_no_round(
    make_server: MakeServer, name: str
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    code, said = HOLDERS[name]
    server.write(name, code + source(name, "one"))
    server.wait_everywhere(f"/{name}", lambda answer: answer.status == 200, 20.0)
    first(server, "one")
    for number in (2, 3):  # the second round waits for the ends of the first one's workers
        write(server, "one", number)
        wait_new(server, "one", number)
    wait_until(lambda: server.log().count(said) >= 2, "the first ones are named", 20.0)
    server.stop()
    assert server.log().count(said) >= 4, server.log()
