"""Who may call the admin API.

The dangers are a server that is reachable from elsewhere, if only through a proxy that says
nothing of it, and a browser on this machine that a foreign page makes call us (cross-site
requests, DNS rebinding). There are no cookies and no CORS.
"""

import hmac
import os
import sys
from typing import Any

import falcon

from app.admin.peer import NOBODY, is_own_user, uid_of_peer
from app.loading.body_parameter import read_body
from app.loading.callers import is_address, is_own_origin, parse_host, parse_origin
from app.loading.responders import Responder
from app.responses import Problem
from app.settings import Settings

MAX_BODY_BYTES = 64 * 1024

_READS = frozenset({"GET", "HEAD", "OPTIONS"})

_ADVICE = (
    "Set BENANA_ADMIN_TOKEN for the server, and send 'Authorization: Bearer TOKEN' with its value."
)

_PROXY_HEADERS = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "Via")


class Guard:
    """Lets a request of the admin API pass, or raises the problem that says what is missing."""

    def __init__(self, settings: Settings) -> None:
        self._token = settings.admin_token.encode() if settings.admin_token else None
        self._reads_need_token = self._token is not None and not settings.admin_read_open
        self._local = settings.bind_is_local
        self._hosts = settings.known_hosts

    def before(self, method: str, responder: Responder) -> Responder:
        """Return a responder that lets a request pass to another one.

        Args:
            method: the HTTP method; GET, HEAD and OPTIONS change nothing.
            responder: what answers a request that may pass.
        """
        check = self.check_read if method in _READS else self.check_write

        def checked(req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
            check(req)
            responder(req, resp, **fields)

        return checked

    def may_read(self, req: falcon.Request) -> bool:
        """Tell whether a request may see what the admin API shows."""
        try:
            self.check_read(req)
        except Problem:
            return False
        return True

    def check_read(self, req: falcon.Request) -> None:
        """Check a request that changes nothing: it shows paths, processes and exceptions' texts."""
        self._check_host(req)
        self._check_origin(req)
        if self._reads_need_token:
            self._check_token(req)

    def check_write(self, req: falcon.Request) -> None:
        """Check a request that changes something."""
        self._check_host(req)
        self._check_origin(req)
        if self._token is not None:
            self._check_token(req)
        elif not self._local:
            raise Problem(
                403,
                "Admin writes are off: this server can be reached from other machines and has no "
                f"token. {_ADVICE} Or bind to a loopback address.",
            )
        elif any(req.get_header(name) for name in _PROXY_HEADERS):
            raise Problem(
                403,
                "Admin writes through a proxy need a token, because the proxy can be reached from "
                f"elsewhere. {_ADVICE}",
            )
        elif sys.platform == "linux":
            _check_peer(req)
        read_body(req, MAX_BODY_BYTES)

    def _check_host(self, req: falcon.Request) -> None:
        called = parse_host(req.env.get("HTTP_HOST", ""))
        if called is None:
            raise Problem(400, "The Host header is missing or malformed.")
        host = called[0]
        if host not in self._hosts and not is_address(host):
            raise Problem(
                403,
                f"The host {host[:100]!r} is not known to the admin API. Add it to "
                "BENANA_ADMIN_HOSTS if it is yours.",
            )

    def _check_origin(self, req: falcon.Request) -> None:
        if req.get_header("Sec-Fetch-Site") in {"cross-site", "same-site"}:
            raise Problem(403, "The admin API does not answer calls of other sites' pages.")
        said = req.get_header("Origin")
        if said is not None:
            origin, host = parse_origin(said), req.env.get("HTTP_HOST", "")
            if origin is None or not is_own_origin(origin, host, req.env["wsgi.url_scheme"]):
                raise Problem(403, "The admin API does not answer calls of a foreign Origin.")

    def _check_token(self, req: falcon.Request) -> None:
        kind, _, given = (req.get_header("Authorization") or "").partition(" ")
        # Bytes, because compare_digest refuses text that is not ASCII; WSGI's text is Latin-1.
        token = given.strip().encode("latin-1", "replace")
        if kind.lower() != "bearer" or not hmac.compare_digest(token, self._token or b""):
            raise Problem(
                401,
                "This call needs the admin token: send 'Authorization: Bearer TOKEN' with the "
                "value of BENANA_ADMIN_TOKEN.",
                headers={"WWW-Authenticate": 'Bearer realm="benana"'},
            )


def _check_peer(req: falcon.Request) -> None:
    # "From this machine" is no proof: a proxy here passes on what comes from elsewhere.
    uid = uid_of_peer(req.env.get("gunicorn.socket"))
    if uid is not None and is_own_user(uid):
        return
    if uid is None:
        reason = (
            "it cannot be told whose process made this call (it has closed its connection, or runs "
            "in another container)"
        )
    elif uid == NOBODY:
        reason = (
            f"this call comes from the user {uid}, which stands for everybody of other containers "
            "too: run the server as a user of its own"
        )
    else:
        reason = f"this call was made by a process of the user {uid}"
    raise Problem(
        403,
        "Without a token, admin writes are taken from processes of the server's own user "
        f"({os.geteuid()}) and of root alone, and {reason}. {_ADVICE}",
    )
