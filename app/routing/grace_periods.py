"""Grace periods: which tables and generations the requests of this process run in now.

Grace periods in the manner of read-copy-update (P. E. McKenney, "Is Parallel Programming Hard",
chapter 9.5): a request thread notes in a slot of its own what it runs in, and clears it at the
end, so the request path has no lock and no shared counter. It notes its route table first, and
its route instead once that is found: from then on the request holds back the generation that it
runs in, and no other. The price is that the reclaiming side has to look: it polls the slots while,
and only while, something waits to be cleaned up.
"""

import threading
import weakref
from typing import Any, NamedTuple

from app.activity import Activity, Name
from app.loading.routes import Route
from app.loading.streamed_answers import EndableStream
from app.routing.table import RouteTable


class Slot:
    """Where one thread notes what its request runs in; None between requests.

    `cell` is the thread's word of the process's `Activity`. `route` and `fields` are what was found
    for `path`, before Falcon began with the request.
    """

    __slots__ = ("__weakref__", "at", "cell", "fields", "path", "route")

    def __init__(self, cell: memoryview, at: RouteTable | Route | None = None) -> None:
        self.at = at
        self.cell = cell
        self.path = ""
        self.route: Route | None = None
        self.fields: dict[str, Any] | None = None


_NO_CELL = memoryview(bytearray(8)).cast("Q")


class InUse(NamedTuple):
    """What requests run in now.

    `oldest_table` is the number of the oldest table of those that have not found their route yet,
    None if there are none; `generations` are the `Route.generation` of the others.
    """

    oldest_table: int | None
    generations: frozenset[str]


class RunningRequests:
    """What the requests of this process run in now."""

    def __init__(self) -> None:
        self.threads = threading.local()
        """Each thread's `slot`, once it has asked for it."""
        self._activity = Activity()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._streams: dict[Slot, EndableStream | None] = {}
        self._finishes = False
        self._lock = threading.Lock()

    def share(self, activity: Activity) -> None:
        """Show what the threads do in a memory that others see; before the first request."""
        self._activity = activity

    @property
    def crew(self) -> int | None:
        """How many processes like this one its master wants, None if it has no such master."""
        return self._activity.crew or None

    def is_short(self) -> bool:
        """Tell whether requests wait for a thread."""
        return self._activity.waiting() > 0

    def number(self, name: Name) -> int:
        """Return the number under which threads show what they do."""
        return self._activity.number(name)

    def generation_here(self) -> str:
        """Return the generation whose request the calling thread answers, else ""."""
        slot = getattr(self.threads, "slot", None)
        at = None if slot is None else slot.at
        return at.generation if isinstance(at, Route) else ""

    def slot(self) -> Slot:
        """Return the calling thread's slot."""
        try:
            slot: Slot = self.threads.slot
        except AttributeError:
            slot = self._new_slot(self._activity.cell())
        return slot

    def leave(self) -> None:
        """Forget the calling thread, which answers no more requests."""
        slot = getattr(self.threads, "slot", None)
        if slot is not None:
            del self.threads.slot
            self._activity.give_back(slot.cell)

    def nest(self) -> Slot:
        """Give the calling thread another slot, for a request within its request.

        The thread goes on showing its outer request: a word of its own for each inner one would
        use up those of other threads.

        Returns:
            The slot that it had; set `threads.slot` to it at the end.
        """
        outer: Slot = self.threads.slot
        self._new_slot(_NO_CELL)
        return outer

    def _new_slot(self, cell: memoryview) -> Slot:
        slot = self.threads.slot = Slot(cell)
        with self._lock:
            self._slots.add(slot)
        return slot

    def hold(self, at: RouteTable | Route | None, endable: EndableStream | None = None) -> Slot:
        """Hold for a stream what its request ran in; give the slot to `release`.

        Args:
            at: what it ran in.
            endable: the stream, if `finish_streams` may end it.
        """
        slot = Slot(_NO_CELL, at)
        with self._lock:
            self._streams[slot] = endable
            finishes = self._finishes
        if finishes and endable is not None:
            endable.finish()
        return slot

    def release(self, slot: Slot) -> None:
        """Let go of what a stream held."""
        with self._lock:
            self._streams.pop(slot, None)

    def finish_streams(self, generation: str | None = None) -> None:
        """End the streams that may end at any time.

        Args:
            generation: whose; None for all, and those that come: the process takes no more
                requests.
        """
        with self._lock:
            if generation is None:
                self._finishes = True
            found = [
                stream
                for slot, stream in self._streams.items()
                if stream is not None
                and (
                    generation is None
                    or (isinstance(slot.at, Route) and slot.at.generation == generation)
                )
            ]
        for stream in found:
            stream.finish()

    def in_use(self) -> InUse:
        """Return what requests run in."""
        with self._lock:
            slots = list(self._slots)
        # Threads before streams: a request hands over by holding first and clearing then, so
        # whoever has cleared his slot when it is looked at is among the streams afterwards.
        noted = [slot.at for slot in slots]
        with self._lock:
            noted += [slot.at for slot in self._streams]
        numbers = [at.number for at in noted if isinstance(at, RouteTable)]
        generations = frozenset(at.generation for at in noted if isinstance(at, Route))
        return InUse(min(numbers, default=None), generations)
