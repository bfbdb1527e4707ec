"""How fast this machine is now, beside the one that the goals in milliseconds were set on.

Most goals are ratios within one run. Those in time are meant for a machine of a known speed; on a
slower one the time is longer by as much as plain Falcon takes longer for a request.

A virtual machine's host may take memory away that rests. What touches much of it after a pause, as
an edit does, is the slower then, and nothing that runs again and again shows it.
"""

import mmap
import time
from collections.abc import Callable
from functools import cache

import falcon
from falcon import testing

from tests.benchmarks.measure import short

REFERENCE_US = 2.67
"""What plain Falcon took for a request when the goals were set, the `request cost` of its table."""

ROUNDS, CALLS = 61, 400

PAGES, REST_SECONDS = 4096, 0.3
"""How much memory is left alone, and for how long: about as long as before an edit."""


class _Resource:
    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "application/json"
        resp.data = b'{"says":"hello"}'


@cache
def slowness() -> float:
    """Return how many times longer this machine takes, at its best; 1 for a faster one."""
    application = falcon.App()
    application.add_route("/p0000", _Resource())
    app: Callable[..., object] = application
    environment = testing.create_environ(path="/p0000")
    costs = []
    for _ in range(ROUNDS):
        copies = [dict(environment) for _ in range(CALLS)]
        began = time.perf_counter()
        for copy in copies:
            app(copy, _start)
        costs.append((time.perf_counter() - began) / CALLS * 1e6)
    return max(1.0, min(costs) / REFERENCE_US)


@cache
def rested_page_us() -> float:
    """Return how many microseconds more it takes to touch a page of memory that has rested."""
    size = mmap.PAGESIZE
    with mmap.mmap(-1, PAGES * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:

        def touch() -> float:
            began = time.perf_counter()
            for at in range(0, PAGES * size, size):
                memory[at] = 1
            return (time.perf_counter() - began) / PAGES * 1e6

        touch()
        at_once = touch()
        time.sleep(REST_SECONDS)
        return max(0.0, touch() - at_once)


def within(value: float, limit: float, unit: str) -> tuple[str, bool]:
    """Return a goal's text, and whether a measured time holds it on this machine.

    Args:
        value: what was measured.
        limit: what it may take on a machine of the reference's speed.
        unit: of both.
    """
    slower = slowness()
    goal = f"≤ {short(limit)} {unit}" + (f" × {slower:.1f}" if slower > 1.05 else "")
    return goal, value <= limit * slower


def _start(_status: str, _headers: object, _exc_info: object = None) -> None:
    return None
