"""What a rehearsal finds is kept with the version, and decides how the next edit goes live."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.database.repository import Repository
from app.errors import RehearsalError
from app.publishing.attempt import PublishAttempt
from app.publishing.publisher import Publisher
from app.publishing.trials.rehearsal import Rehearsal
from app.records import FRESH, HOT, Artifact, PluginRow, Reload
from tests.support.databases import Session
from tests.support.publications import InstantTrial, follow, publisher_of
from tests.support.waiting import wait_until

KEEPS = Reload(FRESH, "library.classes keeps Tag of generation 1", "Take it back in cleanup")
HARMLESS = Reload(HOT, "")


class Rehearser:
    """Finds what it is told, once it may."""

    def __init__(self) -> None:
        self.finding: Reload | None = KEEPS
        self.asked: list[tuple[str | None, str, int]] = []
        self.may = threading.Event()
        self.may.set()

    def rehearse(self, older: Artifact | None, newer: Artifact, generation: int) -> Rehearsal:
        self.asked.append((older.digest if older else None, newer.digest, generation))
        assert self.may.wait(10)
        if self.finding is None:
            raise RehearsalError(newer.plugin, "not now")
        return Rehearsal(self.finding)


class Publishing:
    """A publisher of the plugin `shop`, whose rehearsals are its own."""

    def __init__(self, home: Path, repository: Repository, rehearser: Rehearser) -> None:
        self.folder = home / "plugins" / "shop"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repository = repository
        trial: Any = InstantTrial()
        trial.rehearser = lambda *_: rehearser
        self.publisher: Publisher = publisher_of(self.folder.parent, home, repository, trial)

    def edit(self, text: str, manifest: str = "") -> None:
        (self.folder / "main.py").write_text(f"new_plugin = object  # {text}\n")
        (self.folder / "plugin.yaml").write_text(manifest)
        follow(self.publisher, "shop", PublishAttempt())

    @property
    def row(self) -> PluginRow:
        row = self.repository.find_row("shop")
        assert row is not None
        return row

    def wait_for(self, finding: Reload) -> None:
        wait_until(lambda: self.row.finding == finding, "it is rehearsed")


Make = Callable[[], Publishing]


@pytest.fixture
def rehearser() -> Rehearser:
    return Rehearser()


@pytest.fixture
def publishings(tmp_path: Path, repository: Repository, rehearser: Rehearser) -> Iterator[Make]:
    """Make publishers that share a database and a folder, as two processes of a host do."""
    made: list[Publishing] = []

    def make() -> Publishing:
        made.append(Publishing(tmp_path, repository, rehearser))
        made[-1].publisher.rehearsals.start()
        return made[-1]

    yield make
    rehearser.may.set()
    for publishing in made:
        publishing.publisher.rehearsals.stop()


def test_a_finding_decides_how_the_next_edit_goes_live(
    publishings: Make, rehearser: Rehearser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shop = publishings()
    shop.edit("one")
    shop.wait_for(KEEPS)
    first = shop.row.source_digest
    rehearser.finding = HARMLESS
    shop.edit("two")
    assert shop.row.reload == KEEPS
    assert "shop: it goes live by fresh workers: library.classes keeps Tag of" in caplog.text
    shop.wait_for(HARMLESS)
    assert rehearser.asked == [
        (None, first, 1),
        (first, shop.row.source_digest, 2),
    ], "each beside the one before"
    shop.edit("three")
    assert shop.row.reload is None or shop.row.reload.how == HOT


def test_an_edit_that_comes_before_the_finding_waits_for_it(
    publishings: Make, rehearser: Rehearser
) -> None:
    shop = publishings()
    rehearser.may.clear()
    shop.edit("one")
    assert shop.row.finding is None, "an edit does not wait for its own"
    thread = threading.Thread(target=shop.edit, args=("two",))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert shop.row.generation == 1
    rehearser.may.set()
    thread.join(10)
    assert (shop.row.generation, shop.row.reload) == (2, KEEPS)


def test_another_process_knows_the_finding(publishings: Make, rehearser: Rehearser) -> None:
    shop = publishings()
    shop.edit("one")
    shop.wait_for(KEEPS)
    other = publishings()
    rehearser.may.clear()
    other.edit("two")
    assert other.row.reload == KEEPS


def test_what_no_one_has_rehearsed_is_rehearsed_before_it_is_edited(
    publishings: Make, rehearser: Rehearser, sql: Session
) -> None:
    publishings().edit("one")
    wait_until(lambda: rehearser.asked, "it is rehearsed")
    wait_until(
        lambda: sql("SELECT count(finding) FROM plugin_versions") == [(1,)], "and that is kept"
    )
    sql("UPDATE plugin_versions SET finding = NULL")
    later = publishings()
    later.edit("two")
    assert later.row.reload == KEEPS
    assert [generation for _, _, generation in rehearser.asked][:2] == [1, 1]


def test_a_scan_has_the_versions_rehearsed_that_nobody_has(
    publishings: Make, rehearser: Rehearser, sql: Session
) -> None:
    shop = publishings()
    shop.edit("one")
    shop.wait_for(KEEPS)
    sql("UPDATE plugin_versions SET finding = NULL")
    later = publishings()
    later.publisher.scan()
    later.wait_for(KEEPS)
    asked = len(rehearser.asked)
    later.publisher.scan()
    assert len(rehearser.asked) == asked


def test_what_cannot_be_found_out_is_hot_and_said(
    publishings: Make, rehearser: Rehearser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shop = publishings()
    rehearser.finding = None
    shop.edit("one")
    shop.edit("two")
    assert shop.row.reload is None
    assert "shop: rehearsal failed: not now; its next edit goes live as if" in caplog.text


def test_what_the_manifest_says_stands(publishings: Make, rehearser: Rehearser) -> None:
    shop = publishings()
    shop.edit("one")
    shop.wait_for(KEEPS)
    shop.edit("two", "reload: hot\n")
    assert shop.row.reload is not None
    assert shop.row.reload.how == HOT
    assert len(rehearser.asked) == 1


def test_a_process_that_does_not_follow_edits_rehearses_nothing(
    tmp_path: Path, repository: Repository, rehearser: Rehearser
) -> None:
    """As the one that starts the others: it has no threads."""
    shop = Publishing(tmp_path, repository, rehearser)
    shop.edit("one")
    shop.edit("two")
    assert (rehearser.asked, shop.row.reload) == ([], None)
