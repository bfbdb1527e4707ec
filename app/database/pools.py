"""The two pools of a process: a plugin that keeps its connections holds up only plugins."""

from collections.abc import Callable

from app.conditions import Conditions
from app.database.pool import Database
from app.database.pool_shares import Share
from app.database.sessions import SHARED_SETTINGS
from app.database.timeouts import Timeouts, plugin_bounds
from app.settings import Settings

PLUGIN_SILENCE_SECONDS = 5.0
"""After how long a plugin's statement is asked for: a pooler may pause for a failover, and requests
wait as long. But a thread that waits is lost to all plugins, and to health checks."""


def bulkhead_of(threads: int) -> int:
    """Return how many threads may wait in each of the two pools while the database is silent.

    A quarter of them is kept for requests that need no database.
    """
    return threads * 3 // 8


def server_pool(
    url: str, settings: Settings, conditions: Conditions, is_short: Callable[[], bool]
) -> Database:
    """Return the pool of the server's own work, which holds what it waits for."""
    return Database(
        url,
        max_connections=settings.threads + 8,
        timeouts=Timeouts(settings.lock_seconds, settings.statement_seconds),
        bulkhead=bulkhead_of(settings.threads),
        is_short=is_short,
        name="the server",
        conditions=conditions,
    )


def plugin_pool(url: str, settings: Settings, is_short: Callable[[], bool]) -> Database:
    """Return the pool that plugins borrow from; no single plugin gets all of it."""
    seconds = settings.plugin_statement_seconds
    return Database(
        url,
        max_connections=max(settings.threads + 4, 2 * settings.plugin_connections),
        reset=True,
        settings={**SHARED_SETTINGS, **({} if seconds is None else plugin_bounds(seconds))},
        silence_seconds=PLUGIN_SILENCE_SECONDS,
        bulkhead=bulkhead_of(settings.threads),
        is_short=is_short,
        name="the plugins",
    )


def plugin_share(pool: Database, plugin: str, settings: Settings) -> Share:
    """Return the part of the plugins' pool that one plugin may have."""
    return pool.share(
        plugin,
        settings.plugin_connections,
        advice="end a with block of context.database() sooner, or set "
        "BENANA_PLUGIN_CONNECTIONS to more",
    )
