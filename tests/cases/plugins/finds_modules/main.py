"""Finds its own submodules with pkgutil."""

import importlib
import os
import pkgutil

from app.plugin import PluginMetadata

from . import parts


def answer():
    names = sorted(module.name for module in pkgutil.iter_modules(parts.__path__))
    return [importlib.import_module(f"{parts.__name__}.{name}").VALUE for name in names]


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("finds_modules", "1.0.0")

    def register_routes(self, server):
        server.get("/finds_modules", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
