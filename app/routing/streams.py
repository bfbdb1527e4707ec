"""Streamed answers on their way out: each holds its generation, and a place among the threads."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import falcon

from app.loading.routes import SERVER, Route
from app.loading.stream_places import Place, Placed, take_place
from app.loading.streamed_answers import EndableStream
from app.routing.grace_periods import RunningRequests, Slot

log = logging.getLogger(__name__)

T = TypeVar("T")

BREAKS_OFF = "after its answer had begun, which breaks off"


@dataclass(frozen=True, slots=True)
class WithPlace:
    """A streamed body on its way to `make_stream`, and the place that it holds."""

    body: Iterable[bytes]
    place: Place


def give_place(resp: falcon.Response, body: Any) -> Any:
    """Return a streamed body with its place among the threads, where it needs one.

    What is a file, or says how long it is, ends when it is sent.

    Raises:
        NoPlaceError: streams hold as many threads as they may.
    """
    if (
        isinstance(body, (Placed, list, tuple))
        or hasattr(resp.stream, "read")
        or resp.get_header("content-length") is not None
    ):
        return body
    return WithPlace(body, take_place(lasts=isinstance(body, EndableStream)))


def make_stream(
    body: Iterable[bytes] | WithPlace, env: Mapping[str, Any], running: RunningRequests, slot: Slot
) -> "Stream":
    """Wrap a streamed body, so that a server that can send files by itself still does.

    Args:
        body: what Falcon made of `resp.stream`.
        env: the request, in which a server has its `wsgi.file_wrapper`, if it has one.
        running: where the generation is held.
        slot: where the request's thread notes it.
    """
    wrapper = env.get("wsgi.file_wrapper")
    method = env["REQUEST_METHOD"]
    if isinstance(body, WithPlace):
        return Stream(body.body, method, running, slot, body.place)
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _file_stream(wrapper)(body, method, running, slot)
    return Stream(body, method, running, slot)


class Stream:
    """A streamed body that holds its generation until it is closed, and raises only Exception."""

    def __init__(
        self,
        body: Iterable[bytes],
        method: str,
        running: RunningRequests,
        slot: Slot,
        place: Place | None = None,
    ) -> None:
        self._body = body
        self._method = method
        self._running = running
        self._place = place
        self._parts: Iterator[bytes] | None = None
        self._cell = slot.cell
        self._held = running.hold(slot.at, body if isinstance(body, EndableStream) else None)

    def is_of(self, slot: Slot) -> bool:
        """Tell whether it answers a request of the thread that has a slot."""
        return self._cell is slot.cell

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)  # here, so that `close` follows if it raises
            if self._place is not None:
                self._place.check_end()
            return next(self._parts)
        except StopIteration:
            raise
        except Exception as error:
            self._log(error, BREAKS_OFF)
            raise
        except BaseException as error:
            self._log(error, BREAKS_OFF)
            raise RuntimeError(f"a streamed body raised {type(error).__name__}") from error

    def _log(self, error: BaseException, when: str) -> None:
        """Say whose answer it is: the server that sends it knows no plugin and no route."""
        at = self._held.at
        owner, route = (at.owner, at.template) if isinstance(at, Route) else (SERVER, "")
        log.error(
            "%s: %s %s raised %s %s",
            owner,
            self._method,
            route,
            type(error).__name__,
            when,
            exc_info=error,
        )

    def close(self) -> None:
        """Close the body, as a WSGI server does after the last byte or a lost client."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end the worker
            self._log(error, "at the end of its stream")
        finally:
            if self._place is not None:
                self._place.release()
            self._running.release(self._held)
            self._cell[0] = 0  # the thread that streams is, under gunicorn, the one that answered


class _FileStream(Stream):
    """A stream of a file; `filelike` is where a server finds what `sendfile` takes."""

    def __init__(self, body: Any, method: str, running: RunningRequests, slot: Slot) -> None:
        super().__init__(body, method, running, slot)
        self.filelike = _File(body.filelike)
        self.blksize = getattr(body, "blksize", 8192)


@functools.cache
def _file_stream(wrapper: type) -> type[Stream]:
    """Return the class of streams that are the server's own file wrappers too."""
    return type("FileStream", (_FileStream, wrapper), {})


class _File:
    """A plugin's file in the server's hands: it raises nothing but Exception."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        value = _only_exceptions(getattr, self._file, name)
        return functools.partial(_only_exceptions, value) if callable(value) else value


def _only_exceptions(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return function(*args, **kwargs)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"a streamed file raised {type(error).__name__}") from error
