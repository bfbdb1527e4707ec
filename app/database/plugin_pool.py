"""The pool that plugins borrow from; no single plugin gets all of it."""

from app.database.pool import Database
from app.database.pool_shares import Share
from app.database.sessions import SHARED_SETTINGS
from app.database.timeouts import plugin_bounds
from app.settings import Settings


def plugin_pool(url: str, settings: Settings) -> Database:
    """Return the pool of all plugins of a process; nothing is connected."""
    seconds = settings.plugin_statement_seconds
    return Database(
        url,
        max_connections=max(settings.threads + 4, 2 * settings.plugin_connections),
        reset=True,
        settings={**SHARED_SETTINGS, **({} if seconds is None else plugin_bounds(seconds))},
        name="the plugins",
    )


def share_of(pool: Database, plugin: str, settings: Settings) -> Share:
    """Return the part of the plugins' pool that one plugin may have."""
    return pool.share(
        plugin,
        settings.plugin_connections,
        advice="end a with block of context.database() sooner, or set "
        "BENANA_PLUGIN_CONNECTIONS to more",
    )
