"""`python -m tests.benchmarks [--quick] [--only NAME] [--json FILE]`: one table, JSON, plots."""

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.benchmarks import plots, table
from tests.benchmarks.figures import FIGURES
from tests.benchmarks.measure import Figure
from tests.benchmarks.servers import Rig


def main() -> int:
    """Run the figures that are asked for; 1 if one of them could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the least that runs end to end")
    parser.add_argument("--only", action="append", choices=sorted(FIGURES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--merge", action="store_true", help="keep what FILE holds of others")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the plots as SVG")
    parser.add_argument("--markdown", action="store_true", help="print the table for the docs")
    chosen = parser.parse_args()
    measured: dict[str, list[Figure]] = {}
    if chosen.merge and chosen.json and chosen.json.exists():
        kept = json.loads(chosen.json.read_text())["figures"]
        measured = {name: [Figure(**found) for found in part] for name, part in kept.items()}
    failed = _run(chosen.only or list(FIGURES), chosen.quick, measured, chosen.json)
    figures = [figure for name in FIGURES for figure in measured.get(name, [])]
    print()
    print(table.as_markdown(figures) if chosen.markdown else table.as_text(figures))
    if chosen.plots:
        for path in plots.draw(figures, chosen.plots):
            print(f"drawn: {path}")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _write(path: Path, quick: bool, measured: dict[str, list[Figure]]) -> None:
    content = {
        "machine": table.machine(),
        "quick": quick,
        "figures": {name: [f.as_json() for f in part] for name, part in measured.items()},
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _run(
    names: list[str], quick: bool, measured: dict[str, list[Figure]], path: Path | None
) -> list[str]:
    failed = []
    rig = Rig(quick)
    with contextlib.closing(rig):
        for name in names:
            began = time.monotonic()
            load = os.getloadavg()[0]
            print(f"{name} …", end=" ", file=sys.stderr, flush=True)
            try:
                measured[name] = FIGURES[name](rig)
                if path is not None:
                    _write(path, quick, measured)
            except Exception:
                failed.append(name)
                traceback.print_exc()
            took = time.monotonic() - began
            print(f"{took:.0f} s (load before: {load:.1f})", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
