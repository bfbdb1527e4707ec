"""Reserves a large address range and touches none of it."""

import os

from app.plugin import PluginMetadata
import lmdb


def start(context):
    global STORE
    STORE = lmdb.open(str(context.data_dir), map_size=1 << 40, lock=False)


def stop(context):
    STORE.close()


def answer():
    return "mapped"


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("maps_much", "1.0.0")

    def register_routes(self, server):
        server.get("/maps_much", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
