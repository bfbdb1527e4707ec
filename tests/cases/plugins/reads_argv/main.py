"""A command-line parser at import: the server's own arguments are not this plugin's."""

import argparse
import os

from app.plugin import PluginMetadata

OPTIONS = argparse.ArgumentParser().parse_args()


def answer():
    return "parsed"


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("reads_argv", "1.0.0")

    def register_routes(self, server):
        server.get("/reads_argv", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
