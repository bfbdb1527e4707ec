"""A finalizer that takes long: its owner's affair alone."""

import os

from app.plugin import PluginMetadata
import time


class Slow:
    def __del__(self):
        time.sleep(60)


KEPT = [Slow()]
KEPT.append(KEPT)


def answer():
    return "slow"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("slow_finalizer", "1.0.0")

    def register_routes(self, server):
        server.get(
            "/slow_finalizer", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()}
        )

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
