"""Whether another process of this machine is gone: only where that is certain."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from app import presence
from app.presence import Presence, own_presence
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "60"])
    found = Presence(own_presence().machine, process.pid, presence._look_up(process.pid))
    assert found.started
    yield process, found
    process.kill()
    process.wait()


def test_a_process_that_runs_is_not_gone(child):
    assert not child[1].is_gone()
    assert not own_presence().is_gone()


def test_a_killed_one_is_gone_before_its_parent_has_noticed(child):
    process, found = child
    os.kill(process.pid, 9)
    wait_until(found.is_gone, "it is gone", 1.0)  # a zombie: nobody has waited for it
    process.wait()
    assert found.is_gone()


def test_another_process_of_the_same_id_is_not_the_one_that_ended(child):
    assert replace(child[1], started=child[1].started - 1).is_gone()


@pytest.mark.parametrize(
    "changes", [{"machine": "another boot/4026531836"}, {"machine": None}, {"started": None}]
)
def test_of_others_nothing_is_certain(child, changes):
    process, found = child
    process.kill()
    process.wait()
    assert not replace(found, **changes).is_gone()


def test_what_may_not_be_looked_at_is_not_taken_for_gone(child, monkeypatch):
    monkeypatch.setattr(presence, "_look_up", lambda pid: None)
    assert not child[1].is_gone()


def test_a_name_with_brackets_and_blanks_is_no_trouble(tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "60"])
    try:
        started = presence._look_up(process.pid)
        assert abs(started - presence._look_up(os.getpid())) < 100 * 3600
        assert started >= presence._look_up(os.getpid())
    finally:
        process.kill()
        process.wait()
