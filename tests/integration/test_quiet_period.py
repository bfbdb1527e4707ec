"""What is found in a folder counts once that was quiet, whatever had it looked at."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.conditions import Conditions
from app.database.repository import Repository
from app.errors import LoadError, PluginError, SupersededError
from app.publishing import quiet_period
from app.publishing.attempt import PublishAttempt
from app.publishing.observer import FolderObserver
from app.publishing.publisher import Publisher
from app.publishing.watcher import SourceWatcher
from tests.support.publications import InstantTrial, follow, publisher_of
from tests.support.waiting import wait_until

QUIET_SECONDS = 0.3
GOOD, BETTER = "new_plugin = object\n", "new_plugin = object  # better\n"


class Trial(InstantTrial):
    """Refuses a file that is empty, and tells when it has tried something."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = threading.Event()

    def prepare(self) -> None:
        """Nothing is to be started."""

    def run(self, source: Any, *others: Any) -> Any:
        self.tried.set()
        if not source.files["main.py"]:
            raise LoadError(source.name, "expected a function new_plugin()", phase="factory")
        return super().run(source, *others)


@pytest.fixture
def trial() -> Trial:
    return Trial()


@pytest.fixture
def main(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins" / "fine"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(GOOD)
    return folder / "main.py"


@pytest.fixture
def publisher(
    main: Path,
    tmp_path: Path,
    repository: Repository,
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
) -> Publisher:
    """It has published `fine`, and waits for longer than a machine may be busy."""
    publisher = publisher_of(main.parents[1], tmp_path, repository, trial)
    follow(publisher, "fine", PublishAttempt())
    trial.tried.clear()
    monkeypatch.setattr(quiet_period, "QUIET_SECONDS", QUIET_SECONDS)
    return publisher


@pytest.fixture
def errors(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every error that is recorded or taken back."""
    recorded: list[object] = []
    record = repository.record_error

    def note(row: Any, error: Any) -> None:
        recorded.append(error)
        record(row, error)

    monkeypatch.setattr(repository, "record_error", note)
    return recorded


DOORS: dict[str, Callable[[Publisher], Any]] = {
    "an event": lambda publisher: follow(publisher, "fine", PublishAttempt(told=True)),
    "a comparison": lambda publisher: follow(publisher, "fine", PublishAttempt()),
    "a scan": lambda publisher: publisher.scan(),
    "a reload": lambda publisher: publisher.publish("fine"),
}


@pytest.mark.parametrize("door", DOORS)
def test_an_edit_counts_after_the_quiet_period(
    publisher: Publisher, repository: Repository, main: Path, door: str
) -> None:
    before = repository.list_rows()[0].generation
    began = time.monotonic()
    main.write_text(BETTER)
    DOORS[door](publisher)
    assert time.monotonic() - began >= QUIET_SECONDS
    assert repository.list_rows()[0].generation == before + 1


@pytest.mark.parametrize("door", DOORS)
def test_an_error_counts_after_the_quiet_period(
    publisher: Publisher, repository: Repository, main: Path, door: str
) -> None:
    began = time.monotonic()
    main.write_text("")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(DOORS[door], publisher)
        while not done.done():
            at = time.monotonic()
            error = repository.list_rows()[0].error
            assert error is None or at - began >= QUIET_SECONDS - 0.1, "while it is looked at"
        assert door == "a scan" or isinstance(done.exception(), PluginError)
    assert time.monotonic() - began >= QUIET_SECONDS
    assert "new_plugin()" in str(repository.list_rows()[0].error)


@pytest.mark.parametrize("door", ["an event", "a comparison", "a scan"])
def test_a_folder_that_is_swapped_is_not_unregistered_meanwhile(
    publisher: Publisher,
    repository: Repository,
    main: Path,
    tmp_path: Path,
    door: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(main.parent, tmp_path / "plugins" / "other")  # else the root would be empty
    follow(publisher, "other", PublishAttempt())
    before = {row.id for row in repository.list_rows()}
    is_gone, looked = publisher._folder_is_gone, threading.Event()

    def looking(*arguments: Any) -> bool:
        found = is_gone(*arguments)
        looked.set()
        return found

    monkeypatch.setattr(publisher, "_folder_is_gone", looking)
    main.parent.rename(tmp_path / "away")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(DOORS[door], publisher)
        assert looked.wait(5.0)
        (tmp_path / "away").rename(main.parent)
        if door == "a scan":
            assert done.result(5.0) == ["fine"], "it is looked at again"
        else:
            with pytest.raises(SupersededError):
                done.result(5.0)
    assert {row.id for row in repository.list_rows()} == before
    shutil.rmtree(main.parent)
    follow(publisher, "fine", PublishAttempt())
    assert [row.name for row in repository.list_rows()] == ["other"]


@pytest.fixture
def watching(
    publisher: Publisher, main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SourceWatcher]:
    """A watcher whom no event tells anything."""
    monkeypatch.setattr(FolderObserver, "on_any_event", lambda *_: None)
    conditions = Conditions()
    running = SourceWatcher(main.parents[1], tmp_path / "bin", publisher, conditions)
    running.start()
    # The first scan looks at the folder, too.
    wait_until(lambda: running.holds and not conditions.held() and running.is_idle, "it watches")
    yield running
    running.stop()


def test_a_file_that_is_open_for_writing_is_never_an_error(
    watching: SourceWatcher,
    repository: Repository,
    trial: Trial,
    main: Path,
    errors: list[object],
) -> None:
    """A look that no event began, as the one after a publish, found it cut and not yet written."""
    before = repository.list_rows()[0].generation
    with main.open("w") as file:
        watching.mark(["fine"])
        assert trial.tried.wait(5.0)
        file.write(BETTER)
    wait_until(lambda: repository.list_rows()[0].generation > before, "no event has to tell of it")
    assert errors == []


def test_an_error_of_a_moment_is_not_taken_back_either(
    watching: SourceWatcher,
    publisher: Publisher,
    repository: Repository,
    main: Path,
    errors: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main.write_text("")
    with pytest.raises(LoadError):
        publisher.publish("fine")
    assert len(errors) == 1
    find, found = publisher._seen.find, threading.Event()

    def told(name: str) -> Any:
        found.set()
        return find(name)

    monkeypatch.setattr(publisher._seen, "find", told)
    main.write_text(GOOD)
    watching.mark(["fine"])
    assert found.wait(5.0)
    main.write_text("")
    wait_until(lambda: watching.is_idle, "it is looked at again")
    assert None not in errors
    assert repository.list_rows()[0].error is not None


def test_what_changes_all_the_time_is_published_and_no_error_of_it_counts(
    publisher: Publisher, repository: Repository, main: Path
) -> None:
    before = repository.list_rows()[0].generation
    attempt = PublishAttempt(restless=True)
    attempt.superseded.set()
    main.write_text(BETTER)
    follow(publisher, "fine", attempt)
    assert repository.list_rows()[0].generation == before + 1
    again = PublishAttempt(restless=True)
    again.superseded.set()
    main.write_text("")
    with pytest.raises(SupersededError):
        follow(publisher, "fine", again)
    assert repository.list_rows()[0].error is None
