"""The benchmarks run end to end; what they measure here is of no consequence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.generator import LINES, generate, revise
from tests.support.checkout import CHECKOUT


def test_the_generator_is_seeded_and_realistic(tmp_path: Path) -> None:
    plugins = [generate(f"p{number:04d}", 1) for number in range(200)]
    assert plugins == [generate(f"p{number:04d}", 1) for number in range(200)]
    assert plugins[0].files != generate("p0000", 2).files
    for plugin in plugins:
        assert LINES[0] <= plugin.lines <= LINES[1]
        assert 5 <= len({template for _, template in plugin.endpoints}) <= 20
    folder = plugins[0].write(tmp_path)
    assert '"revision": 7,' in revise(folder, 7)


@pytest.mark.soak
@pytest.mark.alone
def test_every_figure_is_measured(tmp_path: Path) -> None:
    for peer in ("uvicorn", "jurigged", "matplotlib"):
        pytest.importorskip(peer, reason="pip install -e '.[bench]'")
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--json", str(out)]
    command += ["--plots", str(tmp_path / "plots")]
    ended = subprocess.run(
        command, cwd=CHECKOUT, timeout=900, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "goals held" in ended.stdout
    figures = [
        figure for part in json.loads(out.read_text())["figures"].values() for figure in part
    ]
    assert len(figures) >= 20
    assert all(figure["ours"] == figure["ours"] for figure in figures), "a figure is NaN"
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {
        "latency.svg",
        "numbers.svg",
        "peers.svg",
    }


@pytest.mark.soak
@pytest.mark.alone
def test_two_revisions_are_measured_in_turns() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.against", "HEAD", "--only", "requests"]
    ended = subprocess.run(
        [*command, "--rounds", "2"],
        cwd=CHECKOUT,
        timeout=400,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "| request cost, 1 plugin |" in ended.stdout
    trees = subprocess.run(
        ["git", "worktree", "list"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert "benana-against-" not in trees.stdout, "the other checkout is gone"
