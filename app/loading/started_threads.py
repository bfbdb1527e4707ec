"""Which thread was started by which generation, noted when it is started.

A thread that a library starts may refer to nothing of the plugin, so afterwards nobody can tell.
`threading.Thread.start` is therefore replaced while a worker serves, which costs nothing but at the
start of a thread. What C code starts, or `_thread` itself, is not seen.
"""

import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from app.package.frames import PluginFrame, innermost_plugin_frame


class StartedThreads:
    """Notes which generation starts a thread, from `watch` to `unwatch`.

    It is the one whose code is innermost on the stack of who starts it; else the one that is being
    called (`calling`), or whose request the thread answers; else the one that has started the
    starting thread.
    """

    def __init__(self) -> None:
        self._noted: dict[int, tuple[weakref.ref[threading.Thread], str]] = {}
        """The thread and its generation, by the thread's `id`: what it says is equal is its own."""
        self._called: ContextVar[str] = ContextVar("called", default="")
        self._answered: Callable[[], str] = str
        self._failed: Callable[[str, str], None] = _tell_nobody
        self._numbers = itertools.count(1)
        self._watching = False
        self._replaced: Any = None

    def watch(
        self, answered: Callable[[], str], failed: Callable[[str, str], None] | None = None
    ) -> None:
        """Note each start of a thread from now on.

        Args:
            answered: returns the generation whose request the calling thread answers, else "".
            failed: is told the plugin of a load that failed and has started threads, and under
                what name `running` has them; by the thread that loads.
        """
        self._answered, self._watching = answered, True
        self._failed = failed or _tell_nobody
        if self._replaced is not None:
            return
        original = threading.Thread.start

        @functools.wraps(original)
        def start(thread: threading.Thread, *args: Any, **kwargs: Any) -> None:
            if self._watching:
                self._note(thread)
            original(thread, *args, **kwargs)

        self._replaced = (start, original)
        threading.Thread.start = start  # type: ignore[method-assign, assignment]

    def unwatch(self) -> None:
        """Note nothing any more."""
        self._watching = False
        if self._replaced is not None and threading.Thread.start is self._replaced[0]:
            threading.Thread.start = self._replaced[1]  # type: ignore[method-assign]
            self._replaced = None  # else somebody has replaced ours, and calls it

    @contextmanager
    def calling(self, generation: str) -> Iterator[None]:
        """Note what is started in a `with` block as a generation's, whose methods it calls."""
        token = self._called.set(generation)
        try:
            yield
        finally:
            self._called.reset(token)

    def fail(self, plugin: str, generation: str) -> None:
        """Note that a generation could not be loaded: the next try of it has the same name."""
        name = f"{generation} of load {next(self._numbers)}"
        found = False
        for number, (noted, of) in self._noted.copy().items():
            thread = noted()  # held, so that it is not forgotten meanwhile
            if of == generation and thread is not None:
                self._noted[number] = (noted, name)
                found = True
        if found and self._watching:
            self._failed(plugin, name)

    def running(self) -> dict[str, list[threading.Thread]]:
        """Return the threads that run now, by the generation that has started them."""
        found: dict[str, list[threading.Thread]] = {}
        for thread in threading.enumerate():
            generation = self.generation_of(thread)
            if generation:
                found.setdefault(generation, []).append(thread)
        return found

    def _note(self, thread: threading.Thread) -> None:
        generation = self.generation_here(innermost_plugin_frame(sys._getframe(2)))
        if generation:
            number, noted = id(thread), self._noted
            forget = weakref.ref(thread, lambda _: noted.pop(number, None))
            noted[number] = (forget, generation)

    def generation_here(self, frame: PluginFrame | None) -> str:
        """Return the generation for which the calling thread works, empty where it is for none.

        Args:
            frame: the innermost frame of a plugin on its stack, None if there is none.
        """
        if frame is not None:
            return frame.generation
        this = threading.current_thread()
        return self._called.get() or self._answered() or self.generation_of(this)

    def generation_of(self, thread: threading.Thread) -> str:
        """Return the generation that has started a thread, empty where that is not known."""
        noted = self._noted.get(id(thread))
        return noted[1] if noted is not None and noted[0]() is thread else ""


def _tell_nobody(_plugin: str, _name: str) -> None:
    pass


started_threads = StartedThreads()
"""One for the process, because `threading.Thread` is one."""
