"""The response of a request: what hooks and middleware make of a typed handler's answer."""

from json import loads
from typing import Any

import falcon

_NOT_RENDERED = falcon.Response()._media_rendered


class LiveResponse(falcon.Response):
    """A `falcon.Response` whose `media` is what a typed handler has answered as JSON.

    The answer stands in `data`, written already; it is read anew for whom that asks, as few do.
    """

    __slots__ = ("answered",)

    data: Any = falcon.Response.__dict__["_data"]
    """What Falcon's property reads and sets, without a call: almost every answer sets it."""

    answered: bytes
    """The JSON of a typed handler's answer, as it was put into `data`; not there before."""

    @property
    def media(self) -> Any:
        """What is to be sent as media: plain data of a typed handler, which may be changed."""
        written = self._data
        if written is not None and self._is_answered():
            found = loads(written)
            if found is not None:  # else nothing would be sent, and not null
                self.media = found
        return self._media

    @media.setter
    def media(self, value: Any) -> None:
        if self._data is not None and self._is_answered():
            self._data = None  # which would count, whatever the media is
        self._media = value
        self._media_rendered = _NOT_RENDERED

    def _is_answered(self) -> bool:
        """Tell whether `data` is what a typed handler has answered, and nobody has replaced it."""
        return self._data is getattr(self, "answered", None)
