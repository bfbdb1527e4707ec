"""How a library that keeps registries lets plugins be loaded again beside their older version.

Many libraries keep what a module registers at its import, under a name, for the life of the
process: metrics, schemas, tasks. A plugin that is edited registers the same names once more, in the
same process, while its older version still serves. An adapter takes the older entries out of the
way, so that such an edit goes live without new workers.

A package brings adapters as entry points of the group `benana.libraries`. The entry point's name is
the module that holds the registry; nothing is imported before a plugin has imported that module::

    [options.entry_points]
    benana.libraries =
        dramatiq = benana_dramatiq:DramatiqAdapter
"""

import sys
from types import FrameType, FunctionType
from typing import Protocol

ENTRY_POINTS = "benana.libraries"
PACKAGES = "_plugins"
"""The package of all plugins' packages; a generation's package is `_plugins.<name>.g<number>`."""


class LibraryAdapter(Protocol):
    """What an entry point's class makes, with the generation whose load imported the library.

    That generation's package (None where a library was imported otherwise) is the one argument: all
    that is registered by then is its own, or the library's. From then on the adapter is called
    before a generation is loaded and after one has gone, by the thread that loads it. A generation
    is named by its package; `owner_of` and `calling_generation` tell whose something is.

    What it raises is logged, and the load goes on.
    """

    def take_out(self, generation: str) -> None:
        """Take what a generation registered out of the way of its successor, which is loaded next.

        The generation goes on serving: what it needs of the library must still be found by it.
        """

    def put_back(self, generation: str) -> None:
        """Undo `take_out`: the successor failed, or left again, and the generation serves on."""

    def let_go(self, generation: str) -> None:
        """Drop all that a generation registered, taken out or not: it has ended, or failed."""


class MakeAdapter(Protocol):
    """What an entry point names: the adapter's class, as a rule."""

    def __call__(self, first: str | None) -> LibraryAdapter:
        """Return the adapter of this process; see `LibraryAdapter`."""


def generation_of(module: object) -> str | None:
    """Return the package of the generation that a module's name belongs to, None if to none."""
    if type(module) is not str or not module.startswith(f"{PACKAGES}."):
        return None
    parts = module.split(".", 3)
    return ".".join(parts[:3]) if len(parts) > 2 else None


def owner_of(item: object) -> str | None:
    """Return the generation that defines a class or a function, or an instance's class.

    None of the item's own code runs: it may be anything.
    """
    if type(item) is FunctionType:
        return generation_of(item.__globals__.get("__name__"))
    kind = item if issubclass(type(item), type) else type(item)
    return generation_of(type.__dict__["__dict__"].__get__(kind).get("__module__"))


def calling_generation() -> str | None:
    """Return the generation whose code is running in this thread, None if none is.

    The import of a library belongs to no generation, though it is a plugin that caused it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        generation = generation_of(frame.f_globals.get("__name__"))
        if generation is not None:
            return generation
        if frame.f_code.co_name == "<module>":
            return None
        frame = frame.f_back
    return None
