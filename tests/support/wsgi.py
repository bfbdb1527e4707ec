"""Calls of a WSGI application in this process, and routes to call."""

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import falcon
import falcon.testing

from app.loading.routes import Route
from app.routing.application import LiveApp


def resource(**responders: Callable[..., None]) -> Any:
    """Make a Falcon resource from responders."""
    return SimpleNamespace(**responders)


def json_of(raw: bytes) -> Any:
    """Parse an answer as strictly as a client in another language would."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(raw.decode("utf-8"), parse_constant=refuse)


class Answer:
    """A WSGI answer, with what a test asks of it."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.calls: list[tuple[str, list[tuple[str, str]]]] = []
        self.body: Any = None
        self.body = app(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        # PEP 3333: a second call is an error unless it passes the exception on.
        assert not self.calls or exc_info is not None, "start_response was called twice"
        self.calls.append((status, headers))

    @property
    def status(self) -> int:
        return int(self.calls[-1][0].split(" ")[0])

    @property
    def headers(self) -> dict[str, str]:
        return {key.lower(): value for key, value in self.calls[-1][1]}

    def read(self) -> bytes:
        try:
            return b"".join(self.body)
        finally:
            self.close()

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


def call(app: Any, path: str = "/", method: str = "GET", **environ: Any) -> Answer:
    """Call a WSGI application once."""
    return Answer(app, falcon.testing.create_environ(path, method=method) | environ)


def put(app: LiveApp, owner: str, routes: Mapping[str, Any]) -> str:
    """Swap an owner's routes (template → resource, or a function for GET) for others.

    Returns their generation, which no others have.
    """
    builder = app.table.builder()
    builder.remove(owner)
    generation = f"_plugins.{owner}.g{app.table.number + 1}"
    made = tuple(
        Route(
            owner,
            template,
            resource(on_get=target) if callable(target) else target,
            generation=generation,
        )
        for template, target in routes.items()
    )
    builder.add(owner, made)
    app.swap(builder.build())
    return generation
