"""The contract: what a plugin's factory must return, and what its metadata must hold."""

import inspect
from collections.abc import Callable
from typing import Any

from app.errors import LoadError
from app.inspection import name_of
from app.loading.guarded_calls import guarded
from app.package.importer import GenerationImporter
from app.plugin import PluginInterface, PluginMetadata

_METHODS: dict[str, tuple[str, ...]] = {
    "initialize": ("context",),
    "get_metadata": (),
    "register_routes": ("server",),
    "cleanup": ("context",),
}


def create_instance(
    name: str, importer: GenerationImporter, module: Any, *, tried: bool = False
) -> Any:
    """Call a plugin's factory and return what it made, once it keeps the contract.

    Args:
        name: the plugin's name.
        importer: of its generation.
        module: the one that has the factory.
        tried: whether its trial has passed.

    Raises:
        LoadError: there is no factory, it fails, or what it returned breaks the contract.
    """
    module_name, _, factory_name = importer.content.entry.partition(":")
    file = (importer.content.module_path(module_name) or ("", False))[0]
    line: int | None
    factory = guarded(name, "import", importer, getattr, module, factory_name, None)
    if not callable(factory):
        kind = "nothing of that name" if factory is None else f"a {name_of(type(factory))}"
        raise LoadError(
            name,
            f"{file} has {kind} under {factory_name!r}, expected a function "
            f"{factory_name}() that returns the plugin",
            phase="factory",
            file=file,
        )
    instance = guarded(name, "factory", importer, factory)
    faults = guarded(name, "contract", importer, lambda: contract_faults(instance, tried=tried))
    if faults:
        file, line = _defined_at(importer, lambda: type(instance)) or (file, None)
        raise LoadError(
            name,
            f"{factory_name}() returned a {name_of(type(instance))}: " + "; ".join(faults),
            phase="contract",
            file=file,
            line=line,
        )
    return instance


def contract_faults(instance: object, *, tried: bool = False) -> list[str]:
    """Return every fault of a plugin's methods, as phrases.

    Args:
        instance: the plugin.
        tried: whether its trial has passed: then its methods take what they are given.
    """
    missing = []
    faults = []
    for method, parameters in _METHODS.items():
        inherited = getattr(type(instance), method, None) is getattr(PluginInterface, method)
        function = None if inherited else getattr(instance, method, None)
        expected = f"{method}({', '.join(parameters)})"
        if function is None:
            missing.append(expected)
        elif not callable(function):
            faults.append(f"{method} is a {type(function).__name__}, expected a method {expected}")
        elif inspect.iscoroutinefunction(function):
            faults.append(f"{method} is a coroutine function, expected a plain method {expected}")
        elif not tried:
            try:
                inspect.signature(function).bind(*parameters)
            except TypeError:
                signature = f"{method}{inspect.signature(function)}"
                faults.append(f"the signature is {signature}, expected {expected}")
            except ValueError:
                if inspect.ismethod(function):
                    faults.append(f"{method} takes no self, expected {expected}")
                continue  # a built-in without a signature: the call itself will tell
    if missing:
        faults.insert(0, f"missing {', '.join(missing)}")
    return faults


def read_metadata(
    name: str, importer: GenerationImporter, instance: Any, *, versioned: bool
) -> PluginMetadata:
    """Return what a plugin says of itself; its version may be empty where it is `versioned`.

    Raises:
        LoadError: `get_metadata` fails, or a field is missing, too long or no text.
    """
    faults, values = guarded(name, "get_metadata", importer, _metadata_values, name, instance)
    if not versioned and values.get("version") == "":
        faults.append("version is '', expected 1 to 100 characters, here or in plugin.yaml")
    if faults:
        file, line = _defined_at(importer, lambda: instance.get_metadata) or (None, None)
        raise LoadError(name, "; ".join(faults), phase="get_metadata", file=file, line=line)
    return PluginMetadata(**values)


def _metadata_values(name: str, instance: Any) -> tuple[list[str], dict[str, str]]:
    metadata = instance.get_metadata()
    faults = []
    values: dict[str, str] = {}
    for key, limit in (("name", 63), ("version", 100), ("description", 65536), ("author", 255)):
        value = getattr(metadata, key, None)
        if value is None and key in {"description", "author"}:
            value = ""
        if not isinstance(value, str):
            faults.append(f"{key} is {value!r}, expected text")
        elif (
            "\0" in value
            or not _is_utf8(value)
            or len(value) > limit
            or (not value and key == "name")
        ):
            faults.append(f"{key} is {value[:40]!r}, expected 1 to {limit} characters")
        else:
            values[key] = str.__str__(value)  # a class of its own would be the plugin's code
    if values.get("name", name) != name:
        faults.append(f"name is {values['name']!r}, expected {name!r}, the name of the folder")
    return faults, values


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _defined_at(importer: GenerationImporter, find: Callable[[], Any]) -> tuple[str, int] | None:
    """Return the file and line of a plugin's class or method, None if they are not known.

    Args:
        importer: of the plugin's generation.
        find: returns the class or method; it may fail, as all that asks a plugin's objects.
    """
    try:
        item = find()
        _, line = inspect.findsource(item)
        return importer.place_of(inspect.getfile(item), line + 1)
    except BaseException:  # noqa: BLE001 - the fault is known, and only its line is asked for
        return None
