"""The publisher on a real PostgreSQL, with trials that report what they are told."""

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.conditions import Conditions
from app.database.pool import Database
from app.database.repository import Repository
from app.errors import (
    ConflictError,
    DatabaseRefusedError,
    LoadError,
    PluginError,
    SupersededError,
)
from app.publishing.attempt import PublishAttempt
from app.publishing.publisher import Publisher
from app.publishing.refusals import Refusals
from app.publishing.trials.trial import TrialRunner
from app.records import Artifact, PluginSource, TrialReport
from tests.support.databases import Session, session
from tests.support.first_tables import GO_ROWS, GO_TABLES, GO_TRIGGERS
from tests.support.plugins import source
from tests.support.publications import (
    MESSAGES,
    InstantTrial,
    follow,
    publish,
    publisher_of,
    publisher_on,
    report,
)

PLUGIN = """
from app.plugin import PluginMetadata


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("NAME", "1.0", "", "me")

    def register_routes(self, server):
        server.get("/NAME", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {}


# more
new_plugin = Plugin
"""


@pytest.fixture(scope="module")
def trial() -> Iterator[TrialRunner]:
    """Tries for real; its process is started once for all tests of this file."""
    runner = TrialRunner(None)
    yield runner
    runner.stop()


def test_a_scan_goes_through_over_the_rows_of_the_go_design(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    """One of them has a name and one a status that the CHECKs would refuse."""
    url = new_database()
    with session(url) as go:
        go(GO_TABLES + GO_ROWS + GO_TRIGGERS)
    database = Database(url)
    repository = Repository(database)
    publisher = publisher_on(
        tmp_path, repository, powertable=report("powertable", "/pt"), other=report("other", "/o")
    )
    try:
        publisher.scan(at_start=True)
        rows = {row.name: row for row in repository.list_rows()}
    finally:
        database.close()
    assert rows.keys() == {"fine", "My-Plugin", "powertable", "other"}
    for name in ("fine", "powertable", "other"):
        assert rows[name].source_digest is not None, f"{name} was not published"
    assert rows["My-Plugin"].binary_path is None


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_whatever_one_plugin_says_the_others_are_published(
    repository: Repository, tmp_path: Path, message: str
) -> None:
    bad = PluginError("bad", message)
    publisher_on(tmp_path, repository, bad=bad).scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    assert [failure.name for failure in repository.failures.list_all()] == ["bad"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"", "me"', '"caf\\udce9", "me"'),
        ('"", "me"', '"", "caf\\udce9"'),
        ('"1.0"', '"\\ud800"'),
        ('"/bad"', '"/caf\\udce9"'),
        ("# more", 'Plugin.get.__qualname__ = "h\\udce9"'),
        ("# more", 'Plugin.get.__qualname__ = "h\\0"'),
    ],
    ids=["description", "author", "version", "path", "handler", "handler_nul"],
)
def test_whatever_one_plugin_registers_the_others_are_published(
    repository: Repository, tmp_path: Path, trial: TrialRunner, old: str, new: str
) -> None:
    for name in ("bad", "fine"):
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True)
        text = PLUGIN.replace("NAME", name)
        (folder / "main.py").write_text(text.replace(old, new) if name == "bad" else text)
    publisher_of(tmp_path / "plugins", tmp_path, repository, trial).scan(at_start=True)
    assert "fine" in {row.name for row in repository.list_rows()}


def test_a_folder_whose_name_is_not_utf8_stops_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    publisher = publisher_on(tmp_path, repository)
    (tmp_path / "plugins" / os.fsdecode(b"caf\xe9")).mkdir()
    publisher.scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    with contextlib.suppress(PluginError):
        follow(publisher, "caf\udce9", PublishAttempt())
    assert len(repository.failures.list_all()) == 1


def archives(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "bin").glob("*.pyz")}


def test_a_source_that_changes_while_it_settles_leaves_nothing_behind(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    publisher = publisher_on(tmp_path, repository)
    attempt = PublishAttempt()
    attempt.superseded.set()
    with pytest.raises(SupersededError):
        follow(publisher, "fine", attempt)
    assert repository.list_rows() == []
    assert sql("SELECT * FROM plugin_versions") == []
    assert archives(tmp_path) == set()
    follow(publisher, "fine", PublishAttempt())
    assert len(archives(tmp_path)) == 1
    again = PublishAttempt()
    again.superseded.set()
    (tmp_path / "plugins/fine/main.py").write_text("new_plugin = int\n")
    with pytest.raises(SupersededError):
        follow(publisher, "fine", again)
    (row,) = repository.list_rows()
    assert archives(tmp_path) == {Path(row.binary_path or "").name}


def test_a_source_that_is_refused_leaves_no_archive(repository: Repository, tmp_path: Path) -> None:
    publish(repository, "other", "/taken")
    publisher = publisher_on(tmp_path, repository, bad=report("bad", "/taken"))
    with pytest.raises(ConflictError):
        follow(publisher, "bad", PublishAttempt())
    assert archives(tmp_path) == set()


def test_a_publish_that_fails_keeps_an_archive_that_was_there(
    repository: Repository, tmp_path: Path
) -> None:
    publisher = publisher_on(tmp_path, repository)
    follow(publisher, "fine", PublishAttempt())
    before = archives(tmp_path)
    publish(repository, "other", "/taken")
    trial: Any = InstantTrial(fine=report("fine", "/taken"))
    moved = Publisher(
        tmp_path / "plugins", tmp_path / "bin", repository, trial, Refusals(Conditions())
    )
    with pytest.raises(ConflictError):
        moved.publish("fine")
    assert archives(tmp_path) == before


class OtherTrial(InstantTrial):
    """Compiles to other bytes than the first trial of the same source."""

    def run(self, source: PluginSource, *others: object) -> tuple[Artifact, TrialReport]:
        compiled, found = super().run(source, *others)
        other = compiled.archive + b"more"
        return replace(compiled, archive=other, sha256=hashlib.sha256(other).hexdigest()), found


class EndsBadly(InstantTrial):
    """Its process says that all is well, and is killed before it has ended."""

    def run(self, source: PluginSource, *others: Any) -> tuple[Artifact, TrialReport]:
        others[-1](*super().run(source))
        raise LoadError(source.name, "it killed its process with SIGSEGV", phase="cleanup")


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "edited"])
def test_what_was_kept_while_a_trial_ended_is_undone_where_it_ended_badly(
    repository: Repository, tmp_path: Path, sql: Session, *, is_known: bool
) -> None:
    publisher = publisher_on(tmp_path, repository)
    if is_known:
        publisher.publish("fine")
        (tmp_path / "plugins" / "fine" / "main.py").write_text("new_plugin = object  # edited\n")
    before = archives(tmp_path), repository.served_rows(), sql("SELECT * FROM plugin_versions")
    bad = publisher_of(tmp_path / "plugins", tmp_path, repository, EndsBadly())
    with pytest.raises(LoadError, match="SIGSEGV"):
        bad.publish("fine")
    after = archives(tmp_path), repository.served_rows(), sql("SELECT * FROM plugin_versions")
    assert after == before
    publisher.publish("fine")
    assert len(archives(tmp_path)) == len(before[0]) + 1


class TriedTwice(InstantTrial):
    """The server of trials is lost at the end of the first, and its archive with it."""

    def run(self, source: PluginSource, *others: Any) -> tuple[Artifact, TrialReport]:
        compiled, found = super().run(source)
        lost = compiled.archive + b"lost"
        others[-1](replace(compiled, archive=lost, sha256=hashlib.sha256(lost).hexdigest()), found)
        others[-1](compiled, found)
        return compiled, found


def test_of_a_trial_that_was_made_twice_one_archive_is_kept_and_served(
    repository: Repository, tmp_path: Path
) -> None:
    publisher_on(tmp_path, repository)
    publisher_of(tmp_path / "plugins", tmp_path, repository, TriedTwice()).publish("fine")
    (row,) = repository.served_rows()
    raw = Path(row.binary_path or "").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == row.archive_sha256


@pytest.mark.parametrize("there", [True, False], ids=["on this host", "on another host"])
def test_a_second_archive_of_a_version_does_not_take_the_place_of_the_first(
    repository: Repository, tmp_path: Path, *, there: bool
) -> None:
    """As of an edit and a reload at the same time: what workers load is what the row says."""
    follow(publisher_on(tmp_path, repository), "fine", PublishAttempt())
    (row,) = repository.served_rows()
    path = Path(row.binary_path or "")
    first = path.read_bytes()
    if not there:
        path.unlink()
    publisher_of(tmp_path / "plugins", tmp_path, repository, OtherTrial()).publish("fine")
    (again,) = repository.served_rows()
    assert (again.generation, again.archive_sha256) == (row.generation + 1, row.archive_sha256)
    assert [path.read_bytes() for path in (tmp_path / "bin").glob("*.pyz")] == [first] * there


def test_an_unmounted_root_unregisters_nothing(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_on(tmp_path, repository)
    publisher.scan(at_start=True)
    root, away = tmp_path / "plugins", tmp_path / "away"
    root.rename(away)
    root.mkdir()  # the mount point below the disk
    publisher.scan()
    follow(publisher, "fine", PublishAttempt())
    trial: Any = InstantTrial()
    conditions = Conditions()
    Publisher(
        *(root, tmp_path / "bin", repository, trial, Refusals(Conditions())), conditions=conditions
    ).scan(at_start=True)
    assert [row.name for row in repository.list_rows()] == ["fine"]
    assert repository.list_rows()[0].error is None
    assert caplog.text.count("is a disk not mounted?") == 2, "once for each process"
    (found,) = conditions.held()
    assert "no edit is seen" in found.what
    root.rmdir()
    away.rename(root)
    publisher.scan()
    assert [row.name for row in repository.list_rows()] == ["fine"]
    shutil.rmtree(root / "fine")
    publisher.scan()
    assert repository.list_rows() == []


@pytest.mark.parametrize("look", ["scan", "one"])
def test_a_root_that_is_lost_while_it_is_looked_at_is_not_taken_for_an_empty_one(
    repository: Repository, tmp_path: Path, look: str
) -> None:
    root, away = tmp_path / "plugins", tmp_path / "away"

    class Unmounting(InstantTrial):
        def run(self, *arguments: Any) -> Any:
            found = super().run(*arguments)
            root.rename(away)
            root.mkdir()
            return found

    publisher_on(tmp_path, repository).scan(at_start=True)
    (root / "fine" / "main.py").write_text("new_plugin = int\n")
    trial: Any = Unmounting()
    publisher = publisher_of(root, tmp_path, repository, trial)
    if look == "scan":
        assert publisher.scan(at_start=True) == ["fine"], "it is looked at again"
    else:
        with pytest.raises(SupersededError):
            follow(publisher, "fine", PublishAttempt())
    publisher_of(root, tmp_path, repository, InstantTrial()).scan()
    assert [row.name for row in repository.list_rows()] == ["fine"], "it is not unregistered"
    assert publisher._seen.is_unmounted(root)


def test_what_the_database_refuses_is_recorded_beside_the_row(
    repository: Repository, sql: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was taken for an outage, and tried again each second without a word."""
    publisher = publisher_on(tmp_path, repository)
    publisher.publish("fine")
    sql("ALTER TABLE plugin_endpoints ADD CONSTRAINT mine CHECK (path <> '/new')")
    try:
        refusing = publisher_on(tmp_path, repository, fine=report("fine", "/new"))
        (tmp_path / "plugins" / "fine" / "main.py").write_text("new_plugin = dict\n")
        with pytest.raises(DatabaseRefusedError, match=r"^fine: the database refuses: .*mine"):
            follow(refusing, "fine", PublishAttempt())
        follow(refusing, "fine", PublishAttempt())  # not tried again as long as it stays as it is
        with pytest.raises(DatabaseRefusedError):
            refusing.publish("fine")
    finally:
        sql("ALTER TABLE plugin_endpoints DROP CONSTRAINT mine")
    row = repository.find_row("fine")
    assert row is not None
    assert row.error is not None
    assert row.error["phase"] == "save"
    assert "mine" in row.error["message"]
    assert (row.generation, [e.path for e in row.endpoints]) == (1, ["/fine"])
    refusing.publish("fine")
    row = repository.find_row("fine")
    assert row is not None
    assert (row.error, [e.path for e in row.endpoints]) == (None, ["/new"])


def test_a_scan_goes_on_past_a_row_that_the_database_refuses(
    repository: Repository, sql: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_on(tmp_path, repository, bad=report("bad", "/bad"))
    sql("ALTER TABLE plugins ADD CONSTRAINT mine CHECK (name <> 'bad')")
    try:
        publisher.scan(at_start=True)
    finally:
        sql("ALTER TABLE plugins DROP CONSTRAINT mine")
    assert [row.name for row in repository.list_rows()] == ["fine"]
    (failure,) = repository.failures.list_all()
    assert (failure.name, failure.error["phase"]) == ("bad", "save")
    assert "bad: the database refuses" in caplog.text


def release(tmp_path: Path, number: int, **texts: str) -> Path:
    """Write a release's plugins, and return their root."""
    root = tmp_path / f"release_{number}" / "plugins"
    for name, content in texts.items():
        (root / name).mkdir(parents=True)
        (root / name / "main.py").write_text(f"new_plugin = object  # {content}\n")
    return root


def test_a_root_that_is_another_release_now_is_compared_with_the_former(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    one = release(tmp_path, 1, kept="same", edited="one", removed="one", back="one", asked="same")
    two = release(tmp_path, 2, kept="same", edited="two", back="two", asked="same", added="two")

    def start(root: Path) -> dict[str, Any]:
        publisher_of(root, tmp_path, repository, InstantTrial()).scan(at_start=True)
        return {row.name: row for row in repository.list_rows()}

    first = start(one)
    sql("UPDATE plugins SET binary_path = binary_path, status = 'inactive' WHERE name = 'kept'")
    before = {row.name: row for row in repository.list_rows()}
    second = start(two)
    assert second.keys() == {"kept", "edited", "back", "asked", "added"}
    for name, row in second.items():
        assert row.source_path == str(two / name)
        assert row.source_digest is not None, "nobody is asked to compile it"
    assert second["kept"].generation == before["kept"].generation
    assert second["kept"].status == "inactive"
    assert second["asked"].generation == first["asked"].generation
    assert second["edited"].generation > first["edited"].generation
    third = start(one)
    assert third.keys() == first.keys(), "what was removed comes back, what was added goes"
    assert third["back"].source_digest == first["back"].source_digest
    assert third["edited"].source_digest == first["edited"].source_digest
    assert third["kept"].generation == before["kept"].generation


def test_a_start_of_the_same_root_moves_nothing_and_another_hosts_rows_stay(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    one = release(tmp_path, 1, mine="one")
    two = release(tmp_path, 2, mine="one")
    trial: Any = InstantTrial()
    publisher_of(one, tmp_path, repository, trial).scan(at_start=True)
    sql("INSERT INTO plugins (name, source_path) VALUES ('theirs', '/elsewhere/plugins/theirs')")
    sql(f"INSERT INTO plugins (name, source_path) VALUES ('near', '{one}-other/near')")
    publisher_of(one, tmp_path, repository, trial).scan(at_start=True)
    publisher_of(two, tmp_path, repository, trial).scan()  # the scan of a watcher
    mine = repository.find_row("mine")
    assert mine is not None
    assert mine.source_path == str(one / "mine")
    publisher_of(two, tmp_path, repository, trial).scan(at_start=True)
    paths = {row.name: row.source_path for row in repository.list_rows()}
    assert paths == {
        "mine": str(two / "mine"),
        "theirs": "/elsewhere/plugins/theirs",
        "near": f"{one}-other/near",
    }


def put_back(sql: Session, before: Any) -> None:
    """Have the row as it was, as a dump has it that was made before the last edit."""
    sql("ALTER TABLE plugins DISABLE TRIGGER ALL")
    sql(
        "UPDATE plugins SET generation = %s, source_digest = %s, binary_path = %s"
        " WHERE name = 'fine'",
        *before,
    )
    sql("ALTER TABLE plugins ENABLE TRIGGER ALL")


def test_a_row_that_is_older_than_the_folder_counts_and_is_a_reason(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    """As in a dump that was made before the last edit, and is served from another database."""
    conditions = Conditions()
    publisher_on(tmp_path, repository)
    publisher = publisher_of(tmp_path / "plugins", tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    before = sql("SELECT generation, source_digest, binary_path FROM plugins")[0]
    (tmp_path / "plugins" / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    publisher.scan()
    after = sql("SELECT generation FROM plugins")[0][0]
    put_back(sql, before)
    for _ in range(2):
        publisher.scan(at_start=True)
        ((plugin, what),) = [(held.plugin, held.what) for held in conditions.held()]
        assert plugin == "fine"
        assert f"published as generation {after}" in what
        assert "reload it to publish the folder" in what
        assert sql("SELECT generation FROM plugins")[0][0] == before[0], "the row counts"
    assert publisher.refusals.next_at() < math.inf, "another process may publish it"
    publisher.publish("fine")
    assert conditions.held() == ()
    assert sql("SELECT source_digest FROM plugins")[0][0] != before[1]


def test_a_row_that_went_back_is_to_be_looked_at_again_whoever_tells_of_it(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    conditions = Conditions()
    publisher_on(tmp_path, repository, other=report("other", "/other"))
    root = tmp_path / "plugins"
    publisher = publisher_of(root, tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    select = "SELECT generation, source_digest, binary_path FROM plugins WHERE name = 'fine'"
    before = sql(select)[0]
    (root / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    publisher.scan()
    sql("DELETE FROM plugins WHERE name = 'other'")
    put_back(sql, before)
    assert publisher.look_at_rows(frozenset({"other"})) == [], "it was deleted on purpose"
    for names in (frozenset({"fine"}), None):
        assert publisher.look_at_rows(names) == ["fine"]
    follow(publisher, "fine", PublishAttempt())
    assert [held.plugin for held in conditions.held()] == ["fine"]
    publisher_of(root, tmp_path, repository, InstantTrial()).publish("fine")
    assert publisher.look_at_rows(frozenset({"other"})) == [], "nothing tells of it"
    assert publisher.look_at_rows(frozenset({"fine"})) == ["fine"], "the reason is to end"
    follow(publisher, "fine", PublishAttempt())
    assert conditions.held() == ()
    assert publisher.look_at_rows(None) == []


def test_a_row_that_comes_back_later_than_a_scan_is_an_older_one_still(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    """As in a restore that takes its time: meanwhile the table is empty."""
    conditions = Conditions()
    publisher_on(tmp_path, repository)
    root = tmp_path / "plugins"
    publisher = publisher_of(root, tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    sql("CREATE TABLE dumped AS SELECT * FROM plugins")
    (root / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    publisher.scan()
    sql("DELETE FROM plugins")
    publisher.scan()
    sql("SET session_replication_role = replica; INSERT INTO plugins SELECT * FROM dumped")
    sql("RESET session_replication_role; DROP TABLE dumped")
    publisher.scan()
    assert [held.plugin for held in conditions.held()] == ["fine"]


def test_plugins_that_the_database_does_not_know_are_one_reason_but_not_in_a_restore(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    conditions = Conditions()
    names = [f"new{number}" for number in range(7)]
    publisher_on(tmp_path, repository, **{name: report(name, f"/{name}") for name in names})
    root = tmp_path / "plugins"
    publisher = publisher_of(root, tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    sql("ALTER TABLE plugins DISABLE TRIGGER plugins_notify_row")
    sql("DELETE FROM plugins WHERE name <> 'fine'; DELETE FROM plugin_versions")
    assert publisher.look_at_rows(None) == []
    assert conditions.held() == (), "they may not be there yet"
    sql("ALTER TABLE plugins ENABLE ALWAYS TRIGGER plugins_notify_row")
    assert publisher.look_at_rows(None) == []
    ((plugin, what),) = [(held.plugin, held.what) for held in conditions.held()]
    assert plugin is None
    assert "7 plugins" in what
    assert "(new0, new1, new2, new3, new4 and 2 more)" in what
    assert "remove their folders" in what
    shutil.rmtree(root / "new0")
    follow(publisher, "new0", PublishAttempt())
    assert "6 plugins" in conditions.held()[0].what
    publisher_of(root, tmp_path, repository, InstantTrial()).scan(at_start=True)
    assert publisher.look_at_rows(frozenset({"new1"})) == []
    assert conditions.held() == ()


def test_names_that_are_swapped_and_swapped_back_leave_nothing_behind(
    repository: Repository, tmp_path: Path, sql: Session, trial: TrialRunner
) -> None:
    """No trigger tells of it, and meanwhile one of the two was edited."""
    root = tmp_path / "plugins"
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        (root / name / "main.py").write_text(source(name))
    publisher = publisher_of(root, tmp_path, repository, trial)
    publisher.scan(at_start=True)

    def swap() -> None:
        sql("ALTER TABLE plugins DISABLE TRIGGER ALL")
        for old, new in (("one", "aside"), ("two", "one"), ("aside", "two")):
            sql("UPDATE plugins SET name = %s WHERE name = %s", new, old)
        sql("ALTER TABLE plugins ENABLE TRIGGER ALL")

    swap()
    (root / "one" / "main.py").write_text(source("one", "edited"))
    with pytest.raises(PluginError, match="if the row was renamed, set its name back to 'one'"):
        follow(publisher, "one", PublishAttempt())
    assert publisher.refusals.next_at() < math.inf
    swap()
    for name in ("one", "two"):
        follow(publisher, name, PublishAttempt())
    assert sql("SELECT error FROM plugins ORDER BY name") == [(None,), (None,)]
    assert publisher.refusals.next_at() == math.inf


def test_a_row_that_was_read_before_another_process_published_is_no_older_one(
    repository: Repository, tmp_path: Path
) -> None:
    """As where one process of a host takes over from another that publishes still."""
    conditions = Conditions()
    publisher_on(tmp_path, repository)
    root = tmp_path / "plugins"
    publisher = publisher_of(root, tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    row = repository.find_row("fine")
    (root / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    follow(publisher_of(root, tmp_path, repository, InstantTrial()), "fine", PublishAttempt())
    publisher.follow("fine", row, PublishAttempt())
    assert conditions.held() == ()


@pytest.mark.parametrize("ended", ["by another process", "by its removal"])
def test_an_older_row_is_no_reason_once_it_is_published_or_gone(
    repository: Repository, tmp_path: Path, sql: Session, ended: str
) -> None:
    publisher_on(tmp_path, repository)
    root, conditions = tmp_path / "plugins", Conditions()
    publisher = publisher_of(root, tmp_path, repository, InstantTrial(), conditions)
    publisher.scan(at_start=True)
    before = sql("SELECT generation, source_digest, binary_path FROM plugins")[0]
    (root / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    publisher.scan()
    put_back(sql, before)
    publisher.scan()
    assert len(conditions.held()) == 1
    if ended == "by its removal":
        shutil.rmtree(root / "fine")
    else:
        publisher_of(root, tmp_path, repository, InstantTrial()).publish("fine")
    follow(publisher, "fine", PublishAttempt())
    assert conditions.held() == ()


def test_a_row_that_psql_has_set_back_is_no_reason(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    publisher = publisher_on(tmp_path, repository)
    publisher.scan(at_start=True)
    before = sql("SELECT binary_path FROM plugins")[0][0]
    (tmp_path / "plugins" / "fine" / "main.py").write_text("new_plugin = object  # after\n")
    publisher.scan()
    sql("UPDATE plugins SET binary_path = %s", before)
    conditions = Conditions()
    publisher_of(tmp_path / "plugins", tmp_path, repository, InstantTrial(), conditions).scan()
    assert conditions.held() == ()
    assert sql("SELECT binary_path FROM plugins")[0][0] == before


def test_a_scan_takes_up_only_what_is_not_settled(
    repository: Repository, tmp_path: Path, sql: Session
) -> None:
    """At a start nearly all of them are: several threads would only wait for one another."""
    publisher = publisher_on(
        tmp_path,
        repository,
        **{name: report(name, f"/{name}") for name in ("edited", "raised", "failed", "mended")},
    )
    publisher.scan(at_start=True)
    settled = repository.find_row("fine")
    taken_up: list[str] = []
    publish_one = publisher._sources.publish

    def publish(name: str, *arguments: Any, **options: Any) -> bool:
        taken_up.append(name)
        return publish_one(name, *arguments, **options)

    publisher._sources.publish = publish  # type: ignore[method-assign]
    publisher.scan()
    assert taken_up == []
    (tmp_path / "plugins" / "edited" / "main.py").write_text("new_plugin = dict\n")
    (tmp_path / "plugins" / "failed" / "plugin.yaml").write_text("{")
    (tmp_path / "plugins" / "new").mkdir()
    (tmp_path / "plugins" / "new" / "main.py").write_text("new_plugin = dict\n")
    sql("UPDATE plugins SET generation = generation + 1 WHERE name = 'raised'")
    sql("UPDATE plugins SET error = '{\"message\": \"no\"}' WHERE name = 'mended'")
    publisher.scan()
    assert sorted(taken_up) == ["edited", "failed", "mended", "new", "raised"]
    rows = {row.name: row for row in repository.list_rows()}
    assert rows["fine"] == settled
    assert rows["edited"].generation == 2
    assert (rows["mended"].error, rows["failed"].error is None) == (None, False)
