"""One process of a host watches; the others know how it goes, and that it lives."""

import errno
import logging
import os
import shutil
import tempfile

import pytest

from app.conditions import Conditions
from app.publishing.election import FIRST_LOOK, Election
from tests.support.waiting import wait_until

SILENT_SECONDS = 0.3
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


def watches(election, held):
    """Let a process be elected that has looked at all folders."""
    assert election.take()
    held.clear(FIRST_LOOK)
    election.look()


def hears(election):
    """Let a process lose the election, and hear who has won it."""
    assert not election.take()
    election.look()


def test_one_wins_and_the_next_comes_after_it(stand):
    (one, _), (two, _) = stand(), stand()
    assert one.take()
    assert not two.take()
    assert (one.is_held(), two.is_held()) == (True, False)
    one.release()
    assert two.take()


def test_all_hear_what_the_one_that_watches_holds(stand):
    (one, held), (two, _) = stand(), stand()
    watches(one, held)
    hears(two)
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
    (one, first), (two, held) = stand(), stand()
    watches(one, first)
    held.hold("publish:hello", "from a call of the admin API", "hello")
    hears(two)
    assert said(two) == []
    one.release()
    watches(two, held)
    assert said(two) == [], "it looks at everything anew"


def test_more_than_there_is_room_for_is_told_too(stand, folder):
    (one, held), (two, _) = stand(), stand()
    watches(one, held)
    hears(two)
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
    (one, held), (two, _) = stand(), stand(silent_seconds=SILENT_SECONDS)
    watches(one, held)
    hears(two)
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
    made = [stand(), stand()]
    elections = [election for election, _ in made]
    for _ in range(2):
        for election in elections:
            assert not election.take()
            election.look()
            (sentence,) = said(election)
            assert sentence.startswith(f"nothing is watched: {folder}: ")
            assert "BENANA_WATCH=off" in sentence
    assert len(caplog.records) == 2, "once in each process"
    folder.unlink()
    watches(*made[0])
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
    (one, held), (two, _) = stand(), stand()
    watches(one, held)
    hears(two)

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
    watches(one, held)
    hears(two)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    held.hold("watching", "the root is gone")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        one.look()
        assert "do not hear what is wrong" in said(one)[1]
        wait_until(lambda: (two.look(), said(two))[1], "the others notice", 1.0)
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
    watches(one, held)
    hears(two)
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
    wait_until(lambda: (two.look(), "nobody watches" in said(two)[0])[1], "then it is said", 1.0)


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
    watches(one, held)
    hears(two)
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
    (one, held), (two, _) = stand(stuck_seconds=0.2), stand()
    watches(one, held)
    hears(two)
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


# --- before anybody watches ------------------------------------------------------------------


def test_until_all_folders_were_looked_at_everybody_says_so(stand):
    (one, held), (two, _) = stand(), stand()
    for election in (one, two):
        election.look()
        assert said(election) == ["it is not known yet whether anybody watches on this host"]
    assert one.take()
    hears(two)
    (sentence,) = said(one)
    assert sentence.startswith("not all folders have been looked at yet")
    assert said(two) == [sentence]
    assert two.look() < 1.0, "it is to be heard soon that they were"
    held.clear(FIRST_LOOK)
    one.look()
    assert two.look() == 1.0
    assert (said(one), said(two)) == ([], [])


def test_who_comes_later_hears_at_once_that_somebody_watches(stand):
    (one, held), (late, _) = stand(), stand()
    watches(one, held)
    hears(late)
    assert said(late) == []


@pytest.mark.parametrize(
    "header", [b"0000000001", b"%(pid)010d 00000000000000000001"], ids=["another's", "an old one"]
)
def test_a_word_from_before_does_not_count_until_the_next_one(stand, folder, header):
    """As of a server that was killed, and one that is started a moment later."""
    (one, held), (late, _) = stand(), stand()
    watches(one, held)
    with (folder / ".watching").open("r+b") as board:
        board.write(header % {b"pid": os.getpid()})
    hears(late)
    assert said(late) == ["it is not known yet whether anybody watches on this host"]
    one.look()
    late.look()
    assert said(late) == []


def test_the_word_of_a_dead_one_does_not_count_while_nobody_has_the_lock(stand):
    (dead, held), (late, _) = stand(), stand()
    watches(dead, held)
    os.close(dead._file)
    dead._file = -1
    late.look()
    assert said(late) == ["it is not known yet whether anybody watches on this host"]
    assert late.take()
    assert said(late)[0].startswith("not all folders have been looked at yet")
