"""Functions and classes of libraries that a plugin has replaced ("monkey patches")."""

import datetime  # noqa: F401 - what is looked at is there from the start
import os
import sys
import time
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

CLOCKS = {
    "time": ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep"),
    "datetime": ("datetime", "date"),
}
"""What freezes or moves time. Modules that import it by name meanwhile keep it for good."""

RELIED_ON = {
    **CLOCKS,
    "os": (
        *("open", "read", "write", "close", "stat", "lstat", "fstat", "listdir", "scandir", "walk"),
        *("access", "replace", "rename", "unlink", "remove", "mkdir", "makedirs", "rmdir", "link"),
        *("symlink", "readlink", "chmod", "utime", "fsync", "ftruncate", "pipe", "dup", "dup2"),
        *("getpid", "getppid", "getcwd", "getenv", "urandom", "fork", "_exit", "kill", "killpg"),
        *("waitpid", "fsencode", "fsdecode", "fspath", "fdopen"),
    ),
    "posixpath": (
        *("exists", "lexists", "isfile", "isdir", "islink", "join", "realpath", "abspath"),
        *("getsize", "getmtime", "samefile", "basename", "dirname", "expanduser"),
    ),
    "pathlib": (
        *("Path", "Path.exists", "Path.is_file", "Path.is_dir", "Path.is_symlink", "Path.stat"),
        *("Path.open", "Path.read_text", "Path.read_bytes", "Path.write_text", "Path.write_bytes"),
        *("Path.iterdir", "Path.mkdir", "Path.unlink", "Path.rmdir", "Path.rename"),
        *("Path.replace", "Path.resolve", "Path.touch", "Path.absolute"),
    ),
    "select": ("select", "poll", "epoll", "kqueue"),
    "selectors": ("DefaultSelector",),
    "socket": ("socketpair", "fromfd", "gethostname"),
    "threading": (
        *("Event", "Event.wait", "Event.set", "Event.is_set", "Condition", "Condition.wait"),
        *("RLock", "Semaphore", "Thread.join", "Thread.is_alive", "current_thread", "get_ident"),
        *("enumerate", "local"),
    ),
    "queue": ("Queue", "SimpleQueue"),
    "fcntl": ("flock", "lockf", "fcntl"),
    "signal": ("signal", "set_wakeup_fd", "pthread_kill"),
    "gc": ("collect", "get_objects", "get_referrers", "get_referents"),
    "json": ("dumps", "loads", "JSONEncoder"),
    "pickle": ("dumps", "loads"),
    "marshal": ("dumps", "loads"),
    "hashlib": ("sha256", "md5", "new", "file_digest"),
    "hmac": ("compare_digest",),
    "zipfile": ("ZipFile",),
    "tempfile": ("mkstemp", "mkdtemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile"),
    "shutil": ("rmtree", "copyfile"),
    "importlib": ("import_module",),
    "uuid": ("uuid4",),
    "random": ("random", "uniform"),
    "builtins": ("open", "__import__"),
    "ssl": ("_create_default_https_context",),
}
"""What the server and all plugins call by its name, and rely on what it takes and returns."""

OFTEN_PATCHED = {
    "socket": ("socket", "create_connection", "getaddrinfo"),
    "threading": ("Thread", "Lock", "_start_new_thread", "Thread.start", "Thread.run"),
    "_thread": ("start_new_thread",),
    "ssl": ("SSLSocket", "SSLContext"),
    "subprocess": ("Popen", "Popen.__init__"),
    "http.client": ("HTTPConnection.putrequest", "HTTPConnection.getresponse"),
    "urllib.request": ("urlopen",),
    "logging": ("Logger.callHandlers", "Logger.makeRecord"),
    "concurrent.futures.thread": ("ThreadPoolExecutor", "ThreadPoolExecutor.submit"),
    "json.encoder": ("JSONEncoder.default",),
    "copy": ("deepcopy",),
    "os": ("environ",),
    "sys": ("exit",),
    "builtins": ("print",),
    "requests": ("Session",),
    "requests.sessions": ("Session", "Session.send"),
    "httpx": ("Client.send",),
    "urllib3.connectionpool": ("HTTPConnectionPool.urlopen",),
    "psycopg2": ("connect",),
}
"""What libraries for testing, tracing, caching and proxies replace besides."""


def _paths(table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in table.items() for name in names)


REFUSED = _paths(THREADS) | {"os.environ"}
"""What a trial refuses where a library replaces it."""

NEVER = REFUSED | _paths(RELIED_ON)
"""What no plugin may replace in a running server."""

_IMPORTED_BY_ALL = (
    *{**RELIED_ON, **OFTEN_PATCHED},
    *("app", "app.plugin", "falcon", "gunicorn", "psycopg2.extras", "yaml"),
    *("asyncio", "multiprocessing", "traceback", "warnings", "weakref", "collections", "functools"),
    *("io", "re", "string", "typing", "types", "inspect", "ctypes"),
)

_CODE = frozenset({FunctionType, BuiltinFunctionType, type})

_Places = list[tuple[str, list[tuple[str, str, str]]]]

_LOOKED_AT: _Places = [
    (
        module,
        [
            (f"{module}.{path}", *path.rpartition(".")[::2])
            for path in (*RELIED_ON.get(module, ()), *OFTEN_PATCHED.get(module, ()))
        ],
    )
    for module in {**RELIED_ON, **OFTEN_PATCHED}
]
"""What is looked at before and after each load, by module: its path, and its holder and name."""

_REFUSED_PLACES: _Places = [
    (module, [name for name in names if name[0] in REFUSED]) for module, names in _LOOKED_AT
]
"""What of it a trial refuses."""


def read_often_patched() -> Mapping[str, Any]:
    """Return what is looked at with each load, as far as its module is imported."""
    return _read(_LOOKED_AT)


def _read(places: _Places) -> dict[str, Any]:
    found: dict[str, Any] = {}
    modules = sys.modules
    for module, names in places:
        held = modules.get(module)
        if not issubclass(type(held), ModuleType):
            continue  # it is not imported, or somebody has put something else there
        there = held.__dict__
        for path, holder, name in names:
            if not holder:
                if name in there:
                    found[path] = there[name]
            elif issubclass(type(there.get(holder)), type):  # else that is replaced itself
                for kind in there[holder].__mro__:  # from Python 3.13 on `Path` inherits most of it
                    if name in kind.__dict__:
                        found[path] = kind.__dict__[name]
                        break
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


def refuse_patches(plugin: str, phase: str) -> None:
    """Refuse a plugin that has replaced what threads rest on, or the clock.

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
            f"it puts {_told(taken)} in "
            "the place of the standard library's, for the whole server: its threads and those of "
            "other plugins would wait for ever; leave the patch out (`monkey.patch_all()` and the "
            "like): each handler runs in a thread already",
            phase=phase,
        )
    moved = dict(_moved_clocks())
    if moved:
        raise LoadError(
            plugin,
            f"it puts {_told(moved)} in the place of the standard library's, for the whole server: "
            "the server and all plugins would have its time, and keep it where they import it by "
            "name; leave it to tests, or end it where it began (`with freeze_time(...):`)",
            phase=phase,
        )


def _told(replaced: Mapping[str, str]) -> str:
    return f"{', '.join(sorted(replaced))} of {' and '.join(sorted({*replaced.values()}))}"


def _replaced_by_others() -> Iterator[tuple[str, str]]:
    for path, value in _read(_REFUSED_PLACES).items():
        origin = shown(value).partition(".")[0]
        if origin not in sys.stdlib_module_names:
            yield path, origin


_CLOCKS = {
    (module, name): getattr(sys.modules[module], name)
    for module, names in CLOCKS.items()
    for name in names
}


_APART_SECONDS = 60.0
"""How far a clock is from the system's that somebody has moved; between two looks is no time."""


def _moved_clocks() -> Iterator[tuple[str, str]]:
    by_name = dict(_replaced_clocks())
    yield from by_name.items()
    if not by_name and abs(time.time() - _time_of_system()) > _APART_SECONDS:
        yield "time.time", "a library in C"  # as time-machine does it: the names stay


def _replaced_clocks() -> Iterator[tuple[str, str]]:
    for (module, name), clock in _CLOCKS.items():
        now = sys.modules[module].__dict__.get(name)
        if now is not clock:
            origin = shown(now)
            own = origin.startswith("_plugins.")
            yield f"{module}.{name}", "its own" if own else origin.partition(".")[0]


def _time_of_system() -> float:
    """Return the time at which the system makes a pipe: no library moves that."""
    ends = os.pipe()
    try:
        return os.fstat(ends[0]).st_mtime
    finally:
        for end in ends:
            os.close(end)
