"""What is refused for a reason that may pass: said once, recorded, and tried again by itself."""

import contextlib
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest

from app.conditions import Conditions
from app.database.pool import Database
from app.database.repository import Repository
from app.errors import (
    ArtifactError,
    ConflictError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DiscoveryError,
    LoadError,
    PluginError,
    SupersededError,
    TrialError,
)
from app.package import store
from app.plugin import PluginMetadata
from app.publishing import discovery
from app.publishing.attempt import PublishAttempt
from app.publishing.publisher import Publisher
from app.publishing.refusals import Refusals
from app.publishing.trials.trial import TrialRunner
from app.records import Endpoint, TrialReport
from tests.support.databases import Session, session, undoing
from tests.support.publications import InstantTrial, follow, publish, report
from tests.support.waiting import wait_until


class CountedTrial(InstantTrial):
    """Counts what it tries."""

    runs = 0

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        return super().run(*arguments)


class Publishing:
    """A publisher of one plugin, `one`, as a watcher uses it."""

    def __init__(
        self, home: Path, repository: Repository, trial: Any = None, **reports: Any
    ) -> None:
        self.repository = repository
        self.conditions = Conditions()
        self.refusals = Refusals(self.conditions)
        self.trial = trial or CountedTrial(**reports)
        self.root = home / "plugins"
        self.edit("first")
        self.publisher = Publisher(self.root, home / "bin", repository, self.trial, self.refusals)  # type: ignore[arg-type]

    def edit(self, text: str) -> None:
        (self.root / "one").mkdir(parents=True, exist_ok=True)
        (self.root / "one" / "main.py").write_text(f"new_plugin = object  # {text}\n")

    def retry(self) -> Exception | None:
        """Wait until the plugin is due, as the watcher does, and look at it."""
        wait_until(lambda: self.refusals.due() == ["one"], "it is due by itself", 2.0)
        return self.follow()

    def follow(self) -> Exception | None:
        """Look at the plugin, and return what was raised."""
        try:
            follow(self.publisher, "one", PublishAttempt())
        except (PluginError, DatabaseRefusedError, DatabaseReadOnlyError) as error:
            return error
        return None

    @property
    def error(self) -> str:
        """What a reader of the API is told."""
        row = self.repository.find_row("one")
        failure = self.repository.failures.find("one")
        found = row.error if row is not None else failure.error if failure is not None else None
        return "" if found is None else found["message"]

    @property
    def held(self) -> list[tuple[str | None, str]]:
        return [(found.plugin, found.what) for found in self.conditions.held()]


@pytest.fixture
def publishing(repository: Repository, tmp_path: Path) -> Publishing:
    return Publishing(tmp_path, repository)


FREEZE = (
    "CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'frozen until Monday'; END $$"
)

# What a person did, how it is undone, the SQLSTATE, and what PostgreSQL says of it.
CAUSES = {
    "a column that may not be empty": (
        "ALTER TABLE plugins ADD COLUMN team TEXT NOT NULL",
        "ALTER TABLE plugins DROP COLUMN team",
        "23502",
        ["team", "column team of plugins"],
    ),
    "a constraint of their own": (
        "ALTER TABLE plugin_endpoints ADD CONSTRAINT no_one CHECK (path <> '/one')",
        "ALTER TABLE plugin_endpoints DROP CONSTRAINT no_one",
        "23514",
        ["constraint no_one of plugin_endpoints"],
    ),
    "a trigger that refuses": (
        f"{FREEZE}; CREATE TRIGGER f BEFORE INSERT ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION frozen()",
        "DROP FUNCTION frozen CASCADE",
        "P0001",
        ["frozen until Monday", "function frozen() line 1 at RAISE"],
    ),
    "a trigger that fails": (
        f"{FREEZE.replace('RAISE EXCEPTION', 'PERFORM 1 / 0; RAISE NOTICE')};"
        " CREATE TRIGGER f BEFORE INSERT ON plugin_versions"
        " FOR EACH ROW EXECUTE FUNCTION frozen()",
        "DROP FUNCTION frozen CASCADE",
        "22012",
        ["division by zero", "function frozen() line 1"],
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_a_person_has_set_up_is_said_once_and_tried_again_when_it_is_gone(
    publishing: Publishing,
    sql: Session,
    caplog: pytest.LogCaptureFixture,
    cause: str,
) -> None:
    """It was an outage, or it was never tried again."""
    do, undo, sqlstate, words = CAUSES[cause]
    publishing.refusals.retry_seconds = (0.1, 0.4)
    sql(do)
    with contextlib.ExitStack() as stack:
        stack.callback(sql, undo)
        error = publishing.follow()
        assert isinstance(error, DatabaseRefusedError)
        assert error.sqlstate == sqlstate
        said = str(error)
        assert said.startswith("one: the database refuses: ")
        for word in (f"SQLSTATE {sqlstate}", *words):
            assert word in said
            assert word in publishing.error
        assert publishing.held == [("one", said.removeprefix("one: "))]
        assert publishing.follow() is None, "it is not tried again at once"
        assert publishing.trial.runs == 1
        publishing.edit("second")
        assert publishing.follow() is not None, "an edit is tried at once"
        assert publishing.retry() is not None
        assert publishing.trial.runs == 3
        assert publishing.refusals.due() == [], "the next time comes later"
        assert caplog.text.count(said) == 2, "once for each edit"
    assert publishing.retry() is None
    row = publishing.repository.find_row("one")
    assert row is not None
    assert row.error is None
    assert (publishing.held, publishing.refusals.due()) == ([], [])
    assert publishing.repository.failures.find("one") is None


UNDONE = {
    "skips": ("RETURN NULL;", "the row is not {}"),
    "puts back": ("NEW.generation := OLD.generation; RETURN NEW;", "the generation stays 1"),
}


@pytest.mark.parametrize("way", UNDONE)
def test_a_trigger_that_undoes_a_change_in_silence_is_named(
    publishing: Publishing, sql: Session, way: str
) -> None:
    """It was an outage, a plugin that does not exist, or nothing at all and the old one served."""
    publishing.follow()
    publishing.edit("second")
    body, words = UNDONE[way]
    sql(f"CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        " CREATE TRIGGER zz_undo BEFORE UPDATE ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION undo()")  # fmt: skip
    try:
        error = publishing.follow()
        assert isinstance(error, DatabaseRefusedError)
        assert (error.plugin, error.raised) == ("one", True)
        assert words.format("written") in str(error)
        assert "that may do so: zz_undo" in str(error)
        assert [plugin for plugin, _ in publishing.held] == ["one"]
        for change in (publishing.repository.toggle, publishing.repository.raise_generation):
            with pytest.raises(DatabaseRefusedError, match="may do so: zz_undo") as caught:
                change("one")
            assert words.format("changed") in str(caught.value)
        row = publishing.repository.find_row("one")
        assert row is not None
        assert (row.status, row.generation) == ("active", 1), "nothing is half changed"
    finally:
        sql("DROP FUNCTION undo CASCADE")
    publishing.edit("third")
    assert publishing.follow() is None
    assert publishing.repository.toggle("nobody") is None


def test_a_trigger_that_skips_a_new_row_is_named(publishing: Publishing, sql: Session) -> None:
    sql("CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        " CREATE TRIGGER skip BEFORE INSERT ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION undo()")  # fmt: skip
    try:
        publishing.follow()
        assert "the row is not written" in publishing.error
        assert "INSERT on plugins that may do so: skip" in publishing.error
    finally:
        sql("DROP FUNCTION undo CASCADE")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("plugin_versions", "the version is not written"),
        ("plugin_endpoints", "its endpoints are not written"),
    ],
)
def test_a_trigger_that_undoes_what_a_row_needs_is_named_and_the_row_stays(
    publishing: Publishing, sql: Session, table: str, words: str
) -> None:
    """The row named an archive that nobody had, until the next edit."""
    publishing.follow()
    publishing.edit("second")
    publishing.trial.reports["one"] = report("one", "/one", "/one/more")
    with undoing(sql, table):
        error = publishing.follow()
        assert isinstance(error, DatabaseRefusedError)
        assert f"{words}, and no error was raised" in str(error)
        assert f"INSERT on {table} that may do so: quiet" in publishing.error
        row = publishing.repository.find_row("one")
        assert row is not None
        assert row.generation == 1
    assert publishing.retry() is None
    assert publishing.error == ""
    assert sql("SELECT count(*) FROM plugin_versions v JOIN plugins p"
               " ON p.source_digest = v.source_digest") == [(1,)]  # fmt: skip


@pytest.mark.parametrize("source", ["first", "broken"])
def test_an_error_that_the_row_may_not_hold_is_shown_with_it(
    publishing: Publishing, sql: Session, source: str
) -> None:
    """The same trigger refuses the row and its error."""
    publishing.follow()
    publishing.edit("second")
    if source == "broken":
        publishing.trial.reports["one"] = PluginError("one", "it is broken")
    sql(f"{FREEZE}; CREATE TRIGGER f BEFORE UPDATE ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION frozen()")  # fmt: skip
    try:
        assert publishing.follow() is not None
        wrong = "it is broken" if source == "broken" else "frozen until Monday"
        assert wrong in publishing.error
        assert wrong in str(publishing.repository.list_rows()[0].error)
        assert publishing.repository.failures.list_all() == [], "it is registered"
        publishing.edit("first")
        assert publishing.follow() is None
        assert publishing.error == "", "what is served is what the folder holds again"
        publishing.edit("second")
        assert publishing.follow() is not None
    finally:
        sql("DROP FUNCTION frozen CASCADE")
    assert (publishing.refusals.next_at() < math.inf) == (source == "first"), "it is tried again"
    publishing.trial.reports.pop("one", None)
    publishing.edit("third")
    assert publishing.follow() is None
    assert publishing.error == ""
    assert publishing.held == []


@pytest.mark.parametrize("source", ["first", "broken"])
def test_what_cannot_even_be_recorded_is_said_and_held(
    publishing: Publishing, sql: Session, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    publishing.follow()
    publishing.edit("second")
    if source == "broken":
        publishing.trial.reports["one"] = PluginError("one", "it is broken")
    sql(f"{FREEZE}; CREATE TRIGGER f BEFORE UPDATE ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION frozen();"
        "CREATE TRIGGER f BEFORE INSERT ON plugin_failures"
        " FOR EACH ROW EXECUTE FUNCTION frozen()")  # fmt: skip
    try:
        assert publishing.follow() is not None
        ((plugin, what),) = publishing.held
        assert plugin == "one"
        assert ("it is broken" in what) == (source == "broken")
        assert "; nor can that be recorded: the database refuses: frozen until Monday" in what
        assert publishing.error == ""
        assert caplog.text.count("nor can that be recorded") == 1
    finally:
        sql("DROP FUNCTION frozen CASCADE")
    monday = publishing.refusals.next_at()
    assert monday < math.inf, "it is tried again"
    publishing.edit("third")
    publishing.follow()
    assert ("it is broken" in publishing.error) == (source == "broken")
    assert publishing.held == []


def test_a_publish_does_not_fail_where_old_versions_cannot_be_dropped(
    database: Database, sql: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publishing = Publishing(tmp_path, Repository(database, kept_versions=1))
    versions = "SELECT source_digest FROM plugin_versions"
    archives = tmp_path / "bin"
    publishing.follow()
    sql(f"{FREEZE}; CREATE TRIGGER f BEFORE DELETE ON plugin_versions"
        " FOR EACH ROW EXECUTE FUNCTION frozen()")  # fmt: skip
    try:
        publishing.edit("second")
        assert publishing.follow() is None
        assert (publishing.error, publishing.held) == ("", [])
        said = "one: its oldest versions stay until its next publish: "
        wait_until(lambda: said in caplog.text, "it is said", 2.0)
        assert "frozen until Monday" in caplog.text
        assert len(sql(versions)) == len(list(archives.glob("one-*.pyz"))) == 2
    finally:
        sql("DROP FUNCTION frozen CASCADE")
    publishing.edit("third")
    assert publishing.follow() is None
    wait_until(lambda: len(sql(versions)) == 1, "the two oldest are dropped", 2.0)
    wait_until(lambda: len(list(archives.glob("one-*.pyz"))) == 1, "and their archives", 2.0)


def test_a_folder_that_cannot_be_unregistered_stops_no_scan(
    publishing: Publishing, sql: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole scan ended, again and again, and nothing was watched any more."""
    publishing.follow()
    (publishing.root / "one" / "main.py").unlink()
    (publishing.root / "one").rmdir()
    (publishing.root / "two").mkdir()
    (publishing.root / "two" / "main.py").write_text("new_plugin = object\n")
    sql(f"{FREEZE}; CREATE TRIGGER f BEFORE DELETE ON plugins"
        " FOR EACH ROW EXECUTE FUNCTION frozen()")  # fmt: skip
    try:
        publishing.publisher.scan()
        publishing.publisher.scan()
        assert publishing.repository.find_row("two") is not None
        ((plugin, what),) = publishing.held
        assert (plugin, "frozen until Monday" in what) == ("one", True)
        assert "frozen until Monday" in publishing.error
        assert caplog.text.count("one: the database refuses: frozen") == 1
    finally:
        sql("DROP FUNCTION frozen CASCADE")
    publishing.follow()
    assert publishing.repository.find_row("one") is None
    assert publishing.held == []


@contextlib.contextmanager
def role_of(url: str, sql: Session, *grants: str) -> Iterator[Repository]:
    """A repository of a role that has the schema and these rights only."""
    sql("DROP ROLE IF EXISTS benana_limited; CREATE ROLE benana_limited LOGIN")
    sql("GRANT USAGE ON SCHEMA public TO benana_limited")
    for grant in grants:
        sql(f"GRANT {grant} TO benana_limited")
    database = Database(f"{url}&options=-c%20role%3Dbenana_limited")
    try:
        yield Repository(database)
    finally:
        database.close()
        sql("DROP OWNED BY benana_limited; DROP ROLE benana_limited")


def test_a_sequence_without_rights_is_named(
    url: str, repository: Repository, sql: Session, tmp_path: Path
) -> None:
    with role_of(url, sql, "ALL ON ALL TABLES IN SCHEMA public") as limited:
        publishing = Publishing(tmp_path, limited)
        error = publishing.follow()
        assert isinstance(error, DatabaseRefusedError)
        assert error.sqlstate == "42501"
        assert "permission denied for sequence plugin_endpoints_id_seq" in publishing.error
        sql("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO benana_limited")
        publishing.edit("second")
        assert publishing.follow() is None
        assert repository.find_row("one") is not None


@pytest.mark.parametrize("encoding", ["LATIN1", pytest.param("EUC_JP", marks=pytest.mark.soak)])
def test_a_character_that_the_encoding_lacks_is_refused_with_its_name(
    new_database: Callable[[], str], tmp_path: Path, encoding: str
) -> None:
    with in_encoding(new_database(), encoding) as repository:
        told = TrialReport(PluginMetadata("one", "1.0", "5 \N{EURO SIGN}"), ())
        publishing = Publishing(tmp_path, repository, one=told)
        error = publishing.follow()
        assert isinstance(error, DatabaseRefusedError)
        assert (error.sqlstate, f'encoding "{encoding}"' in str(error)) == ("22P05", True)
        assert f'encoding "{encoding}"' in publishing.error
        broken = PluginError("one", "found \N{EURO SIGN}, expected $")
        publishing.trial.reports["one"] = broken
        publishing.edit("second")
        assert publishing.follow() is broken
        assert publishing.error == "found \\u20ac, expected $"
        fits = TrialReport(PluginMetadata("one", "1.0", "plain"), ())
        publishing.trial.reports["one"] = fits
        publishing.edit("third")
        assert publishing.follow() is None


@pytest.mark.soak
def test_a_database_without_an_encoding_takes_every_character(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    with in_encoding(new_database(), "SQL_ASCII") as repository:
        endpoints = (Endpoint("GET", "/one/\N{EURO SIGN}", "Plugin.get"),)
        told = TrialReport(PluginMetadata("one", "1.0", "5 \N{EURO SIGN}"), endpoints)
        publishing = Publishing(tmp_path, repository, one=told)
        assert publishing.follow() is None
        row = repository.find_row("one")
        assert row is not None
        assert (row.description, row.endpoints) == ("5 \N{EURO SIGN}", endpoints)


@contextlib.contextmanager
def in_encoding(url: str, encoding: str) -> Iterator[Repository]:
    """The repository of a database in an encoding, beside another one."""
    parts = urlsplit(url)
    name = f"{parts.path[1:]}_{encoding.lower()}"
    with session(url) as sql:
        sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    database = Database(f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}")
    try:
        repository = Repository(database)
        repository.apply_schema()
        yield repository
    finally:
        database.close()


def test_a_database_that_is_read_only_is_said_and_tried_again_ever_more_rarely(
    publishing: Publishing, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby is; nothing can be recorded there, and the trial was repeated each second."""
    bounds = database.timeouts.bounds
    with monkeypatch.context() as patch:
        patch.setattr(
            type(database.timeouts),
            "bounds",
            lambda _self, *pace: f"{bounds(*pace)} SET LOCAL transaction_read_only = on; ",
        )
        assert isinstance(publishing.follow(), DatabaseReadOnlyError)
        ((_, what),) = publishing.held
        assert what.startswith("not published: it is read only: cannot execute ")
        assert publishing.follow() is None, "it is not tried again at once"
        assert publishing.trial.runs == 1
    publishing.edit("second")
    assert publishing.follow() is None
    assert publishing.held == []


@pytest.mark.parametrize(
    "whose", ["DATABASE {database}", "ROLE current_user IN DATABASE {database}"]
)
def test_a_default_of_read_only_is_not_for_the_servers_own_sessions(
    new_database: Callable[[], str], tmp_path: Path, whose: str
) -> None:
    """Nothing was ever served."""
    url = new_database()
    with session(url) as sql:
        altered = whose.format(database=urlsplit(url).path[1:])
        sql(f"ALTER {altered} SET default_transaction_read_only = on")
    server, plugins = Database(url), Database(url, reset=True)
    try:
        repository = Repository(server)
        repository.apply_schema()
        publishing = Publishing(tmp_path, repository)
        assert publishing.follow() is None
        assert publishing.repository.find_row("one") is not None
        with plugins.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW transaction_read_only")
            assert cursor.fetchone() == ("on",), "what a plugin does is its own affair"
    finally:
        server.close()
        plugins.close()


# --- the disk, and what lies outside ---------------------------------------------------------


@pytest.fixture
def soon(publishing: Publishing) -> None:
    publishing.refusals.retry_seconds = (0.05, 0.2)


def test_a_disk_that_is_full_is_noticed_when_it_is_free_again(
    soon: None,
    publishing: Publishing,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was noticed at the next edit, and not before."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_whole", Mock(side_effect=full))
        assert isinstance(publishing.follow(), ArtifactError)
        assert "No space left on device; free space" in publishing.error
        assert len(publishing.held) == 1
        assert isinstance(publishing.retry(), ArtifactError)
        assert caplog.text.count("No space left") == 1
        assert caplog.text.count("it is tried again") == 1
    assert publishing.retry() is None
    assert publishing.repository.find_row("one") is not None
    assert (publishing.error, publishing.held, publishing.refusals.due()) == ("", [], [])


def test_what_one_host_lacks_is_not_written_into_the_row_of_all(
    soon: None, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publishing.follow() is None
    publishing.edit("second")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_whole", Mock(side_effect=full))
        assert isinstance(publishing.follow(), ArtifactError)
        with pytest.raises(ArtifactError):
            publishing.publisher.publish("one")
        assert publishing.error == ""
        ((plugin, what),) = publishing.held
        assert plugin == "one"
        assert "No space left on device; free space" in what
    publishing.edit("third")
    publishing.trial.reports["one"] = PluginError("one", "of the source", phase="import")
    assert publishing.follow() is not None
    assert publishing.error == "of the source"


def test_a_folder_of_archives_that_is_none_is_noticed_when_it_is_one(
    soon: None, publishing: Publishing, tmp_path: Path
) -> None:
    """As a volume that is not mounted, or belongs to somebody else."""
    (tmp_path / "bin").write_text("")
    error = publishing.follow()
    assert isinstance(error, ArtifactError)
    assert error.outside
    (tmp_path / "bin").unlink()
    assert publishing.retry() is None
    assert publishing.held == []


def test_a_file_that_cannot_be_read_is_noticed_when_it_can(
    soon: None, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with monkeypatch.context() as patch:
        patch.setattr(discovery, "read_file", Mock(side_effect=denied))
        assert isinstance(publishing.follow(), DiscoveryError)
        assert isinstance(publishing.retry(), DiscoveryError)
        assert publishing.error == "main.py cannot be read: Permission denied"
        assert len(publishing.held) == 1
    assert publishing.retry() is None
    assert (publishing.error, publishing.held) == ("", [])


def test_a_root_that_is_missing_is_no_fault_of_its_plugins(
    publishing: Publishing, sql: Session
) -> None:
    publishing.follow()
    shutil.rmtree(publishing.root)
    for _ in range(2):
        with pytest.raises(SupersededError, match=r"root .* is gone"):
            publishing.follow()
    assert (publishing.error, publishing.held, publishing.refusals.due()) == ("", [], [])
    publishing.edit("second")
    assert publishing.follow() is None
    assert publishing.trial.runs == 2


def test_what_is_published_and_cannot_be_noted_on_the_host_is_noted_later(
    soon: None, publishing: Publishing, tmp_path: Path
) -> None:
    """Its row stayed when its folder was removed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / ".seen").write_text("")
    assert publishing.follow() is None
    assert publishing.repository.find_row("one") is not None
    ((_, what),) = publishing.held
    assert "cannot be noted" in what
    assert publishing.retry() is None
    assert len(publishing.held) == 1
    (tmp_path / "bin" / ".seen").unlink()
    assert publishing.retry() is None
    assert publishing.held == []
    shutil.rmtree(publishing.root / "one")
    publishing.follow()
    assert publishing.repository.find_row("one") is None


def test_a_route_that_is_free_again_is_taken(
    soon: None, publishing: Publishing, sql: Session
) -> None:
    publish(publishing.repository, "owner", "/one")
    assert isinstance(publishing.follow(), ConflictError)
    assert publishing.held == [], "nothing is wrong with the server"
    sql("DELETE FROM plugins WHERE name = 'owner'")
    assert publishing.retry() is None
    assert publishing.repository.find_row("one") is not None


def test_a_fault_of_the_plugins_own_waits_for_an_edit(
    soon: None, repository: Repository, tmp_path: Path
) -> None:
    publishing = Publishing(tmp_path, repository, one=PluginError("one", "it is broken"))
    assert publishing.follow() is not None
    assert publishing.refusals.next_at() == math.inf
    assert publishing.held == []


VOLUME = """
from pathlib import Path

from app.plugin import PluginMetadata

{read}


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("one", "1")

    def register_routes(self, server):
        server.get("/one", self.get)

    def cleanup(self, context):
        pass

    def get(self):
        return {{}}


new_plugin = Plugin
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[TrialRunner]:
    """Tries for real; its process is started once for all tests of this file."""
    runner = TrialRunner(None)
    runner.prepare()
    yield runner
    runner.stop()


@pytest.fixture
def trying(tmp_path: Path, repository: Repository, runner: TrialRunner) -> Publishing:
    """A publisher that tries for real, and again soon."""
    publishing = Publishing(tmp_path, repository, runner)
    publishing.refusals.retry_seconds = (0.05, 0.2)
    return publishing


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_trial_that_did_not_find_a_volume_is_repeated(
    trying: Publishing, tmp_path: Path, wrapped: bool
) -> None:
    read = f"TEXT = Path({str(tmp_path / 'volume' / 'text')!r}).read_text()"
    if wrapped:
        read = f"try:\n    {read}\nexcept OSError:\n    raise ValueError('not set up')"
    (trying.root / "one" / "main.py").write_text(VOLUME.format(read=read))
    error = trying.follow()
    assert isinstance(error, LoadError)
    assert error.outside
    assert trying.held == [], "it is the plugin's own affair"
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "text").write_text("here")
    assert trying.retry() is None
    assert trying.repository.find_row("one") is not None


def test_a_trial_that_finds_no_room_for_its_data_is_repeated(
    trying: Publishing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trying.root / "one" / "main.py").write_text(VOLUME.format(read=""))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        error = trying.follow()
        assert isinstance(error, TrialError)
        assert "no temporary folder can be made (No such file or directory)" in trying.error
        assert len(trying.held) == 1
    assert trying.retry() is None
    assert trying.held == []


def test_the_same_content_saved_again_is_tried_at_once_where_that_may_help(
    publishing: Publishing, tmp_path: Path
) -> None:
    (tmp_path / "bin").write_text("")
    assert isinstance(publishing.follow(), ArtifactError)
    (tmp_path / "bin").unlink()
    assert publishing.follow() is None
    assert publishing.repository.find_row("one") is None, "it is not due"
    publishing.edit("first")
    assert publishing.follow() is None
    assert publishing.repository.find_row("one") is not None


def test_a_row_that_was_renamed_is_told_how_to_come_back(
    repository: Repository, sql: Session, tmp_path: Path
) -> None:
    wrong = LoadError("two", "name is 'one', expected 'two'", phase="get_metadata")
    publishing = Publishing(tmp_path, repository, two=wrong)
    sql("INSERT INTO plugins (name, source_path) VALUES ('two', %s)", str(publishing.root / "one"))
    with pytest.raises(LoadError, match="set its name back to 'one' in psql"):
        follow(publishing.publisher, "two", PublishAttempt())
    sql("UPDATE plugins SET name = 'one'")
    assert publishing.follow() is None


def test_a_row_that_asks_for_a_source_outside_of_the_root_is_said_once(
    publishing: Publishing, sql: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """It was said again at every edit of any plugin."""
    sql("INSERT INTO plugins (name, source_path) VALUES ('one', '/elsewhere/one')")
    shutil.rmtree(publishing.root / "one")
    for _ in range(3):
        assert isinstance(publishing.follow(), DiscoveryError)
    assert caplog.text.count("source_path is '/elsewhere/one'") == 1
    assert publishing.refusals.next_at() == math.inf
    sql("UPDATE plugins SET source_path = '/another/one'")
    assert isinstance(publishing.follow(), DiscoveryError)
    assert caplog.text.count("source_path is '/another/one'") == 1
