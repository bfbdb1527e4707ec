"""Configures logging for the whole process."""

import logging.config
import os

from app.plugin import PluginMetadata

logging.config.dictConfig({"version": 1, "root": {"level": "ERROR", "handlers": []}})


def answer():
    return "quiet"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("takes_logging", "1.0.0")

    def register_routes(self, server):
        server.get("/takes_logging", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
