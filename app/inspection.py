"""What can be asked of a plugin's objects without running any of its code.

`isinstance` asks an object's `__class__`, `getattr` and `vars` its class, `==` and `hash` its
methods: with a lazy settings object, a proxy or a metaclass each of them may raise, or never
return. The type of an object, and what Python itself keeps of a class, a function or a module, is
read without.
"""

from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any, TypeGuard

_MODULE_OF_CLASS: Any = vars(type)["__module__"]
_NAME_OF_CLASS: Any = vars(type)["__qualname__"]
_MRO_OF_CLASS: Any = vars(type)["__mro__"]
_NAMESPACE_OF_CLASS: Any = vars(type)["__dict__"]
_NAMESPACE_OF_MODULE: Any = vars(ModuleType)["__dict__"]

UNKNOWN = "?"
"""The name of what has none, or one that is no text."""


def is_class(value: object) -> TypeGuard[type[Any]]:
    """Tell whether an object is a class, whatever it says of itself."""
    return issubclass(type(value), type)


def is_module(value: object) -> TypeGuard[ModuleType]:
    """Tell whether an object is a module, whatever it says of itself."""
    return issubclass(type(value), ModuleType)


def namespace_of(module: ModuleType) -> dict[str, Any]:
    """Return a module's globals."""
    namespace: dict[str, Any] = _NAMESPACE_OF_MODULE.__get__(module)
    return namespace


def mro_of(cls: type) -> tuple[type, ...]:
    """Return a class and its bases, in the order in which attributes are looked up."""
    mro: tuple[type, ...] = _MRO_OF_CLASS.__get__(cls)
    return mro


def namespace_of_class(cls: type) -> Mapping[str, Any]:
    """Return what a class itself defines."""
    namespace: Mapping[str, Any] = _NAMESPACE_OF_CLASS.__get__(cls)
    return namespace


def module_of(value: object) -> str:
    """Return the name of the module that a class or function, or an object's class, is made in."""
    if type(value) is FunctionType:
        return _text(value.__module__)
    return _text(_read(_MODULE_OF_CLASS, value if is_class(value) else type(value)))


def name_of(value: object) -> str:
    """Return the qualified name of a class or function, or of an object's class."""
    if type(value) is FunctionType:
        return _text(value.__qualname__)
    return _text(_read(_NAME_OF_CLASS, value if is_class(value) else type(value)))


def _read(descriptor: Any, cls: object) -> object:
    try:
        return descriptor.__get__(cls)
    except AttributeError:  # it was deleted
        return None


def _text(value: object) -> str:
    return value if type(value) is str else UNKNOWN


def attribute_of(value: object, name: str) -> object:
    """Return what an object has in its own namespace, None if nothing; not what its class makes."""
    try:
        return object.__getattribute__(value, name)
    except BaseException:  # noqa: BLE001 - its class may have a property of that name all the same
        return None
