"""The server's own routes: each is behind the guard, unless it says here that it is open."""

from app.admin.guard import Guard
from app.admin.health import HealthResource
from app.admin.openapi.document import LiveDocuments
from app.admin.openapi.resource import OpenApiResource
from app.admin.plugins import PluginsResource
from app.admin.swagger.pages import SwaggerResource
from app.admin.workers import WorkersResource
from app.loading.routes import SERVER, Route
from app.manager import PluginManager
from app.routing.server_routes import (
    LIVE,
    OPENAPI,
    PLUGIN,
    PLUGIN_OPENAPI,
    PLUGINS,
    READY,
    RELOAD,
    SWAGGER,
    SWAGGER_FILE,
    TOGGLE,
    WORKERS,
)


def admin_routes(
    manager: PluginManager, guard: Guard, documents: LiveDocuments
) -> tuple[Route, ...]:
    """Return the server's own routes."""
    openapi, swagger = OpenApiResource(documents, guard), SwaggerResource()
    plugins, health = PluginsResource(manager, documents), HealthResource(manager, guard)
    return (
        *_guarded(
            guard,
            Route(SERVER, PLUGINS, plugins),
            Route(SERVER, PLUGIN, plugins, "named"),
            Route(SERVER, RELOAD, plugins, "reload"),
            Route(SERVER, TOGGLE, plugins, "toggle"),
            Route(SERVER, WORKERS, WorkersResource(manager)),
        ),
        # Open: they tell nobody more than whether to send requests here.
        Route(SERVER, LIVE, health, "live"),
        Route(SERVER, READY, health, "ready"),
        # Open like the plugins' routes, which they list; the admin API is in them for who may read.
        Route(SERVER, OPENAPI, openapi),
        Route(SERVER, PLUGIN_OPENAPI, openapi, "plugin"),
        Route(SERVER, SWAGGER, swagger),
        Route(SERVER, SWAGGER_FILE, swagger, "file"),
    )


def _guarded(guard: Guard, *routes: Route) -> tuple[Route, ...]:
    for route in routes:
        for method, responder in route.methods.items():
            route.methods[method] = guard.before(method, responder)
    return routes
