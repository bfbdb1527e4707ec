"""The pool that plugins borrow from."""

from app.database.pool import Database
from app.database.sessions import SHARED_SETTINGS
from app.database.timeouts import plugin_bounds
from app.settings import Settings


def plugin_pool(url: str, settings: Settings) -> Database:
    """Return the pool that plugins borrow from; no single plugin gets all of it."""
    seconds = settings.plugin_statement_seconds
    return Database(
        url,
        max_connections=max(settings.threads + 4, 2 * settings.plugin_connections),
        reset=True,
        settings={**SHARED_SETTINGS, **({} if seconds is None else plugin_bounds(seconds))},
        name="the plugins",
    )
