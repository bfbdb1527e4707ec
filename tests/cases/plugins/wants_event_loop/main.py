"""Asks for the thread's event loop at import."""

import asyncio
import os

from app.plugin import PluginMetadata

LOOP = asyncio.get_event_loop()


def answer():
    return LOOP.is_running()


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("wants_event_loop", "1.0.0")

    def register_routes(self, server):
        server.get(
            "/wants_event_loop", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()}
        )

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
