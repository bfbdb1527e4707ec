"""What the repository says of itself holds: its checks, its Pythons, its links."""

import configparser
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CI = (ROOT / ".ci" / "run").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PYTHONS = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_what_failed_last_can_be_run_again(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.hasplugin("lfplugin"), "so `pytest --lf` works"


@pytest.mark.parametrize(
    ("marks", "last_failed", "names", "processes"),
    [
        ("not soak", False, ["tests"], 2),
        ("not soak", False, ["tests/unit"], 2),
        ("soak and not alone", False, ["tests"], 2),
        ("soak and alone", False, ["tests"], 0),
        ("soak", False, ["tests"], 0),
        ("", False, ["tests"], 0),
        ("not soak", True, ["tests"], 0),
        ("not soak", False, ["tests/unit", "tests/unit/test_table.py::test_one"], 0),
    ],
)
def test_two_processes_run_the_default_suite_and_nothing_that_measures(
    pytestconfig: pytest.Config, marks: str, last_failed: bool, names: list[str], processes: int
) -> None:
    option = SimpleNamespace(markexpr=marks, lf=last_failed)
    config = SimpleNamespace(option=option, args=[str(ROOT / name) for name in names])
    assert pytestconfig.hook.pytest_xdist_auto_num_workers(config=config) == processes


def test_a_report_of_what_cannot_be_encoded_is_sent_to_the_other_process(
    pytestconfig: pytest.Config,
) -> None:
    sections = [("Captured log call", "caf\udce9")]
    report = pytest.TestReport("a", ("b", 1, "c"), {}, "failed", "\ud800", "call", sections)
    sent = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=report)
    assert sent["sections"] == [("Captured log call", "caf\\udce9")]
    assert sent["longrepr"] == "\\ud800"


def test_the_checks_before_a_commit_are_those_of_ci() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    checks = CI[CI.index("--- checks") :]
    for check in re.findall(r"^\.venv/bin/(?:ruff|mypy|lint-imports).*$", checks, re.MULTILINE):
        assert check.removesuffix(" .").replace(" --check", "") in entries
    for entry in entries:
        for path in re.findall(r"tests/\S+", entry):
            assert (ROOT / path).is_file()


def test_the_workflow_runs_everything_on_every_python_that_is_named() -> None:
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    linux, macos = jobs["linux"], jobs["macos"]
    assert linux["strategy"]["matrix"]["python"] == PYTHONS
    assert SETUP["options"]["python_requires"] == f">={PYTHONS[0]}"
    assert ".ci/run" in [step.get("run") for step in linux["steps"]]
    assert set(macos["strategy"]["matrix"]["python"]) <= set(PYTHONS)
    assert macos["steps"][-1]["run"].endswith(".venv/bin/pytest tests/unit")
    for name in re.findall(r"\.ci/\w+", (ROOT / ".github/workflows/ci.yml").read_text()):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} can be run"


def test_dependabot_looks_where_versions_are_named() -> None:
    updates = read_yaml(".github/dependabot.yml")["updates"]
    folders = {update["package-ecosystem"]: update["directory"] for update in updates}
    assert folders == {"pip": "/", "github-actions": "/", "docker": "/deploy"}


def test_the_links_of_the_package_are_one_repository() -> None:
    home = SETUP["metadata"]["url"]
    links = SETUP["metadata"]["project_urls"].split("\n")[1:]
    assert {"Source", "Issues", "Documentation", "Changelog"} <= {x.split(" =")[0] for x in links}
    for link in links:
        name, url = link.split(" = ")
        assert url == home or url.startswith(f"{home}/"), name
        path = re.sub(r"^/(tree|blob)/main/", "", url.removeprefix(home))
        assert name not in {"Documentation", "Changelog"} or (ROOT / path).exists()


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / ".github" / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for path, anchor in re.findall(r"\]\(([^):#\s]+)(?:#([^)\s]+))?\)", text):
        target = page.parent / path
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}


def test_ci_says_at_its_end_what_it_left_out_and_what_it_ran_twice() -> None:
    assert "to be known: ${#notes[@]}" in CI.splitlines()[-2]
    assert "|| true" not in (ROOT / ".ci" / "programs").read_text(), "nothing fails in silence"
