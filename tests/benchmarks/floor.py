"""The floor of edit → served: the least that any such system does, in one process.

A bare watchdog event, `compile` of the plugin's files, a fork and its end, a commit with NOTIFY,
the notification's arrival, and the import of what was compiled. No quiet period, no archive, no
trial, no other worker.
"""

import importlib
import importlib.abc
import importlib.util
import os
import queue
import select
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import psycopg2
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class _Closed(FileSystemEventHandler):
    def __init__(self) -> None:
        self.paths: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_closed(self, event: FileSystemEvent) -> None:
        self.paths.put(os.fsdecode(event.src_path))


class _Memory(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one package from code objects."""

    def __init__(self, package: str, codes: dict[str, CodeType]) -> None:
        self._codes = {
            ".".join([package, *path.removesuffix(".py").split("/")]).removesuffix(".__init__"): (
                code,
                path.endswith("__init__.py"),
            )
            for path, code in codes.items()
        }

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        found = self._codes.get(fullname)
        if found is None:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=found[1])

    def exec_module(self, module: ModuleType) -> None:
        exec(self._codes[module.__name__][0], module.__dict__)


class Floor:
    """Follows one folder of plugins."""

    def __init__(self, url: str, root: Path) -> None:
        self._root = root
        self._number = 0
        self._writer, self._reader = psycopg2.connect(url), psycopg2.connect(url)
        self._reader.autocommit = True
        self._reader.cursor().execute("LISTEN floor")
        with self._writer, self._writer.cursor() as cursor:
            cursor.execute("CREATE TABLE floor (name TEXT PRIMARY KEY, number BIGINT)")
            cursor.execute("INSERT INTO floor VALUES ('one', 0)")
        self._handler = _Closed()
        self._observer = Observer()
        self._observer.schedule(self._handler, str(root), recursive=True)
        self._observer.start()

    def close(self) -> None:
        """Stop to follow."""
        self._observer.stop()
        self._observer.join()
        self._writer.close()
        self._reader.close()

    def edit(self, folder: Path, text: str) -> float:
        """Write a plugin's `main.py`; return the milliseconds until its new code is imported."""
        began = time.monotonic()
        (folder / "main.py").write_text(text)
        self._handler.paths.get(timeout=10.0)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.py")}
        codes = {path: compile(raw, path, "exec") for path, raw in files.items()}
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        with self._writer, self._writer.cursor() as cursor:
            cursor.execute("UPDATE floor SET number = number + 1")
            cursor.execute("NOTIFY floor")
        while True:
            select.select([self._reader], [], [], 10.0)
            self._reader.poll()
            if self._reader.notifies:
                self._reader.notifies.clear()
                break
        self._import(codes)
        took = (time.monotonic() - began) * 1000
        time.sleep(0.02)
        while not self._handler.paths.empty():
            self._handler.paths.get()
        return took

    def _import(self, codes: dict[str, CodeType]) -> None:
        self._number += 1
        package = f"floor{self._number}"
        finder = _Memory(package, codes)
        sys.meta_path.insert(0, finder)
        try:
            importlib.import_module(f"{package}.main").new_plugin()
        finally:
            sys.meta_path.remove(finder)
            for name in [n for n in sys.modules if n.partition(".")[0] == package]:
                del sys.modules[name]
