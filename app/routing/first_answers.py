"""Tells when a route is first answered; until then its requests cost a call more, and no longer."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import falcon

from app.loading.responders import Responder
from app.loading.routes import Route

_FIRST_ERROR = 400


class FirstAnswer:
    """Tells once that a route is answered, by a status below 400.

    An answer counts when it is about to be started: what its plugin's middleware and its body may
    do wrong lies behind it. An answer to OPTIONS does not count: Falcon gives it by itself.
    """

    def __init__(self, route: Route, told: Callable[[Route], None]) -> None:
        """Begin to watch.

        Args:
            route: may be in a table already.
            told: is called in the thread of the request, before its answer is started.
        """
        self._route = route
        self._told = told
        self._waits = True
        self._lock = threading.Lock()
        self._plain = dict(route.methods)
        route.answer_around(self._around)
        for method, responder in self._plain.items():  # a request finds the one or the other
            route.methods[method] = self._around(responder)

    def _around(self, responder: Responder) -> Responder:
        def answer(req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
            if req.method != "OPTIONS":
                # The last that Falcon asks of a response, also of one that was raised.
                vars(resp)["_wsgi_headers"] = partial(self._start, resp)
            responder(req, resp, **fields)

        return answer

    def _start(self, resp: falcon.Response, *args: Any) -> list[tuple[str, str]]:
        vars(resp).pop("_wsgi_headers", None)
        headers = resp._wsgi_headers(*args)
        if resp.status_code < _FIRST_ERROR:
            with self._lock:
                first, self._waits = self._waits, False
            if first:
                self._route.answer_around(None)
                self._route.methods.update(self._plain)
                self._told(self._route)
        return headers
