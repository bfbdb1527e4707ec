"""`python -m tests.benchmarks.against REVISION`: this checkout against another revision, in turns.

A machine that is shared is slower at one hour than at another, and slower in one thing than in
another: figures of two days say little. Here both revisions run in turns within one run, each
with the benchmarks of its own checkout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.figures import FIGURES
from tests.benchmarks.measure import Figure, median, short
from tests.support.checkout import CHECKOUT

DEFAULT = ("edit", "psql", "reload", "boot", "requests")


def main() -> int:
    """Print each figure of both sides: the medians of the rounds, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.against", description=__doc__)
    parser.add_argument("revision", help="a commit, a tag or a branch of this repository")
    parser.add_argument("--only", action="append", choices=sorted(FIGURES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="not the quick form of each figure")
    chosen = parser.parse_args()
    names = chosen.only or list(DEFAULT)
    with tempfile.TemporaryDirectory(prefix="benana-against-") as folder:
        other = Path(folder) / "checkout"
        _git("worktree", "add", "--detach", str(other), chosen.revision)
        try:
            rounds = [
                [_measure(side, names, chosen.full) for side in _order(other, number)]
                for number in range(chosen.rounds)
            ]
        finally:
            _git("worktree", "remove", "--force", str(other))
    before = [pair[number % 2] for number, pair in enumerate(rounds)]
    now = [pair[1 - number % 2] for number, pair in enumerate(rounds)]
    print(_table(chosen.revision, before, now))
    return 0


def _order(other: Path, number: int) -> tuple[Path, Path]:
    return (other, CHECKOUT) if number % 2 == 0 else (CHECKOUT, other)


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=CHECKOUT, check=True, capture_output=True)


def _measure(checkout: Path, names: list[str], full: bool) -> dict[str, Figure]:
    """Run a checkout's own benchmarks; return each figure by its name."""
    print(f"{checkout} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="benana-against-") as folder:
        found = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "tests.benchmarks", "--json", str(found)]
        command += [] if full else ["--quick"]
        command += [part for name in names for part in ("--only", name)]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=sys.stderr)
        parts = json.loads(found.read_text())["figures"].values()
    figures = [Figure(**figure) for part in parts for figure in part]
    return {figure.name: figure for figure in figures}


def _table(
    revision: str,
    before: list[dict[str, Figure]],
    now: list[dict[str, Figure]],
) -> str:
    lines = [
        f"| figure | {revision} | now | now against then | the same, each side against its peer |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for name, figure in now[0].items():
        pairs = [
            (old[name], new[name]) for old, new in zip(before, now, strict=True) if name in old
        ]
        if pairs:
            then = median([old.ours for old, _ in pairs])
            today = median([new.ours for _, new in pairs])
            own = [new.ours / old.ours for old, new in pairs if old.ours]
            peers = [new.ratio / old.ratio for old, new in pairs if new.ratio and old.ratio]
            lines.append(
                f"| {name} | {short(then)} {figure.unit} | {short(today)} {figure.unit} "
                f"| {_ratios(own)} | {_ratios(peers)} |"
            )
    return "\n".join(lines)


def _ratios(ratios: list[float]) -> str:
    if not ratios:
        return "—"
    return f"**{short(median(ratios))}** ({short(min(ratios))}–{short(max(ratios))})"


if __name__ == "__main__":
    sys.exit(main())
