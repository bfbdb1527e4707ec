"""A module that is found in a plugin's folder by accident is refused, with what to write."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import LoadError
from app.publishing.discovery import read_source
from app.publishing.trials.trial import TrialRunner
from tests.support.plugins import PLUGIN


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server was started: plugins lie below it, and a package of theirs elsewhere."""
    home = tmp_path_factory.mktemp("home")
    for path, text in {
        "plugins/other/main.py": "x = 1\n",
        "plugins/sample/sub/helper.py": "x = 1\n",
        "elsewhere/shared/__init__.py": "x = 2\n",
        "installed/plugins/__init__.py": "",
        "installed/plugins/real.py": "x = 3\n",
    }.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    return home


@contextlib.contextmanager
def runner_with(home: Path, *paths: str) -> Iterator[TrialRunner]:
    """A runner of a server that has folders of the home on its path."""
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.syspath_prepend(home / path)
        runner = TrialRunner(None, plugins_dir=home / "plugins")
        runner.prepare()
    yield runner
    runner.stop()


@pytest.fixture(scope="module")
def started_there(home: Path) -> Iterator[TrialRunner]:
    with runner_with(home, ".") as runner:
        yield runner


def try_with(runner: TrialRunner, home: Path, first: str) -> None:
    """Try a plugin whose main.py begins with a line."""
    (home / "plugins/sample/main.py").write_text(first + "\n" + PLUGIN)
    runner.run(read_source(home / "plugins", home / "plugins/sample", "sample"))


OWN = "write 'from .sub.helper import …'"
OTHER = "what it shares with another plugin belongs into a package that is installed"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("from plugins.sample.sub.helper import x", OWN),
        ("import importlib; importlib.import_module('plugins.sample.sub.helper')", OWN),
        ("import sys; sys.path.insert(0, 'HOME/plugins/sample'); import sub.helper", "'from .sub"),
        ("from plugins.other.main import x", OTHER),
        ("import plugins.other", OTHER),
        ("import sys; sys.path.append('HOME/plugins'); import other.main", OTHER),
    ],
)
def test_a_plugins_file_is_refused_with_its_place(
    started_there: TrialRunner, home: Path, line: str, advice: str
) -> None:
    with pytest.raises(LoadError) as caught:
        try_with(started_there, home, line.replace("HOME", str(home)))
    assert (caught.value.phase, caught.value.file, caught.value.line) == ("import", "main.py", 1)
    assert "found by accident, and an edit of it would not be followed" in caught.value.message
    assert advice in caught.value.message


def test_what_is_installed_is_found(home: Path) -> None:
    with runner_with(home, ".", "installed", "elsewhere") as runner:
        try_with(runner, home, "from shared import x")
        try_with(runner, home, "from .sub.helper import x; from plugins.real import x")
        try_with(runner, home, "import yaml, decimal, wsgiref.headers, app.cli.scaffold")


def test_what_is_not_there_is_not_there(started_there: TrialRunner, home: Path) -> None:
    with pytest.raises(LoadError, match="No module named 'no_such_module'"):
        try_with(started_there, home, "import no_such_module")
