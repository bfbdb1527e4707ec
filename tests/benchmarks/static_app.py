"""The peers' application: the same plugins, wired statically into a plain `falcon.App`.

`STATIC_ROOT` names the folder that holds the package `plugs` with all plugins in it.
"""

import importlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import falcon

from app.plugin import PluginContext

PACKAGE = "plugs"


class Whoami:
    """Says which process answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the process id."""
        resp.media = {"says": "I am", "pid": os.getpid()}


class NoRoutes:
    """Takes routes and forgets them: Falcon's own router adds them in quadratic time."""

    def add_route(self, *_: object, **__: object) -> None:
        """Do nothing."""


def create(root: Path, application: Any = None) -> Any:
    """Import every plugin of `root/plugs` as plain modules and add its routes.

    Args:
        root: the folder of the package `plugs`.
        application: what takes the routes; None for a new `falcon.App`.
    """
    application = falcon.App() if application is None else application
    application.add_route("/whoami", Whoami())
    sys.path.insert(0, str(root))
    for folder in sorted((root / PACKAGE).iterdir()):
        if not (folder / "main.py").exists() or folder.name == "whoami":
            continue
        plugin = importlib.import_module(f"{PACKAGE}.{folder.name}.main").new_plugin()
        plugin.initialize(
            PluginContext(folder.name, {}, logging.getLogger(folder.name), _nothing, root)
        )
        plugin.register_routes(application)
    return application


def _nothing() -> Any:
    raise RuntimeError("the peers have no database")


def compute(milliseconds: float) -> None:
    """Take so much of the processor ten times a second, and never end."""
    while True:
        time.sleep(0.1)
        ended = time.thread_time() + milliseconds / 1000
        while time.thread_time() < ended:
            pass


if "STATIC_ROOT" in os.environ:
    app = create(Path(os.environ["STATIC_ROOT"]))
    if os.environ.get("STATIC_COMPUTE"):
        share = float(os.environ["STATIC_COMPUTE"])
        threading.Thread(target=compute, args=(share,), daemon=True).start()
