"""What a plugin sets up of its own as it registers its routes, as a `falcon.App` has it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import falcon
import falcon.routing

from app.loading.falcon_calls import (
    ERROR_HANDLER,
    ERROR_SERIALIZER,
    SINK,
    check_call,
    middleware_in,
)
from app.loading.own_app import FallBack, OwnApp, first_plain_segment
from app.loading.routes import BUILTIN, Place
from app.loading.signatures import describe


class SetUp(ABC):
    """The part of a `PluginServer` that is no route; Falcon checks what it is given."""

    def __init__(self) -> None:
        self.own: OwnApp | None = None
        """What the plugin has of its own; None if nothing."""
        self.fall_backs: dict[str, tuple[FallBack, Place | None]] = {}
        """What stands for sinks and static routes, by first segment, and where each is added."""

    def add_middleware(self, middleware: Any) -> None:
        """Add middleware for the plugin's requests, as `falcon.App.add_middleware` does."""
        self._set_up().add_middleware(middleware_in(middleware))

    def add_error_handler(self, exception: Any, handler: Any = None) -> None:
        """Handle an exception in the plugin's requests, as `falcon.App.add_error_handler` does."""
        called = getattr(exception, "handle", None) if handler is None else handler
        if called is not None:  # else Falcon says what is missing
            check_call("the error handler", called, ERROR_HANDLER)
        self._set_up().add_error_handler(exception, handler)

    def add_sink(self, sink: Callable[..., Any], prefix: Any = r"/") -> None:
        """Answer what has no route below a prefix, as `falcon.App.add_sink` does."""
        if self._falls_back(prefix, "a sink", describe(sink)):
            check_call("the sink", sink, SINK, re.compile(prefix).groupindex)
            self._set_up().add_sink(sink, prefix)

    def add_static_route(
        self, prefix: str, directory: Any, downloadable: bool = False, **options: Any
    ) -> None:
        """Serve the files of a folder, as `falcon.App.add_static_route` does."""
        if self._falls_back(prefix, "a static route", f"files of {directory}"):
            self._set_up().add_static_route(prefix, directory, downloadable, **options)

    def _falls_back(self, prefix: Any, what: str, shown: str) -> bool:
        segment = first_plain_segment(prefix)
        if segment is None:
            self._fault(
                f"the prefix of {what} is {getattr(prefix, 'pattern', prefix)!r}, expected one "
                "whose first segment is plain text, as /files: it is asked for paths below that"
            )
            return False
        self.fall_backs.setdefault(f"/{segment}", (FallBack(shown), self._place()))
        return True

    def set_error_serializer(self, serializer: Any) -> None:
        """Say how errors of the plugin look, as `falcon.App.set_error_serializer` does."""
        check_call("the error serializer", serializer, ERROR_SERIALIZER)
        self._set_up().set_error_serializer(serializer)

    @property
    def router_options(self) -> falcon.routing.CompiledRouterOptions:
        """The options of the plugin's router, whose `converters` count."""
        return self._set_up().router_options

    def converters(self) -> dict[str, Any]:
        """Return the plugin's own converters, by name."""
        if self.own is None:
            return {}
        found = self.own.router_options.converters.items()
        return {name: made for name, made in found if BUILTIN.get(name) is not made}

    @property
    def req_options(self) -> falcon.RequestOptions:
        """The options of the plugin's requests."""
        return self._set_up().req_options

    @property
    def resp_options(self) -> falcon.ResponseOptions:
        """The options of the plugin's responses."""
        return self._set_up().resp_options

    def media_types(self) -> list[str]:
        """Return the media types that the plugin's responses have handlers for."""
        return [] if self.own is None else list(self.own.resp_options.media_handlers)

    def _check_media(self) -> None:
        """Note which media handlers Falcon could not call."""
        for options in () if self.own is None else (self.own.req_options, self.own.resp_options):
            handlers = options.media_handlers
            for media_type, handler in handlers.items() if isinstance(handlers, Mapping) else ():
                if isinstance(handler, type):
                    name = handler.__qualname__
                    self._fault(
                        f"the media handler of {media_type} is the class {name}, expected an "
                        f"object of it: {name}()"
                    )

    def _set_up(self) -> OwnApp:
        self._refuse_if_finished("its application was changed", "that inside")
        self.own = self.own or OwnApp()
        return self.own

    @abstractmethod
    def _refuse_if_finished(self, what: str, expected: str) -> None:
        """Raise if `register_routes` has ended; the arguments are parts of the sentence."""

    @abstractmethod
    def _fault(self, message: str) -> None:
        """Note a fault, and where it is."""

    @abstractmethod
    def _place(self) -> Place | None:
        """Return the plugin's line that calls."""
