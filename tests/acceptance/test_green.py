"""What says ready, current or 200 is what the next request finds, on real workers and hosts."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.plugins import source
from tests.support.server import MakeServer, Server, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak  # the kinds stand in test_readiness.py and the unit tests, too


FOLLOWED_SECONDS = 10.0
"""It is 3 to 4 s on a machine with nothing else to do."""


def in_a_worker(name: str, statement: str, says: str = "one") -> str:
    """Return a plugin that passes its trial, and does something else in a worker."""
    return source(name, says).replace(
        "        pass\n", f"        if not context.trial:\n            {statement}\n", 1
    )


def health(server: Server) -> dict[int, Any]:
    """Return what each worker says of itself, by process id."""
    return {pid: answer.json for pid, answer in server.ask_all("/health/ready").items()}


def is_ready(server: Server) -> bool:
    found = health(server)
    return len(found) == 2 and all(said == {"status": "ready"} for said in found.values())


def all_say(server: Server, words: str, *, plugin: str | None = None) -> bool:
    """Tell whether every worker is degraded for the one reason that has these words."""
    return all(
        said["status"] == "degraded"
        and [(r["plugin"], words in r["what"]) for r in said["reasons"]] == [(plugin, True)]
        for said in health(server).values()
    )


def watching(server: Server) -> int:
    return int((server.artifacts / ".watch.lock").read_text() or 0)


def _listed(server: Server) -> set[int]:
    return {worker["pid"] for worker in server.get("/workers").json}


@pytest.fixture
def ready(server: Server) -> Server:
    """The running server, once everything of it is as it should be."""
    wait_until(lambda: is_ready(server), f"it is ready: {health(server)}")
    return server


def test_a_killed_worker_is_counted_as_missing_at_once(ready: Server) -> None:
    ready.write("counted", source("counted"))
    ready.wait_says("counted", "one")
    wait_until(lambda: len(ready.get("/workers").json) == 2, "both are entered")
    killed = min(ready.workers())
    with ready.each_worker() as connections:
        os.kill(killed, signal.SIGKILL)
        connections[killed].close()
        # Six seconds would be its heartbeat's; for a moment the kernel still ends it.
        wait_until(lambda: killed not in _listed(ready), "it is not counted", 1.0)
        listed = _listed(ready)
        workers = ready.get("/plugins/counted").json["workers"]
    assert workers["total"] == 2, "one of two is there"
    if workers["current"] < 2:  # the next one was not as fast
        (behind,) = workers["behind"]
        assert behind["pid"] not in {killed, *listed}
    answer = ready.post("/plugins/counted/reload?wait=10")
    assert (answer.status, answer.json["workers"]["total"]) == (200, 2)
    assert _listed(ready) == ready.workers()


def test_what_no_worker_can_load_is_said_by_everything_that_says_anything(ready: Server) -> None:
    ready.write("unloved", "reload: hot\n", "plugin.yaml")  # else fresh workers try it, too
    ready.write("unloved", source("unloved"))
    ready.wait_says("unloved", "one")
    ready.write("unloved", in_a_worker("unloved", "raise RuntimeError('not here')"))
    words = "generation 2 cannot be loaded: initialize failed: RuntimeError: not here"
    wait_until(lambda: all_say(ready, words, plugin="unloved"), "all workers say so", 5.0)
    wait_until(
        lambda: (
            ready.sql("SELECT error->>'message' FROM plugins WHERE name = 'unloved'")
            == [("RuntimeError: not here",)]
        ),
        "the row says so",
        5.0,
    )
    answer = ready.post("/plugins/unloved/reload?wait=0.5")
    assert answer.status == 504
    assert "RuntimeError: not here" in answer.json["detail"]
    assert answer.json["workers"]["current"] == 0
    # A turn is one line of each worker, and its end another.
    line = "degraded since"
    wait_until(lambda: ready.log().count(line) == 2, "the log has a line of each", 5.0)
    ready.sql("DELETE FROM plugins WHERE name = 'unloved'")
    wait_until(lambda: is_ready(ready), "nothing is left of it", 5.0)
    over = re.compile(r"over after \d+ s: this process is ready")
    wait_until(lambda: len(over.findall(ready.log())) == 2, "it ended", 5.0)
    assert ready.log().count(line) == 2


def test_what_the_watching_process_finds_is_said_by_all(ready: Server) -> None:
    away = ready.plugins.with_name("unmounted")
    ready.plugins.rename(away)
    try:
        wait_until(lambda: all_say(ready, "no edit is seen: the plugins' root"), "all say so", 5.0)
        turns = ready.log().count("degraded since")
        wait_until(
            lambda: ready.log().count("degraded since") == turns + 1, "one process logs it", 5.0
        )
    finally:
        away.rename(ready.plugins)
    wait_until(lambda: is_ready(ready), "it is back", 5.0)
    assert ready.log().count("degraded since") == turns + 1


def test_a_folder_that_cannot_be_written_to_is_said_by_all(ready: Server) -> None:
    away = ready.artifacts.with_name("away")
    ready.artifacts.rename(away)
    ready.artifacts.write_text("no folder")
    try:
        wait_until(lambda: all_say(ready, f"nothing is watched: {ready.artifacts}"), "all say so")
    finally:
        ready.artifacts.unlink()
        away.rename(ready.artifacts)
    wait_until(lambda: is_ready(ready), "it is back", 5.0)
    ready.write("after", source("after"))
    ready.wait_says("after", "one")


def test_a_killed_watcher_is_followed_by_another(ready: Server) -> None:
    killed = watching(ready)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: watching(ready) in ready.workers() - {killed}, "another one watches")
    ready.write("followed", source("followed"))
    ready.wait_says("followed", "one")
    wait_until(lambda: is_ready(ready), "it is ready")


def test_a_watcher_that_hangs_is_no_green(ready: Server) -> None:
    hanging = watching(ready)
    (other,) = ready.workers() - {hanging}
    with ready.each_worker() as connections:
        os.kill(hanging, signal.SIGSTOP)
        try:
            connection = connections[other]

            def says() -> Any:
                connection.request("GET", "/health/ready")
                return connection.getresponse().read().decode()

            wait_until(
                lambda: (
                    f"nobody watches on this host, so no edit is seen: the process "
                    f"that must (pid {hanging})" in says()
                ),
                "it is noticed",
                8.0,
            )
        finally:
            os.kill(hanging, signal.SIGCONT)
    wait_until(lambda: is_ready(ready), "it is back", 5.0)


def test_a_full_disk_is_said_by_all_while_it_is_full(make_server: MakeServer) -> None:
    server = make_server()
    server.artifacts.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "benana-test", str(server.artifacts)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        server.start()
        wait_until(lambda: is_ready(server), "it is ready")
        free = os.statvfs(server.artifacts)
        ballast = server.artifacts / "ballast"
        ballast.write_bytes(bytes(free.f_bavail * free.f_bsize))
        wait_until(lambda: all_say(server, "No space left on device"), "all say so")
        assert {a.status for a in server.ask_all("/whoami").values()} == {200}
        ballast.unlink()
        wait_until(lambda: is_ready(server), "it is free again", 5.0)
    finally:
        server.kill()
        subprocess.run(["umount", "--lazy", str(server.artifacts)], check=True)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("ends_with_1", "os._exit(1)"),
        ("ends_with_3", "os._exit(3)"),
        ("is_killed", "os.kill(os.getpid(), 9)"),
    ],
)
def test_workers_that_end_of_a_load_are_no_200(ready: Server, name: str, end: str) -> None:
    ready.write(name, source(name))
    ready.wait_says(name, "one")
    ready.write(name, in_a_worker(name, end))
    wait_until(lambda: ready.sql("SELECT generation FROM plugins WHERE name = %s", name)[0][0] == 2)
    deadline = time.monotonic() + 8.0
    while time.monotonic() < deadline:
        try:
            answer = ready.get(f"/plugins/{name}")
        except (OSError, http.client.HTTPException):
            continue  # nobody is there just now, or the one that answered has ended
        workers = answer.json["workers"]
        assert workers["current"] == 0, workers
        assert workers["total"] >= 2, workers
    ready.write(name, source(name, "mended"))
    ready.wait_says(name, "mended", 20.0)
    assert ready.post(f"/plugins/{name}/reload?wait=20").json["workers"]["total"] == 2
    wait_until(lambda: is_ready(ready), "it is ready", 20.0)


def test_of_two_hosts_the_broken_one_is_named(make_server: MakeServer, tmp_path: Path) -> None:
    one = make_server().start()
    broken = tmp_path / "broken"
    two = make_server(
        database=False, DATABASE_URL=str(one.database_url), BENANA_WATCH="off", BROKEN="yes"
    )
    shutil.rmtree(two.plugins)
    two.plugins.mkdir()
    two.start()
    wait_until(lambda: is_ready(one) and is_ready(two), "both are ready")
    statement = f"if 'BROKEN' in os.environ and os.path.exists({str(broken)!r}): raise OSError(1)"
    one.write("shared", in_a_worker("shared", statement))
    one.wait_says("shared", "one")
    two.wait_says("shared", "one")
    broken.touch()
    answer = one.post("/plugins/shared/reload?wait=2")
    assert answer.status == 504
    assert (answer.json["workers"]["total"], answer.json["workers"]["current"]) == (4, 2)
    assert {behind["pid"] for behind in answer.json["workers"]["behind"]} == two.workers()
    assert is_ready(one)
    assert all_say(two, "generation 2 cannot be loaded", plugin="shared")
    assert one.plugin("shared")["error"]["message"] == "OSError: 1"
    assert one.sql("SELECT error FROM plugins WHERE name = 'shared'") == [(None,)]
    status = {w["pid"]: w["status"] for w in one.get("/workers").json}
    assert {pid for pid, said in status.items() if said == "degraded"} == two.workers()
    broken.unlink()
    assert one.post("/plugins/shared/reload?wait=5").status == 200
    assert is_ready(one)
    assert is_ready(two)
    assert one.plugin("shared")["error"] is None


@pytest.mark.parametrize("way", ["start", "HUP", "replaced"])
def test_who_says_ready_sees_the_next_edit(make_server: MakeServer, way: str) -> None:
    """A process that says so before anybody watches is found by its first answers."""
    server = make_server()
    before: set[int] = set()
    if way != "start":
        server.start()
        wait_until(lambda: is_ready(server), "it is ready")
        before = server.workers()
        assert server.process is not None
        for pid in [server.process.pid] if way == "HUP" else before:
            os.kill(pid, signal.SIGHUP if way == "HUP" else signal.SIGKILL)
    else:
        server.start(wait=False)

    def a_new_one_is_ready() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
            who = server.connect()
            with contextlib.closing(who):
                pid = ask(who, "GET", "/whoami").json["pid"]
                said = ask(who, "GET", "/health/ready").json
            return pid not in before and said == {"status": "ready"}
        return False

    wait_until(a_new_one_is_ready, "it is ready")
    holder = watching(server)
    assert Path(f"/proc/{holder}").exists(), "somebody watches"
    assert "watching" in server.log()
    server.write("edited", source("edited"))
    wait_until(lambda: server.get("/edited").status == 200, "the edit is seen", 3.0)


@pytest.mark.parametrize(
    "column", ["plugins.source_digest", "plugins.author", "plugin_loads.owner", "plugin_versions."]
)
def test_what_is_missing_of_a_table_is_named_until_it_is_back(ready: Server, column: str) -> None:
    """It was named after 24 s, and only where a comparison read it."""
    table, _, name = column.partition(".")
    what = f"RENAME COLUMN {name} TO" if name else "RENAME TO"
    ready.sql(f"ALTER TABLE {table} {what} mislaid")
    named = f"{column.rstrip('.')} is missing"

    def is_named() -> bool:
        return all(named in str(said) for said in health(ready).values())

    wait_until(is_named, f"it is named: {health(ready)}", FOLLOWED_SECONDS)
    assert named in ready.log()
    assert ready.get("/whoami").status == 200
    there = f"RENAME COLUMN mislaid TO {name}" if name else f"RENAME TO {table}"
    ready.sql(f"ALTER TABLE {table if name else 'mislaid'} {there}")
    wait_until(lambda: is_ready(ready), "it is ready again", FOLLOWED_SECONDS)
