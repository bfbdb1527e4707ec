"""What a host goes without is said once."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.serving.host_files import ARCHIVES, LAST_KNOWN_GOOD, MARKERS, HostFiles, is_read_only

READ_ONLY = OSError(errno.EROFS, "Read-only file system")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: flags)


def test_what_cannot_be_written_is_said_once_and_its_end_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = HostFiles(tmp_path)
    for _ in range(3):
        files.has(MARKERS)
        files.lacks(ARCHIVES, OSError(errno.ENOSPC, "No space left on device"))
        files.lacks(LAST_KNOWN_GOOD, OSError(errno.ENOSPC, "No space left on device"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert caplog.records[0].message == (
        f"{tmp_path} cannot be written (No space left on device): {ARCHIVES}; make it writable"
    )
    files.has(ARCHIVES)
    assert "written again" not in caplog.text
    files.has(LAST_KNOWN_GOOD)
    assert caplog.records[-1].message == f"{tmp_path} can be written again"


def test_a_read_only_host_that_publishes_nothing_says_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, read_only: None
) -> None:
    caplog.set_level("INFO")
    files = HostFiles(tmp_path, needed=False)
    files.say_what_is_gone_without(tmp_path / "var")
    for what in (ARCHIVES, LAST_KNOWN_GOOD, MARKERS):
        files.lacks(what, READ_ONLY)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"{tmp_path / 'var'} is so, too" in caplog.text


@pytest.mark.parametrize("needed", [True, False])
def test_a_host_that_publishes_or_whose_disk_fails_later_is_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, needed: bool
) -> None:
    files = HostFiles(tmp_path, needed=needed)
    files.say_what_is_gone_without(tmp_path)
    assert caplog.text == ""
    files.lacks(ARCHIVES, READ_ONLY)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_folder_that_is_to_be_made_is_judged_by_the_one_that_is_there(tmp_path: Path) -> None:
    assert not is_read_only(tmp_path / "a" / "b")
    assert is_read_only(Path("/proc/sys/a")) == is_read_only(Path("/proc/sys"))
