"""A thread that refers to nothing of the plugin and goes on for ever."""

import os

from app.plugin import PluginMetadata
import threading

threading.Thread(target=threading.Event().wait, name="exporter", daemon=True).start()


def answer():
    return threading.active_count()


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("leaves_thread", "1.0.0")

    def register_routes(self, server):
        server.get("/leaves_thread", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
