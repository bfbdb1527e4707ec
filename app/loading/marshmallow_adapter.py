"""The adapter for marshmallow: a schema's name means the class of the generation that asks.

`fields.Nested("Tag")` is looked up in `marshmallow.class_registry` at its first use, not at the
load, and an old generation's requests go on: so its classes stay where only it finds them.
"""

import sys
from typing import Any

from app.libraries import calling_generation, generation_of, owner_of


class MarshmallowAdapter:
    """Keeps each generation's schemas apart; see `app.libraries.LibraryAdapter`."""

    def __init__(self, first: str | None) -> None:
        module: Any = sys.modules["marshmallow.class_registry"]
        self._classes = module._registry = _Classes(module._registry)

    def take_out(self, generation: str) -> None:
        """Keep a generation's classes where it alone finds them."""
        classes = self._classes
        paths = classes.paths.pop(generation, set())
        names = {path.rpartition(".")[2] for path in paths}
        found = {name: classes.get(name, []) for name in (*paths, *names)}
        taken = {n: [c for c in found[n] if owner_of(c) == generation] for n in found}
        # Before they are taken out: a request may ask at any moment.
        classes.taken[generation] = classes.taken.get(generation, {}) | taken
        for name, schemas in found.items():
            left = [schema for schema in schemas if schema not in taken[name]]
            if left:
                classes[name] = left
            else:
                classes.pop(name, None)

    def put_back(self, generation: str) -> None:
        """Let all find a generation's classes again."""
        for name, schemas in self._classes.taken.get(generation, {}).items():
            self._classes.note(name)
            self._classes[name] = self._classes.get(name, []) + schemas
        self._classes.taken.pop(generation, None)

    def let_go(self, generation: str) -> None:
        """Forget a generation's classes."""
        self.take_out(generation)
        self._classes.taken.pop(generation, None)


class _Classes(dict[str, list[type]]):
    """marshmallow's registry: lists of classes by name, and by the path of module and name."""

    def __init__(self, known: dict[str, list[type]]) -> None:
        super().__init__(known)
        self.paths: dict[str, set[str]] = {}
        """The paths of each generation's classes."""
        self.taken: dict[str, dict[str, list[type]]] = {}
        """What was taken out, by generation."""
        for path in known:
            self.note(path)

    def note(self, path: str) -> None:
        """Note whose a class is, by its path."""
        generation = generation_of(path)
        if generation is not None:
            self.paths.setdefault(generation, set()).add(path)

    def setdefault(self, path: str, default: Any = None) -> list[type]:
        """Register a class by its path, as marshmallow does with each."""
        self.note(path)
        return super().setdefault(path, default)

    def __getitem__(self, name: str) -> list[type]:
        """Return the classes that a name means to the code that asks.

        A thread may ask in which no code of a plugin runs, as one of a pool: it is given what all
        find, else what was taken out last.
        """
        if self.taken:
            own = self.taken.get(calling_generation() or "")
            if own is not None and name in own:
                return own[name]
            if name not in self:
                for others in reversed(list(self.taken.values())):
                    if name in others:
                        return others[name]
        return super().__getitem__(name)
