"""Routes below one prefix."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from app.loading.route_options import merge_options, read_options
from app.plugin import RouteKeywords
from app.uri_templates import has_fields

if TYPE_CHECKING:
    from app.loading.registration import RouteCollector


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

    def __init__(
        self, server: "RouteCollector | RouteGroup", prefix: str, options: Mapping[str, Any]
    ) -> None:
        """Make it; ValueError if the prefix is none, or an option of its routes cannot be used."""
        fault = prefix_fault(prefix, fields=True)
        if fault is not None:
            raise ValueError(fault)
        read_options(options, one_method=False)
        self._server = server
        self._prefix = prefix
        self._options = options

    def group(self, prefix: str, **options: Unpack[RouteKeywords]) -> "RouteGroup":
        """Return a group below this one; ValueError as for the group itself."""
        return RouteGroup(self, prefix, options)

    def get(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer GET on a template with a handler."""
        self._server.get(self._below(uri_template), handler, **self._with(options))

    def post(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer POST on a template with a handler."""
        self._server.post(self._below(uri_template), handler, **self._with(options))

    def put(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer PUT on a template with a handler."""
        self._server.put(self._below(uri_template), handler, **self._with(options))

    def patch(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer PATCH on a template with a handler."""
        self._server.patch(self._below(uri_template), handler, **self._with(options))

    def delete(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer DELETE on a template with a handler."""
        self._server.delete(self._below(uri_template), handler, **self._with(options))

    def sse(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer GET on a template with the events that a handler yields."""
        self._server.sse(self._below(uri_template), handler, **self._with(options))

    def add_route(
        self, uri_template: str, resource: object, suffix: str | None = None, **options: Any
    ) -> None:
        """Add a Falcon resource, as `falcon.App.add_route` does."""
        self._server.add_route(self._below(uri_template), resource, suffix, **self._with(options))

    def mount(self, prefix: str, application: Any, **options: Unpack[RouteKeywords]) -> None:
        """Have a WSGI application answer a prefix below this one, and all below that."""
        self._server.mount(self._below(prefix), application, **self._with(options))

    def _with(self, options: Any) -> Any:
        return merge_options(self._options, options)

    def _below(self, uri_template: str) -> str:
        return self._prefix if uri_template in {"", "/"} else self._prefix + uri_template
