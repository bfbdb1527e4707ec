"""Requirements against what is installed, and against what this process has imported of it."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import DiscoveryError
from app.publishing import requirements
from app.publishing.requirements import InstalledPackages, check_requirements

FOLDER = Path("/srv/my plugins/sample")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site-packages of the test's own, first on the path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(requirements, "_site_folders", lambda: [str(folder)])
    monkeypatch.setattr(requirements, "installed", InstalledPackages())
    yield folder
    sys.modules.pop("benana_thing", None)


@pytest.fixture
def install(site: Path) -> Callable[[str, str], None]:
    """Install a version of a package as pip does: the old one goes, the new one comes."""

    def put(version: str, name: str = "Some.Thing", module: str = "benana_thing") -> None:
        for old in site.glob("*.dist-info"):
            shutil.rmtree(old)
        (site / f"{module}.py").write_text(f"VERSION = {version!r}\n")
        info = site / f"{name.replace('.', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n")
        os.utime(site, ns=(1, install_times.pop()))

    install_times = [3_000_000_000, 2_000_000_000, 1_000_000_000]
    return put


def refusal(text: str) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        check_requirements("sample", FOLDER, text.encode())
    return caught.value


def test_the_advice_names_the_pip_of_this_environment(site: Path) -> None:
    error = refusal("missing-thing>=1")
    assert f"{sys.executable} -m pip install -r '{FOLDER}/requirements.txt'" in error.message
    assert (error.file, error.line) == ("requirements.txt", 1)


def test_a_development_version_satisfies_a_range(install: Callable[[str], None]) -> None:
    install("2.0.dev1")
    check_requirements("sample", FOLDER, b"some-thing>=1")


def test_a_package_that_was_replaced_after_its_import_needs_a_restart(
    install: Callable[[str], None],
) -> None:
    install("1.0")
    requirements.installed.look()
    importlib.import_module("benana_thing")
    install("2.0")
    error = refusal("some_thing>=2")
    assert "'some_thing>=2' is wanted, 2.0 is installed, 1.0 is imported" in error.message
    assert "stop the server and start it again: it has imported some_thing 1.0" in error.message
    assert "pip" not in error.message
    check_requirements("sample", FOLDER, b"some_thing>=1")  # both are good enough
    assert "run: " in refusal("some_thing>=3").message
    install("1.0")
    check_requirements("sample", FOLDER, b"some_thing<2")  # it is again what was imported


def test_a_package_that_nobody_has_imported_is_taken_as_it_is_installed(
    install: Callable[[str], None],
) -> None:
    install("1.0")
    requirements.installed.look()
    install("2.0")
    check_requirements("sample", FOLDER, b"some_thing>=2")


def test_what_is_imported_after_it_was_replaced_is_new(
    install: Callable[[str], None],
) -> None:
    install("1.0")
    requirements.installed.look()
    install("2.0")
    requirements.installed.look()
    importlib.import_module("benana_thing")
    check_requirements("sample", FOLDER, b"some_thing>=2")


def test_a_look_tells_of_a_change_once(site: Path, install: Callable[[str], None]) -> None:
    found = requirements.installed
    before = found.changes
    found.look()
    assert found.changes == before
    install("1.0")
    found.look()
    found.look()
    assert found.changes == before + 1
    shutil.rmtree(site)
    found.look()
    assert found.changes == before + 2
