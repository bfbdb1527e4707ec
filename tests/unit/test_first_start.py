"""The plugins' root at a server's first start."""

from pathlib import Path

import pytest

from app.publishing.host_state import HostState
from app.settings import Settings
from app.workers.first_start import make_first_root, root_text


def settings_in(folder: Path, *, watch: bool = True) -> Settings:
    return Settings(folder / "plugins", folder / "bin", folder / "var", watch=watch)


def test_a_first_start_makes_the_root(tmp_path):
    make_first_root(settings_in(tmp_path), {})
    assert (tmp_path / "plugins").is_dir()


def test_a_root_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "plugins" / "hello").mkdir(parents=True)
    make_first_root(settings_in(tmp_path), {})
    assert (tmp_path / "plugins" / "hello").is_dir()


def test_a_root_that_was_there_before_is_missing_and_not_made(tmp_path):
    settings = settings_in(tmp_path)
    HostState(settings.artifacts_dir).begin_start()
    make_first_root(settings, {})
    assert not settings.plugins_dir.exists()


def test_a_root_that_is_named_is_not_made(tmp_path):
    settings = settings_in(tmp_path)
    make_first_root(settings, {"BENANA_PLUGINS_DIR": str(settings.plugins_dir)})
    assert not settings.plugins_dir.exists()


def test_a_host_that_only_serves_needs_no_root(tmp_path):
    make_first_root(settings_in(tmp_path, watch=False), {})
    assert not (tmp_path / "plugins").exists()


def test_a_root_that_cannot_be_made_does_not_stop_the_start(tmp_path):
    make_first_root(settings_in(tmp_path / "missing"), {})
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("left", ["", ".hello.12", "venv"])
def test_an_empty_root_is_said_with_how_to_write_the_first_plugin(tmp_path, left):
    (tmp_path / left).mkdir(exist_ok=True)
    (tmp_path / "README").touch()
    if left == "venv":
        (tmp_path / left / "pyvenv.cfg").touch()
    assert root_text(tmp_path, watch=True) == (
        f"plugins go into {tmp_path}; there is none yet: `benana new hello` writes one"
    )


def test_a_root_with_plugins_is_named(tmp_path):
    (tmp_path / "hello").mkdir()
    assert root_text(tmp_path, watch=True) == f"plugins in {tmp_path}"


def test_a_host_that_only_serves_says_nothing_of_an_empty_root(tmp_path):
    assert root_text(tmp_path, watch=False) == f"plugins in {tmp_path}"
