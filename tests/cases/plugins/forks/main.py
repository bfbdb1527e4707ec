"""A pool of forked children that is given up on: they have to end, and must not hold the port."""

import multiprocessing
import os
import time

from app.plugin import PluginMetadata


def answer():
    try:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply_async(time.sleep, (5,)).get(timeout=0.5)
    except multiprocessing.TimeoutError:
        return "given up"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("forks", "1.0.0")

    def register_routes(self, server):
        server.get("/forks", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
