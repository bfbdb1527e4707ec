"""What a request costs: WSGI calls into Benana's application and into a plain `falcon.App`."""

import json
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import falcon
import pydantic
from falcon import testing

from app.admin import problems
from app.loading.registration import RouteCollector
from app.loading.routes import Route
from app.routing.application import LiveApp
from app.routing.plugin_app import answer_by_own
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
        _beside_middleware(rig, single),
        *_typed(rig),
    ]


def _ten(name: str) -> list[str]:
    things = ("orders", "invoices", "parcels")
    found = [f"/{name}"]
    for thing in things:
        base = f"/{name}/{thing}"
        found += [base, f"{base}/{{number:int}}", f"{base}/{{number:int}}/summary"]
    return found


class Order(pydantic.BaseModel):
    """A small model."""

    number: int
    name: str
    price: float = 0.0


class _ByHand:
    """What a person writes in Falcon for the same."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, number: int) -> None:
        limit = req.get_param_as_int("limit", default=10)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = json.dumps({"number": number, "limit": limit}).encode()

    def on_post(self, req: falcon.Request, resp: falcon.Response, number: int) -> None:
        order = Order.model_validate_json(req.bounded_stream.read())
        order.number = number
        resp.content_type = falcon.MEDIA_JSON
        resp.data = order.model_dump_json().encode()


def _find(number: int, limit: int = 10) -> dict[str, int]:
    return {"number": number, "limit": limit}


def _create(number: int, body: Order) -> Order:
    body.number = number
    return body


def _typed(rig: Rig) -> list[Figure]:
    """Compare typed handlers with the same by hand in plain Falcon."""
    template, plain = "/typed/{number:int}", falcon.App()
    plain.add_route(template, _ByHand())
    collector = RouteCollector("typed", lambda _frame: None, "_plugins.typed.g1")
    collector.get(template, _find)
    collector.post(template, _create)
    live = LiveApp()
    problems.install(live)
    builder = live.table.builder()
    builder.add("typed", collector.finish())
    live.swap(builder.build())
    body = b'{"number": 5, "name": "a parcel", "price": 1.5}'
    calls = rig.pick(400, 2000)

    def cost(app: WSGI, method: str) -> list[float]:
        made = {"path": "/typed/7", "method": method, "query_string": "limit=5"}
        sent = body if method == "POST" else ""
        environments = [testing.create_environ(**made, body=sent) for _ in range(calls)]
        began = time.perf_counter()
        for environment in environments:
            app(environment, _start)
        return [(time.perf_counter() - began) / calls * 1e6]

    figures = []
    for method, what, goal in (("GET", "without a body", 1.1), ("POST", "with a model", 1.3)):
        found = in_turns(
            rig.pick(5, 61),
            {
                "typed": partial(cost, live, method),
                "by hand": partial(cost, plain, method),
            },
        )
        ours, peer = flat(found["typed"]), flat(found["by hand"])
        ratios = [a / b for a, b in zip(ours, peer, strict=True)]
        ratio = median(ratios)
        figures.append(
            Figure(
                *(f"typed handler {what}", median(ours), "µs", "by hand in plain Falcon"),
                *(median(peer), ratio, f"ratio ≤ {goal}", ratio <= goal),
                f"ratio {spread(ratios)}",
                f"{calls:,} calls a round, {len(ours)} rounds",
                {"typed": ours, "by hand": peer},
            )
        )
    return figures


class _Middleware:
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Do nothing."""


def _live(templates: dict[str, list[str]], resource: object) -> LiveApp:
    """Return Benana's application with routes, by their owner."""
    live = LiveApp()
    problems.install(live)
    builder = live.table.builder()
    for owner, theirs in templates.items():
        builder.add(owner, tuple(Route(owner, each, resource) for each in dict.fromkeys(theirs)))
    live.swap(builder.build())
    return live


def _beside_middleware(rig: Rig, templates: dict[str, list[str]]) -> Figure:
    """Compare a plugin's requests with and without another plugin that has middleware."""
    alone, beside = _live(templates, Resource()), _live(templates, Resource())
    collector = RouteCollector("other", lambda _frame: None, "_plugins.other.g1")
    collector.add_middleware(_Middleware())
    collector.add_route("/other", Resource())
    routes = collector.finish()
    answer_by_own(beside, collector.own, routes)
    builder = beside.table.builder()
    builder.add("other", routes)
    beside.swap(builder.build())
    every = [template for theirs in templates.values() for template in dict.fromkeys(theirs)]
    paths = [template.replace("{number:int}", "17") for template in every]
    environments = [testing.create_environ(path=path) for path in paths]
    calls = rig.pick(400, 2000)
    found = in_turns(
        rig.pick(5, 61),
        {
            "beside": lambda: [_cost(beside, environments, calls)],
            "alone": lambda: [_cost(alone, environments, calls)],
        },
    )
    ours, peer = flat(found["beside"]), flat(found["alone"])
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    ratio = median(ratios)
    return Figure(
        *("request cost beside another plugin's middleware", median(ours), "µs", "without it"),
        *(median(peer), ratio, "ratio ≤ 1.05", ratio <= 1.05, f"ratio {spread(ratios)}"),
        f"{len(every)} routes, {calls:,} calls a round, {len(ours)} rounds",
        {"beside": ours, "alone": peer},
    )


def _compare(rig: Rig, name: str, templates: dict[str, list[str]], goal: float) -> Figure:
    plain, resource = falcon.App(), Resource()
    live = _live(templates, resource)
    for theirs in templates.values():
        for template in dict.fromkeys(theirs):
            plain.add_route(template, resource)
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
