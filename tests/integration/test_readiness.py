"""Ready, degraded or neither, over WSGI on a real manager and a real PostgreSQL."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.database.pool import Database
from app.database.workers import WorkerRepository
from app.publishing.publisher import Publisher
from app.server import create_app
from tests.support.databases import Session, session
from tests.support.live import Live, client_of, running, settings_for
from tests.support.plugins import source
from tests.support.postgres_proxy import Proxy
from tests.support.waiting import wait_until

TOKEN = "s3cret"
IN_A_WORKER = "if not context.trial:\n            raise RuntimeError('not in a worker')"


def failing(name: str) -> str:
    """Return a plugin that passes its trial and that no worker can load."""
    return source(name).replace("        pass\n", f"        {IN_A_WORKER}\n", 1)


def write(live: Live, name: str, text: str) -> None:
    folder = live.settings.plugins_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(text)


def health(live: Live) -> Any:
    return live.client.get("/health/ready", status="*").json


def reasons(live: Live) -> list[tuple[str | None, str]]:
    return [(r["plugin"], r["what"]) for r in health(live).get("reasons", ())]


def ready(live: Live) -> None:
    wait_until(lambda: health(live) == {"status": "ready"}, f"it is ready: {health(live)}")


@pytest.fixture(scope="module")
def live(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    settings = settings_for(tmp_path_factory.mktemp("readiness"), new_database())
    (settings.plugins_dir / "lonely").mkdir(parents=True)
    (settings.plugins_dir / "lonely" / "main.py").write_text(source("lonely"))
    with running(settings) as live:
        live.serves("lonely")
        ready(live)
        yield live


@pytest.fixture(autouse=True)
def tidied(live: Live) -> Iterator[None]:
    """Take away what a test adds, whatever becomes of it."""
    yield
    for folder in live.settings.plugins_dir.iterdir():
        if folder.name != "lonely":
            shutil.rmtree(folder)
    live.sql("DELETE FROM plugins WHERE name <> 'lonely'")


def test_a_generation_that_no_worker_can_load_is_named_everywhere(live: Live) -> None:
    write(live, "picky", source("picky"))
    live.serves("picky")
    write(live, "picky", failing("picky"))
    wait_until(lambda: health(live)["status"] == "degraded", "it is degraded", 2.0)
    what = (
        "generation 2 cannot be loaded: initialize failed: RuntimeError: not in a worker "
        "(main.py:10); generation 1 is served"
    )
    found = health(live)
    assert found["reason_count"] == 1
    assert reasons(live) == [("picky", what)]
    assert found["reasons"][0]["since"].endswith("+00:00")
    assert live.client.get("/picky").json["says"] == "one"
    (error,) = wait_until(
        lambda: [e for (e,) in live.sql("SELECT error FROM plugins WHERE name = 'picky'") if e],
        "the row says so",
    )
    assert (error["phase"], error["generation"]) == ("initialize", 2)
    wait_until(lambda: live.client.get("/workers").json[0]["reasons"], "it is recorded", 2.0)
    (worker,) = live.client.get("/workers").json
    assert worker["status"] == "degraded"
    assert worker["reasons"] == found["reasons"]
    shown = live.plugin("picky")
    assert shown["error"] == error
    assert [reason["what"] for reason in shown["reasons"]] == [what]
    (behind,) = shown["workers"]["behind"]
    assert behind["error"] == error
    began = time.monotonic()
    waited = live.client.post("/plugins/picky/reload?wait=20", status=504).json
    assert time.monotonic() - began < 10.0, "who waits is told as soon as all have failed"
    assert "1 of 1 workers cannot load generation 3 of picky: initialize failed" in waited["detail"]
    assert live.plugin("lonely")["reasons"] == []
    # What is mended is mended everywhere.
    write(live, "picky", source("picky", "mended"))
    wait_until(lambda: live.client.get("/picky").json["says"] == "mended", "it is mended")
    ready(live)
    wait_until(lambda: live.plugin("picky")["error"] is None, "no error stays")
    wait_until(lambda: live.client.get("/workers").json[0]["status"] == "ready", "all is well", 2.0)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM plugins WHERE name = 'gone'",
        "UPDATE plugins SET status = 'inactive' WHERE name = 'gone'",
        "UPDATE plugins SET name = 'renamed', binary_path = NULL, source_path = NULL"
        " WHERE name = 'gone'",
    ],
    ids=["deleted", "inactive", "renamed"],
)
def test_a_row_that_is_not_to_be_served_leaves_no_reason_and_no_error(
    live: Live, change: str
) -> None:
    write(live, "gone", source("gone"))
    live.serves("gone")
    write(live, "gone", failing("gone"))
    wait_until(lambda: [p for p, _ in reasons(live)] == ["gone"], "it is named")
    wait_until(lambda: live.plugin("gone")["error"], "its error is shown")
    live.sql(change)
    ready(live)
    assert [p["error"] for p in live.client.get("/plugins").json if p["error"]] == []
    if "inactive" not in change:
        wait_until(
            lambda: live.sql("SELECT 1 FROM plugin_loads WHERE plugin_name = 'gone'") == [],
            "nothing is kept of it",
        )


def test_a_row_set_back_to_what_is_served_leaves_no_reason(live: Live) -> None:
    """Without the trigger, as a restored backup sets it."""
    write(live, "back", source("back"))
    live.serves("back")
    (archive, digest), *_ = live.sql(
        "SELECT binary_path, source_digest FROM plugins WHERE name = 'back'"
    )
    write(live, "back", failing("back"))
    wait_until(lambda: [p for p, _ in reasons(live)] == ["back"], "it is named")
    with session(live.settings.database_url or "") as restore:
        restore("SET session_replication_role = replica")
        restore(
            "UPDATE plugins SET generation = 1, error = NULL, binary_path = %s, source_digest = %s"
            " WHERE name = 'back'",
            *(archive, digest),
        )
    live.app.manager._changed(frozenset(["back"]))
    ready(live)


def test_an_active_row_of_which_there_is_no_version_is_a_reason(live: Live) -> None:
    live.sql(
        "INSERT INTO plugins (name, source_path) VALUES ('never', %s)",
        str(live.settings.plugins_dir / "nowhere"),
    )
    wait_until(
        lambda: {p for p, _ in reasons(live)} == {"never"} and live.plugin("never")["error"],
        "it is named",
    )
    live.sql("DELETE FROM plugins WHERE name = 'never'")
    ready(live)
    live.sql("INSERT INTO plugins (name, type, path) VALUES ('static', 'static', '/static')")
    ready(live)  # of the Go design: there is nothing to serve of it


@pytest.mark.soak
def test_nothing_served_of_what_is_registered_is_no_200(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, new_database())
    settings.plugins_dir.mkdir()
    with running(settings) as live:
        ready(live)  # nothing is registered
        write(live, "only", failing("only"))
        wait_until(lambda: health(live).get("status") == 503, "it is unavailable")
        found = live.client.get("/health/ready", status=503)
        assert found.json["detail"] == "Nothing of what is registered is served."
        assert found.headers["Retry-After"] == "1"
        assert [r["plugin"] for r in found.json["reasons"]] == ["only"]
        wait_until(
            lambda: live.client.get("/workers").json[0]["status"] == "unavailable", "it says so"
        )
        write(live, "only", source("only"))
        live.serves("only")
        ready(live)
        live.client.post("/plugins/only/toggle", status=200)
        wait_until(lambda: live.client.get("/only", status="*").status_code == 404, "it is off")
        ready(live)


def test_reasons_are_counted_for_everybody_and_named_for_who_may_read(live: Live) -> None:
    app = create_app(replace(live.settings, watch=False, admin_token=TOKEN))
    client = client_of(app)
    try:
        app.manager.start(lambda: None)
        app.manager._conditions.hold("disk", "the disk is full")
        app.manager._conditions.hold("load:x", "generation 2 cannot be loaded", "x")
        wait_until(lambda: client.get("/health/ready").json["reason_count"] == 2, "all is known")
        assert client.get("/health/ready").json == {"status": "degraded", "reason_count": 2}
        for header in ("Bearer wrong", "s3cret"):
            found = client.get("/health/ready", headers={"Authorization": header})
            assert found.json == {"status": "degraded", "reason_count": 2}
        own = {"Authorization": f"Bearer {TOKEN}"}
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            found = client.get("/health/ready", headers={**own, **headers})
            assert "reasons" not in found.json, "a page of another site reads nothing"
        found = client.get("/health/ready", headers=own).json
        assert [(r["plugin"], r["what"]) for r in found["reasons"]] == [
            (None, "the disk is full"),
            ("x", "generation 2 cannot be loaded"),
        ]
    finally:
        app.manager.stop()


@pytest.mark.soak
@pytest.mark.parametrize("watch", [True, False])
def test_a_host_that_cannot_write_is_degraded_if_it_publishes(
    new_database: Callable[[], str], tmp_path: Path, watch: bool
) -> None:
    settings = settings_for(tmp_path, new_database())
    (settings.plugins_dir / "one").mkdir(parents=True)
    (settings.plugins_dir / "one" / "main.py").write_text(source("one"))
    create_app(settings).manager.publish_at_start()
    archives = tmp_path / "away"
    settings.artifacts_dir.rename(archives)
    settings.artifacts_dir.write_text("no folder")
    app = create_app(replace(settings, watch=watch))
    app.manager.start(lambda: None)
    live = Live(app, settings, client_of(app))
    try:
        live.serves("one")
        if not watch:
            ready(live)
            return
        sentence = f"nothing is watched: {settings.artifacts_dir}: File exists; free space"
        wait_until(lambda: sentence in str(reasons(live)), "it is said")
        assert health(live)["status"] == "degraded"
        settings.artifacts_dir.unlink()
        archives.rename(settings.artifacts_dir)
        ready(live)
    finally:
        app.manager.stop()


@pytest.mark.parametrize("watch", [True, False])
def test_a_start_is_ready_once_all_folders_were_looked_at(
    new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: bool
) -> None:
    settings = settings_for(tmp_path, new_database())
    settings.plugins_dir.mkdir()
    go_on, real = threading.Event(), Publisher.scan

    def scan(self: Publisher, **named: bool) -> list[str]:
        go_on.wait(10.0)
        return real(self, **named)

    monkeypatch.setattr(Publisher, "scan", scan)
    apps = [create_app(replace(settings, watch=watch)) for _ in range(2)]  # of one host
    lives = [Live(app, settings, client_of(app)) for app in apps]
    try:
        for app in apps:
            app.manager.start(lambda: None)
        if not watch:
            for live in lives:
                ready(live)
            return
        for live in lives:
            wait_until(lambda x=live: "not all folders have been" in str(reasons(x)), "it is said")
            assert health(live)["status"] == "degraded"
        go_on.set()
        for live in lives:
            ready(live)
    finally:
        go_on.set()
        for app in apps:
            app.manager.stop()


@pytest.mark.soak
def test_a_root_that_is_gone_is_a_reason(live: Live) -> None:
    away = live.settings.plugins_dir.with_name("unmounted")
    live.settings.plugins_dir.rename(away)
    try:
        wait_until(lambda: "no edit is seen" in str(reasons(live)), "it is said")
        assert str(live.settings.plugins_dir) in str(reasons(live))
        wait_until(
            lambda: "no edit is seen" in str(live.plugin("lonely")["reasons"]),
            "it concerns every plugin",
        )
        assert live.client.get("/lonely").json["says"] == "one"
    finally:
        away.rename(live.settings.plugins_dir)
    ready(live)


@pytest.mark.soak
@pytest.mark.parametrize("mended", ["mounted again", "another plugin", "the same plugin"])
def test_an_empty_folder_in_the_place_of_the_root_is_a_reason(
    new_database: Callable[[], str], tmp_path: Path, mended: str
) -> None:
    """As the mount point below a disk: nothing is unregistered, and no edit is seen."""
    settings = settings_for(tmp_path, new_database())
    root, away = settings.plugins_dir, settings.plugins_dir.with_name("unmounted")
    (root / "one").mkdir(parents=True)
    (root / "one" / "main.py").write_text(source("one"))
    with running(settings) as live:
        live.serves("one")
        ready(live)
        seen = settings.artifacts_dir / ".seen" / "one"
        wait_until(seen.exists, "the host has noted what it published, and where")
        root.rename(away)
        root.mkdir()
        wait_until(lambda: "mount its disk" in str(reasons(live)), "it is said", 10.0)
        assert health(live)["status"] == "degraded"
        assert live.client.get("/one").json["says"] == "one"
        if mended == "another plugin":
            (root / "other").mkdir()
            (root / "other" / "main.py").write_text(source("other"))
            live.serves("other")
            wait_until(lambda: "whose folders are gone (one)" in str(reasons(live)), "it is said")
            assert health(live)["status"] == "degraded"
            assert "mount its disk" not in str(reasons(live)).partition("whose folders")[0]
            # Another process that comes to watch looks at everything, and leaves it so.
            (settings.artifacts_dir / ".watch.lock").unlink()
            (root / "third").mkdir()
            (root / "third" / "main.py").write_text(source("third"))
            live.serves("third")
            wait_until(lambda: "whose folders are gone (one)" in str(reasons(live)), "still")
            assert live.client.get("/one").json["says"] == "one"
            live.sql("DELETE FROM plugins WHERE name = 'one'")
            wait_until(lambda: live.client.get("/one", status="*").status_code == 404, "it is gone")
        elif mended == "the same plugin":
            shutil.copytree(away / "one", root / "one")
        else:
            root.rmdir()
            away.rename(root)
        ready(live)
        if mended != "another plugin":
            assert live.client.get("/one").json["says"] == "one"


@pytest.mark.soak
def test_rows_that_cannot_be_read_are_a_reason(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.sql("ALTER TABLE plugins RENAME COLUMN binary_path TO path_of_binary")
    try:
        live.app.manager._changed(None)
        wait_until(lambda: "the rows cannot be read" in str(reasons(live)), "it is said")
        assert live.client.get("/lonely").json["says"] == "one"
    finally:
        live.sql("ALTER TABLE plugins RENAME COLUMN path_of_binary TO binary_path")
    ready(live)


@pytest.mark.soak
def test_a_process_that_is_not_recorded_is_not_counted_as_current(live: Live) -> None:
    live.sql("ALTER TABLE plugin_workers ADD CONSTRAINT mine CHECK (pid = 0) NOT VALID")
    live.sql("DELETE FROM plugin_workers")
    try:
        wait_until(lambda: "is not recorded" in str(reasons(live)), "it is said", 5.0)
        answer = live.client.post("/plugins/lonely/reload?wait=0.5", status=504).json
        assert answer["workers"]["total"] == 1
        assert "not recorded" in answer["detail"]
    finally:
        live.sql("ALTER TABLE plugin_workers DROP CONSTRAINT mine")
    ready(live)
    assert live.client.post("/plugins/lonely/reload?wait=5", status=200).json["workers"] == {
        "total": 1,
        "current": 1,
        "behind": [],
    }


def test_an_edit_under_way_is_no_turn(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.health")
    for number in range(3):
        write(live, "edited", source("edited", f"turn {number}"))
        wait_until(
            lambda n=number: live.client.get("/edited", status="*").json.get("says") == f"turn {n}",
            "it is served",
        )
        assert health(live)["status"] in {"ready"}
    assert [r.getMessage() for r in caplog.records if r.name == "app.health"] == []


@pytest.fixture
def behind_proxy(
    new_database: Callable[[], str], tmp_path: Path
) -> Iterator[tuple[Live, Proxy, Session]]:
    """A server whose way to the database can be stopped, and a session beside it."""
    url = new_database()
    if "host=" not in url:
        pytest.skip("the proxy goes to a unix socket")
    proxy = Proxy(url)
    settings = settings_for(tmp_path, proxy.url, watch=False)
    publishing = settings_for(tmp_path, url)
    (settings.plugins_dir / "one").mkdir(parents=True)
    (settings.plugins_dir / "one" / "main.py").write_text(source("one"))
    create_app(publishing).manager.publish_at_start()
    try:
        with running(settings) as live, session(url) as sql:
            ready(live)
            yield live, proxy, sql
            proxy.open = True
            proxy.flows.set()
    finally:
        proxy.close()


def test_a_database_that_hangs_is_no_green(
    behind_proxy: tuple[Live, Proxy, Session], caplog: pytest.LogCaptureFixture
) -> None:
    """Its packets are dropped: nothing fails, and nothing answers. It was ready for up to 10 s."""
    live, proxy, sql = behind_proxy
    caplog.set_level(logging.INFO, "app")
    caplog.clear()
    heard = (
        "SELECT extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 FROM plugin_workers"
    )
    wait_until(
        lambda: (found := sql(heard)) and 0.2 < found[0][0] < 1.0, "no heartbeat is under way"
    )
    proxy.open = False
    proxy.flows.clear()
    wait_until(lambda: health(live)["status"] == "degraded", "it is said", 5.0)
    silent = sql(heard)[0][0]
    # A heartbeat of 2 s and its answer, overdue by 1.
    assert 2.5 < silent < 2.0 + 1.5, silent
    assert "the database has not answered for 1 s" in str(reasons(live))
    assert live.client.get("/one").json["says"] == "one"
    wait_until(lambda: listed(sql) == ["degraded"], "the others say so, too", 1.0)
    proxy.open = True
    proxy.flows.set()
    ready(live)
    wait_until(lambda: listed(sql) == ["ready"], "and that it is back", 4.0)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("over after" in line for line in lines) == sum("degraded since" in x for x in lines)


def listed(sql: Session) -> list[str | None]:
    """What another host's `/workers` says of the processes."""
    database = Database(sql.connection.dsn)
    try:
        return [worker.status for worker in WorkerRepository(database).list_workers()]
    finally:
        database.close()


@pytest.mark.parametrize("lasts", ["short", pytest.param("long", marks=pytest.mark.soak)])
def test_an_outage_is_one_line_and_its_end_another(
    behind_proxy: tuple[Live, Proxy, Session], caplog: pytest.LogCaptureFixture, lasts: str
) -> None:
    """It was two for each: the listener's, and the turn's."""
    live, proxy, _ = behind_proxy
    caplog.set_level(logging.INFO, "app")
    caplog.clear()
    proxy.open = False
    proxy.cut()
    wait_until(lambda: health(live)["status"] == "degraded", "it is noticed")
    if lasts == "long":
        wait_until(lambda: "degraded since" in caplog.text, "the turn is said")
    proxy.open = True
    proxy.cut()
    ready(live)
    if lasts == "long":
        wait_until(lambda: "over after" in caplog.text, "its end is said")
    lines = [record.getMessage() for record in caplog.records]
    if lasts == "long":
        first, last = lines
        assert first.startswith("degraded since ")
        assert "the database is away (" in first
        assert last.startswith("over after ")
    else:
        (only,) = lines
        assert only.startswith("listening again after ")
        assert "the database is away (" in only
