"""Calls into a plugin: whatever the plugin raises becomes an error of ours."""

import logging
import os
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from app.database.sqlstates import comes_from_outside, is_transient
from app.errors import DatabaseUnavailableError, LoadError, PluginError
from app.inspection import name_of
from app.loading.forked_child import run_in_parent
from app.loading.import_races import is_import_race
from app.loading.in_use import find_holder, find_named_holder, is_in_use
from app.loading.logging_state import release_kept_locks
from app.loading.started_threads import started_threads
from app.package.importer import GenerationImporter

log = logging.getLogger(__name__)

T = TypeVar("T")


def guarded(
    plugin: str,
    phase: str,
    importer: GenerationImporter,
    function: Callable[..., T],
    *arguments: Any,
) -> T:
    """Call into a plugin; whatever it raises, SystemExit included, becomes a `LoadError`.

    The error holds the traceback as text. The exception itself would keep the plugin's frames
    alive, and with them the whole generation. A lock of the log that the plugin keeps is released.
    A child that the plugin forks ends where it comes back.

    Raises:
        LoadError: with the file and line of the plugin's innermost frame.
        DatabaseUnavailableError: the plugin used the database while it was away.
    """
    try:
        with started_threads.calling(importer.name):
            try:
                return run_in_parent(function, *arguments)
            finally:
                _take_locks_back(plugin, phase)
    except DatabaseUnavailableError as error:
        raise type(error)(f"{plugin}: {phase} failed: {error}") from None
    except PluginError as error:
        error.plugin = plugin
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin must not end the process
        raise _readable(plugin, phase, importer, error) from None


def _take_locks_back(plugin: str, phase: str) -> None:
    if kept := release_kept_locks():  # before anything is logged
        log.warning(
            "%s: its %s kept %s, without which nobody else can log: released; take it by `with` "
            "around what needs it, or leave it to logging",
            plugin,
            phase,
            ", ".join(kept),
        )


def _readable(
    plugin: str, phase: str, importer: GenerationImporter, error: BaseException
) -> LoadError:
    try:
        return _as_load_error(plugin, phase, importer, error)
    except BaseException:  # noqa: BLE001 - to read a plugin's own exception may run its code, too
        name = name_of(error)
        return LoadError(plugin, f"{name}, an exception that cannot be read", phase=phase)


def _as_load_error(
    plugin: str, phase: str, importer: GenerationImporter, error: BaseException
) -> LoadError:
    place = None
    for frame in traceback.extract_tb(error.__traceback__):
        place = importer.place_of(frame.filename, frame.lineno) or place
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        place = importer.place_of(error.filename, error.lineno) or place
    said = _safe(str, error)
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SystemExit):
        code = "" if error.code is None else _safe(repr, error.code)
        text = f"it called sys.exit({code}), expected a return"
    if isinstance(error, ModuleNotFoundError) and error.name and isinstance(error.name, str):
        if importer.content.module_path(error.name):
            text += f"; write 'from . import {error.name}': a plugin's own modules are relative"
        elif not error.name.startswith("_plugins."):
            text += "; install it into the server's environment"
    advice = _advice(said)
    if advice:
        text = f"{text.rstrip('.')}; {advice}"
    in_use, holder = is_in_use(error), None
    if in_use:
        holder = find_holder(
            error, lambda frame: importer.place_of(frame.f_code.co_filename, 1) is not None
        )
        text += f"; {holder}" if holder else ""
    elif phase == "initialize":
        holder = find_named_holder(error)
    is_elsewhere = holder is not None and holder.pid != os.getpid()
    return LoadError(
        plugin,
        text,
        phase=phase,
        file=place[0] if place else None,
        line=place[1] if place else None,
        trace="".join(traceback.format_exception(error)),
        transient=is_transient(error) or is_import_race(error),
        outside=comes_from_outside(error) or in_use or is_elsewhere,
        in_use=in_use,
        holder=holder.pid if holder else None,
    )


_ADVICE = {
    "signal only works in main thread": "the signals are the server's, and plugins are loaded in a "
    "thread: leave them out, and end in cleanup",
    "There is no current event loop": "plugins are loaded in a thread, which has none: write "
    "asyncio.run(…) where it is used, or make one with asyncio.new_event_loop()",
}
"""What to write instead of what Python refuses outside of the main thread, by how it says so."""


def _advice(said: str) -> str:
    return next((text for begin, text in _ADVICE.items() if said.startswith(begin)), "")


def _safe(function: Callable[[Any], str], item: Any) -> str:
    try:
        return function(item)
    except BaseException:  # noqa: BLE001 - the text of a plugin's own exception is its own code
        return "<no text>"
