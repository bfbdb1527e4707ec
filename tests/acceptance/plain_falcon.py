"""A plain `falcon.App` with the resources of `falcon_plugin`; gunicorn serves it beside Benana."""

import falcon

from tests.acceptance.falcon_plugin import Plugin

app = falcon.App()
Plugin().register_routes(app)  # type: ignore[no-untyped-call]
