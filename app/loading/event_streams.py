"""Server-sent events out of what a handler yields; an event stream ends once its version goes.

What yields runs in a thread of its own, so that the stream is kept alive, and can end, while that
waits. The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import contextvars
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import falcon

from app.loading.return_values import Answerer
from app.loading.stream_places import NoPlaceError, Placed, has_hung_up, take_place
from app.loading.streamed_answers import EndableStream, is_streamed
from app.loading.strict_json import to_json
from app.plugin import PluginContext
from app.responses import Event
from app.threads import start_thread

MEDIA_EVENTS = "text/event-stream"

BEAT_SECONDS = 15.0
"""After how long without an event a comment is sent: proxies cut what is silent, often after 60 s,
and a client whose end was not told is noticed when something is sent."""

LOOK_SECONDS = 0.5
"""How often it is looked whether the client has closed its connection."""

OPEN_SECONDS = 2.0
"""How long the answer waits for the first event, so that an error before it has its status."""

CLOSE_SECONDS = 1.0
"""How long the end of a stream waits for the end of what yields."""

MAX_WAITING = 16
"""How many events may wait to be sent; then what yields waits."""

_BEAT = b":\n\n"
_LINE_END = re.compile(r"\r\n|\r|\n")


def event_answerer(context: PluginContext | None) -> Answerer:
    """Return what makes an event stream of what a handler has returned.

    Args:
        context: the plugin's, which tells when its generation is to stop; None where there is none.
    """
    is_over = _never if context is None else context.cancelled.is_set

    def answer_by(req: falcon.Request, resp: falcon.Response, answer: Any) -> None:
        if answer is None:  # which tells an EventSource not to come again
            resp.status = falcon.HTTP_204
            return
        if not is_streamed(answer):
            raise TypeError(
                f"a handler of server.sse answered with a {type(answer).__qualname__}, expected it "
                "to yield its events, or None"
            )
        client = req.env.get("gunicorn.socket")
        made = EventStream(answer, is_over, lambda: has_hung_up(client))
        resp.content_type = MEDIA_EVENTS
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")  # nginx would keep events back
        resp.stream = made

    return answer_by


def _never() -> bool:
    return False


def encode(item: Any) -> bytes:
    """Return what is sent for what a handler yields: nothing for None.

    Raises:
        TypeError: it is no event, no text and no JSON.
    """
    if item is None:
        return b""
    event = item if isinstance(item, Event) else Event(item)
    lines = []
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.event:
        lines.append(f"event: {event.event}")
    if event.retry is not None:
        lines.append(f"retry: {event.retry}")
    if isinstance(event.data, str):
        lines += [f"data: {line}" for line in _LINE_END.split(event.data)]
    elif event.data is not None:
        lines.append(f"data: {to_json(event.data).decode()}")
    return "".join(f"{line}\n" for line in [*lines, ""]).encode(errors="replace") if lines else b""


class EventStream(EndableStream, Placed):
    """The body of an answer that is a stream of events."""

    def __init__(
        self,
        events: Iterator[Any],
        is_over: Callable[[], bool],
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make it, and wait a little for the first event.

        Args:
            events: what yields them.
            is_over: tells whether the plugin's generation is to stop.
            is_gone: tells whether the client has closed its connection.

        Raises:
            Exception: what has raised before the first event.
            NoPlaceError: streams hold as many threads as they may.
            RuntimeError: the system has no thread left.
        """
        self._feed = _Feed(events)
        self._is_over = is_over
        self._is_gone = is_gone
        try:
            self._place = take_place(lasts=True)
        except NoPlaceError:
            self._feed.close()
            raise
        self._feed.start()
        self._is_silent = not self._wait(OPEN_SECONDS)
        """Whether nothing has come yet, so that the answer is begun without an event."""
        if not self._feed.has_parts and (error := self._feed.take_error()) is not None:
            self._place.release()
            raise error

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        feed = self._feed
        if self._is_silent:  # so that the client has its status, whatever is raised later
            self._is_silent = False
            return _BEAT
        # Asked for here: from now on `finish` is called when it goes, and it may have gone before.
        if self._is_over():
            feed.finish()
        if not self._wait(BEAT_SECONDS):
            return _BEAT
        return b"".join(feed.take()) or _BEAT

    def _wait(self, seconds: float) -> bool:
        """Wait until there is something to send, or the end; tell whether there is."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            if self._feed.wait(min(LOOK_SECONDS, left)):
                return True
            if self._is_gone():
                self._feed.finish()
            elif left <= LOOK_SECONDS:
                return False

    def finish(self) -> None:
        """End it after what has been yielded; any thread may call this."""
        self._feed.finish()

    def close(self) -> None:
        """Close what yields, and wait for its end, though not for long.

        Raises:
            Exception: what it raises then.
        """
        self._feed.finish()
        self._feed.ended.wait(CLOSE_SECONDS)
        self._place.release()
        error = self._feed.take_error()
        if error is not None:
            raise error

    def __del__(self) -> None:
        """Close what yields, where an answer is dropped before it is sent."""
        self._feed.finish()


class _Feed:
    """Runs what yields in a thread, and holds what it has yielded; the stream is not known to it.

    So a stream that nobody reads any more is finalized, and ends the thread.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._changed = threading.Condition()
        self._parts: list[bytes] = []
        self._error: BaseException | None = None
        self._finished = False
        self.ended = threading.Event()
        """Set once what yields has ended."""

    def start(self) -> None:
        """Start the thread."""
        start_thread("event-stream", contextvars.copy_context().run, self._run)

    def close(self) -> None:
        """Close what yields, where it does not run."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()

    def finish(self) -> None:
        """Take no more events."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to send, or the end; tell whether there is."""
        with self._changed:
            return self._changed.wait_for(self._is_ready, seconds)

    def take(self) -> list[bytes]:
        """Return what waits to be sent.

        Raises:
            StopIteration: it is the end.
            Exception: what yields has raised.
        """
        with self._changed:
            parts, self._parts = self._parts, []
            if parts:
                self._changed.notify_all()
                return parts
            finished = self._finished
        # What has been told to end does so cleanly, whatever it raises then: `close` has it.
        if not finished and (error := self.take_error()) is not None:
            raise error
        raise StopIteration

    @property
    def has_parts(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._parts)

    def take_error(self) -> BaseException | None:
        """Return what yields has raised, once."""
        with self._changed:
            error, self._error = self._error, None
        return error

    def _is_ready(self) -> bool:
        return bool(self._parts) or self._finished or self.ended.is_set()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            try:
                for item in self._events:
                    if not self._put(encode(item)):
                        break
            finally:
                self.close()
        except BaseException as raised:  # noqa: BLE001 - SystemExit too: the reader has it
            error = raised
        with self._changed:
            self._error = error
            self.ended.set()
            self._changed.notify_all()

    def _put(self, part: bytes) -> bool:
        """Hand on what is to be sent, once there is room; tell whether more is wanted."""
        with self._changed:
            while len(self._parts) >= MAX_WAITING and not self._finished:
                self._changed.wait(BEAT_SECONDS)  # a finalizer's word may be missed
            if self._finished:
                return False
            self._parts.append(part)
            self._changed.notify_all()
            return True
