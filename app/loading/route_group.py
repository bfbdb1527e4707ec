"""Routes below one prefix."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.uri_templates import has_fields

if TYPE_CHECKING:
    from app.plugin import PluginServer


def prefix_fault(prefix: object, *, fields: bool = False) -> str | None:
    """Return why something is no prefix of routes, None if it is one.

    Args:
        prefix: what is to be one.
        fields: whether it may have fields, as `/{tenant}`.
    """
    if not isinstance(prefix, str) or not prefix.startswith("/") or prefix.endswith("/"):
        return f"the prefix is {prefix!r}, expected text that starts with '/' and does not end so"
    if not fields and (has_fields(prefix) or not prefix.isascii()):
        return f"the prefix is {prefix!r}, expected plain ASCII text without fields"
    return None


class RouteGroup:
    """Registers routes below a prefix, as `PluginServer.group` gives it."""

    def __init__(self, server: "PluginServer | RouteGroup", prefix: str) -> None:
        """Make it; ValueError if the prefix is none."""
        fault = prefix_fault(prefix, fields=True)
        if fault is not None:
            raise ValueError(fault)
        self._server = server
        self._prefix = prefix

    def group(self, prefix: str) -> "RouteGroup":
        """Return a group below this one; ValueError if the prefix is none."""
        return RouteGroup(self, prefix)

    def get(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer GET on a template with a handler."""
        self._server.get(self._below(uri_template), handler)

    def post(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer POST on a template with a handler."""
        self._server.post(self._below(uri_template), handler)

    def put(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer PUT on a template with a handler."""
        self._server.put(self._below(uri_template), handler)

    def patch(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer PATCH on a template with a handler."""
        self._server.patch(self._below(uri_template), handler)

    def delete(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer DELETE on a template with a handler."""
        self._server.delete(self._below(uri_template), handler)

    def sse(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer GET on a template with the events that a handler yields."""
        self._server.sse(self._below(uri_template), handler)

    def add_route(
        self, uri_template: str, resource: object, suffix: str | None = None, **options: Any
    ) -> None:
        """Add a Falcon resource, as `falcon.App.add_route` does."""
        self._server.add_route(self._below(uri_template), resource, suffix, **options)

    def mount(self, prefix: str, application: Any) -> None:
        """Have a WSGI application answer a prefix below this one, and all below that."""
        self._server.mount(self._below(prefix), application)

    def _below(self, uri_template: str) -> str:
        return self._prefix if uri_template in {"", "/"} else self._prefix + uri_template
