"""The watcher on real files: lost events, dead observers, a root that goes and comes back."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.conditions import Conditions
from app.errors import DatabaseUnavailableError, PluginError
from app.publishing import (
    attempt,
    discovery,
    known,
    observer,
    publish_pool,
    publish_slots,
    quiet_period,
    requirements,
    sight,
    stamps,
    watcher,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.known import KnownFolders
from app.publishing.observer import FolderObserver
from app.publishing.stamps import FolderStamp, same_large
from app.publishing.watcher import SourceWatcher
from app.records import PluginRow
from tests.support.looks import Looks, write
from tests.support.waiting import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def looks(root: Path) -> Looks:
    return Looks(root)


@pytest.fixture
def watching(root: Path, tmp_path: Path, looks: Looks) -> Iterator[SourceWatcher]:
    running = SourceWatcher(root, tmp_path / "bin", looks, Conditions())  # type: ignore[arg-type]
    running.start()
    wait_until(lambda: looks.scans, "it scans first")
    yield running
    looks.release.set()
    running.stop()


def test_an_event_marks_its_folder(root: Path, looks: Looks, watching: SourceWatcher) -> None:
    write(root, "one", "first")
    wait_until(lambda: looks.saw("one", "first"), "it is looked at", 1.0)


@pytest.fixture
def frequent_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "SCAN_SECONDS", 0.2)
    monkeypatch.setattr(watcher, "SUPERVISE_SECONDS", 0.05)


def test_the_scan_finds_what_no_event_told(
    frequent_scans: None,
    root: Path,
    looks: Looks,
    watching: SourceWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An overflow of the kernel's queue is a line in a log, and its events are gone.
    monkeypatch.setattr(FolderObserver, "on_any_event", lambda *_: None)
    write(root, "lost", "event")
    wait_until(lambda: looks.saw("lost", "event"), "the scan finds it", 8.0)
    shutil.rmtree(root / "lost")
    wait_until(lambda: looks.saw("lost", None), "and that it is gone", 8.0)


def test_links_say_nothing_of_events_where_they_lead_out_or_come_to_life(
    frequent_scans: None,
    root: Path,
    tmp_path: Path,
    looks: Looks,
    watching: SourceWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One refused link of one team made its whole host degraded, for what no event can tell."""
    missed: list[str] = []
    compared: list[float] = []
    changed = KnownFolders.changed

    def compare(known: KnownFolders, *, linked: bool = False) -> list[str]:
        found = changed(known, linked=linked)
        if not linked:
            compared.append(time.monotonic())
        return found

    def wait_for_comparisons() -> None:
        before = len(compared)
        wait_until(lambda: len(compared) > before + 1 and watching.is_idle, "all are compared")

    monkeypatch.setattr(KnownFolders, "changed", compare)
    monkeypatch.setattr(sight, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(known, "LATE_SECONDS", 0.05)
    monkeypatch.setattr(sight.Sight, "missed", lambda _sight, folder, _at: missed.append(folder))
    out = tmp_path / "out"
    out.mkdir()
    write(out, "shared", "one")
    (root / "out").symlink_to(out / "shared")
    (root / "later_out").symlink_to(out / "later")
    (root / "later_in").symlink_to(".hidden/later")
    write(root, "holds", "one")
    (root / "holds" / "data.py").symlink_to(out / "later" / "main.py")
    wait_until(lambda: looks.saw("out", "one") and looks.saw("holds", "one"), "both are seen")
    wait_for_comparisons()
    write(out, "shared", "two")
    write(out, "made", "one")
    (out / "made").rename(out / "later")  # whole at once: it is looked at once
    (root / ".hidden").mkdir()
    write(root / ".hidden", "later", "one")
    wait_until(lambda: looks.saw("later_out", "one") and looks.saw("later_in", "one"), "they live")
    wait_for_comparisons()
    shutil.rmtree(out)
    wait_until(lambda: looks.saw("out", None), "it is gone")
    wait_for_comparisons()
    with monkeypatch.context() as patch:
        patch.setattr(FolderObserver, "on_any_event", lambda *_: None)
        write(root, "lost", "event")
        wait_until(lambda: missed, "of this one an event is missing")
    assert missed == ["lost"]


def test_a_folder_made_in_one_that_is_just_made_does_not_end_the_observer(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inner one is watched twice, of which watchdog warns; here warnings are errors."""
    added: list[bytes] = []
    add = observer._Inotify.add_callback

    def add_and_make(inotify: observer._Inotify, path: bytes, *rest: Any) -> int:
        descriptor = add(inotify, path, *rest)
        added.append(path)
        if path.endswith(b"/one"):
            os.mkdir(path + b"/inner")  # noqa: PTH102
        return descriptor

    monkeypatch.setattr(observer._Inotify, "add_callback", add_and_make)
    scans = looks.scans
    (root / "one").mkdir()
    wait_until(lambda: sum(p.endswith(b"/inner") for p in added) == 2, "watched twice")
    write(root, "two", "later")
    wait_until(lambda: looks.saw("two", "later"), "it sees still", 1.0)
    assert looks.scans == scans, "no other observer was started"


def test_an_observer_that_died_is_replaced(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault in a handler kills the dispatcher")

    scans = looks.scans
    with monkeypatch.context() as patch:
        patch.setattr(FolderObserver, "on_any_event", fail)
        patch.setattr(threading, "excepthook", lambda *_: None)
        write(root, "deadly", "one")
        wait_until(lambda: looks.scans > scans, "another observer was started", 5.0)
    write(root, "alive", "one")
    wait_until(lambda: looks.saw("alive", "one"), "it sees again", 8.0)


def test_a_root_that_is_deleted_and_made_again_is_watched_again(
    root: Path, looks: Looks, watching: SourceWatcher
) -> None:
    scans = looks.scans
    shutil.rmtree(root)
    root.mkdir()
    wait_until(lambda: looks.scans > scans, "it starts over", 5.0)
    write(root, "anew", "one")
    wait_until(lambda: looks.saw("anew", "one"), "it sees again", 2.0)


def test_a_system_without_events_is_compared_every_second(
    root: Path, tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(observer.Observer, "start", refuse)
    blind = SourceWatcher(root, tmp_path / "bin", looks, Conditions())  # type: ignore[arg-type]
    blind.start()
    try:
        wait_until(lambda: looks.scans, "it scans first")
        write(root, "unseen", "one")
        wait_until(lambda: looks.saw("unseen", "one"), "it is found", 4.0)
    finally:
        blind.stop()


def test_a_folder_stays_marked_while_the_database_is_away(
    root: Path, looks: Looks, watching: SourceWatcher
) -> None:
    looks.unavailable = True
    write(root, "patient", "one")
    wait_until(lambda: looks.refused, "it was tried", 2.0)
    assert not looks.seen
    looks.unavailable = False
    wait_until(lambda: looks.saw("patient", "one"), "it is looked at", 3.0)


def test_while_the_database_is_away_it_stands_before_the_folders_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try looked at all of them anew: a tenth of a second of 400, each second."""
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.02)
    opened: list[None] = []
    opens = sight.Sight.open

    def open_sight(self: sight.Sight) -> None:
        opened.append(None)
        opens(self)

    monkeypatch.setattr(sight.Sight, "open", open_sight)
    looks, held = Looks(root), Conditions()
    tried: list[None] = []
    scan = looks.scan

    def scan_in_vain() -> list[str]:
        tried.append(None)
        if looks.unavailable:
            raise DatabaseUnavailableError("away")
        return scan()

    looks.scan = scan_in_vain  # type: ignore[method-assign]
    looks.unavailable = True
    running = SourceWatcher(root, tmp_path / "bin", looks, held)  # type: ignore[arg-type]
    running.start()
    try:
        wait_until(lambda: len(tried) > 5, "it tries again and again")
        assert [found.what for found in held.held()] == ["no edit is published: away"]
        write(root, "meanwhile", "one")
        wait_until(lambda: looks.refused, "the edit was seen, and tried", 2.0)
        looks.unavailable = False
        wait_until(lambda: looks.saw("meanwhile", "one"), "it is looked at", 3.0)
        wait_until(lambda: not held.held(), "nothing is held any more")
        assert len(opened) == 1
        looks.unavailable = True
        shutil.rmtree(root)
        wait_until(lambda: len(opened) > 1, "the root is gone")
    finally:
        running.stop()


def test_a_folder_whose_row_is_locked_waits_for_it_once_and_follows_by_itself(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_pool, "RETRY_SECONDS", 0.05)
    looks.locked_row = True
    write(root, "held", "one")
    wait_until(lambda: len(looks.waits_for_lock) >= 3, "it is tried again and again", 2.0)
    looks.locked_row = False
    wait_until(lambda: looks.saw("held", "one"), "it is looked at", 2.0)
    assert looks.waits_for_lock[0]
    assert not any(looks.waits_for_lock[1:3])
    looks.waits_for_lock.clear()
    write(root, "held", "two")
    wait_until(lambda: looks.saw("held", "two"), "it is looked at", 2.0)
    assert all(looks.waits_for_lock)


def test_what_a_scan_could_not_publish_is_looked_at_again(
    root: Path, looks: Looks, tmp_path: Path
) -> None:
    write(root, "held", "one")
    looks.locked = ["held"]
    running = SourceWatcher(root, tmp_path / "bin", looks, Conditions())  # type: ignore[arg-type]
    running.start()
    try:
        wait_until(lambda: looks.saw("held", "one"), "it is looked at", 3.0)
    finally:
        running.stop()


def test_what_was_refused_for_a_reason_that_passes_is_looked_at_again_by_itself(
    frequent_scans: None,
    root: Path,
    looks: Looks,
    watching: SourceWatcher,
) -> None:
    looks.refusals.retry_seconds = (0.2, 0.2)
    write(root, "full", "one")
    wait_until(lambda: looks.saw("full", "one"))
    wait_until(lambda: watching.is_idle, "all is quiet")
    looks.seen.clear()
    looks.refusals.note("full", PublishAttempt(), PluginError("full", "no room", outside=True))
    wait_until(lambda: looks.saw("full", "one"), "it is looked at", 3.0)


def test_a_row_that_asks_is_looked_at(root: Path, looks: Looks, watching: SourceWatcher) -> None:
    looks.asked = ["wanted"]
    watching.rows_changed({"wanted"})
    wait_until(lambda: looks.saw("wanted", None), "it is looked at", 2.0)


def test_what_was_refused_is_looked_at_again_once_packages_are_installed(
    frequent_scans: None,
    root: Path,
    tmp_path: Path,
    looks: Looks,
    watching: SourceWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.setattr(requirements, "_site_folders", lambda: [str(site)])
    wait_until(lambda: looks.saw("wanting", None), "another environment is a change, too")
    looks.seen.clear()
    write(root, "other", "one")
    wait_until(lambda: looks.saw("other", "one"))
    assert not looks.saw("wanting", None), "nothing was installed"
    (site / "thing-1.0.dist-info").mkdir()
    wait_until(lambda: looks.saw("wanting", None), "it is looked at", 2.0)


def test_one_of_several_watches_and_another_takes_over(
    root: Path, tmp_path: Path, looks: Looks, watching: SourceWatcher
) -> None:
    second = SourceWatcher(root, tmp_path / "bin", looks, Conditions())  # type: ignore[arg-type]
    second.start()
    try:
        write(root, "first", "one")
        wait_until(lambda: looks.saw("first", "one"), "the first watches")
        assert watching.holds
        assert not second.holds
        scans = looks.scans
        watching.stop()
        wait_until(lambda: second.holds, "the second takes over", 2.0)
        # What was written before its scan is the scan's to find, which is not made here.
        wait_until(lambda: looks.scans > scans, "the second has scanned", 2.0)
        write(root, "second", "two")
        wait_until(lambda: looks.saw("second", "two"), "and sees", 2.0)
    finally:
        second.stop()


def test_a_pipe_in_the_locks_place_is_said_and_hangs_nobody(
    frequent_scans: None,
    root: Path,
    tmp_path: Path,
    looks: Looks,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bin").mkdir()
    os.mkfifo(tmp_path / "bin" / ".watch.lock")
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.05)
    conditions = Conditions()
    stuck = SourceWatcher(root, tmp_path / "bin", looks, conditions)  # type: ignore[arg-type]
    stuck.start()
    try:
        wait_until(lambda: "nothing is watched" in caplog.text, "it is said", 3.0)
        held = [found.what for found in stuck.election.conditions()]
        assert ["nothing is watched" in what for what in held] == [True]
        assert "BENANA_WATCH=off" in held[0]
        (tmp_path / "bin" / ".watch.lock").unlink()
        wait_until(lambda: looks.scans, "it watches", 3.0)
        assert stuck.election.conditions() == ()
        root.rename(tmp_path / "gone")
        wait_until(conditions.held, "that the root is gone is held", 3.0)
        assert str(root) in conditions.held()[0].what
        (tmp_path / "gone").rename(root)
        wait_until(lambda: not conditions.held(), "it is back", 3.0)
    finally:
        stuck.stop()


def test_a_file_is_read_when_its_writer_has_closed_it(
    root: Path, looks: Looks, watching: SourceWatcher
) -> None:
    write(root, "slow", "old")
    wait_until(lambda: looks.saw("slow", "old"))
    wait_until(lambda: watching.is_idle, "all is quiet")
    with (root / "slow" / "main.py").open("w") as file:
        file.write("half")
        file.flush()
        # Longer than the quiet period, and shorter than the longest wait for a writer.
        threading.Event().wait(quiet_period.QUIET_SECONDS * 5)
        file.write(" and whole")
    wait_until(lambda: looks.saw("slow", "half and whole"))
    assert not looks.saw("slow", "half")


def test_a_single_file_is_looked_at_at_once_and_a_second_one_supersedes_it(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "one", "old")
    wait_until(lambda: looks.saw("one", "old"))
    wait_until(lambda: watching.is_idle, "all is quiet")
    monkeypatch.setattr(quiet_period, "CALM_SECONDS", 0.0)
    monkeypatch.setattr(quiet_period, "QUIET_SECONDS", 30.0)
    begun = looks.begun
    write(root, "one", "new")
    wait_until(lambda: looks.begun > begun, "it does not wait for the quiet period")
    assert not looks.saw("one", "new"), "what is found counts after it"
    monkeypatch.setattr(quiet_period, "CALM_SECONDS", 30.0)
    (root / "one" / "other.py").write_text("other")
    wait_until(lambda: looks.superseded == 1, "the first look is given up")
    monkeypatch.setattr(quiet_period, "QUIET_SECONDS", 0.02)
    wait_until(lambda: looks.saw("one", "new"), "the next one waited before it began")
    assert looks.superseded == 1


def test_a_storm_of_edits_is_waited_out(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "one", "old")
    wait_until(lambda: looks.saw("one", "old"))
    wait_until(lambda: watching.is_idle, "all is quiet")
    monkeypatch.setattr(quiet_period, "CALM_SECONDS", 30.0)
    begun = looks.begun
    for number in range(200):
        write(root, "one", str(number))
    wait_until(lambda: looks.saw("one", "199"))
    assert looks.superseded == 0
    assert looks.begun - begun < 20


def test_folders_that_hang_hold_up_no_other_one(
    frequent_scans: None,
    root: Path,
    looks: Looks,
    watching: SourceWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish_slots, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(publish_slots, "HUNG_SECONDS", 0.1)
    for number in range(8):
        write(root, f"hangs{number}", "one")
    wait_until(lambda: looks.hanging >= 4, "they hang")
    write(root, "new", "one")
    wait_until(lambda: looks.saw("new", "one"), "the first time, it waits for some of them", 3.0)
    wait_until(lambda: looks.hanging == 8, "all are looked at")
    looks.release.set()
    wait_until(lambda: not looks.hanging and watching.is_idle)
    looks.release.clear()
    for number in range(8):
        write(root, f"hangs{number}", "two")
    wait_until(lambda: looks.hanging == publish_slots.SLOW_SLOTS, "as many as may")
    monkeypatch.setattr(publish_slots, "SLOW_SECONDS", 30.0)
    for number in range(3):
        write(root, "new", f"two{number}")
        text = f"two{number}"
        wait_until(lambda: looks.saw("new", text), "it waits for none", 1.0)
    assert looks.hanging == publish_slots.SLOW_SLOTS
    looks.release.set()
    wait_until(lambda: watching.is_idle, "the others had their turn")
    assert looks.begun >= 8 + 8 + 1 + 3
    assert watching.publishing_threads == publish_slots.SLOTS, (
        "the threads that came beside have ended"
    )


def test_a_folder_that_is_too_large_is_left_alone_until_it_changes(
    frequent_scans: None,
    root: Path,
    tmp_path: Path,
    looks: Looks,
    watching: SourceWatcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(discovery, "MAX_FILES", 20)
    monkeypatch.setattr(stamps, "MAX_FILES", 20)
    beside = tmp_path / "beside"  # watchdog warns where a folder and one in it are made at once
    (beside / "large" / "data").mkdir(parents=True)
    for number in range(30):
        (beside / "large" / "data" / f"f{number}").touch()
    write(beside, "large", "new")
    (beside / "large").rename(root / "large")
    data = root / "large" / "data"

    def rests() -> bool:
        known = same_large(watching._known._large.get("large", ()))
        return known and watching.is_idle

    wait_until(rests, "it is refused as it is now")
    walks = looks.walks
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "folder_stamp", lambda _folder: pytest.fail("it was walked"))
        for number in range(300):
            (data / f"f{number % 30}").write_text("x")
            watching.notice("large", f"large/data/f{number}", "modified")
        assert looks.walks == walks
    (data / "f0").unlink()
    wait_until(lambda: looks.walks > walks, "the scan sees that something was taken away", 3.0)
    assert not looks.saw("large", "new")
    shutil.move(data, root.parent / "data")
    wait_until(lambda: looks.saw("large", "new"), "it is small enough", 3.0)
    assert "large" not in watching._known._large
    assert caplog.text.count("large: discover failed") == 1


def test_thousands_of_events_cost_few_stamps(
    root: Path, looks: Looks, watching: SourceWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    same = FolderStamp((("same", 0, 0, 0, 0),))

    def stamp(_folder: Path) -> FolderStamp:
        taken.append(time.monotonic())
        while time.monotonic() < taken[-1] + 0.002:
            pass
        return same

    monkeypatch.setattr(attempt, "folder_stamp", stamp)
    write(root, "hangs", "one")
    wait_until(lambda: looks.hanging == 1, "its attempt is under way")
    began, before = time.monotonic(), len(taken)
    for number in range(3000):
        watching.notice("hangs", f"hangs/f{number}", "created")
    took = time.monotonic() - began
    assert len(taken) - before <= 1 + took / 0.02
    (under_way,) = looks.attempts
    monkeypatch.setattr(attempt, "folder_stamp", lambda _folder: FolderStamp(()))

    def superseded() -> bool:
        watching.notice("hangs", "hangs/last", "created")
        return under_way.superseded.is_set()

    wait_until(superseded, "a change is noticed, once its time has come")
    looks.release.set()


def test_a_watching_that_hangs_is_held_as_a_condition(
    root: Path, tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system whose server is away."""
    monkeypatch.setattr(sight, "SCAN_SECONDS", 0.1)
    hangs = threading.Event()
    changed = KnownFolders.changed

    def hang(known: KnownFolders, *, linked: bool = False) -> list[str]:
        hangs.wait(10)
        return changed(known, linked=linked)

    monkeypatch.setattr(KnownFolders, "changed", hang)
    conditions = Conditions()
    stuck = SourceWatcher(root, tmp_path / "bin", looks, conditions)  # type: ignore[arg-type]
    stuck.election.stuck_seconds = 0.3
    stuck.start()

    def held() -> list[str]:
        stuck.election.look()
        return [found.what for found in stuck.election.conditions()]

    try:
        wait_until(lambda: any("no edit is seen" in what for what in held()), "it is held", 5.0)
        stuck.election.stuck_seconds = 10.0
        hangs.set()
        wait_until(lambda: not held(), "it goes on", 5.0)
    finally:
        hangs.set()
        stuck.stop()


def test_what_is_published_when_a_process_ends_is_published_to_the_end(
    root: Path, tmp_path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, done = threading.Event(), threading.Event()
    follow = looks.follow

    def slow(name: str, row: PluginRow | None, attempt: PublishAttempt) -> bool:
        began.set()
        time.sleep(0.3)  # a trial
        done.set()
        return follow(name, row, attempt)

    monkeypatch.setattr(looks, "follow", slow)
    ending = SourceWatcher(root, tmp_path / "bin", looks, Conditions())  # type: ignore[arg-type]
    ending.start()
    wait_until(lambda: looks.scans, "it watches")
    write(root, "hello", "one")
    assert began.wait(5)
    ending.stop()
    assert done.is_set()


def test_a_fault_of_the_servers_own_is_said_and_does_not_end_the_watching(
    root: Path,
    tmp_path: Path,
    looks: Looks,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.05)
    scan = looks.scan

    def fail() -> list[str]:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(looks, "scan", fail)
    conditions = Conditions()
    faulty = SourceWatcher(root, tmp_path / "bin", looks, conditions)  # type: ignore[arg-type]
    faulty.start()
    try:
        held = "ZeroDivisionError: of ours"
        wait_until(lambda: held in str(conditions.held()), "it is held", 3.0)
        monkeypatch.setattr(looks, "scan", scan)
        wait_until(lambda: not conditions.held(), "it watches", 3.0)
        assert caplog.text.count("watching failed") == 1
    finally:
        faulty.stop()
