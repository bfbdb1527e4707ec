"""Whose calls a plugin answers: those of which pages, and under which names.

As in Falcon, a plugin's routes are open. One that says `origins` or `hosts` in its `plugin.yaml`
has its callers checked before its handlers run. The rules are those of Go's
`http.CrossOriginProtection` (the browser's own word, `Sec-Fetch-Site`, counts first), and of
https://web.dev/articles/fetch-metadata for links. The names are checked because of DNS rebinding:
a foreign page that has its own name point here is of one origin with us, whatever it asks.
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
    """A scheme, a host in lower case and a port; the port is None where it is the scheme's own."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def parse_origin(text: str) -> Origin | None:
    """Read an `Origin` header; None if it names none, as `null` does."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    place = _place(match)
    if place is None:
        return None
    scheme, (host, port) = match["scheme"], place
    return Origin(scheme, host, None if port == _DEFAULT_PORTS.get(scheme) else port)


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Read a `Host` header: the host in lower case without brackets, and the port if it has one."""
    match = _HOST.fullmatch(text.lower())
    return None if match is None else _place(match)


def _place(match: re.Match[str]) -> tuple[str, int | None] | None:
    host = match["host"].strip("[]").removesuffix(".")  # `localhost.` is `localhost`
    port = int(match["port"]) if match["port"] else None
    if not host or (port is not None and not 0 < port < 65536):
        return None
    return (host, port) if match["host"][0] != "[" or is_address(host) else None


def is_address(host: str) -> bool:
    """Tell whether a host is an address: no name of a foreign page's, so no DNS rebinding."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_own_origin(origin: Origin, host: str, scheme: str) -> bool:
    """Tell whether a page is one of the server that it calls.

    Args:
        origin: the page's origin.
        host: the `Host` header that it called with.
        scheme: by which it came to this process. A proxy may have taken TLS off: so `http` fits a
            page of `https` too.
    """
    called = parse_host(host)
    default = _DEFAULT_PORTS.get(origin.scheme)
    if called is None or default is None or (scheme == "https" and origin.scheme == "http"):
        return False
    return (origin.host, origin.port or default) == (called[0], called[1] or default)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The names under which this server is known, and the proxies whose word counts."""

    hosts: frozenset[str] = LOOPBACK_HOSTS
    proxies: tuple[Network, ...] = LOOPBACK_NETWORKS

    def trusts(self, peer: str) -> bool:
        """Tell whether a proxy at this address may say by which name it was called.

        An empty one is that of a unix socket, where gunicorn trusts everybody too.
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
    """What a plugin's manifest says of its callers; `origins` is None where any page may call."""

    plugin: str
    origins: frozenset[Origin] | None
    hosts: frozenset[str]
    surroundings: Surroundings

    def before(self, responder: Callable[..., Any]) -> Callable[..., Any]:
        """Return a responder that answers those alone who pass."""

        def checked(req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
            self.check(req)
            responder(req, resp, **fields)

        return checked

    def check(self, req: falcon.Request) -> None:
        """Let a request pass.

        Raises:
            falcon.HTTPBadRequest: it does not say by which name the server was called.
            falcon.HTTPForbidden: it comes under a name, or from a page, that is not let in.
        """
        env = req.env
        names = [env.get("HTTP_HOST", ""), *self._forwarded(req)]
        for name in names:
            self._check_host(name)
        if self.origins is not None:
            self._check_origin(env, names)

    def _forwarded(self, req: falcon.Request) -> Iterator[str]:
        """Give the names by which proxies say that they were called.

        They come beside the `Host` and never instead: a page that calls this machine itself can
        send such headers too, once it is of one origin with it.
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
            return  # the browser vouches for its page; or nothing that sends such headers calls
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
    """Return the check of a plugin whose manifest asks for one, None for an open plugin."""
    if origins is None and hosts is None:
        return None
    allowed = None if origins is None else frozenset(filter(None, map(parse_origin, origins)))
    return CallerCheck(plugin, allowed, frozenset(hosts or ()), surroundings or Surroundings())


def _is_link(env: dict[str, Any]) -> bool:
    """Tell whether a person follows a link to a page: as with cookies that are SameSite=Lax."""
    return (
        env["REQUEST_METHOD"] in {"GET", "HEAD"}
        and env.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and env.get("HTTP_SEC_FETCH_DEST") == "document"
    )
