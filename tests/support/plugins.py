"""Plugins as texts, and the sources and artifacts that are made of them."""

import contextlib
import hashlib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.errors import DatabaseUnavailableError
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import digest_of
from app.records import Artifact, Manifest, PluginSource

ANSWERING = """
import os

from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata(name="{name}", version="{version}")

    def register_routes(self, server):
        server.get("/{name}", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {{"says": "{says}", "pid": os.getpid()}}


def new_plugin():
    return Plugin()
"""


MODELS = """
import pydantic

from app.plugin import PluginInterface, PluginMetadata


class Item(pydantic.BaseModel):
    name: str
    count: int = 1


class Order(pydantic.BaseModel):
    number: int
    items: list[Item]


class Models(PluginInterface):
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata(name="models", version="1")

    def register_routes(self, server):
        server.get("/models", lambda: {"edit": 0})
        server.post("/models/{customer}", self.create)

    def cleanup(self, context): ...

    def create(self, customer: str, body: Order):
        return {"customer": customer, "order": body}, 201


def new_plugin():
    return Models()
"""


WHOAMI = ANSWERING.format(name="whoami", version="1", says="I am")


def source(name: str, says: str = "one", version: str = "1.0.0") -> str:
    """Return a plugin whose `GET /<name>` answers `{"says": …, "pid": …}`."""
    return ANSWERING.format(name=name, says=says, version=version)


PLUGIN = """\
from app.plugin import PluginInterface, PluginMetadata

class Sample(PluginInterface):
    def initialize(self, context):
        self.context = context

    def get_metadata(self):
        return PluginMetadata(name="sample", version="1.0")

    def register_routes(self, server):
        server.get("/sample", self.handle)

    def cleanup(self, context):
        pass

    def handle(self):
        return {"ok": True}

def new_plugin():
    return Sample()
"""


def text(content: str | bytes) -> bytes:
    """Return a file's content as bytes, a text without its common indentation."""
    return content if isinstance(content, bytes) else textwrap.dedent(content).encode()


def source_of(
    files: Mapping[str, str | bytes], name: str = "sample", **manifest: Any
) -> PluginSource:
    """Make a plugin's source in memory, without a folder."""
    raw = {path: text(content) for path, content in files.items()}
    return PluginSource(name, Path("/nowhere") / name, raw, Manifest(**manifest), digest_of(raw))


def artifact_of(
    files: Mapping[str, str | bytes], name: str = "sample", **manifest: Any
) -> Artifact:
    """Compile a plugin from texts."""
    return compile_plugin(source_of(files, name, **manifest))


def plugin_text(body: str = "", *, top: str = "", **methods: str) -> str:
    """Return a valid plugin's text with some methods' bodies replaced and others added."""
    bodies = {
        "initialize": "self.context = context",
        "get_metadata": "return PluginMetadata(name='sample', version='1.0')",
        "register_routes": "server.get('/sample', self.handle)",
        "cleanup": "pass",
        "handle": "return {'ok': True}",
    } | methods
    arguments = {
        "initialize": "self, context",
        "register_routes": "self, server",
        "cleanup": "self, context",
    }
    lines = ["from app.plugin import PluginInterface, PluginMetadata", textwrap.dedent(top)]
    lines.append("class Sample(PluginInterface):")
    for method, code in bodies.items():
        lines.append(f"    def {method}({arguments.get(method, 'self')}):")
        lines.append(textwrap.indent(textwrap.dedent(code), "        "))
    lines.append(textwrap.indent(textwrap.dedent(body), "    "))
    lines.append("def new_plugin():\n    return Sample()\n")
    return "\n".join(lines)


@contextlib.contextmanager
def no_database() -> Iterator[None]:
    raise DatabaseUnavailableError("the database is away")
    yield


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
