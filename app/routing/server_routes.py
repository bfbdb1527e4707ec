"""The URI templates of the server's own routes, and the first segments that no plugin may have."""

from app.uri_templates import first_segment

PLUGINS = "/plugins"
PLUGIN = "/plugins/{name}"
RELOAD = "/plugins/{name}/reload"
TOGGLE = "/plugins/{name}/toggle"
WORKERS = "/workers"
LIVE = "/health/live"
READY = "/health/ready"
OPENAPI = "/openapi.json"
PLUGIN_OPENAPI = "/plugins/{name}/openapi.json"
SWAGGER = "/swagger"
SWAGGER_FILE = "/swagger/{file}"

TEMPLATES = (
    *(PLUGINS, PLUGIN, RELOAD, TOGGLE, WORKERS, LIVE, READY),
    *(OPENAPI, PLUGIN_OPENAPI, SWAGGER, SWAGGER_FILE),
)

KEPT_SEGMENTS = frozenset({"metrics", "ui"})
"""What the server will have one day."""

RESERVED_SEGMENTS = KEPT_SEGMENTS | {first_segment(template) for template in TEMPLATES}
