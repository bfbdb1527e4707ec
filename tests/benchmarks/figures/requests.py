"""What a request costs: WSGI calls into Benana's application and into a plain `falcon.App`."""

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import falcon
from falcon import testing

from app.admin import problems
from app.loading.routes import Route
from app.routing.application import LiveApp
from tests.benchmarks.generator import generate
from tests.benchmarks.measure import Figure, flat, in_turns, median, spread
from tests.benchmarks.servers import Rig

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Resource:
    """The same on both sides: a small body, and whatever fields there are."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, **_: object) -> None:
        """Answer a constant."""
        resp.content_type = "application/json"
        resp.data = b'{"says":"hello"}'


def measure(rig: Rig) -> list[Figure]:
    """Measure with one plugin and with 1,000 plugins of 10 routes."""
    one = generate("p0000", 1)
    single = {one.name: [template for _, template in dict.fromkeys(one.endpoints)]}
    plugins = rig.pick(100, 1000)
    many = {f"p{n:04d}": _ten(f"p{n:04d}") for n in range(plugins)}
    return [
        _compare(rig, "request cost, 1 plugin", single, 1.05),
        _compare(rig, f"request cost, {plugins:,} plugins × 10 routes", many, 0.5),
    ]


def _ten(name: str) -> list[str]:
    things = ("orders", "invoices", "parcels")
    found = [f"/{name}"]
    for thing in things:
        base = f"/{name}/{thing}"
        found += [base, f"{base}/{{number:int}}", f"{base}/{{number:int}}/summary"]
    return found


def _compare(rig: Rig, name: str, templates: dict[str, list[str]], goal: float) -> Figure:
    live, plain, resource = LiveApp(), falcon.App(), Resource()
    problems.install(live)
    builder = live.table.builder()
    for owner, theirs in templates.items():
        unique = list(dict.fromkeys(theirs))
        builder.add(owner, tuple(Route(owner, template, resource) for template in unique))
        for template in unique:
            plain.add_route(template, resource)
    live.swap(builder.build())
    chance = random.Random(7)
    every = [template for theirs in templates.values() for template in dict.fromkeys(theirs)]
    chosen = chance.sample(every, min(200, len(every)))
    paths = [template.replace("{number:int}", "17") for template in chosen]
    environments = [testing.create_environ(path=path) for path in paths]
    for side in (live, plain):
        assert b"".join(side(dict(environments[0]), _start)) == b'{"says":"hello"}'
    calls = rig.pick(400, 2000)
    found = in_turns(
        rig.pick(5, 61),
        {
            "ours": lambda: [_cost(live, environments, calls)],
            "plain Falcon": lambda: [_cost(plain, environments, calls)],
        },
    )
    ours, peer = flat(found["ours"]), flat(found["plain Falcon"])
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    ratio = median(ratios)
    return Figure(
        name,
        median(ours),
        "µs",
        "plain falcon.App",
        median(peer),
        ratio,
        f"ratio ≤ {goal}",
        ratio <= goal,
        f"ratio {spread(ratios)}",
        f"{len(every):,} routes, {calls:,} calls a round, {len(ours)} rounds",
        {"ours": ours, "plain Falcon": peer},
    )


def _start(_status: str, _headers: object, _exc_info: object = None) -> None:
    return None


def _cost(application: WSGI, environments: list[dict[str, Any]], calls: int) -> float:
    """Return the microseconds of one call, the copy of its environment excepted."""
    copies = [dict(environments[n % len(environments)]) for n in range(calls)]
    began = time.perf_counter()
    for environment in copies:
        application(environment, _start)
    return (time.perf_counter() - began) / calls * 1e6
