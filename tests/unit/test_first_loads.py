"""Of several processes of a host one loads a changed version first, and the others wait for it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from app.records import ServedRow
from app.serving import first_loads
from app.serving.first_loads import FirstLoads

ROW = ServedRow("1", "shop", 4, "active", f"/x/shop-{'0' * 32}.pyz")


@contextmanager
def another(folder: Path, *, ends: bool = False) -> Iterator[Callable[[], None]]:
    """Have another process load the row; give what lets it come to the end of that."""
    context = get_context("fork")
    begun, may_end = context.Event(), context.Event()

    def load() -> None:
        with FirstLoads(folder).turn(ROW, True, lambda _: False):
            begun.set()
            may_end.wait(30.0)
            if ends:
                os._exit(9)

    process = context.Process(target=load)
    process.start()
    assert begun.wait(30.0)

    def end() -> None:
        may_end.set()
        process.join(30.0)

    yield end
    end()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_loads, "WAIT_SECONDS", 30.0)
    monkeypatch.setattr(first_loads, "NOTE_SECONDS", 30.0)


class Turn:
    """A load of the row in a thread of this process."""

    def __init__(self, folder: Path, is_noted: Callable[[ServedRow], bool] = lambda _: False):
        self.loads = threading.Event()
        self._folder, self._is_noted = folder, is_noted
        self._thread = threading.Thread(target=self._load)
        self._thread.start()

    def _load(self) -> None:
        with FirstLoads(self._folder).turn(ROW, True, self._is_noted):
            self.loads.set()

    def join(self) -> None:
        self._thread.join(30.0)
        assert self.loads.is_set()


def test_the_others_load_once_the_first_one_has(tmp_path: Path, patient: None) -> None:
    with another(tmp_path) as end:
        turn = Turn(tmp_path)
        assert not turn.loads.wait(0.1)
        end()
        turn.join()


def test_where_the_first_one_ends_its_process_the_others_wait_until_that_is_noted(
    tmp_path: Path, patient: None
) -> None:
    noted = threading.Event()
    with another(tmp_path, ends=True) as end:
        turn = Turn(tmp_path, lambda row: row == ROW and noted.is_set())
        end()
        assert not turn.loads.wait(0.1)
        noted.set()
        turn.join()


def test_nobody_waits_long_nor_for_ever(tmp_path: Path) -> None:
    with another(tmp_path):
        Turn(tmp_path).join()
    with another(tmp_path, ends=True) as end:
        end()
        Turn(tmp_path).join()


def test_a_load_that_fails_holds_nobody_up(tmp_path: Path, patient: None) -> None:
    with pytest.raises(ValueError), FirstLoads(tmp_path).turn(ROW, True, lambda _: False):
        raise ValueError
    with FirstLoads(tmp_path).turn(ROW, True, lambda _: False):
        Turn(tmp_path).join()


def test_what_is_no_edit_and_a_folder_that_cannot_be_made_wait_for_nobody(
    tmp_path: Path, patient: None
) -> None:
    with another(tmp_path), FirstLoads(tmp_path).turn(ROW, False, lambda _: False):
        pass
    (tmp_path / "file").touch()
    with FirstLoads(tmp_path / "file").turn(ROW, True, lambda _: False):
        pass


def test_what_an_earlier_version_left_in_the_file_is_no_part_of_a_later_one(
    tmp_path: Path, patient: None
) -> None:
    longer = replace(ROW, generation=1_000_000, binary_path=f"/far/away/{ROW.binary_path}")
    with FirstLoads(tmp_path).turn(longer, True, lambda _: False):
        pass
    with another(tmp_path) as end:
        turn = Turn(tmp_path)
        assert not turn.loads.wait(0.1)  # it is not taken for loaded
        end()
        turn.join()
    Turn(tmp_path).join()


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path: Path, patient: None) -> None:
    Turn(tmp_path).join()
    for file in (tmp_path / ".first").iterdir():
        file.unlink()
    (tmp_path / ".first").rmdir()
    with another(tmp_path) as end:
        turn = Turn(tmp_path)
        assert not turn.loads.wait(0.1)
        end()
        turn.join()
