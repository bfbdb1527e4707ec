"""What must hold over a start, a stop, a lost worker and a lost database."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres
from tests.support.plugins import source
from tests.support.server import MakeServer, ask, free_port
from tests.support.waiting import wait_until


@pytest.mark.soak
def test_toggled_off_stays_off_over_an_edit_and_over_a_restart(make_server: MakeServer) -> None:
    server = make_server().start()
    server.write("lazy", source("lazy", "one"))
    server.wait_says("lazy", "one")
    assert server.post("/plugins/lazy/toggle").json["status"] == "inactive"
    server.wait_gone("lazy")
    before = server.plugin("lazy")
    server.write("lazy", source("lazy", "two"))
    wait_until(
        lambda: server.plugin("lazy")["binary_path"] != before["binary_path"], "it is published"
    )
    server.wait_gone("lazy")
    assert server.plugin("lazy")["status"] == "inactive"
    server.stop()
    server.write("lazy", source("lazy", "three"))
    server.start()
    server.wait_gone("lazy")
    assert server.plugin("lazy")["status"] == "inactive"
    assert server.post("/plugins/lazy/toggle").json["status"] == "active"
    server.wait_says("lazy", "three")


def test_what_changed_while_the_server_was_down_is_served_at_once(make_server: MakeServer) -> None:
    server = make_server()
    for name in ("edited", "removed", "broken", "deleted", "same", "rolled"):
        server.write(name, source(name, "one"))
    server.start()
    first = server.plugin("rolled")["binary_path"]
    server.write("rolled", source("rolled", "two"))
    server.wait_says("rolled", "two")
    server.sql("UPDATE plugins SET binary_path = %s WHERE name = 'rolled'", first)
    server.wait_says("rolled", "one")
    same = server.plugin("same")
    server.stop()
    server.write("edited", source("edited", "two"))
    server.write("added", source("added", "new"))
    server.write("broken", "def f(:\n")
    shutil.rmtree(server.plugins / "removed")
    server.sql("DELETE FROM plugins WHERE name = 'deleted'")
    server.start()
    # The port opened only when all of this was so: nothing is waited for.
    assert server.get("/edited").says == "two"
    assert server.get("/added").says == "new"
    assert server.get("/broken").says == "one"
    assert server.plugin("broken")["error"]["phase"] == "compile"
    assert server.get("/removed").status == 404
    assert server.plugin("removed") is None
    assert server.get("/deleted").says == "one"
    assert server.get("/rolled").says == "one", "a row that was set back stays so"
    assert server.plugin("same") == same


@pytest.mark.soak  # test_faults does it under load
def test_a_killed_worker_is_replaced_and_the_watching_goes_on(make_server: MakeServer) -> None:
    server = make_server().start()
    server.write("watched", source("watched", "0"))
    server.wait_says("watched", "0")
    for turn in range(1, 3):
        holder = int((server.artifacts / ".watch.lock").read_text())
        os.kill(holder, signal.SIGKILL)
        server.write("watched", source("watched", str(turn)))
        wait_until(lambda h=holder: len(server.workers() - {h}) == 2, "a new worker")
        wait_until(lambda s=str(turn): server.get("/watched").says == s, "it is served", 5.0)
        server.wait_says("watched", str(turn))


@pytest.mark.soak  # test_faults does it under load
def test_hup_under_way_keeps_serving(make_server: MakeServer) -> None:
    server = make_server().start()
    server.write("steady", source("steady", "one"))
    server.wait_says("steady", "one")
    old = server.workers()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) == 2 and not server.workers() & old, "new workers", 20)
    server.write("steady", source("steady", "two"))
    server.wait_says("steady", "two")
    server.stop()
    assert server.process.returncode == 0
    assert "did not end" not in server.log()


class Postgres:
    """A PostgreSQL that can be stopped and started, and restarted at the same address."""

    def __init__(self, server: EmbeddedPostgres, folder: Path) -> None:
        self.folder = folder
        self.server = server
        self.url = self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server = EmbeddedPostgres(self.folder)
        self.server.start()


@pytest.fixture
def postgres(open_path: Path, new_postgres: NewPostgres) -> Iterator[Postgres]:
    folder = open_path / "postgres"
    started = Postgres(new_postgres(folder), folder)
    yield started
    started.stop()


def test_the_database_goes_away_and_comes_back(make_server: MakeServer, postgres: Postgres) -> None:
    server = make_server(database=False, DATABASE_URL=postgres.url)
    server.database_url = postgres.url
    server.start()
    server.write("solid", source("solid", "one"))
    server.wait_says("solid", "one")
    faults: list[object] = []
    stop = threading.Event()

    def request_always() -> None:
        with contextlib.closing(server.connect()) as connection:
            while not stop.wait(0.002):  # the server needs a core too
                answer = ask(connection, "GET", "/solid")
                if answer.status != 200:
                    faults.append(answer)

    requesters = [threading.Thread(target=request_always) for _ in range(3)]
    for requester in requesters:
        requester.start()
    try:
        postgres.stop()
        away = server.get("/plugins")
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        assert away.headers["content-type"] == "application/problem+json"
        assert server.post("/plugins/solid/reload").status == 503
        assert server.post("/plugins/solid/toggle").status == 503
        wait_until(lambda: server.get("/health/ready").json["status"] == "degraded")
        server.write("solid", source("solid", "two"))  # an edit during the outage
        postgres.start()
        back = time.monotonic()
        connection = psycopg2.connect(postgres.url)
        with connection, connection.cursor() as cursor:  # a row changed right after the return
            cursor.execute("UPDATE plugins SET status = 'inactive' WHERE name = 'whoami'")
        connection.close()
        wait_until(lambda: server.get("/plugins").status == 200, "admin calls are back", 2.0)
        wait_until(lambda: server.get("/solid").says == "two", "the edit is served", 3.0)
        wait_until(
            lambda: all(server.get("/whoami").status == 404 for _ in range(20)), "row followed", 3.0
        )
        assert time.monotonic() - back < 4.0
    finally:
        stop.set()
        for requester in requesters:
            requester.join()
    assert faults == []
    # One line of each process, once it has lasted 2 s, and two of the edit: none for each try.
    said = [line for line in server.log().splitlines() if "the database is away" in line]
    assert len(said) <= 2 + 2, server.log()


@pytest.mark.soak  # test_faults does it under load
def test_listeners_that_are_terminated_come_back(make_server: MakeServer) -> None:
    server = make_server().start()
    server.write("heard", source("heard", "one"))
    server.wait_says("heard", "one")
    for turn in range(2):
        killed = server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'benana-listener' AND datname = current_database()"
        )
        assert len(killed) == 2
        server.write("heard", source("heard", f"turn {turn}"))
        server.wait_says("heard", f"turn {turn}")
        wait_until(
            lambda: (
                len(
                    server.sql(
                        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'benana-listener'"
                        " AND datname = current_database()"
                    )
                )
                == 2
            ),
            "both listen again",
        )


def _path() -> str:
    import sys

    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_a_busy_port_is_said_in_a_sentence(make_server: MakeServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = make_server(BENANA_BIND=f"127.0.0.1:{port}").refused()
    assert f"127.0.0.1:{port} is in use" in said
    assert "BENANA_BIND" in said


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DATABASE_URL", "nonsense://u:secret@h", "DATABASE_URL has the scheme 'nonsense'; exp"),
        ("BENANA_BIND", "nowhere", "BENANA_BIND is 'nowhere'"),
        pytest.param(
            *("BENANA_THREADS", "many", "BENANA_THREADS is 'many'"), marks=pytest.mark.soak
        ),
        pytest.param(
            *("BENANA_WATCH", "perhaps", "BENANA_WATCH is 'perhaps'"), marks=pytest.mark.soak
        ),
    ],
)
def test_a_bad_setting_is_said_in_a_sentence(
    make_server: MakeServer, variable: str, value: str, message: str
) -> None:
    assert message in make_server(database=False, **{variable: value}).refused()


def test_an_unreachable_database_leaves_a_server_that_waits(make_server: MakeServer) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    server = make_server(database=False, DATABASE_URL=url).start(wait=False)

    def status() -> int | None:
        with contextlib.suppress(OSError):
            return server.get("/plugins").status
        return None

    wait_until(lambda: status() == 503, "it answers 503", 20.0)
    assert server.get("/health/live").status == 200
    assert server.get("/health/ready").status == 503
    assert "the database is away" in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a full folder")
def test_a_full_artifacts_folder_keeps_the_old_version_until_there_is_room(
    make_server: MakeServer,
) -> None:
    server = make_server().start()
    server.write("full", source("full", "one"))
    server.wait_says("full", "one")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(server.artifacts)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        server.write("full", "x" * 100_000, "big.txt")

        def reasons() -> str:
            return str(server.get("/plugins/full").json["reasons"])

        wait_until(lambda: "artifact failed" in reasons(), "the reason is shown")
        assert "No space left" in reasons()
        assert server.plugin("full")["error"] is None, "it is this host's, and not the source's"
        server.write("full", source("full", "two"))
        wait_until(lambda: server.log().count("full: artifact failed") == 2, "once for each edit")
        assert server.post("/plugins/full/reload").status == 503
        assert server.plugin("full")["error"] is None
        assert server.get("/full").says == "one"
    finally:
        subprocess.run(["umount", "-l", str(server.artifacts)], check=True)
    server.wait_says("full", "two", 8.0)
    assert server.plugin("full")["error"] is None


@pytest.mark.soak
def test_a_bind_on_the_command_line_decides_what_the_guard_asks_for(
    make_server: MakeServer,
) -> None:
    server = make_server()
    server.environment["GUNICORN_CMD_ARGS"] = f"--bind 0.0.0.0:{server.port}"
    server.start()
    answer = server.post("/plugins/whoami/toggle")
    assert answer.status == 403
    assert "BENANA_ADMIN_TOKEN" in answer.json["detail"]
    assert server.plugin("whoami")["status"] == "active"
    server.stop()
    server.environment["BENANA_ADMIN_TOKEN"] = "s3cret"
    server.start()
    assert server.post("/plugins/whoami/toggle").status == 401
    answer = server.post("/plugins/whoami/reload", Authorization="Bearer s3cret")
    assert answer.status == 202


def test_a_unix_socket_serves_and_is_local(make_server: MakeServer, tmp_path: Path) -> None:
    path = tmp_path / "benana.sock"
    server = make_server(BENANA_BIND=f"unix:{path}").start(wait=False)
    wait_until(path.exists, "the socket is there", 20.0)
    for command in ("list", "toggle whoami", "toggle whoami"):
        done = subprocess.run(
            ["benana", *command.split()],
            env={**os.environ, **server.environment, "PATH": _path()},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "whoami" in done.stdout
