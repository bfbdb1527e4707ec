"""What a plugin sets of a `falcon.App`, as it registers its routes."""

from collections.abc import Mapping
from typing import Any

import falcon


class OwnApp(falcon.App[Any, Any]):
    """A `falcon.App` that a plugin sets up, and that Falcon checks; it answers nothing itself."""

    def __init__(self) -> None:
        super().__init__()
        self._standard_handlers = dict(self._error_handlers)
        self._standard_serializer = self._serialize_error
        self.media: Mapping[str, Any] = dict(self.req_options.media_handlers)
        """Falcon's own handlers, of requests' media."""
        self.resp_media: Mapping[str, Any] = dict(self.resp_options.media_handlers)
        """And of responses'."""

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
