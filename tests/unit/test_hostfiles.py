"""What a host goes without is said once, and held for as long as it lasts."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.conditions import Conditions
from app.serving import hostfiles
from app.serving.hostfiles import ARCHIVES, LAST_GOOD, MARKERS, HostFiles, is_read_only

READ_ONLY = OSError(errno.EROFS, "Read-only file system")


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(hostfiles.os, "statvfs", lambda _: flags)


def test_what_cannot_be_written_is_held_until_it_can(
    tmp_path: Path, conditions: Conditions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = HostFiles(tmp_path, conditions)
    for _ in range(3):
        files.has(MARKERS)
        files.lacks(ARCHIVES, OSError(errno.ENOSPC, "No space left on device"))
        files.lacks(LAST_GOOD, OSError(errno.ENOSPC, "No space left on device"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    (held,) = conditions.held()
    assert held.what == (
        f"{tmp_path} cannot be written (No space left on device): {ARCHIVES}; {LAST_GOOD}; "
        "make it writable"
    )
    files.has(ARCHIVES)
    assert LAST_GOOD in conditions.held()[0].what
    assert ARCHIVES not in conditions.held()[0].what
    files.has(LAST_GOOD)
    assert conditions.held() == ()
    assert caplog.records[-1].message == f"{tmp_path} can be written again"


def test_a_read_only_host_that_publishes_nothing_says_one_line(
    tmp_path: Path, conditions: Conditions, caplog: pytest.LogCaptureFixture, read_only: None
) -> None:
    caplog.set_level("INFO")
    files = HostFiles(tmp_path, conditions, needed=False)
    files.say_what_is_gone_without(tmp_path / "var")
    for what in (ARCHIVES, LAST_GOOD, MARKERS):
        files.lacks(what, READ_ONLY)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"{tmp_path / 'var'} is so, too" in caplog.text
    assert conditions.held() == ()


@pytest.mark.parametrize("needed", [True, False])
def test_a_host_that_publishes_or_whose_disk_fails_later_is_warned(
    tmp_path: Path, conditions: Conditions, caplog: pytest.LogCaptureFixture, needed: bool
) -> None:
    files = HostFiles(tmp_path, conditions, needed=needed)
    files.say_what_is_gone_without(tmp_path)
    assert caplog.text == ""
    files.lacks(ARCHIVES, READ_ONLY)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert conditions.held()


def test_a_folder_that_is_to_be_made_is_judged_by_the_one_that_is_there(tmp_path: Path) -> None:
    assert not is_read_only(tmp_path / "a" / "b")
    assert is_read_only(Path("/proc/sys/a")) == is_read_only(Path("/proc/sys"))
