"""What a load has failed of, as an error of its plugin."""

import logging

from app.errors import (
    CrashedLoadError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    LoadError,
    PluginError,
)
from app.records import ServedRow
from app.serving.crash_notes import Crash

log = logging.getLogger(__name__)


def error_of(row: ServedRow, fault: BaseException) -> PluginError:
    """Return what a load has failed of, as an error of its plugin."""
    if isinstance(fault, PluginError):
        return fault.with_traceback(None)
    if isinstance(fault, DatabaseUnavailableError):
        return LoadError(row.name, str(fault), transient=True)
    if isinstance(fault, DatabaseRefusedError):
        return LoadError(row.name, str(fault), outside=True)
    # A fault of ours: it costs this plugin its newest generation, and the others nothing;
    # not even where a plugin has found a way to raise SystemExit here.
    log.error("%s: loading failed", row.name, exc_info=fault)
    return LoadError(row.name, f"{type(fault).__name__}: {fault}")


def crashed_error(row: ServedRow, crash: Crash) -> CrashedLoadError:
    """Return why a row's generation is not loaded that has ended a process of this host."""
    if crash.late:
        return CrashedLoadError(
            row.name,
            f"generation {row.generation} ended the workers that served it, time and again "
            f"({crash.how}), by a thread or a timer of its own; it is not loaded again: mend it "
            "and save it, or reload it to try once more",
            file=crash.file,
            line=crash.line,
        )
    # Without a process id or a time: all workers say the same, and one of them writes it down.
    return CrashedLoadError(
        row.name,
        f"loading generation {row.generation} ended the worker ({crash.how}), though its trial "
        "passed: does it look at context.trial? It is not loaded again; mend it and save it, or "
        "reload it to try once more",
        file=crash.file,
        line=crash.line,
    )
