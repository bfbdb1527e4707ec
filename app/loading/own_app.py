"""What a plugin sets of a `falcon.App`, as it registers its routes."""

import re
from typing import Any

import falcon

from app.loading.media import install_media_handlers


class FallBack:
    """The resource of routes that stand for sinks and static routes: Falcon finds which it is."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        """What is listed as its handler."""


def answer_nothing(_req: falcon.Request, _resp: falcon.Response, **_: Any) -> None:
    """Stand for a responder of a `FallBack`: `PluginApp` has Falcon look for what answers."""


_PLAIN_SEGMENT = re.compile(r"\^?/(?P<segment>[\w~%-]+)(?=/|\$|$)", re.ASCII)


def first_plain_segment(prefix: Any) -> str | None:
    """Return the plain first segment of a sink's or a static route's prefix, None without one."""
    text = getattr(prefix, "pattern", prefix)
    found = _PLAIN_SEGMENT.match(text) if isinstance(text, str) else None
    return None if found is None else found["segment"]


class OwnApp(falcon.App[Any, Any]):
    """A `falcon.App` that a plugin sets up, and that Falcon checks; it answers nothing itself."""

    def __init__(self) -> None:
        super().__init__()
        self._standard_handlers = dict(self._error_handlers)
        self._standard_serializer = self._serialize_error
        install_media_handlers(self)

    @property
    def error_handlers(self) -> dict[type[Exception], Any]:
        """The error handlers that were added."""
        return {
            kind: handler
            for kind, handler in self._error_handlers.items()
            if self._standard_handlers.get(kind) is not handler
        }

    @property
    def error_serializer(self) -> Any:
        """The error serializer that was set, None if none was."""
        serializer = self._serialize_error
        return None if serializer is self._standard_serializer else serializer
