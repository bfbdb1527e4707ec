"""Where the requests for an exclusive plugin wait, and where they go on to."""

import threading
import time
from collections.abc import Callable
from typing import Any

import falcon

from app.isolation.answering import FORWARDED, Forwarded
from app.isolation.board import Board, Word
from app.isolation.forwarding import Forwarder
from app.records import ServedRow
from app.routing.answers import AnswerAgain

LOOK_SECONDS = 0.02
"""How often is looked for what another process does: it tells of that in a file."""


class Door:
    """Answers the requests of a plugin wherever it runs: here, in another process, or soon.

    What stands in the table for the plugin has `answer` for its responder. The others say how
    things are: whether this process is the `owner`, whether the plugin `is_open` in its table,
    `idle_because` of what nothing of it runs here, `gives_way_because` of what this process is to
    end so that another one can run it, whether it `is_ending`, and what is `wanted`.
    """

    def __init__(
        self,
        name: str,
        forwarder: Forwarder,
        board: Board,
        wait_seconds: float,
        look_soon: Callable[[], None],
    ) -> None:
        """Make it.

        Args:
            name: the plugin.
            forwarder: passes a request on to the process that runs it.
            board: what that process tells.
            wait_seconds: how long a request may wait.
            look_soon: has somebody look whether this process is to run the plugin.
        """
        self.name = name
        self.wait_seconds = wait_seconds
        self._forwarder = forwarder
        self._board = board
        self._look_soon = look_soon
        self._changed = threading.Condition()
        self.wanted: ServedRow | None = None
        self.owner = False
        self.is_open = False
        self.idle_because = ""
        self.gives_way_because = ""
        self.is_ending = False

    def set(self, **changes: Any) -> None:
        """Change how things are, and let those who wait look."""
        with self._changed:
            for name, value in changes.items():
                setattr(self, name, value)
            self._changed.notify_all()

    def answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a request wherever the plugin runs; wait for it while it moves.

        Raises:
            AnswerAgain: it runs here.
            falcon.HTTPServiceUnavailable: it runs nowhere, or did not come within the time.
            falcon.HTTPBadGateway: the process that runs it ended while it answered.
        """
        forwarded: Forwarded | None = req.env.get(FORWARDED)
        wait = self.wait_seconds if forwarded is None else forwarded.wait
        deadline = time.monotonic() + wait
        while True:
            held = forwarded if self._is_coming(forwarded) else None
            if held is not None:
                held.hold()  # until then it may be sent to another process
            with self._changed:
                if self._is_coming(forwarded):
                    left = deadline - time.monotonic()
                    self._changed.wait_for(lambda: not self._is_coming(forwarded), max(0.0, left))
                here, owner = self.is_open or self.wanted is None, self.owner
                because = self.gives_way_because
            if held is not None:
                held.begin()
            if here:
                raise AnswerAgain
            if owner and (forwarded is None or not because):
                raise self._unavailable(self.idle_because or because)
            if forwarded is not None:
                forwarded.refused = True  # whoever passed it on looks for another process
                return
            left = deadline - time.monotonic()
            if self._forwarder.forward(req, resp, max(0.0, left)):
                return
            if left <= 0:
                raise self._unavailable("")
            word = self._board.read()
            if word is not None:
                self._refuse_at_once(word)
            self._look_soon()
            with self._changed:
                self._changed.wait(min(LOOK_SECONDS, left))

    def _is_coming(self, forwarded: Forwarded | None) -> bool:
        """Tell whether a request is to wait for what becomes of the plugin here.

        Where this process gives way, its own requests wait until it is to end, which it cannot
        before they are answered; those that were passed on wait where they came from.
        """
        if self.gives_way_because and (self.is_ending or forwarded is not None):
            return False
        return self.owner and not (self.is_open or self.idle_because or self.wanted is None)

    def _refuse_at_once(self, word: Word) -> None:
        """Raise where it is known that waiting is of no use."""
        if not word.here:
            raise self._unavailable(
                f"it runs on one host of all, and that is {word.host} (pid {word.pid}); ask there."
            )
        error = None if self.wanted is None else word.failed_with(self.wanted)
        if word.generation is None and error is not None and not word.goes_back:
            raise self._unavailable(f"{error['phase']} failed: {error['message']}")

    def _unavailable(self, reason: str) -> falcon.HTTPServiceUnavailable:
        return falcon.HTTPServiceUnavailable(
            title="Service Unavailable",
            description=f"The plugin {self.name!r} runs in one process at a time, and now in none "
            f"that can be reached: {reason or self._waiting()}",
            retry_after=1,
        )

    def _waiting(self) -> str:
        row, word = self.wanted, self._board.read()
        what = "it" if row is None else f"its generation {row.generation}"
        if word is None:
            return f"no process has come to run {what} within {self.wait_seconds:g} s."
        return f"{what} did not come within {self.wait_seconds:g} s (pid {word.pid} is to run it)."
