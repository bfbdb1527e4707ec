"""What stands in the route table for a plugin that runs in another process, or not just now."""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import falcon
from falcon.constants import COMBINED_METHODS

from app.loading.routes import Route
from app.records import Endpoint

Answer = Callable[[falcon.Request, falcon.Response], None]
"""Answers a request wherever its plugin runs."""


class _Elsewhere:
    """The resource of a stand-in's routes."""


def is_elsewhere(route: Route) -> bool:
    """Tell whether a route is that of a stand-in: its responders pass any request on."""
    return isinstance(route.resource, _Elsewhere)


@dataclass(frozen=True, slots=True)
class StandIn:
    """A plugin's routes without the plugin: each request is given to `answer` of `stand_in_for`.

    It takes a loaded plugin's place in the table and among what is to be retired.
    """

    row_id: str
    name: str
    generation: int
    routes: tuple[Route, ...]
    loaded_at: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def label(self) -> str:
        """The generation's name in log lines and thread names."""
        return f"{self.name}-g{self.generation} (passed on)"

    @property
    def key(self) -> str:
        """The `Route.generation` of its routes; unique in the process."""
        return self.routes[0].generation if self.routes else f"_elsewhere.{self.name}.{id(self)}"

    def cancel(self) -> None:
        """Nothing of it is to be cancelled."""

    def dispose(self) -> None:
        """Nothing of it is to be cleaned up."""

    def traces(self) -> "list[weakref.ref[Any]]":
        """Nothing of a plugin is in it."""
        return []


def stand_in_for(
    row_id: str, name: str, generation: int, endpoints: Sequence[Endpoint], answer: Answer
) -> StandIn:
    """Make a plugin's stand-in.

    Args:
        row_id: the plugin's row.
        name: the plugin.
        generation: what it stands for.
        endpoints: what the plugin has registered.
        answer: answers every request for it.
    """
    by_template: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_template.setdefault(endpoint.path, []).append(endpoint)

    def respond(req: falcon.Request, resp: falcon.Response, **_fields: Any) -> None:
        answer(req, resp)

    resource = _Elsewhere()
    key = f"_elsewhere.{name}.g{generation}-{time.monotonic_ns()}"
    routes = tuple(
        Route(
            name,
            template,
            resource,
            None,
            tuple(known),
            dict.fromkeys(COMBINED_METHODS, respond),  # what it does not answer, it says itself
            key,
            exclusive=True,
        )
        for template, known in by_template.items()
    )
    return StandIn(row_id, name, generation, routes)
