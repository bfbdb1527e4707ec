"""The server's own routes: each is behind the guard, unless it says here that it is open."""

from app.admin.controller import HealthResource, PluginsResource, WorkersResource
from app.admin.guard import Guard
from app.loading.routes import SERVER, Route
from app.manager import PluginManager


def admin_routes(manager: PluginManager, guard: Guard) -> tuple[Route, ...]:
    """Return the server's own routes."""
    plugins, health = PluginsResource(manager), HealthResource(manager, guard)
    return (
        *_guarded(
            guard,
            Route(SERVER, "/plugins", plugins),
            Route(SERVER, "/plugins/{name}", plugins, "named"),
            Route(SERVER, "/plugins/{name}/reload", plugins, "reload"),
            Route(SERVER, "/plugins/{name}/toggle", plugins, "toggle"),
            Route(SERVER, "/workers", WorkersResource(manager)),
        ),
        # Open: they tell nobody more than whether to send requests here.
        Route(SERVER, "/health/live", health, "live"),
        Route(SERVER, "/health/ready", health, "ready"),
    )


def _guarded(guard: Guard, *routes: Route) -> tuple[Route, ...]:
    for route in routes:
        for method, responder in route.methods.items():
            route.methods[method] = guard.before(method, responder)
    return routes
