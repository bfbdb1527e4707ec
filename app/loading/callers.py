"""Who may call a plugin: pages of which origins, and under which host names.

As in Falcon, a plugin's routes are open. A plugin that sets `origins` or `hosts` in its
`plugin.yaml` has its callers checked before its handlers run. The rules are those of Go's
`http.CrossOriginProtection` (https://pkg.go.dev/net/http#CrossOriginProtection: the browser's
`Sec-Fetch-Site` counts first), and of https://web.dev/articles/fetch-metadata for links. Host
names are checked because of DNS rebinding: a foreign page whose own name resolves to this machine
has the same origin as the server, and the browser lets it read every answer.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import falcon

from app.settings import LOOPBACK_HOSTS, LOOPBACK_NETWORKS, Network

_DEFAULT_PORTS = {"http": 80, "https": 443}

_NAME = r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]/?#@:,;\"'\\\s]+)(?::(?P<port>[0-9]{0,5}))?"
_HOST = re.compile(_NAME)
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_NAME}")


@dataclass(frozen=True, slots=True)
class Origin:
    """A scheme, a host in lower case and a port; None stands for the scheme's default port."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def parse_origin(text: str) -> Origin | None:
    """Parse an `Origin` header; None if it is no origin, as `null`."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    place = _place(match)
    if place is None:
        return None
    scheme, (host, port) = match["scheme"], place
    return Origin(scheme, host, None if port == _DEFAULT_PORTS.get(scheme) else port)


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Parse a `Host` header: the host in lower case without brackets, and the port if any."""
    match = _HOST.fullmatch(text.lower())
    return None if match is None else _place(match)


def _place(match: re.Match[str]) -> tuple[str, int | None] | None:
    host = match["host"].strip("[]").removesuffix(".")  # `localhost.` is `localhost`
    port = int(match["port"]) if match["port"] else None
    if not host or (port is not None and not 0 < port < 65536):
        return None
    return (host, port) if match["host"][0] != "[" or is_address(host) else None


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, which DNS rebinding cannot use."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_own_origin(origin: Origin, host: str, scheme: str) -> bool:
    """Tell whether a page calls the server that it came from.

    Args:
        origin: the page's origin.
        host: the `Host` header of its call.
        scheme: the scheme by which the call reached this process. A proxy may have ended TLS, so a
            call by `http` fits a page of `https` too.
    """
    called = parse_host(host)
    default = _DEFAULT_PORTS.get(origin.scheme)
    if called is None or default is None or (scheme == "https" and origin.scheme == "http"):
        return False
    return (origin.host, origin.port or default) == (called[0], called[1] or default)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The names under which this server is known, and the proxies that it trusts."""

    hosts: frozenset[str] = LOOPBACK_HOSTS
    proxies: tuple[Network, ...] = LOOPBACK_NETWORKS

    def trusts(self, peer: str) -> bool:
        """Tell whether a proxy at this address may say by which name it was called.

        The address of a Unix socket is empty; gunicorn trusts every peer of one too.
        """
        if not peer:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.proxies)


@dataclass(frozen=True, slots=True)
class CallerCheck:
    """Checks a plugin's callers as its manifest says; `origins` is None if any page may call."""

    plugin: str
    origins: frozenset[Origin] | None
    hosts: frozenset[str]
    surroundings: Surroundings

    def before(self, responder: Callable[..., Any]) -> Callable[..., Any]:
        """Return a responder that checks the caller before it calls `responder`."""

        def checked(req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
            self.check(req)
            responder(req, resp, **fields)

        return checked

    def check(self, req: falcon.Request) -> None:
        """Check a request.

        Raises:
            falcon.HTTPBadRequest: it has no valid `Host` header.
            falcon.HTTPForbidden: its host name or the origin of its page is not allowed.
        """
        env = req.env
        names = [env.get("HTTP_HOST", ""), *self._forwarded(req)]
        for name in names:
            self._check_host(name)
        if self.origins is not None:
            self._check_origin(env, names)

    def _forwarded(self, req: falcon.Request) -> Iterator[str]:
        """Yield the names by which trusted proxies say that they were called.

        They are checked in addition to `Host`, never instead of it: a page that has rebound its
        name to this machine can send these headers too.
        """
        env = req.env
        if not self.surroundings.trusts(env.get("REMOTE_ADDR", "unknown")):
            return
        for name in env.get("HTTP_X_FORWARDED_HOST", "").split(","):
            if name.strip():
                yield name.strip()
        for hop in req.forwarded or ():
            if hop.host:
                yield hop.host

    def _check_host(self, name: str) -> None:
        called = parse_host(name)
        if called is None:
            raise falcon.HTTPBadRequest(
                title="No host",
                description=f"The Host header is missing or malformed: {name[:100]!r}.",
            )
        host = called[0]
        if not (host in self.hosts or host in self.surroundings.hosts or is_address(host)):
            raise falcon.HTTPForbidden(
                title="Unknown host",
                description=f"The plugin {self.plugin!r} does not answer under the name "
                f"{host[:100]!r}. If it is yours, add it to 'hosts' in the plugin's plugin.yaml, "
                "or to BENANA_ADMIN_HOSTS.",
            )

    def _check_origin(self, env: dict[str, Any], names: Sequence[str]) -> None:
        site = env.get("HTTP_SEC_FETCH_SITE")
        said = env.get("HTTP_ORIGIN")
        if site in {"same-origin", "none"} or (site is None and said is None):
            return  # the browser says so; or the caller is no browser
        origin = parse_origin(said) if said is not None else None
        if origin is not None and self.origins is not None and origin in self.origins:
            return
        if site is None:
            scheme = env["wsgi.url_scheme"]
            if origin is not None and any(is_own_origin(origin, n, scheme) for n in names):
                return
        elif _is_link(env):
            return
        who = "another site" if said is None else repr(said[:100])
        raise falcon.HTTPForbidden(
            title="Foreign origin",
            description=f"The plugin {self.plugin!r}, called as {names[-1][:100]!r}, does not "
            f"answer calls of pages of {who}. If they are yours, add their origin to 'origins' in "
            "the plugin's plugin.yaml; behind a proxy, let it pass the Host header on.",
        )


def check_of(
    plugin: str,
    origins: Sequence[str] | None,
    hosts: Sequence[str] | None,
    surroundings: Surroundings | None,
) -> CallerCheck | None:
    """Return the check that a plugin's manifest asks for, None for an open plugin."""
    if origins is None and hosts is None:
        return None
    allowed = None if origins is None else frozenset(filter(None, map(parse_origin, origins)))
    return CallerCheck(plugin, allowed, frozenset(hosts or ()), surroundings or Surroundings())


def _is_link(env: dict[str, Any]) -> bool:
    """Tell whether a person follows a link to a page; SameSite=Lax cookies have the same rule."""
    return (
        env["REQUEST_METHOD"] in {"GET", "HEAD"}
        and env.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and env.get("HTTP_SEC_FETCH_DEST") == "document"
    )
