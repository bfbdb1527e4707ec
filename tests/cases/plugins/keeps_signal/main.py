"""A signal handler set at import: refused outside the main thread."""

import os
import signal

from app.plugin import PluginMetadata

signal.signal(signal.SIGUSR2, lambda *_: None)


def answer():
    return "set"


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("keeps_signal", "1.0.0")

    def register_routes(self, server):
        server.get("/keeps_signal", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
