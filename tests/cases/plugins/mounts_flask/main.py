"""A Flask application object with a template of its own."""

import os

from flask import Flask, render_template

from app.plugin import PluginMetadata

app = Flask(__name__)


def answer():
    with app.app_context():
        return render_template("page.txt", who="you")


EDIT = 0


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("mounts_flask", "1.0.0")

    def register_routes(self, server):
        server.get("/mounts_flask", self.get)

    def cleanup(self, context): ...

    def get(self):
        return {"edit": EDIT, "pid": os.getpid(), "answer": answer()}


new_plugin = Plugin
