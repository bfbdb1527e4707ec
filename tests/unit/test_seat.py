"""One exclusive plugin in one process: who runs it, and what is told of that."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import LoadError
from app.isolation.board import Board, Word
from app.isolation.runtime_folder import RuntimeFolder
from app.isolation.stand_in import StandIn
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, load
from app.presence import own_presence
from app.records import ServedRow
from app.routing.application import LiveApp
from app.serving.exclusive.seat import Seat
from tests.support.plugins import artifact_of, no_database, plugin_text

ROW = ServedRow("1", "sample", 1, "active", "x")


class Cluster:
    """Stands for the lock of all hosts."""

    def __init__(self) -> None:
        self.free, self.held = True, False
        self.word: Word | None = None

    def take(self) -> bool:
        self.held = self.free
        return self.held

    def is_held(self) -> bool:
        return self.held

    def release(self) -> None:
        self.held = False

    def owner(self) -> Word | None:
        return self.word


def loaded(row: ServedRow) -> LoadedPlugin:
    make = make_context_factory(Path("/nowhere"), lambda _: no_database)
    artifact = artifact_of({"main.py": plugin_text()})
    return load(artifact, make, row_id=row.id, generation=row.generation, tried=True)


def broken(row: ServedRow) -> LoadedPlugin:
    raise LoadError("sample", "no", phase="initialize")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RuntimeFolder]:
    folder = RuntimeFolder(tmp_path)
    yield folder
    shutil.rmtree(folder.path, ignore_errors=True)


@pytest.fixture
def seat(folder: RuntimeFolder) -> Iterator[Seat]:
    seat = Seat("sample", folder, LiveApp(), 1.0, lambda: None)
    yield seat
    seat.close()


def run(seat: Seat, row: ServedRow = ROW) -> LoadedPlugin:
    """Load a row and open it, as the reconciler does."""
    seat.want(row)
    plugin = seat.load(row, loaded)
    assert isinstance(plugin, LoadedPlugin)
    seat.hand_over.claim(plugin)
    assert seat.opened(plugin) is None
    return plugin


def test_who_takes_the_lock_runs_it_and_tells(seat: Seat, folder: RuntimeFolder) -> None:
    plugin = run(seat)
    assert seat.owns
    assert seat.runs
    word = Board(folder.board("sample")).read()
    assert word is not None
    assert word.serves(ROW)
    assert [endpoint.path for endpoint in word.endpoints] == ["/sample"]
    assert folder.socket("sample").exists()
    assert not seat.look()
    seat.unwanted()
    seat.look()
    assert not seat.owns
    assert Board(folder.board("sample")).read() is None
    assert not folder.socket("sample").exists()
    plugin.dispose()


def test_a_lock_that_is_lost_stops_it_and_the_word_is_taken_back(
    seat: Seat, folder: RuntimeFolder
) -> None:
    plugin = run(seat)
    folder.lock("sample").unlink()
    assert seat.look()
    assert not seat.owns
    assert not seat.hears(ROW)  # what it has told itself is no other process's word
    assert not folder.socket("sample").exists()
    assert seat.look()  # it runs still: the reconciler has to stop it
    assert not seat.owns
    end = threading.Event()
    seat.shut()
    seat.hand_over.leave([end])
    assert not seat.look()  # nor is it taken again before it has stopped
    assert not seat.owns
    plugin.dispose()
    end.set()
    assert seat.look()
    assert seat.owns


def test_a_folder_that_is_removed_is_made_anew(seat: Seat, folder: RuntimeFolder) -> None:
    plugin = run(seat)
    shutil.rmtree(folder.path)
    assert seat.look()
    seat.shut()
    plugin.dispose()
    assert seat.look()
    assert seat.owns
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_while_a_process_ends_it_takes_nothing_over(seat: Seat) -> None:
    seat.want(ROW)
    seat.stop_candidacy()
    seat.look()
    assert not seat.owns


def test_a_failure_is_told_with_the_generation_that_failed(
    seat: Seat, folder: RuntimeFolder
) -> None:
    seat.want(ROW)
    with pytest.raises(LoadError) as caught:
        seat.load(ROW, broken)
    seat.failed(ROW, caught.value, comes=False, here=False)
    word = Board(folder.board("sample")).read()
    assert word is not None
    assert word.failed_with(ROW) == caught.value.as_record()
    assert word.generation is None
    assert seat.owns


def test_what_gave_way_goes_on_doing_so_until_something_else_is_wanted(seat: Seat) -> None:
    seat.want(ROW)
    with pytest.raises(LoadError) as caught:
        seat.load(ROW, broken)
    seat.failed(ROW, caught.value, comes=True, here=False)
    seat.want(ROW)  # it is tried again, while this process ends
    assert seat._door.gives_way_because == str(caught.value)
    seat.want(replace(ROW, generation=2))
    assert not seat._door.gives_way_because


def test_what_is_not_wanted_any_more_is_not_waited_for(seat: Seat) -> None:
    seat.want(replace(ROW, generation=2))
    with pytest.raises(LoadError, match="something else"):
        seat.load(ROW, loaded)


def test_a_process_of_another_host_is_told_to_this_one(seat: Seat, folder: RuntimeFolder) -> None:
    cluster: Any = Cluster()
    seat.cluster_lock = cluster
    cluster.free = False
    cluster.word = Word("there", 7, None, None, here=False, id="1", generation=1)
    seat.want(ROW)
    standing = seat.load(replace(ROW, endpoints=[["GET", "/sample", "f"]]), loaded)
    assert isinstance(standing, StandIn)
    assert [route.template for route in standing.routes] == ["/sample"]
    assert seat.elsewhere == cluster.word
    assert not seat.owns
    cluster.word = None  # nobody has it, and nobody is said to have it
    seat.look()
    assert Board(folder.board("sample")).read() is None
    cluster.free = True
    assert seat.look()
    assert seat.owns
    assert seat.elsewhere is None


def test_a_lock_of_all_hosts_that_is_lost_stops_it(seat: Seat) -> None:
    cluster: Any = Cluster()
    seat.cluster_lock = cluster
    plugin = run(seat)
    cluster.held = cluster.free = False
    assert seat.look()
    assert not seat.owns
    plugin.dispose()


def test_the_word_of_a_process_that_has_ended_counts_no_more(
    seat: Seat, folder: RuntimeFolder
) -> None:
    folder.make()
    me = own_presence()
    gone = Word("h", me.pid, me.machine, (me.started or 0) + 1, id="1", generation=1)
    Board(folder.board("sample")).write(gone)
    if me.machine is not None:
        run(seat).dispose()
        assert seat.owns
