"""A started listener, and what it calls."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from app.conditions import Conditions
from app.database.events import ChangeListener
from app.database.timeouts import ListenerTimes
from app.settings import Settings
from tests.support.waiting import wait_until

Names = frozenset[str] | None


class Recorder:
    """What a listener calls: it keeps every call, and may be slow."""

    def __init__(self) -> None:
        self.calls: list[Names] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, names: Names) -> None:
        self.calls.append(names)
        self.go_on.wait(30)

    def heard(self, since: int = 0) -> set[str]:
        """All names that were handed on."""
        return {name for names in self.calls[since:] if names is not None for name in names}

    def everything(self, since: int = 0) -> int:
        """How often everything was to be compared."""
        return self.calls[since:].count(None)


@contextlib.contextmanager
def listening(
    url: str,
    recorder: Callable[[Names], None],
    *,
    wait: bool = True,
    heartbeat: float = Settings.heartbeat_seconds,
    schema: Callable[[], str | None] = lambda: None,
    times: ListenerTimes | None = None,
    conditions: Conditions | None = None,
    rows_url: str | None = None,
) -> Iterator[ChangeListener]:
    """A started listener, which is stopped at the end unless the test did it."""
    listener = ChangeListener(
        url,
        recorder,
        probe_seconds=heartbeat,
        conditions=conditions,
        schema=schema,
        times=times,
        rows_url=rows_url,
    )
    listener.start()
    try:
        if wait:
            wait_until(lambda: listener.connected, "it listens")
        if isinstance(recorder, Recorder):
            wait_until(lambda: recorder.calls or not wait, "it compares everything")
        yield listener
    finally:
        if isinstance(recorder, Recorder):
            recorder.go_on.set()
        listener.stop()  # once more changes nothing
