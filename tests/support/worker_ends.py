"""Plugins that end their worker, and what is seen of it from outside."""

import json
from typing import Any

from tests.support.plugins import source
from tests.support.server import Server


def ending_at_load(name: str, how: str, says: str = "ended") -> str:
    """Return a plugin that passes its trial, and ends the worker that loads it."""
    return source(name, says).replace(
        "        pass\n", f"        if not context.trial:\n            {how}\n", 1
    )


def error_of(server: Server, name: str) -> Any:
    """Return a plugin's error, None where there is none or the worker that is asked ends."""
    try:
        return (server.plugin(name) or {}).get("error")
    except OSError:
        return None


def all_up(server: Server) -> bool:
    """Tell whether as many workers answer as there should be."""
    try:
        return len(server.ask_all("/whoami")) == int(server.environment["WEB_CONCURRENCY"])
    except OSError:
        return False


def kept(server: Server, name: str) -> int:
    """Return the generation that this host would go back to."""
    path = server.artifacts / ".served" / name
    return int(json.loads(path.read_text())["generation"]) if path.exists() else 0
