"""Objects of which nothing may be asked: as lazy settings and proxies, and worse."""

HOSTILE = """
import sys
import threading

asked = sys.__dict__.setdefault("_asked_of_hostile", [])


def refuse(what):
    def method(*_, **__):
        asked.append(what)
        raise SystemExit(f"{what} was asked")

    return method


class Meta(type):
    __eq__ = refuse("Meta.__eq__")
    __hash__ = refuse("Meta.__hash__")
    __repr__ = refuse("Meta.__repr__")
    __instancecheck__ = refuse("Meta.__instancecheck__")
    __subclasscheck__ = refuse("Meta.__subclasscheck__")

    def __getattribute__(self, name):
        if name.startswith("__"):
            asked.append(f"Meta.{name}")
        return super().__getattribute__(name)


class Hostile(metaclass=Meta):
    __class__ = property(refuse("__class__"))
    __dict__ = property(refuse("__dict__"))
    __eq__ = refuse("__eq__")
    __hash__ = refuse("__hash__")
    __repr__ = refuse("__repr__")
    __str__ = refuse("__str__")
    __bool__ = refuse("__bool__")
    __len__ = refuse("__len__")
    __iter__ = refuse("__iter__")
    __contains__ = refuse("__contains__")
    __getattr__ = refuse("__getattr__")
    __getattribute__ = refuse("__getattribute__")


class Text(str):
    __eq__ = refuse("Text.__eq__")
    __hash__ = refuse("Text.__hash__")
    __format__ = refuse("Text.__format__")
    __str__ = refuse("Text.__str__")


class Named(threading.Thread):
    name = property(refuse("Named.name"))
    ident = property(refuse("Named.ident"))
    _name = "hostile"


class Odd:
    __module__ = property(refuse("Odd.__module__"))


class Plain:
    def method(self):
        return 1


HOSTILES = [Hostile(), Hostile()]
LONELY = Hostile()
WRITTEN = Text("written")
PLAIN = Plain()
"""
"""The prelude of a plugin's module; `asked()` tells whether anybody has asked for anything."""


def asked() -> list[str]:
    """Return what was asked since the last time."""
    import sys

    found: list[str] = vars(sys).get("_asked_of_hostile", [])
    taken = list(found)
    found.clear()
    return taken
