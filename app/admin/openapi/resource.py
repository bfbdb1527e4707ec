"""`/openapi.json`: what is live, as OpenAPI has it."""

import falcon

from app.admin.guard import Guard
from app.admin.openapi.document import Document, LiveDocuments
from app.admin.views import answer_tagged
from app.responses import Problem


class OpenApiResource:
    """`/openapi.json` and `/plugins/{name}/openapi.json`."""

    def __init__(self, documents: LiveDocuments, guard: Guard) -> None:
        self._documents = documents
        self._guard = guard

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Return the OpenAPI document of all that is live.

        The admin API is in it for who may read that.
        """
        _answer(req, resp, self._documents.of_all(with_admin=self._guard.may_read(req)))

    def on_get_plugin(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Return the OpenAPI document of one plugin.

        Of an exclusive one it says more than that of all plugins: the process that runs it is
        asked.
        """
        passed_on = self._documents.elsewhere(name)
        if passed_on is not None:
            passed_on.methods[req.method](req, resp)
            return
        document = self._documents.of_plugin(name)
        if document is None:
            raise Problem(404, f"{name[:63]} is not served: GET /plugins lists what is registered.")
        _answer(req, resp, document)


def _answer(req: falcon.Request, resp: falcon.Response, document: Document) -> None:
    # What it holds depends on who asks.
    resp.vary = ["Authorization", "Host", "Origin", "Sec-Fetch-Site"]
    answer_tagged(req, resp, document.body, document.etag, falcon.MEDIA_JSON)
