"""Memory comes back: reload after reload, and what happens where it does not."""

import itertools
import os
import statistics
import time

import psutil
import pytest

from tests.support.requester import Requester, counting, session, wait_number
from tests.support.server import MakeServer, Server, ask
from tests.support.waiting import wait_until

MODELS = '''
"""Dataclasses and enums, which know their module, and refer to one another in cycles."""

import dataclasses
import enum
import typing

TEXT = "{number}" * 2000


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Flag(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    colour: Colour = Colour.RED
    next: "Point | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    start: Point
    end: Point
    names: list[str] = dataclasses.field(default_factory=list)


HINTS = typing.get_type_hints(Point)
FIRST = Point(1)
FIRST.next = FIRST
'''

PRELUDE = """
from . import models, own_app
from .deeper import shapes
from .deeper.shapes import Shape
"""

OWN_APP = """
import falcon


class Marks:
    def process_request(self, req, resp):
        req.context.marked = self

    def process_response(self, req, resp, resource, req_succeeded):
        resp.set_header("X-Marked", str(req.context.marked is self))


def no_luck(req, resp, ex, params):
    raise falcon.HTTPGone


def set_up(server):
    server.add_middleware([Marks(), falcon.CORSMiddleware()])
    server.add_error_handler(LookupError, no_luck)
    server.req_options.media_handlers["text/x"] = falcon.media.JSONHandler()
"""

SHAPES = """
import dataclasses
import functools

from ..models import Colour, Point


@dataclasses.dataclass(order=True)
class Shape:
    area: float
    at: Point = dataclasses.field(default_factory=lambda: Point(1))

    @functools.cache
    def name(self):
        return Colour.GREEN.name

    def __hash__(self):
        return hash(self.area)


KEPT = [Shape(n) for n in range(100)]
NAMES = [shape.name() for shape in KEPT]
"""


def write_rich(server: Server, name: str, number: int) -> None:
    """Write a plugin with models, submodules and middleware of its own; the entry comes last."""
    server.write(name, MODELS.format(number=number), "models.py")
    server.write(name, "", "deeper/__init__.py")
    server.write(name, SHAPES, "deeper/shapes.py")
    server.write(name, OWN_APP, "own_app.py")
    server.write(name, rich(name, number), "main.py")


def rich(name: str, number: int) -> str:
    return counting(name, number, prelude=PRELUDE, routes="own_app.set_up(server)")


def resident(server: Server) -> dict[int, int]:
    """Return each worker's resident memory without shared pages, in bytes."""
    found = {pid: psutil.Process(pid).memory_full_info() for pid in server.workers()}
    return {pid: info.uss for pid, info in found.items()}


PROBE = """
import gc
import os
import sys

from app.package.finder import generations_alive


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        from app.plugin import PluginMetadata

        return PluginMetadata(name="probe", version="1")

    def register_routes(self, server):
        server.get("/probe", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        gc.unfreeze()  # garbage that was frozen waits for a thorough collection, and is no leak
        gc.collect()  # and no freezing behind the server's back: it would not look there again
        alive = generations_alive()
        return {"pid": os.getpid(), "alive": alive, "blocks": sys.getallocatedblocks()}


def new_plugin():
    return Plugin()
"""


def blocks(server: Server) -> dict[int, int]:
    """Return how many memory blocks each worker's Python has given out: exact, page by page.

    The workers' own reports are seconds old: the generations of the last reloads may still wait
    for their cleanup, with 800 blocks each. So a worker is asked until they are gone.
    """

    def given_out() -> dict[int, int] | None:
        answers = [answer.json for answer in server.ask_all("/probe").values()]
        if len(answers) != 2 or any(answer["alive"] > 3 for answer in answers):
            return None  # whoami, the probe, and the plugin that is reloaded
        return {answer["pid"]: answer["blocks"] for answer in answers}

    return wait_until(given_out, "nothing of older generations is left", 180.0)


def alive(server: Server) -> dict[int, int]:
    """Return how many generations each worker has in memory."""
    return {w["pid"]: w["generations_alive"] for w in server.get("/workers").json}


def reload_often(server: Server, name: str, count: int, number: int) -> int:
    """Reload by row, and every tenth time by an edit; wait for each on all workers."""
    with session(server) as run, server.each_worker() as workers:
        expected = run("SELECT generation FROM plugins WHERE name = %s", name)[0][0]
        for turn in range(count):
            expected += 1
            if turn % 10 == 9:
                number += 1
                server.write(name, rich(name, number))
            else:
                run("UPDATE plugins SET generation = generation + 1 WHERE name = %s", name)
            for connection in workers.values():
                wait_until(
                    lambda c=connection, e=expected: (
                        ask(c, "GET", f"/{name}").json["generation"] >= e
                    ),
                    f"generation {expected}",
                )
    return number


def settle(server: Server, most: int) -> dict[int, int]:
    """Wait until all but the served generations are gone everywhere.

    A generation that was frozen waits for a thorough collection. One takes 20 to 30 ms here, and
    may take one part in 500 of the time: they come every 10 to 15 s, and on a machine that is
    three times as slow, three times as seldom.
    """
    return wait_until(
        lambda: (found := alive(server)) and max(found.values()) <= most and found,
        f"at most {most} generations alive",
        180.0,
    )


@pytest.mark.parametrize(
    ("reloads", "warm_up", "most_per_thousand"),
    [
        pytest.param(100, 20, None, id="100", marks=pytest.mark.soak),
        pytest.param(2000, 2500, 1000, id="2000", marks=pytest.mark.soak),
    ],
)
def test_resident_memory_stays(
    make_server: MakeServer, reloads: int, warm_up: int, most_per_thousand: int | None
) -> None:
    server = make_server().start()
    server.write("probe", PROBE)
    write_rich(server, "rich", 1)
    wait_number(server, "rich", 1)
    wait_until(
        lambda: (
            len(answers := server.ask_all("/probe")) == 2
            and all(answer.status == 200 for answer in answers.values())
        ),
        "the probe answers",
    )
    began = time.monotonic()
    number = reload_often(server, "rich", warm_up, 1)
    settle(server, 3)
    given_out = blocks(server)
    sizes = [resident(server)]
    for _ in range(reloads // 100):
        number = reload_often(server, "rich", 100, number)
        found = settle(server, 3)  # whoami, the probe, and this one
        blocks(server)
        sizes.append(resident(server))
    grown = {pid: count - given_out[pid] for pid, count in blocks(server).items()}
    seconds = time.monotonic() - began
    for pid, before in sizes[0].items():
        steps = [(b[pid] - a[pid]) / 1024 for a, b in itertools.pairwise(sizes)]
        whole = (sizes[-1][pid] - before) / 1024
        # The mean, since what one step gives back the next one takes; without the steps in which
        # the allocator took its next arena (1 MB, of which a part is touched), now and then. It is
        # looser than the goal of 100: what one thread has allocated another one frees, and the C
        # library's arenas grow for a while. Objects are counted exactly, below.
        per_thousand = 10 * statistics.mean([step for step in steps if step < 128] or steps)
        print(
            f"\nworker {pid}: {before / 1024:.0f} KB after {warm_up} reloads, {whole:+.0f} KB "
            f"after {reloads} more, {per_thousand:+.0f} KB per 1,000, "
            f"{grown[pid]:+d} blocks; alive {found[pid]}"
        )
        # One generation that stays is 100 KB or more, each time. The C library's arenas take 3 MB
        # in most long runs and 5 in some, where no object stays: of two revisions side by side.
        assert whole < (5 << 10) + 2.5 * reloads, steps
        if most_per_thousand is not None:
            # One object left by each reload would be as many blocks as reloads; a generation that
            # just waits for its cleanup is 800.
            assert grown[pid] < reloads / 2, grown
            assert per_thousand < most_per_thousand, steps
    print(f"{seconds:.0f} s")
    assert "still in memory" not in server.log()


THREAD = """
def run_for_ever():
    threading.Event().wait()


if __name__.startswith("_plugins.") and not __package__.endswith(".g0"):
    threading.Thread(target=run_for_ever, name="the-leaking-thread", daemon=True).start()
"""

STORED = """
import colorsys


class Stored:
    def area(self):
        return 1


if not __package__.endswith(".g0"):
    colorsys.__dict__.setdefault("kept_by_a_plugin", []).append(Stored())
"""

PATCHED = """
import json

json.encoder.encode_basestring = lambda text, old=json.encoder.encode_basestring: old(text)
"""


@pytest.mark.parametrize(
    ("prelude", "named"),
    [
        pytest.param(STORED, "Stored", id="stored in a list"),
        pytest.param(
            THREAD, "the thread 'the-leaking-thread'", id="thread", marks=pytest.mark.soak
        ),
        pytest.param(PATCHED, "json.encoder", id="monkeypatch", marks=pytest.mark.soak),
    ],
)
def test_a_leak_is_reported_once_and_counted(
    make_server: MakeServer, prelude: str, named: str
) -> None:
    server = make_server().start()
    server.write("leaking", "reload: hot\n", "plugin.yaml")  # a rehearsal finds it, too
    server.write("leaking", counting("leaking", 1, prelude=prelude))
    wait_number(server, "leaking", 1, 10.0)
    server.write("leaking", counting("leaking", 2))
    wait_number(server, "leaking", 2)
    line = "leaking-g1: still in memory after its cleanup"
    wait_until(lambda: server.log().count(line) == 2, "each worker says so", 10.0)
    said = [found for found in server.log().splitlines() if line in found]
    print("\n" + said[0])
    for found in said:
        assert named in found
    wait_until(lambda: set(alive(server).values()) == {3}, "it is counted", 6.0)
    for number in range(3, 8):  # the clean ones that follow are not blamed
        server.write("leaking", counting("leaking", number))
        wait_number(server, "leaking", number)
    settle(server, 3)
    assert server.log().count("still in memory") == 2, "once"


@pytest.mark.soak
def test_a_worker_that_leaks_too_much_is_replaced(make_server: MakeServer) -> None:
    server = make_server(BENANA_MAX_LEAKED_GENERATIONS="1").start()
    server.write("leaking", "reload: hot\n", "plugin.yaml")  # a rehearsal finds it, too
    server.write("leaking", counting("leaking", 1, prelude=STORED))
    wait_number(server, "leaking", 1, 10.0)
    old = server.workers()
    with Requester(server, "leaking", threads=6, fresh=True, streams=1) as requester:
        for number in range(2, 5):
            server.write("leaking", counting("leaking", number, prelude=STORED))
            wait_number(server, "leaking", number)
        began = time.monotonic()
        wait_until(
            lambda: not server.workers() & old and len(server.workers()) == 2,
            "both are replaced",
            20.0,
        )
        took = time.monotonic() - began
        wait_number(server, "leaking", 4)
        settle(server, 2)
    print(f"\nreplaced within {took:.1f} s: {requester.summary()}")
    requester.assert_flawless()
    assert server.log().count("replacing this worker") == 2
    assert server.process is not None
    assert server.process.poll() is None
    assert all(pid != os.getpid() for pid in server.workers())
    server.stop()
    assert server.process.returncode == 0
