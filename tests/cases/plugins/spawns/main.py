"""Process pools whose children import the plugin's functions."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from app.plugin import PluginMetadata


def square(n):
    return n * n


def answer():
    return [_squared_in_a_process("spawn"), _squared_in_a_process("forkserver")]


def _squared_in_a_process(method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(square, 7).result(timeout=20)


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("spawns", "1.0.0")

    def register_routes(self, server):
        server.get("/spawns", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
