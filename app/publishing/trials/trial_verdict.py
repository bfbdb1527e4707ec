"""What came of a trial: its report, or why there is none."""

import json
import re
import signal
from typing import Any

from app.errors import CompileError, DatabaseUnavailableError, LoadError
from app.loading.in_use import advise
from app.package.archive import path_within
from app.plugin import PluginMetadata
from app.publishing.manifest import complete_metadata
from app.publishing.trials.trial_memory import RAISE_IT, TAKE_LESS, too_much
from app.records import Artifact, Endpoint, PluginSource, TrialReport

_FAULT_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)


ENDED_WELL = {"code": 0, "timed_out": False}
"""How a trial's process ends if nothing is wrong."""


def has_ended_well(end: dict[str, Any]) -> bool:
    """Tell whether a trial's process ended as it does if nothing is wrong."""
    return end.items() >= ENDED_WELL.items()


def judge(
    source: PluginSource,
    text: str,
    end: dict[str, Any],
    archive: bytes,
    limits: tuple[float, float],
) -> tuple[Artifact, TrialReport]:
    """Accept a trial only with exit code 0 *and* its report."""
    plugin = source.name
    lines = text.splitlines()
    phase = next((line[1:] for line in reversed(lines) if line.startswith("@")), "compile")
    answer = lines[-1] if lines and lines[-1].startswith("{") else ""
    if not has_ended_well(end) or not answer:
        if phase == "compile":
            path = next((line[1:] for line in reversed(lines) if line.startswith("=")), "null")
            raise CompileError(plugin, _how_compiling_ended(end, limits[0]), file=json.loads(path))
        file, line = _fault_place(source, text)
        raise LoadError(plugin, _how_it_ended(end, limits[1]), phase=phase, file=file, line=line)
    report = json.loads(answer)
    if "unavailable" in report:
        raise DatabaseUnavailableError(report["unavailable"])
    in_use = report.get("in_use")
    if "error" in report and in_use is None:
        kind = CompileError if report["error"]["phase"] == CompileError.phase else LoadError
        more = {key: report[key] for key in ("trace", "transient", "outside") if key in report}
        more["in_use"] = bool(report.get("is_in_use"))
        error = kind(plugin, **more, **report["error"])
        if source.manifest.exclusive is None:
            advise(error)
        raise error
    artifact = Artifact(plugin, source.digest, report["sha256"], archive)
    if not artifact.is_intact():
        raise LoadError(plugin, "its archive is not what was compiled; reload it", phase="compile")
    found: dict[str, Any] = {
        "exclusive": source.manifest.exclusive,
        "in_use": in_use,
        "uncompiled": tuple(report["uncompiled"]),
    }
    if "metadata" not in report:  # it did not come so far
        return artifact, TrialReport(PluginMetadata(plugin), (), **found, partial=True)
    return artifact, TrialReport(
        complete_metadata(PluginMetadata(*report["metadata"]), source),
        tuple(Endpoint(*parts) for parts in report["endpoints"]),
        {template: (file, line) for template, (file, line) in report["places"].items()},
        **found,
    )


def _how_compiling_ended(end: dict[str, Any], seconds: float) -> str:
    code = end["code"]
    if end.get("too_large"):
        return f"compiling it takes {too_much(end['too_large'])}: make it smaller, or {RAISE_IT}"
    if end["timed_out"] or code == -signal.SIGXCPU:
        text = f"it does not compile within {seconds:g} s"
    elif code < 0:
        text = f"it ends Python's compiler with {signal.Signals(-code).name}"
    else:
        text = f"it ends Python's compiler with exit code {code}"
    return f"{text}; make it smaller and less nested, or keep its data in a file that it reads"


def _how_it_ended(end: dict[str, Any], seconds: float) -> str:
    code = end["code"]
    if end.get("too_large"):
        return f"it took {too_much(end['too_large'])}: {TAKE_LESS}"
    if end["timed_out"]:
        return f"it did not return within {seconds:g} s, expected it to return at once"
    if code == -signal.SIGXCPU:
        return f"it used more than {seconds:g} s of CPU time"
    if code < 0:
        return f"it killed its process with {signal.Signals(-code).name}"
    return f"it ended its process with exit code {code}, expected a return"


def _fault_place(source: PluginSource, text: str) -> tuple[str | None, int | None]:
    for match in _FAULT_FRAME.finditer(text):
        path = path_within(source.name, source.digest, match["file"])
        if path is not None:
            return path, int(match["line"])
    return None, None
