"""Data files found by __file__, by pathlib and by importlib.resources as a path."""

import importlib.resources
import os
import pathlib

from app.plugin import PluginMetadata

HERE = pathlib.Path(__file__).parent


def answer():
    named = importlib.resources.files(__package__) / "texts" / "greeting.txt"
    with open(os.path.join(os.path.dirname(__file__), "texts", "greeting.txt")) as file:
        opened = file.read()
    return [
        (HERE / "texts" / "greeting.txt").read_text(),
        opened,
        pathlib.Path(str(named)).read_text(),
    ]


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("data_beside", "1.0.0")

    def register_routes(self, server):
        server.get("/data_beside", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
