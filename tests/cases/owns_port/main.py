"""Holds a port of its own: two generations, or two workers, cannot hold it at once."""

import os
import socket

from app.plugin import PluginMetadata


def start(context):
    global SOCKET
    SOCKET = socket.socket()
    SOCKET.bind(("127.0.0.1", int(os.environ.get("CASE_PORT", "9797"))))
    SOCKET.listen()


def stop(context):
    SOCKET.close()


def answer():
    return SOCKET.getsockname()[1]


EDIT = 0


class P:
    def initialize(self, context):
        globals().get("start", lambda c: None)(context)

    def get_metadata(self):
        return PluginMetadata("owns_port", "1.0.0")

    def register_routes(self, server):
        server.get("/owns_port", lambda: {"edit": EDIT, "pid": os.getpid(), "answer": answer()})

    def cleanup(self, context):
        globals().get("stop", lambda c: None)(context)


new_plugin = P
