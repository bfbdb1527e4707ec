"""The plugins of which a process loads one generation in its life, and no other.

Their libraries keep what they were given (a registry, a metric, a table): a second generation
beside the first one would raise, or answer with what is the first one's. That is so even where the
first one was unloaded, or where its load failed halfway.
"""

import threading
from dataclasses import dataclass, replace

from app.records import AUTO, FRESH, HOT, ServedRow


@dataclass(frozen=True, slots=True)
class _Import:
    """What was imported last of a plugin.

    `once` says that nothing else may be imported of it, `why` for whose sake; `spent` that its
    load failed, so that it cannot be repeated either; `earlier` that it was not the first.
    """

    id: str
    generation: int
    once: bool
    why: str
    earlier: bool
    spent: bool = False

    def is_of(self, row: ServedRow) -> bool:
        """Tell whether it is a row's generation that was imported."""
        return (self.id, self.generation) == (row.id, row.generation)


class LoadedOnce:
    """What this process has imported of each plugin; safe to use from several threads."""

    def __init__(self) -> None:
        self._imports: dict[str, _Import] = {}
        self._lock = threading.Lock()

    def knows(self, name: str) -> bool:
        """Tell whether anything of a plugin was imported."""
        return name in self._imports

    def may_load(self, row: ServedRow) -> bool:
        """Tell whether this process may import a row's generation."""
        last = self._imports.get(row.name)
        if last is None or row.reload == HOT or not (last.once or row.reload == FRESH):
            return True
        return last.is_of(row) and not last.spent

    def why(self, row: ServedRow) -> str:
        """Return why a row's generation may not be imported beside what was before."""
        last = self._imports.get(row.name)
        if row.reload == FRESH and row.reload_why:
            return row.reload_why
        return "" if last is None else last.why

    def begin(self, row: ServedRow) -> None:
        """Note that a row's generation is imported from now on."""
        with self._lock:
            last = self._imports.get(row.name)
            once = row.reload == FRESH or (last is not None and last.once)
            why = row.reload_why or (last.why if last is not None else "")
            earlier = last is not None and (last.earlier or not last.is_of(row))
            self._imports[row.name] = _Import(row.id, row.generation, once, why, earlier)

    def fail(self, row: ServedRow, error: str, *, may_blame: bool = True) -> "Failure":
        """Note that what was imported of a row cannot be used, and return what follows.

        Args:
            row: what was to be loaded.
            error: why it cannot be used.
            may_blame: whether an earlier generation may be blamed: fresh processes can be had.
        """
        with self._lock:
            last = self._imports[row.name]
            blames = may_blame and not last.once and last.earlier and row.reload == AUTO
            if blames:
                why = (
                    f"loading generation {row.generation} failed in a worker that had loaded an "
                    f"earlier one, though its trial passed ({error})"
                )
                last = replace(last, once=True, why=why)
            self._imports[row.name] = last = replace(last, spent=True)
        return Failure(blames_earlier=last.why if blames else "", alone=not last.earlier)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed load means.

    `blames_earlier` is a sentence where an earlier generation is the likely cause, so that the load
    is to be tried once by fresh workers; `alone` says that there was no earlier one.
    """

    blames_earlier: str
    alone: bool
