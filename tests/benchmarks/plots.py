"""The plots of docs/performance.md: distributions of latency, cost against number of plugins."""

import re
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Figure, median, percentile

INK, QUIET = "#1b4f72", "#b0b7bd"
COLOURS = (INK, "#c0792a", "#7a8f3c", "#8c4a6b", "#4d9a94")


def draw(figures: list[Figure], folder: Path) -> list[Path]:
    """Draw what the figures have samples for, as SVG; return the files."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plots: pip install -e '.[bench]'")
        return []
    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "benana",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_latency(figures, folder), _peers(figures, folder), _numbers(figures, folder)]
    return [path for path in drawn if path is not None]


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    text = re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    return path


def _latency(figures: list[Figure], folder: Path) -> Path | None:
    """Draw which share of the edits and updates was served within a time."""
    from matplotlib import pyplot

    chosen = [
        figure
        for figure in figures
        if figure.name.endswith("p50") and figure.name.startswith(("edit", "psql"))
    ]
    if not chosen:
        return None
    canvas, axes = pyplot.subplots(1, len(chosen), figsize=(3.6 * len(chosen), 2.8), squeeze=False)
    for axis, figure in zip(axes[0], chosen, strict=True):
        for (side, samples), colour in zip(figure.samples.items(), (INK, QUIET), strict=False):
            ordered = sorted(samples)
            shares = [(n + 1) / len(ordered) * 100 for n in range(len(ordered))]
            axis.step(ordered, shares, where="post", color=colour, linewidth=1.6)
            axis.annotate(
                f"{side}\np50 {median(ordered):.1f} ms\np99 {percentile(ordered, 0.99):.1f} ms",
                (0.98, 0.45 if side == "ours" else 0.12),
                xycoords="axes fraction",
                ha="right",
                color=colour if side == "ours" else "#5d6870",
                fontsize=8,
            )
        axis.set(title=figure.name.removesuffix(", p50"), xlabel="milliseconds", ylim=(0, 101))
        axis.set_xlim(left=0, right=percentile(figure.samples["ours"], 0.99) * 1.6)
        axis.set_ylabel("% served within")
    return _save(canvas, folder / "latency.svg")


def _peers(figures: list[Figure], folder: Path) -> Path | None:
    """Draw every single edit of every side, on one logarithmic scale."""
    from matplotlib import pyplot

    sides: dict[str, list[float]] = {}
    for figure in figures:
        if figure.name.startswith("edit → served, "):
            sides.setdefault("Benana", figure.samples["ours"])
            sides[figure.peer_name] = figure.samples[figure.peer_name]
    if not sides:
        return None
    canvas, axis = pyplot.subplots(figsize=(7.2, 2.6))
    ordered = sorted(sides, key=lambda side: -median(sides[side]))
    for row, side in enumerate(ordered):
        colour = INK if side == "Benana" else QUIET
        samples = sides[side]
        lanes = [row + ((n * 7) % 11 - 5) / 30 for n in range(len(samples))]
        axis.scatter(samples, lanes, s=12, color=colour, alpha=0.7, linewidths=0)
        axis.plot([median(samples)] * 2, [row - 0.3, row + 0.3], color="#333333", linewidth=1.2)
        axis.annotate(
            f"{median(samples):,.0f} ms",
            (max(samples), row),
            xytext=(6, -3),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set_xscale("log")
    axis.set_yticks(range(len(ordered)), ordered)
    axis.set_xlim(right=max(map(max, sides.values())) * 1.6)
    axis.set(xlabel="milliseconds from the write until every worker serves it")
    return _save(canvas, folder / "peers.svg")


def _numbers(figures: list[Figure], folder: Path) -> Path | None:
    """Draw what a reload and a boot cost against the number of plugins."""
    from matplotlib import pyplot

    reloads = [figure for figure in figures if figure.name.startswith("reload of one")]
    boots = [figure for figure in figures if figure.name.startswith("boot with")]
    if not reloads or not boots:
        return None
    canvas, (left, right) = pyplot.subplots(1, 2, figsize=(7.2, 2.8))
    samples = {int(size): found for size, found in reloads[-1].samples.items()}
    sizes = sorted(samples)
    middle = [median(samples[size]) for size in sizes]
    low = [percentile(samples[size], 0.05) for size in sizes]
    high = [percentile(samples[size], 0.95) for size in sizes]
    left.fill_between(sizes, low, high, color=INK, alpha=0.15, linewidth=0)
    left.plot(sizes, middle, color=INK, marker="o", markersize=4)
    left.set_xscale("log")
    left.set_ylim(0, max(high) * 1.15)
    left.set(title="Reload of one plugin (p5–p95)", xlabel="plugins loaded", ylabel="milliseconds")
    counts = [_count(figure) for figure in boots]
    for side, colour in (("ours", INK), ("plain import", "#5d6870")):
        seconds = [median(figure.samples[side]) for figure in boots]
        right.plot(counts, seconds, color=colour, marker="o", markersize=4)
        right.annotate(
            "Benana" if side == "ours" else side,
            (0.06, 0.9 if side == "ours" else 0.8),
            xycoords="axes fraction",
            color=colour,
        )
    right.set_xscale("symlog", linthresh=100)
    right.set_yscale("log")
    right.set(title="Boot, warm", xlabel="plugins", ylabel="seconds until ready")
    return _save(canvas, folder / "numbers.svg")


def _count(figure: Figure) -> int:
    found = re.search(r"boot with ([\d,]+)", figure.name)
    assert found
    return int(found[1].replace(",", ""))
