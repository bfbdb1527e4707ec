"""What the process that runs a plugin tells the others of its host."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

from app.files import read_whole, write_whole
from app.presence import Presence
from app.records import Endpoint, ServedRow


@dataclass(frozen=True, slots=True)
class Word:
    """What is told of a plugin.

    `host` and `pid` are of the process that runs it; `here` says whether that is of this host.
    `generation` is what it serves of the row `id`, None if nothing is served, with `endpoints`.
    `failed` is the generation that could not be loaded last, with its `error`; `goes_back` that the
    one before it is loaded again just now.
    """

    host: str
    pid: int
    machine: str | None
    started: int | None
    here: bool = True
    id: str = ""
    generation: int | None = None
    endpoints: tuple[Endpoint, ...] = ()
    failed: int | None = None
    error: Mapping[str, Any] | None = None
    goes_back: bool = False
    leaves: bool = False
    """Whether its process is in the way, and another one runs the plugin once it has ended."""

    def serves(self, row: ServedRow) -> bool:
        """Tell whether what a row says is served there, or something newer."""
        served = self.generation
        return served is not None and self.id == row.id and served >= row.generation

    def failed_with(self, row: ServedRow) -> Mapping[str, Any] | None:
        """Return why a row's generation could not be loaded there, None if it was not so."""
        return self.error if self.id == row.id and self.failed == row.generation else None

    @property
    def is_gone(self) -> bool:
        """Whether the process that told this has certainly ended."""
        return Presence(self.machine, self.pid, self.started).is_gone()


class Board:
    """One file, written by the process that runs a plugin, read by the others."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, word: Word) -> None:
        """Tell something; OSError if it cannot be written."""
        write_whole(self._path, dumps(asdict(word)).encode())

    def clear(self) -> None:
        """Tell nothing any more."""
        with suppress(OSError):
            self._path.unlink()

    def read(self) -> Word | None:
        """Return what is told, None if nothing is, or by a process that has ended."""
        try:
            content = loads(read_whole(self._path))
            endpoints = tuple(Endpoint(**known) for known in content.pop("endpoints"))
            word = Word(**content, endpoints=endpoints)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # none, or of another version of ours: it counts once it is written anew
        return None if word.here and word.is_gone else word
