"""An object of which even isinstance may not ask, as unconfigured lazy settings are."""

import os

from app.plugin import PluginMetadata


class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("not configured")


SETTINGS = Lazy()


def answer():
    return "lazy"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("lazy_object", "1.0.0")

    def register_routes(self, server):
        server.get("/lazy_object", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
