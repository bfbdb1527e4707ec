"""What a process was loading when it died is found, and blocks that generation alone."""

import dataclasses
import json
import os
import signal
import time

import pytest

from app.activity import Activity, Name
from app.records import ServedRow
from app.serving.crash_notes import UNKNOWN_END, end_of
from app.serving.crashes import CrashedLoads
from app.serving.last_words import last_words
from app.serving.load_marker import LoadMarker

DIGEST = "0" * 32
ROW = ServedRow("1", "one", 3, "active", f"/x/one-{DIGEST}.pyz", "f" * 64)
NEXT = dataclasses.replace(ROW, generation=4)


def die(folder, how):
    """Load `ROW` in another process, which ends meanwhile; return its id and exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            marker = LoadMarker(folder)
            marker.record_faults()
            with marker.loading(ROW):
                how()
        finally:
            os._exit(99)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def crashed(tmp_path):
    return CrashedLoads(tmp_path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    ],
)
def test_a_load_that_ended_its_process_blocks_its_generation_alone(tmp_path, crashed, how, said):
    pid, code = die(tmp_path, how)
    [sentence] = crashed.collect({pid: end_of(code)})
    assert f"one: loading generation 3 ended a worker ({said}" in sentence
    assert "it is not loaded again" in sentence
    assert crashed.find(ROW).how == said
    assert crashed.find(NEXT) is None
    assert crashed.find(dataclasses.replace(ROW, id="2")) is None
    assert crashed.collect() == [], "it is told once"


@pytest.mark.parametrize("end", [end_of(-9), end_of(-15), UNKNOWN_END])
def test_who_was_killed_from_outside_is_tried_once_more(tmp_path, crashed, monkeypatch, end):
    for moment, blocks in ((100.0, False), (101.0, False), (200.0, True)):  # two died together
        monkeypatch.setattr("app.serving.crashes.time.time", lambda moment=moment: moment)
        pid, _ = die(tmp_path, lambda: os._exit(9))
        crashed.collect({pid: end})
        assert (crashed.find(ROW) is not None) == blocks


def told_and(*how):
    """Return what a process does that is told to end while it loads, and then something else."""

    def end():
        last_words.note_told()
        os.kill(os.getpid(), *how)

    return end


@pytest.mark.parametrize("end", [end_of(-9), UNKNOWN_END])
def test_who_was_told_to_end_and_then_killed_counts_against_no_load(
    tmp_path, crashed, monkeypatch, end
):
    """After two stops while a service hung, a plugin that needs it was never loaded again."""
    for moment in (100.0, 200.0, 300.0):
        monkeypatch.setattr("app.serving.crashes.time.time", lambda moment=moment: moment)
        pid, _ = die(tmp_path, told_and(signal.SIGKILL))
        assert crashed.collect({pid: end}) == []
        assert not crashed.is_noted(ROW)
    assert list((tmp_path / ".loading").iterdir()) == []


def test_who_was_told_to_end_before_it_loaded_has_that_noted_too(tmp_path, crashed):
    pid = os.fork()
    if pid == 0:
        last_words.note_told()
        marker = LoadMarker(tmp_path)
        marker.record_faults()
        with marker.loading(ROW):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert crashed.collect() == []
    assert not crashed.is_noted(ROW)


def test_whom_the_master_told_to_end_need_not_have_noted_it(tmp_path, crashed):
    """A load in C code may keep the interpreter, and so the handler of the signal waits."""
    pid, code = die(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert crashed.collect({pid: end_of(code)}, told=[pid]) == []
    assert not crashed.is_noted(ROW)


@pytest.mark.parametrize("known", [True, False])
def test_a_load_that_ends_a_process_that_was_told_to_end_is_blamed(tmp_path, crashed, known):
    pid, code = die(tmp_path, told_and(signal.SIGSEGV))
    [sentence] = crashed.collect({pid: end_of(code)} if known else {}, told=[pid] if known else [])
    assert "one: loading generation 3 ended a worker" in sentence
    assert (crashed.find(ROW) is not None) == known, "of an unknown end nobody can be sure"


def test_a_process_that_lives_is_left_alone(tmp_path, crashed):
    loading, looked = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        marker = LoadMarker(tmp_path)
        with marker.loading(ROW):
            os.write(loading[1], b"x")
            os.read(looked[0], 1)
        marker.close()
        os._exit(0)
    assert os.read(loading[0], 1) == b"x"
    assert crashed.collect() == []
    os.write(looked[1], b"x")
    os.waitpid(pid, 0)
    assert crashed.collect() == []
    assert list((tmp_path / ".loading").iterdir()) == []
    for end in (*loading, *looked):
        os.close(end)


def die_afterwards(folder):
    """Load `ROW` in another process that serves already, and ends a moment later."""
    pid = os.fork()
    if pid == 0:
        try:
            marker = LoadMarker(folder)
            marker.started()
            with marker.loading(ROW):
                pass
        finally:
            os._exit(5)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_load_leaves_running_blocks_the_generation_that_was_loaded_last(tmp_path, crashed):
    pid, code = die_afterwards(tmp_path)
    [sentence] = crashed.collect({pid: end_of(code)})
    assert "one: loading generation 3 ended a worker (exit code 5, moments after it)" in sentence
    assert crashed.find(ROW) is not None


@pytest.mark.parametrize("why", ["it answered a request", "it was killed", "long ago"])
def test_a_load_is_not_blamed_where_something_else_is_likelier(tmp_path, crashed, why):
    pid, code = die_afterwards(tmp_path)
    if why == "long ago":
        crashed = CrashedLoads(tmp_path, settle_seconds=0.0)
    end = end_of(-9 if why == "it was killed" else code)
    busy = {pid: {"two"}} if why == "it answered a request" else {}
    assert crashed.collect({pid: end}, busy=busy) == []
    assert crashed.find(ROW) is None


def test_workers_that_are_killed_again_and_again_are_not_one_round_without_end(
    tmp_path, crashed, monkeypatch
):
    """It was tried once more, ten times in a second: as where each load takes all memory."""
    now = time.time()
    for seconds in (0.0, 0.7, 1.4, 2.1):
        monkeypatch.setattr("app.serving.crashes.time.time", lambda s=seconds: now + s)
        pid, _ = die(tmp_path, lambda: os._exit(4))
        crashed.collect({pid: end_of(-9)})
        assert (crashed.find(ROW) is not None) == (seconds > 2.0), seconds


def test_who_dies_between_two_loads_blocks_nothing(tmp_path, crashed):
    pid, code = die(tmp_path, lambda: None)  # it leaves the block, and ends without `close`
    assert crashed.collect({pid: end_of(code)}) == []
    assert crashed.find(ROW) is None


def test_a_process_whose_end_is_asked_for_later_is_left_until_then(tmp_path, crashed):
    pid, code = die(tmp_path, lambda: os._exit(4))
    assert crashed.collect(later=[pid]) == []
    assert len(crashed.collect({pid: end_of(code)})) == 1


def test_a_fork_of_a_loading_process_does_not_keep_it_alive(tmp_path, crashed):
    reader, writer = os.pipe()

    def fork_and_die():
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # until this test has looked
        os._exit(5)

    pid, code = die(tmp_path, fork_and_die)
    assert len(crashed.collect({pid: end_of(code)})) == 1
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": "x", "loads": []}'])
def test_a_marker_that_cannot_be_read_hurts_nobody(tmp_path, crashed, text):
    (tmp_path / ".loading").mkdir()
    (tmp_path / ".loading" / "torn").write_bytes(text)
    assert crashed.collect() == []
    (tmp_path / ".crashed").mkdir()
    (tmp_path / ".crashed" / "one").write_bytes(text)
    assert crashed.find(ROW) is None


def test_a_row_whose_name_is_a_path_reads_no_other_file(tmp_path, crashed):
    (tmp_path / ".crashed").mkdir()
    (tmp_path / "evil").write_text(json.dumps({}))
    assert crashed.find(dataclasses.replace(ROW, name="../evil")) is None


def test_a_folder_that_cannot_be_written_is_said_once_and_the_load_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    marker = LoadMarker(tmp_path / "file")
    for _ in range(2):
        with marker.loading(ROW):
            pass
    assert caplog.text.count("cannot be written") == 1


# --- what threads are doing ----------------------------------------------------------------


def test_another_process_sees_what_a_dead_one_was_doing():
    activity = Activity(2)
    pid = os.fork()
    if pid == 0:
        first, second, third = activity.cell(), activity.cell(), activity.cell()
        activity.begin_serving()
        names = [Name("one g1 /one/{ä}"), Name("two g2 /two"), Name("of a thread beyond them")]
        first[0], second[0], third[0] = map(activity.number, names)
        second[0] = 0
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert activity.serving
    assert activity.names() == ["one g1 /one/{ä}"]


def test_a_name_is_one_line_of_bounded_length_and_keeps_its_number():
    activity = Activity(1)
    name = Name("one\n[INFO] " + "ä" * 1000)
    cell = activity.cell()
    cell[0] = activity.number(name)
    assert activity.number(name) == name.number == 1
    [shown] = activity.names()
    assert shown.startswith("one [INFO] ää")
    assert len(shown.encode()) < 200


def test_names_that_are_gone_take_no_room_of_the_memory():
    """A reload makes new names; each took a place of its own until there was none left."""
    activity = Activity(1)
    for turn in range(100):
        assert activity.number(Name(f"generation {turn}")) == 1
    kept = Name("kept")
    assert activity.number(kept) == 1
    assert activity.number(Name("another")) == 2


def test_a_name_that_made_room_for_others_is_not_taken_for_one_of_them(monkeypatch):
    monkeypatch.setattr("app.activity.NAMES", 4)
    activity = Activity(1)
    names = [Name(f"name {number}") for number in range(5)]
    activity.cell()[0] = activity.number(names[0])
    for name in names[1:4]:
        activity.number(name)
    assert activity.names() == ["name 0"]
    activity.number(names[4])
    assert activity.names() == ["a route whose name made room for others"]


def in_another_process(folder, what):
    """Run something with a marker in another process, which ends; return its id and its end."""
    pid = os.fork()
    if pid == 0:
        try:
            marker = LoadMarker(folder)
            marker.record_faults()
            marker.started()
            what(marker)
        finally:
            os._exit(99)
    return {pid: end_of(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))}


def test_what_ends_a_process_in_a_cleanup_is_not_put_on_the_version_after_it(tmp_path, crashed):
    """Each good edit was refused, and said to have ended four workers."""

    def abort_in_cleanup(marker):
        with marker.loading(NEXT):
            pass
        with marker.cleaning(ROW):
            os.abort()

    (sentence,) = crashed.collect(in_another_process(tmp_path, abort_in_cleanup))
    assert "one: a worker ended (SIGABRT) while generation 3 was cleaned up" in sentence
    assert (crashed.find(NEXT), crashed.find(ROW)) == (None, None)


def test_what_loads_beside_a_cleanup_that_ends_the_process_is_tried_once_more(tmp_path, crashed):
    other = dataclasses.replace(ROW, id="2", name="two", binary_path=f"/x/two-{DIGEST}.pyz")

    def abort_beside_a_load(marker):
        with marker.loading(other), marker.cleaning(ROW):
            os.abort()

    for blocks in (False, True):
        sentences = crashed.collect(in_another_process(tmp_path, abort_beside_a_load))
        assert [text.partition(":")[0] for text in sentences] == ["one", "two"]
        assert (crashed.find(other) is not None) == blocks
        stored = tmp_path / ".crashed" / "two"
        stored.write_text(stored.read_text().replace('"round_at": ', '"round_at": -'))


def test_a_cleanup_that_has_returned_makes_a_load_no_younger(tmp_path, crashed, monkeypatch):
    def clean_up_later(marker):
        with marker.loading(NEXT):
            pass
        now = time.time()
        monkeypatch.setattr("app.serving.load_marker.time.time", lambda: now + 60.0)
        with marker.cleaning(ROW):
            pass
        os._exit(3)

    now = time.time()
    ends = in_another_process(tmp_path, clean_up_later)
    monkeypatch.setattr("app.serving.crashes.time.time", lambda: now + 61.0)
    assert crashed.collect(ends) == []


def test_a_load_that_nobody_waits_for_any_more_is_not_blamed(tmp_path, crashed):
    def supersede(marker):
        with marker.loading(ROW):
            marker.forget(ROW)
            os._exit(3)

    assert crashed.collect(in_another_process(tmp_path, supersede)) == []
    assert crashed.find(ROW) is None


# --- what ends a process moments after its load -------------------------------------------------

OTHER = dataclasses.replace(ROW, id="2", name="two", binary_path=f"/x/two-{DIGEST}.pyz")


def make_older(marker: LoadMarker, seconds: float) -> None:
    """Have what a marker names have been loaded some seconds earlier."""
    older = [(at - seconds, json.loads(text)[1:]) for at, text in marker._recent]
    marker._recent = [(at, json.dumps([at, *row])) for at, row in older]


def load_and_die(folder, crashed, *rows, starting=(), before=0.0, late=0.0):
    """Load rows in another process, some at its start, which ends a moment later.

    `before` are the seconds by which the first of them is loaded earlier, `late` those after which
    the process ends.
    """
    pid = os.fork()
    if pid == 0:
        try:
            marker = LoadMarker(folder, is_suspect=crashed.is_suspect)
            for row in starting:
                with marker.loading(row):
                    pass
            marker.started()
            for number, row in enumerate(rows):
                with marker.loading(row):
                    pass
                if number == 0:
                    make_older(marker, before)
            make_older(marker, late)
            marker._write()
        finally:
            os._exit(9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return crashed.collect({pid: end_of(code)})


@pytest.mark.parametrize("guilty", ["the first", "the second"])
def test_of_several_loads_the_one_that_ends_it_as_late_again_is_blocked(
    tmp_path, crashed, monkeypatch, guilty
):
    """A mend, or another plugin, was blamed for what a timer of the load before did."""
    sentences = load_and_die(tmp_path, crashed, ROW, OTHER, before=3.0)
    assert [text.partition(":")[0] for text in sentences] == ["one", "two"]
    assert (
        "one: loading generation 3 may have ended a worker (exit code 9, moments " in sentences[0]
    )
    assert "it is tried once more" in sentences[0]
    assert crashed.find(ROW) is crashed.find(OTHER) is None
    # The next process loads both at its start, in whatever order, among others.
    third = dataclasses.replace(ROW, id="3", name="three", binary_path=f"/x/three-{DIGEST}.pyz")
    now, late = time.time(), 3.0 if guilty == "the first" else 0.0
    monkeypatch.setattr("time.time", lambda: now + 2.5)
    load_and_die(tmp_path, crashed, starting=[third, OTHER, ROW], late=late)
    found, spared = (ROW, OTHER) if guilty == "the first" else (OTHER, ROW)
    assert crashed.find(found) is not None
    assert crashed.find(spared) is crashed.find(third) is None
    # Were it the other one after all, it would be the only one that is left.
    load_and_die(tmp_path, crashed, starting=[third, spared])
    assert crashed.find(spared) is not None
    assert crashed.find(third) is None


def test_a_mend_is_no_suspect_once_the_one_before_it_is_gone(tmp_path, crashed):
    load_and_die(tmp_path, crashed, ROW, NEXT)
    assert crashed.find(ROW) is crashed.find(NEXT) is None
    assert crashed.is_suspect(NEXT)
    assert not crashed.is_suspect(ROW), "one note for each plugin, of what is served next"


def test_who_dies_with_others_of_one_cause_blocks_one_alone(tmp_path, crashed, monkeypatch):
    """Four workers end at once, and each has its own note."""
    now = time.time()
    for seconds in (0.0, 0.1, 3.0, 3.1, 3.2):
        monkeypatch.setattr("app.serving.crashes.time.time", lambda s=seconds: now + s)
        load_and_die(tmp_path, crashed, ROW, OTHER)
    assert crashed.find(ROW) is not None
    assert crashed.find(OTHER) is None


def test_what_is_served_for_a_while_is_a_suspect_no_more(tmp_path, crashed):
    load_and_die(tmp_path, crashed, ROW, OTHER)
    crashed.absolve(OTHER)
    assert (crashed.is_suspect(ROW), crashed.is_suspect(OTHER)) == (True, False)
    load_and_die(tmp_path, crashed, ROW)
    crashed.absolve(ROW)
    assert crashed.find(ROW) is not None, "what is proven stays"


def test_what_is_loaded_at_a_start_is_blamed_only_where_it_is_suspected(tmp_path, crashed):
    assert load_and_die(tmp_path, crashed, starting=[ROW, OTHER]) == []
    assert crashed.find(ROW) is None
