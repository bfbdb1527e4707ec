"""What a process leaves to fresh ones, because it has loaded another generation of it."""

from collections.abc import Callable
from typing import Protocol

from app.records import ServedRow
from app.serving.load_queue import LoadQueue
from app.serving.outcomes import Outcomes


class Replace(Protocol):
    """Asks for another process in the place of this one."""

    def __call__(self, *, at_once: bool = False) -> None:
        """Ask; this one serves on until that one does, unless it is to stop `at_once`."""


class FreshProcesses:
    """Asks for fresh processes, and notes what a process cannot serve that should take over.

    Where a master can be asked for one, tell it how with `ask_by`.
    """

    def __init__(
        self, loading: LoadQueue, serving: Callable[[str], int | None], outcomes: Outcomes
    ) -> None:
        """Make it.

        Args:
            loading: knows which generations this process has loaded.
            serving: returns the generation that is served of a plugin, None if nothing is.
            outcomes: are told what waits.
        """
        self._loading = loading
        self._serving = serving
        self._outcomes = outcomes
        self._replace: Callable[[], None] | None = None
        self.spoiled_by = ""
        """The plugin whose failed load keeps this process from serving the version before."""

    def ask_by(self, replace: Callable[[], None]) -> None:
        """Ask by this for another process in the place of this one, which serves on until then."""
        self._replace = replace
        self._loading.loader.replaceable = True

    def leave(self, row: ServedRow) -> None:
        """Leave a generation to fresh processes, and ask for one."""
        self._loading.abandon(row.name)
        why = self._loading.loader.why_fresh(row)
        serving = self._serving(row.name)
        self._outcomes.waiting(row, serving, why, asked=self._replace is not None)
        if self._replace is not None:
            self._replace()

    def spoil(self, row: ServedRow) -> None:
        """Note that a row's failed load keeps this process from serving the version before.

        Only where the failure is noted on the host: the next process does not try it then.
        """
        if not self.spoiled_by and self._loading.loader.is_known_to_fail(row):
            self.spoiled_by = row.name
