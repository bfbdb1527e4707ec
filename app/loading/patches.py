"""Functions and classes of libraries that a plugin has replaced ("monkey patches")."""

import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from app.errors import LoadError

THREADS = {
    "socket": ("socket",),
    "select": ("select",),
    "time": ("sleep",),
    "threading": ("Thread", "Lock", "_start_new_thread"),
    "_thread": ("start_new_thread",),
}
"""What green threads replace: the server's threads and those of other plugins rest on it."""

OFTEN_PATCHED = {
    "socket": ("socket", "create_connection", "getaddrinfo"),
    "select": ("select",),
    "time": ("sleep", "time", "monotonic"),
    "threading": ("Thread", "Lock", "_start_new_thread", "Thread.start", "Thread.run"),
    "_thread": ("start_new_thread",),
    "ssl": ("SSLSocket", "SSLContext", "_create_default_https_context"),
    "subprocess": ("Popen", "Popen.__init__"),
    "http.client": ("HTTPConnection.putrequest", "HTTPConnection.getresponse"),
    "urllib.request": ("urlopen",),
    "logging": ("Logger.callHandlers", "Logger.makeRecord"),
    "concurrent.futures.thread": ("ThreadPoolExecutor", "ThreadPoolExecutor.submit"),
    "json": ("dumps", "loads"),
    "json.encoder": ("JSONEncoder.default",),
    "pickle": ("dumps", "loads"),
    "copy": ("deepcopy",),
    "random": ("random",),
    "datetime": ("datetime", "date"),
    "uuid": ("uuid4",),
    "os": ("environ", "fork", "_exit", "kill"),
    "sys": ("exit",),
    "builtins": ("open", "print", "__import__"),
    "requests": ("Session",),
    "requests.sessions": ("Session", "Session.send"),
    "httpx": ("Client.send",),
    "urllib3.connectionpool": ("HTTPConnectionPool.urlopen",),
    "psycopg2": ("connect",),
}
"""What is looked at before and after each load, by module: what libraries for testing, tracing,
caching and proxies replace."""

REFUSED = frozenset(f"{module}.{name}" for module, names in THREADS.items() for name in names) | {
    "os.environ"
}
"""What a trial refuses."""

NEVER = REFUSED | {
    "os.fork",
    "os._exit",
    "os.kill",
    "time.time",
    "time.monotonic",
    "json.dumps",
    "json.loads",
    "pickle.dumps",
    "pickle.loads",
    "builtins.open",
    "builtins.__import__",
    "ssl._create_default_https_context",
}
"""What no plugin may replace in a running server: the server and all plugins call it by its name,
and rely on what it takes and returns."""

_IMPORTED_BY_ALL = (
    *OFTEN_PATCHED,
    *("app", "app.plugin", "falcon", "gunicorn", "psycopg2.extras", "yaml", "signal", "importlib"),
    *("asyncio", "multiprocessing", "traceback", "warnings", "weakref", "collections", "functools"),
    *("io", "re", "string", "typing", "types", "inspect", "pathlib", "tempfile", "ctypes"),
)

_CODE = frozenset({FunctionType, BuiltinFunctionType, type})

_LOOKED_AT = [
    (module, [(f"{module}.{path}", *path.rpartition(".")[::2]) for path in paths])
    for module, paths in OFTEN_PATCHED.items()
]


def read_often_patched() -> Mapping[str, Any]:
    """Return what is looked at with each load, as far as its module is imported."""
    found: dict[str, Any] = {}
    modules = sys.modules
    for module, names in _LOOKED_AT:
        held = modules.get(module)
        if not issubclass(type(held), ModuleType):
            continue  # it is not imported, or somebody has put something else there
        there = held.__dict__
        for path, holder, name in names:
            if not holder:
                if name in there:
                    found[path] = there[name]
            elif issubclass(type(there.get(holder)), type):  # else that is replaced itself
                inner = there[holder].__dict__
                if name in inner:
                    found[path] = inner[name]
    return found


def read_modules() -> Mapping[str, Any]:
    """Return the modules that the server and most plugins import, by name."""
    modules = sys.modules
    return {name: modules[name] for name in _IMPORTED_BY_ALL if name in modules}


def put_module(name: str, value: Any) -> None:
    """Put a module where it was."""
    sys.modules[name] = value


def read_all() -> Mapping[str, Any]:
    """Return the functions and classes of all modules but plugins'.

    In the standard library those of its classes, too.
    """
    found: dict[str, Any] = {}
    for module, held in list(sys.modules.items()):
        if type(held) is not ModuleType or module.startswith("_plugins"):
            continue
        standard = module.partition(".")[0] in sys.stdlib_module_names
        for name, value in list(held.__dict__.items()):
            if type(value) not in _CODE:
                continue
            found[f"{module}.{name}"] = value
            if standard and type(value) is type and value.__module__ == module:
                for inner, part in list(value.__dict__.items()):
                    if type(part) is FunctionType:
                        found[f"{module}.{name}.{inner}"] = part
    return found


def put_attribute(path: str, value: Any) -> None:
    """Put a function or a class where it was."""
    module, _, name = path.rpartition(".")
    held = sys.modules.get(module)
    if held is not None:
        setattr(held, name, value)
    else:
        module, _, holder = module.rpartition(".")
        setattr(sys.modules[module].__dict__[holder], name, value)


def shown(value: Any) -> str:
    """Return where a function or a class comes from, without running any of its code."""
    kind = type(value)
    named = value if kind in _CODE or (isinstance(kind, type) and issubclass(kind, type)) else kind
    return f"{named.__module__}.{named.__qualname__}"


def shown_module(value: Any) -> str:
    """Return a module's file, or what stands in the place of a module."""
    if type(value) is not ModuleType:
        return f"an object of {shown(value)}"
    file = value.__dict__.get("__file__")
    return file if type(file) is str else "another one"


def refuse_green_threads(plugin: str, phase: str) -> None:
    """Refuse a plugin that has replaced what threads rest on.

    Args:
        plugin: whose code has run in this process.
        phase: what it was doing.

    Raises:
        LoadError: names what is replaced, and by whom.
    """
    taken = dict(_replaced_by_others())
    if taken:
        raise LoadError(
            plugin,
            f"it puts {', '.join(sorted(taken))} of {' and '.join(sorted({*taken.values()}))} in "
            "the place of the standard library's, for the whole server: its threads and those of "
            "other plugins would wait for ever; leave the patch out (`monkey.patch_all()` and the "
            "like): each handler runs in a thread already",
            phase=phase,
        )


def _replaced_by_others() -> Iterator[tuple[str, str]]:
    for path, value in read_often_patched().items():
        origin = shown(value).partition(".")[0]
        if path in REFUSED and origin not in sys.stdlib_module_names:
            yield path, origin
