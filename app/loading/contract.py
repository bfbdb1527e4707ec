"""The contract: what a plugin's factory must return, and what its metadata must hold."""

import inspect
from typing import Any

from app.errors import LoadError
from app.loading.guarded_calls import guarded
from app.package.importer import GenerationImporter
from app.plugin import PluginInterface, PluginMetadata

_METHODS: dict[str, tuple[str, ...]] = {
    "initialize": ("context",),
    "get_metadata": (),
    "register_routes": ("server",),
    "cleanup": ("context",),
}


def create_instance(name: str, package: GenerationImporter, module: Any) -> Any:
    """Call a plugin's factory and return what it made, once it keeps the contract.

    Raises:
        LoadError: there is no factory, it fails, or what it returned breaks the contract.
    """
    module_name, _, factory_name = package.content.entry.partition(":")
    file = (package.content.module_path(module_name) or ("", False))[0]
    line: int | None
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        kind = "nothing of that name" if factory is None else f"a {type(factory).__name__}"
        raise LoadError(
            name,
            f"{file} has {kind} under {factory_name!r}, expected a function "
            f"{factory_name}() that returns the plugin",
            phase="factory",
            file=file,
        )
    instance = guarded(name, "factory", package, factory)
    faults = guarded(name, "contract", package, contract_faults, instance)
    if faults:
        file, line = _defined_at(package, type(instance)) or (file, None)
        raise LoadError(
            name,
            f"{factory_name}() returned a {type(instance).__name__}: " + "; ".join(faults),
            phase="contract",
            file=file,
            line=line,
        )
    return instance


def contract_faults(instance: object) -> list[str]:
    """Return every fault of a plugin's methods, as phrases."""
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
        else:
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


def read_metadata(name: str, package: GenerationImporter, instance: Any) -> PluginMetadata:
    """Return what a plugin says of itself.

    Raises:
        LoadError: `get_metadata` fails, or a field is missing, too long or no text.
    """
    faults, values = guarded(name, "get_metadata", package, _metadata_values, name, instance)
    if faults:
        file, line = _defined_at(package, instance.get_metadata) or (None, None)
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
            or (not value and key in {"name", "version"})
        ):
            faults.append(f"{key} is {value[:40]!r}, expected 1 to {limit} characters")
        else:
            values[key] = value
    if values.get("name", name) != name:
        faults.append(f"name is {values['name']!r}, expected {name!r}, the name of the folder")
    return faults, values


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _defined_at(package: GenerationImporter, item: Any) -> tuple[str, int] | None:
    """Return the file and line of a plugin's class or method, None if they are not known."""
    try:
        _, line = inspect.findsource(item)
        return package.place_of(inspect.getfile(item), line + 1)
    except (OSError, TypeError):
        return None
