"""`/swagger` and its files.

`static/` holds Swagger UI 5.35.0 as the npm package `swagger-ui-dist` has it, with its licence, and
the page that shows the document of what is live: `index.html`, `page.css`, `page.js`.
"""

import hashlib
from pathlib import Path

import falcon

from app.admin.views import answer_tagged
from app.responses import Problem

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": falcon.MEDIA_HTML,
    ".js": "text/javascript; charset=utf-8",
    ".png": falcon.MEDIA_PNG,
}
"""The types of the files that are served, by their ending; the others are licences."""

FILES = frozenset(path.name for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES)

# Swagger UI styles its elements by attributes, and has its pictures as data; nothing comes from
# elsewhere, and nothing goes there. Text of a plugin that were taken for a script does not run.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class SwaggerResource:
    """`/swagger`: what is live, for a person; and `/swagger/{file}`."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Return the page."""
        _send(PAGE, req, resp)

    def on_get_file(self, req: falcon.Request, resp: falcon.Response, file: str) -> None:
        """Return a file that the page needs."""
        if file not in FILES - {PAGE}:
            raise Problem(404, f"There is no {file[:63]!r} here.")
        _send(file, req, resp)


def _send(name: str, req: falcon.Request, resp: falcon.Response) -> None:
    path = STATIC / name
    content = path.read_bytes()
    resp.set_header("Content-Security-Policy", POLICY)
    resp.set_header("X-Content-Type-Options", "nosniff")
    resp.set_header("Referrer-Policy", "no-referrer")
    tag = hashlib.sha256(content).hexdigest()[:32]
    answer_tagged(req, resp, content, tag, MEDIA_TYPES[path.suffix])
