"""Patches the standard library for green threads."""

import os

from gevent import monkey

from app.plugin import PluginMetadata

monkey.patch_all()


def answer():
    return "patched"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("patches_gevent", "1.0.0")

    def register_routes(self, server):
        server.get(
            "/patches_gevent", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()}
        )

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
