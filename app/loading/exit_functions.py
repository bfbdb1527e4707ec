"""Which generation has registered with `atexit` what runs at the end of the process.

While such a function runs that is written in C, as `time.sleep`, there is no frame of it: nobody
could tell whose it is. `atexit.register` is therefore replaced in a worker, which costs nothing but
at a registration. What C code registers itself is not seen.
"""

import atexit
import functools
import sys
from collections.abc import Callable
from typing import Any

from app.loading.started_threads import started_threads
from app.package.frames import innermost_plugin_frame


class ExitFunctions:
    """Knows whose function `atexit` is calling, of those that were registered after `watch`.

    What is registered last is called first. So each function has a call before and after it that
    says whose it is; the function itself is registered as it is, which `atexit.unregister` finds.
    """

    def __init__(self) -> None:
        self.generation = ""
        """Whose function runs; empty if none does, or if it is no plugin's."""
        self.place = ""
        """Where in the plugin it was registered, as `main.py:14`; empty if nobody can tell."""
        self._watching = False

    def watch(self) -> None:
        """Note whose each function is that is registered from now on."""
        if self._watching:
            return
        self._watching = True
        original: Callable[..., Any] = atexit.register

        @functools.wraps(original)
        def register(*args: Any, **kwargs: Any) -> Any:
            frame = innermost_plugin_frame(sys._getframe(1))
            generation = started_threads.generation_here(frame)
            if not generation:
                return original(*args, **kwargs)
            original(self._say, "", "")
            try:
                return original(*args, **kwargs)
            finally:
                original(self._say, generation, "" if frame is None else frame.place)

        atexit.register = register

    def _say(self, generation: str, place: str) -> None:
        self.generation, self.place = generation, place


exit_functions = ExitFunctions()
"""One for the process, because `atexit` is one."""
