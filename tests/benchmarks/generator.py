"""Synthetic plugins as people write them: models, a store, rules in a subpackage, resources.

Seeded: the same seed gives the same bytes. Every route is a plain Falcon resource, so that the
peers serve exactly the same objects as Benana does.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

THINGS = [
    "order",
    "invoice",
    "customer",
    "product",
    "shipment",
    "ticket",
    "payment",
    "refund",
    "booking",
    "account",
    "contract",
    "message",
    "review",
    "coupon",
    "parcel",
    "vehicle",
    "sensor",
    "meter",
    "branch",
    "lesson",
]
FIELDS = {
    "title": "str",
    "amount": "float",
    "count": "int",
    "open": "bool",
    "note": "str",
    "weight": "float",
    "rank": "int",
    "city": "str",
    "paid": "bool",
}
LINES = (100, 500)
"""The least and the most lines of Python a plugin has by default."""


@dataclass(frozen=True)
class SyntheticPlugin:
    """A plugin's files by relative path, and its (method, template) pairs."""

    name: str
    files: dict[str, str]
    endpoints: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> int:
        """How many lines of Python it has."""
        return sum(text.count("\n") for text in self.files.values())

    def write(self, root: Path) -> Path:
        """Write the plugin below a root; return its folder."""
        folder = root / self.name
        for path, text in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return folder


_MODEL = '''
@dataclass
class {cls}:
    """One {thing} of the {name} plugin."""

    id: int
{fields}
    tags: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return what is wrong with it."""
        found = []
        if self.id < 0:
            found.append("the id is negative")
        if len(self.tags) > {limit}:
            found.append("too many tags")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return what is answered."""
        return asdict(self)
'''

_STORE = '''
class {cls}Store:
    """Keeps {thing}s in memory, by id."""

    def __init__(self) -> None:
        self._items: dict[int, {cls}] = {{}}
        self._lock = threading.Lock()

    def find(self, number: int) -> {cls} | None:
        return self._items.get(number)

    def add(self, item: {cls}) -> int:
        with self._lock:
            self._items[item.id] = item
        return item.id

    def drop(self, number: int) -> bool:
        with self._lock:
            return self._items.pop(number, None) is not None

    def all(self) -> list[dict[str, Any]]:
        return [item.as_json() for item in self._items.values()]
'''

_RESOURCES = '''
class {cls}s:
    """The collection of {thing}s."""

    def __init__(self, store: {cls}Store) -> None:
        self.store = store

    def on_get(self, req, resp):
        resp.media = {{"{thing}s": self.store.all()}}

    def on_post(self, req, resp):
        item = {cls}(**req.get_media())
        faults = item.faults()
        if faults:
            raise falcon.HTTPBadRequest(description="; ".join(faults))
        resp.status = falcon.HTTP_201
        resp.media = {{"id": self.store.add(item)}}

    def on_get_total(self, req, resp):
        resp.media = weigh(self.store.all())

    def on_get_summary(self, req, resp, number):
        item = self.store.find(number)
        resp.media = {{"id": number, "known": item is not None}}


class {cls}One:
    """One {thing}."""

    def __init__(self, store: {cls}Store) -> None:
        self.store = store

    def on_get(self, req, resp, number):
        item = self.store.find(number)
        resp.media = item.as_json() if item else {{"id": number}}

    def on_delete(self, req, resp, number):
        self.store.drop(number)
        resp.status = falcon.HTTP_204
'''

_RULE = '''
def {rule}(items: list[dict[str, Any]], limit: float = {limit}) -> dict[str, float]:
    """Weigh items up to a limit."""
    total, seen = 0.0, 0
    for position, item in enumerate(items):
        weight = float(item.get("weight", 1.0)) * {factor}
        if weight > limit:
            continue
        total += weight / (position + 1)
        seen += 1
    return {{"total": round(total, 2), "seen": float(seen)}}
'''

_MAIN = '''"""The {name} plugin, generated."""

import os
from typing import Any

import falcon
from app.plugin import PluginMetadata

from .models import {classes}
from .rules import weigh
from .store import {stores}


class Root:
    """Says which revision of the source answers, and in which process."""

    def on_get(self, req, resp):
        resp.media = {{"plugin": "{name}", "revision": 0, "pid": os.getpid()}}


class Over:
    """Answers once another revision is served in its place."""

    def __init__(self, context):
        self.context = context

    def on_get(self, req, resp):
        resp.media = {{"over": self.context.cancelled.wait(30.0)}}

{resources}

class Plugin:
    """What the server talks to."""

    def initialize(self, context):
        self.context = context
{init}

    def get_metadata(self):
        return PluginMetadata("{name}", "1.0.0", "A synthetic plugin", "the generator")

    def register_routes(self, server):
        server.add_route("/{name}", Root())
        server.add_route("/{name}/over", Over(self.context))
{routes}

    def cleanup(self, context):
        self.context = None


def new_plugin():
    return Plugin()
'''


def generate(name: str, seed: int, lines: tuple[int, int] = LINES) -> SyntheticPlugin:
    """Generate a plugin.

    Args:
        name: its name and its routes' first segment.
        seed: what all choices follow from.
        lines: the least and the most lines of Python.
    """
    chance = random.Random(f"{name}/{seed}")
    target = chance.randint(*lines)
    things = chance.sample(THINGS, max(1, min(4, target // 110)))
    classes = [thing.capitalize() for thing in things]
    models = '"""What the plugin keeps."""\n\n'
    models += "from dataclasses import asdict, dataclass, field\nfrom typing import Any\n\n"
    store = '"""Where the plugin keeps it."""\n\nimport threading\nfrom typing import Any\n\n'
    store += f"from .models import {', '.join(classes)}\n\n"
    resources, init, routes = "", [], []
    endpoints = [("GET", f"/{name}"), ("GET", f"/{name}/over")]
    for thing, cls in zip(things, classes, strict=True):
        chosen = chance.sample(sorted(FIELDS), chance.randint(2, 5))
        defaults = {"str": '""', "float": "0.0", "int": "0", "bool": "False"}
        fields = "\n".join(f"    {f}: {FIELDS[f]} = {defaults[FIELDS[f]]}" for f in chosen)
        limit = chance.randint(3, 30)
        models += _MODEL.format(cls=cls, thing=thing, name=name, fields=fields, limit=limit) + "\n"
        store += _STORE.format(cls=cls, thing=thing) + "\n"
        resources += _RESOURCES.format(cls=cls, thing=thing) + "\n"
        init.append(f"        self.{thing}s = {cls}Store()")
        base = f"/{name}/{thing}s"
        one, summary = f"{base}/{{number:int}}", f"{base}/{{number:int}}/summary"
        routes.append(f'        server.add_route("{base}", {cls}s(self.{thing}s))')
        routes.append(f'        server.add_route("{one}", {cls}One(self.{thing}s))')
        routes.append(
            f'        server.add_route("{summary}", {cls}s(self.{thing}s), suffix="summary")'
        )
        routes.append(
            f'        server.add_route("{base}/total", {cls}s(self.{thing}s), suffix="total")'
        )
        endpoints += [("GET", base), ("POST", base), ("GET", one), ("DELETE", one)]
        endpoints += [("GET", summary), ("GET", f"{base}/total")]
    main = _MAIN.format(
        name=name,
        classes=", ".join(classes),
        stores=", ".join(f"{cls}Store" for cls in classes),
        resources=resources,
        init="\n".join(init),
        routes="\n".join(routes),
    )
    files = {"main.py": main, "models.py": models, "store.py": store}
    rules = '"""How the plugin weighs."""\n\nfrom typing import Any\n\n'
    written = sum(text.count("\n") for text in files.values())
    for number in range(max(1, (target - written - 8) // _RULE.count("\n"))):
        rules += _RULE.format(
            rule=f"weigh_{number}", limit=chance.randint(1, 99), factor=chance.random()
        )
    files["rules/__init__.py"] = "from .weights import weigh_0 as weigh\n\n__all__ = ['weigh']\n"
    files["rules/weights.py"] = rules
    files["__init__.py"] = ""
    return SyntheticPlugin(name, files, tuple(endpoints))


def write_plugins(
    root: Path, count: int, seed: int = 1, lines: tuple[int, int] = LINES
) -> list[SyntheticPlugin]:
    """Write plugins `p0000`, `p0001`, … below a root."""
    plugins = [generate(f"p{number:04d}", seed, lines) for number in range(count)]
    for plugin in plugins:
        plugin.write(root)
    return plugins


_REVISION = re.compile(r'"revision": \d+')


def revise(folder: Path, revision: int) -> str:
    """Return a plugin's `main.py` whose root route answers another revision."""
    return _REVISION.sub(f'"revision": {revision}', (folder / "main.py").read_text())
