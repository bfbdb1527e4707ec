"""Waiting for what is to come, with a deadline."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")


def wait_until(
    look: Callable[..., T | Literal[False] | None], what: str = "", seconds: float = 30.0
) -> T:
    """Look again and again until something true comes back; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or look}; last: {found!r}")
        time.sleep(0.01)


class Clock:
    """Stands in for the module `time` where a test says what the time is."""

    now = 1000.0

    def monotonic(self) -> float:
        """Return the time that it was set to, in seconds."""
        return self.now
