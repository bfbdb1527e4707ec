"""`/`, where no plugin has it: what this server is, and where to look."""

from typing import Any

import falcon

from app.admin.views import answer_json
from app.routing.application import LiveApp
from app.routing.server_routes import OPENAPI, SWAGGER

WELCOME = {
    "server": "Benana",
    "description": "It serves plugins, which add routes while it runs.",
    "openapi": OPENAPI,
    "swagger": SWAGGER,
}


def welcome_at_root(app: LiveApp) -> None:
    """Have an application answer `/` as long as no plugin does: a sink comes after all routes."""
    app.add_sink(_welcome, r"/\Z")


def _welcome(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    """Lead a browser to the page, and tell everybody else by JSON where what is."""
    if req.method not in ("GET", "HEAD"):
        raise falcon.HTTPRouteNotFound
    resp.vary = ["Accept"]
    preferred = req.client_prefers((falcon.MEDIA_JSON, "text/html"))
    if preferred == "text/html":
        resp.status = falcon.HTTP_303
        resp.location = SWAGGER.lstrip("/")  # relative: a proxy may have a prefix before it
    else:
        answer_json(resp, WELCOME)
