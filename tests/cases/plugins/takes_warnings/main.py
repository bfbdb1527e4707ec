"""Turns warnings into errors for the whole process."""

import os
import warnings

from app.plugin import PluginMetadata

warnings.simplefilter("error")


def answer():
    return "strict"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("takes_warnings", "1.0.0")

    def register_routes(self, server):
        server.get(
            "/takes_warnings", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()}
        )

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
