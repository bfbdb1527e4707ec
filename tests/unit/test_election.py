"""One process of a host watches; the others know how it goes, and that it lives."""

import errno
import logging
import os
import shutil
import tempfile

import pytest

from app.conditions import Conditions
from app.publishing.election import Election
from tests.support.waiting import wait_until

SILENT_SECONDS = 0.2
"""How long the one that watches may say nothing, where a test waits for that to pass."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bin"


@pytest.fixture
def stand(folder):
    """Makes processes that stand for election, with what each holds."""
    made = []

    def make(**seconds):
        held = Conditions()
        made.append(Election(folder, held, **{"probe_seconds": 0.0} | seconds))
        return made[-1], held

    yield make
    for found in made:
        if found.is_held():
            found.release()


def said(election):
    return [str(found) for found in election.conditions()]


def heard_anew(one, two):
    """Return what the second says right after a beat of the first."""
    one.look()
    two.look()
    return said(two)


def test_one_wins_and_the_next_comes_after_it(stand):
    (one, _), (two, _) = stand(), stand()
    assert one.take()
    assert not two.take()
    assert (one.is_held(), two.is_held()) == (True, False)
    one.release()
    assert two.take()


def test_all_hear_what_the_one_that_watches_holds(stand):
    (one, held), (two, _) = stand(), stand()
    assert one.take()
    two.look()
    assert (said(one), said(two)) == ([], [])
    held.hold("watching", "the root is gone")
    held.hold("publish:hello", "the disk is fuller than ä 🍌\nline", "hello")
    one.look()
    two.look()
    assert (
        said(two)
        == said(one)
        == [
            "the root is gone",
            "hello: the disk is fuller than ä 🍌\nline",
        ]
    )
    assert [c.since for c in two.conditions()] == [c.since for c in one.conditions()]
    held.clear("watching")
    held.clear("publish:hello")
    one.look()
    two.look()
    assert said(two) == []


def test_only_the_one_that_watches_speaks_for_the_host(stand):
    (one, _), (two, held) = stand(), stand()
    assert one.take()
    held.hold("publish:hello", "from a call of the admin API", "hello")
    two.look()
    assert said(two) == []
    one.release()
    assert two.take(), "it looks at everything anew"
    assert said(two) == []


def test_more_than_there_is_room_for_is_told_too(stand, folder):
    (one, held), (two, _) = stand(), stand()
    assert one.take()
    for number in range(400):
        held.hold(f"publish:{number}", "x" * 300)
    one.look()
    two.look()
    assert len(said(two)) == 400
    for number in range(399):
        held.clear(f"publish:{number}")
    one.look()
    two.look()
    assert len(said(two)) == 1


def test_who_says_nothing_is_taken_for_dead(stand):
    (one, _), (two, _) = stand(), stand(silent_seconds=SILENT_SECONDS)
    assert one.take()
    one.look()
    two.look()
    wait_until(lambda: said(two), "its silence is noticed", 1.0)
    two.look()  # the same beat again is no beat
    (sentence,) = said(two)
    assert "nobody watches on this host" in sentence
    assert f"pid {os.getpid()}" in sentence
    wait_until(lambda: heard_anew(one, two) == [], "it is heard again")


def test_what_a_former_server_left_is_no_word_of_a_living_one(stand):
    (one, _), (two, _) = stand(), stand(silent_seconds=SILENT_SECONDS)
    assert one.take()
    one.release()
    two.look()
    wait_until(lambda: "nobody watches" in "".join(said(two)), "it is said", 1.0)


def test_where_nobody_can_be_elected_everybody_says_why(stand, folder, caplog):
    caplog.set_level(logging.INFO)
    folder.write_text("a file in the folder's place")
    elections = [stand()[0], stand()[0]]
    for _ in range(2):
        for election in elections:
            assert not election.take()
            election.look()
            (sentence,) = said(election)
            assert sentence.startswith(f"nothing is watched: {folder}: ")
            assert "BENANA_WATCH=off" in sentence
    assert len(caplog.records) == 2, "once in each process"
    folder.unlink()
    assert elections[0].take()
    assert said(elections[0]) == []


def test_a_read_only_folder_is_said_by_everybody(stand, monkeypatch):
    real = os.open

    def refuse(path, flags, *arguments, **named):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *arguments, **named)

    election = stand()[0]
    monkeypatch.setattr(os, "open", refuse)
    assert not election.take()
    assert "Read-only file system" in said(election)[0]


def test_a_folder_that_cannot_be_written_to_any_more_is_said_by_all(stand, folder, monkeypatch):
    (one, _), (two, _) = stand(), stand()
    assert one.take()

    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        one.look()
        two.look()
    assert said(one) == said(two)
    assert f"{folder} cannot be written to (No space left on device)" in said(two)[0]
    one.look()
    two.look()
    assert (said(one), said(two)) == ([], [])
    assert not [p for p in folder.iterdir() if p.name.startswith("tmp")], "a trial leaves nothing"


def test_who_cannot_tell_says_so_and_is_not_believed_by_the_others(stand, monkeypatch):
    (one, held), (two, _) = stand(), stand(silent_seconds=SILENT_SECONDS)
    assert one.take()
    one.look()
    two.look()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    held.hold("watching", "the root is gone")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        one.look()
        assert "do not hear what is wrong" in said(one)[1]
        wait_until(lambda: two.look() or said(two), "the others notice", 1.0)
        assert "nobody watches" in said(two)[0]
    wait_until(lambda: heard_anew(one, two) == ["the root is gone"], "it is heard again")
    assert said(one) == ["the root is gone"]


DAMAGES = {
    "empty": b"",
    "text": b"garbage",
    "short": b"1 2 3",
    "binary": b"\xff" * 100,
    "too many digits": b"9" * 44,
    "a pipe": None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_cannot_be_read_is_no_word(stand, folder, damage):
    (one, held), (two, _) = stand(), stand(silent_seconds=SILENT_SECONDS)
    assert one.take()
    held.hold("watching", "the root is gone")
    one.look()
    two.look()
    if damage is None:
        (folder / ".watching").unlink()
        os.mkfifo(folder / ".watching")
    else:
        (folder / ".watching").write_bytes(damage)
    two.look()
    assert said(two) == ["the root is gone"], "what was heard last counts for a while"
    wait_until(lambda: two.look() or "nobody watches" in said(two)[0], "then it is said", 1.0)


def test_a_removed_folder_is_an_election_for_all(stand, folder):
    (one, _), (two, _) = stand(), stand()
    assert one.take()
    shutil.rmtree(folder)
    assert not one.is_held(), "its lock keeps nobody out any more"
    assert two.take()
    assert not one.is_held()
    one.release()
    assert not one.take()


def test_a_beat_while_a_reader_reads_is_not_half_heard(stand, monkeypatch):
    (one, held), (two, _) = stand(), stand()
    assert one.take()
    held.hold("watching", "the root is closed!")
    one.look()
    two.look()
    real = os.pwrite

    def torn(file, data, offset):
        if offset:
            return real(file, data, offset)  # the body, and not yet the header that counts
        return len(data)

    one.look()  # a beat that the other one has not heard yet
    held.hold("watching", "the root is another")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", torn)
        one.look()
    two.look()
    assert said(two) == ["the root is closed!"]
    one._told = None
    one.look()
    two.look()
    assert said(two) == ["the root is another"]


def test_who_watches_and_is_stuck_says_so_until_it_goes_on(stand):
    (one, _), (two, _) = stand(stuck_seconds=0.2), stand()
    assert one.take()
    one.look()
    two.look()
    assert (said(one), said(two)) == ([], [])

    def heard():
        one.look()
        two.look()
        return said(two)

    wait_until(heard, "it is said")
    assert "no edit is seen: the folders have been looked at" in said(two)[0]

    def goes_on():
        one.go_on()
        return heard() == []

    wait_until(goes_on, "it is taken back")
