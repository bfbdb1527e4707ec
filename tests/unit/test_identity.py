"""A master of root's works on its workers' files as their user."""

import os
import sys

import pytest

from app.workers.identity import as_user, run_apart

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@as_root
def test_files_are_made_as_the_workers_user_and_root_is_root_again(open_path):
    before = (os.geteuid(), os.getegid(), os.getgroups())
    os.chown(open_path, NOBODY, NOBODY)
    secret = open_path.parent / f"{open_path.name}-secret"
    secret.mkdir(mode=0o700)
    try:
        (open_path / "link").symlink_to(secret)
        with as_user(NOBODY, NOBODY):
            (open_path / "file").touch()
            with pytest.raises(PermissionError):
                list((open_path / "link").iterdir())
    finally:
        secret.rmdir()
    assert (open_path / "file").stat().st_uid == NOBODY
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_for_workers_of_our_own_nothing_changes(tmp_path):
    with as_user(os.geteuid(), os.getegid()):
        (tmp_path / "file").touch()
    assert (tmp_path / "file").stat().st_uid == os.geteuid()


def test_what_runs_apart_leaves_its_exit_code_and_nothing_else(capfd):
    uid, gid = os.geteuid(), os.getegid()
    done = []
    assert run_apart(lambda: done.append(1) or 7, uid, gid, initgroups=False) == 7  # type: ignore[func-returns-value]
    assert run_apart(lambda: 1 // 0, uid, gid, initgroups=False) == 1
    assert done == []
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_runs_apart_ends_there_without_standard_files(monkeypatch):
    """It went on with what its parent does, in the child."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run_apart(lambda: 7, os.geteuid(), os.getegid(), initgroups=False) == 7


@as_root
def test_what_runs_apart_is_the_user_for_good():
    def work():
        try:
            os.seteuid(0)
        except PermissionError:
            return os.getuid() == NOBODY
        return 2

    assert run_apart(work, NOBODY, NOBODY, initgroups=False) == 1
