"""What a plugin sets of a `falcon.App`, as it registers its routes."""

from typing import Any

import falcon

from app.loading.media import media_handlers


class OwnApp(falcon.App[Any, Any]):
    """A `falcon.App` that a plugin sets up, and that Falcon checks; it answers nothing itself."""

    def __init__(self) -> None:
        super().__init__()
        self._standard_handlers = dict(self._error_handlers)
        self._standard_serializer = self._serialize_error
        for options in (self.req_options, self.resp_options):
            options.media_handlers.update(media_handlers())

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
