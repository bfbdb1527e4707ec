"""Responders of handlers, as a plugin's registration makes them."""

from collections.abc import Callable
from typing import Any

from app.loading.handlers import read_handler
from app.loading.responders import Responder


def make_responder(handler: Callable[..., Any], uri_template: str, **options: Any) -> Responder:
    """Return the responder of a handler; arguments and errors are those of `read_handler`."""
    return read_handler(handler, uri_template, **options)[0]


def returning(kind: Any) -> Callable[..., Any]:
    """Return a handler without a yield that says it returns a type."""

    def handler() -> Any:
        return iter(["a"])

    handler.__annotations__["return"] = kind
    return handler
