"""A module that is found in a plugin's folder by accident is refused, with what to write."""

from pathlib import Path

import pytest

from app.errors import LoadError
from app.publishing.discovery import read_source
from app.publishing.trial import TrialRunner
from tests.unit.conftest import PLUGIN


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


def try_with(home: Path, first: str, *paths: str) -> None:
    """Try a plugin whose main.py begins with a line, with folders of the home on the path."""
    (home / "plugins/sample/main.py").write_text(first + "\n" + PLUGIN)
    source = read_source(home / "plugins", home / "plugins/sample", "sample")
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.syspath_prepend(home / path)
        runner = TrialRunner(None, plugins_dir=home / "plugins")
        try:
            runner.run(source)
        finally:
            runner.stop()


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
def test_a_plugins_file_is_refused_with_its_place(home: Path, line: str, advice: str) -> None:
    with pytest.raises(LoadError) as caught:
        try_with(home, line.replace("HOME", str(home)), ".")
    assert (caught.value.phase, caught.value.file, caught.value.line) == ("import", "main.py", 1)
    assert "found by accident, and an edit of it would not be followed" in caught.value.message
    assert advice in caught.value.message


def test_what_is_installed_is_found(home: Path) -> None:
    try_with(home, "from shared import x", "elsewhere")
    lines = "from .sub.helper import x; from plugins.real import x; import yaml, decimal, wsgiref"
    try_with(home, lines, ".", "installed")


def test_what_is_not_there_is_not_there(home: Path) -> None:
    with pytest.raises(LoadError, match="No module named 'no_such_module'"):
        try_with(home, "import no_such_module", ".")
