"""Every worker, always: what 4 real workers serve and say while everything is reloaded."""

import json
import os
import random
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres
from tests.support.plugins import source
from tests.support.requester import (
    NOTE_CLEANUP,
    Audit,
    Requester,
    counting,
    number_of,
    session,
    wait_number,
    wait_published,
)
from tests.support.server import MakeServer, Server, ask
from tests.support.waiting import wait_until

WORKERS = 4
SWAP_SECONDS = 0.5
"""The bound of the issue for a worker to follow a row."""

TINY_SWITCH_INTERVAL = "import sys\nsys.setswitchinterval(1e-5)"


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    """A server of 4 workers for all tests that break nothing."""
    home = tmp_path_factory.mktemp("four")
    running = Server(home, new_database(), WEB_CONCURRENCY=str(WORKERS), BENANA_DRAIN_SECONDS="8")
    running.start()
    yield running
    running.stop()
    assert running.process is not None
    assert running.process.returncode == 0
    assert "Traceback" not in running.log().replace("RuntimeError: not in this worker", "")


def publish(server: Server, name: str, number: int = 1, **parts: str) -> None:
    server.write(name, counting(name, number, **parts))
    wait_number(server, name, number, 10.0)


# --- many reloads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prelude", "reloads"),
    [
        pytest.param(TINY_SWITCH_INTERVAL, 6, id="6, tiny interval"),
        pytest.param(TINY_SWITCH_INTERVAL, 100, id="100, tiny interval", marks=pytest.mark.soak),
        pytest.param("", 100, id="100", marks=pytest.mark.soak),
    ],
)
def test_reloads_by_edit_rest_and_psql(four: Server, prelude: str, reloads: int) -> None:
    name = f"{'tiny' if prelude else 'mixed'}{reloads}"
    publish(four, name, prelude=prelude)
    audit = Audit(four)
    kinds = ["edit", "rest", "psql"] * (reloads // 3)
    random.Random(3).shuffle(kinds)
    number = 1
    took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with (
        session(four) as run,
        Requester(four, name, threads=min(16, reloads // 2), streams=1, pause=0.01) as requester,
        four.each_worker() as workers,
    ):
        assert len(workers) == WORKERS

        def generation() -> int:
            return run("SELECT generation FROM plugins WHERE name = %s", name)[0][0]

        expected = generation()
        for kind in kinds:
            expected += 1
            began = time.monotonic()
            if kind == "edit":
                number += 1
                four.write(name, counting(name, number, prelude=prelude))
                wait_until(lambda e=expected: generation() >= e, "the edit is published")
            elif kind == "rest":
                assert four.post(f"/plugins/{name}/reload").status == 202
            else:
                run("UPDATE plugins SET generation = generation + 1 WHERE name = %s", name)
            committed = time.monotonic()
            for connection in workers.values():
                wait_until(
                    lambda c=connection, e=expected: (
                        ask(c, "GET", f"/{name}").json["generation"] >= e
                    ),
                    f"{kind}: a worker serves generation {expected}",
                    5.0,
                )
            now = time.monotonic()
            took[kind].append((now - began, now - committed))
        assert generation() == expected, "each reload is one row change, and nobody makes another"
    requester.assert_flawless(audit)
    assert {n for _, n in requester.seen} >= {number}
    print(f"\n{name}: {requester.summary()}")
    for kind, found in took.items():
        whole, swap = zip(*found, strict=True)
        print(
            f"  {kind}: to all 4 workers, median {statistics.median(whole) * 1000:.0f} ms, "
            f"max {max(whole) * 1000:.0f} ms; from the commit, median "
            f"{statistics.median(swap) * 1000:.0f} ms, max {max(swap) * 1000:.0f} ms"
        )
        assert statistics.median(swap) < SWAP_SECONDS


# --- ?wait= and what is shown ----------------------------------------------------------------


def test_wait_answers_once_every_worker_follows(four: Server) -> None:
    publish(four, "waited")
    with four.each_worker() as workers:
        for turn in range(5):
            answer = four.post("/plugins/waited/reload?wait=10")
            assert answer.status == 200
            body = answer.json
            assert body["status"] == "active"
            assert body["generation"] == turn + 2
            assert 0 <= body["seconds"] < 10
            assert body["workers"] == {"total": WORKERS, "current": WORKERS, "behind": []}
            for connection in workers.values():  # at once: nothing is waited for
                served = ask(connection, "GET", "/waited").json
                assert served["generation"] == body["generation"]
        off = four.post("/plugins/waited/toggle?wait=10")
        assert (off.status, off.json["status"]) == (200, "inactive")
        assert off.json["workers"]["current"] == WORKERS
        assert {ask(c, "GET", "/waited").status for c in workers.values()} == {404}
        on = four.post("/plugins/waited/toggle?wait=10")
        assert (on.status, on.json["status"]) == (200, "active")
        assert on.json["generation"] > off.json["generation"] > 6
        assert {ask(c, "GET", "/waited").status for c in workers.values()} == {200}


@pytest.mark.parametrize("wait", ["", "0", "-1", "61", "nan", "inf", "soon", "1e999"])
def test_a_wait_that_is_no_span_is_refused(four: Server, wait: str) -> None:
    publish(four, "unwaited")
    before = four.plugin("unwaited")["generation"]
    for call in ("reload", "toggle"):
        answer = four.post(f"/plugins/unwaited/{call}?wait={wait}")
        assert answer.status == 400
        assert "more than 0 and 60 at most" in answer.json["detail"]
    assert four.plugin("unwaited")["generation"] == before


def test_a_worker_that_cannot_load_is_named(four: Server, tmp_path: Path) -> None:
    file = tmp_path / "the one"
    file.touch()
    prelude = (
        f"if open({str(file)!r}).read() == str(os.getpid()):\n"
        '    raise RuntimeError("not in this worker")'
    )
    four.write("picky", "reload: hot\n", "plugin.yaml")  # else a fresh worker takes its place
    publish(four, "picky", prelude=prelude)
    one = min(four.workers())
    file.write_text(str(one))
    answer = four.post("/plugins/picky/reload?wait=1.5")
    assert answer.status == 504
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json
    assert body["plugin"] == "picky"
    assert (body["workers"]["total"], body["workers"]["current"]) == (WORKERS, WORKERS - 1)
    (behind,) = body["workers"]["behind"]
    assert behind["pid"] == one
    assert behind["host"] == os.uname().nodename
    assert behind["generation"] == body["generation"] - 1
    assert "not in this worker" in behind["error"]["message"]
    assert behind["error"]["phase"] == "import"
    assert "Traceback" not in answer.body.decode() or "trace" not in behind["error"]
    shown = four.get("/plugins/picky").json
    assert shown["workers"]["behind"][0]["pid"] == one
    served = {pid: a.json["generation"] for pid, a in four.ask_all("/picky").items()}
    assert served.pop(one) == body["generation"] - 1, "the old version serves on"
    assert set(served.values()) == {body["generation"]}
    file.write_text("")
    healed = four.post("/plugins/picky/reload?wait=10")
    assert healed.status == 200
    assert healed.json["workers"]["behind"] == []


def test_a_worker_that_alone_cannot_load_is_replaced(four: Server, tmp_path: Path) -> None:
    file = tmp_path / "the one"
    file.touch()
    prelude = (
        f"if open({str(file)!r}).read() == str(os.getpid()):\n"
        '    raise RuntimeError("not in this worker")'
    )
    publish(four, "choosy", prelude=prelude)
    one = min(four.workers())
    file.write_text(str(one))
    answer = four.post("/plugins/choosy/reload?wait=20")
    assert answer.status == 200
    assert answer.json["workers"]["behind"] == []
    wait_until(lambda: one not in four.workers() and len(four.workers()) == WORKERS, "replaced")


def test_the_workers_are_listed_and_a_killed_one_disappears(make_server: MakeServer) -> None:
    server = make_server().start()
    listed = wait_until(lambda: _listed(server) if len(_listed(server)) == 2 else None)
    assert {w["pid"] for w in listed} == server.workers()
    assert {w["host"] for w in listed} == {os.uname().nodename}
    assert len({w["id"] for w in listed}) == 2
    for worker in listed:
        assert worker["started_at"] <= worker["heartbeat_at"]
    # It is counted with every heartbeat.
    wait_until(lambda: all(w["generations_alive"] == 1 for w in _listed(server)), "counted", 4.0)
    victim = next(iter(server.workers()))
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: victim not in {w["pid"] for w in _listed(server)}, "it is gone", 6.5)
    print(f"\na killed worker was listed for {time.monotonic() - killed:.1f} s more")
    wait_until(lambda: {w["pid"] for w in _listed(server)} == server.workers(), "its successor is")
    server.write("after", counting("after", 1))
    wait_number(server, "after", 1)
    answer = server.post("/plugins/after/reload?wait=5")
    assert answer.json["workers"] == {"total": 2, "current": 2, "behind": []}
    server.stop()
    assert server.sql("SELECT * FROM plugin_workers") == [], "who stops takes itself off the list"


def _listed(server: Server) -> list[dict[str, Any]]:
    answer = server.get("/workers")
    assert answer.status == 200, answer
    found = answer.json
    return found if isinstance(found, list) else found["workers"]


def test_recording_changes_and_notifies_nothing(four: Server) -> None:
    publish(four, "recorded")
    # Every folder is compared once more 0.3 s after its publish; nothing may come of that either.
    rows = "SELECT id, generation, updated_at, error FROM plugins ORDER BY id"
    beats = "SELECT id, heartbeat_at FROM plugin_workers"
    before, beaten = four.sql(rows), dict(four.sql(beats))
    with Notifications(four) as notifications:

        def all_beat_twice() -> bool:
            found = dict(four.sql(beats))
            return found.keys() == beaten.keys() and all(
                (found[id_] - beaten[id_]).total_seconds() > 2.5 for id_ in found
            )

        wait_until(all_beat_twice, "two heartbeats of each", 10.0)
        # A load is recorded too: the failure of one worker's load, and its healing.
        with session(four) as run:
            run("UPDATE plugin_loads SET state = 'failed' WHERE plugin_name = 'recorded'")
            run("DELETE FROM plugin_loads WHERE plugin_name = 'recorded'")
        assert notifications.take() == []
    assert four.sql(rows) == before


class Notifications:
    """What is notified on `plugin_changes` while it is open."""

    def __init__(self, server: Server) -> None:
        self._connection = psycopg2.connect(server.database_url or "")
        self._connection.autocommit = True

    def __enter__(self) -> "Notifications":
        self._connection.cursor().execute("LISTEN plugin_changes")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def take(self) -> list[Any]:
        """Return all that has come; what was committed before is here."""
        self._connection.cursor().execute("SELECT 1")
        self._connection.poll()
        found = [json.loads(n.payload) for n in self._connection.notifies]
        self._connection.notifies.clear()
        return found


# --- the slow and the stuck ------------------------------------------------------------------


def test_a_slow_initialize_does_not_delay_the_others(four: Server) -> None:
    publish(four, "quick")
    slow = "if not self.trial:\n    time.sleep(1.5)"
    four.write("slow", counting("slow", 1, initialize=slow))
    wait_published(four, "slow", 1)
    published = time.monotonic()
    took = []
    with session(four) as run, four.each_worker() as workers:
        states = "SELECT count(*) FROM plugin_loads WHERE plugin_name = 'slow' AND state = %s"
        generation = ask(next(iter(workers.values())), "GET", "/quick").json["generation"]
        while time.monotonic() < published + 1.1:
            generation += 1
            began = time.monotonic()
            run("UPDATE plugins SET generation = generation + 1 WHERE name = 'quick'")
            for connection in workers.values():
                wait_until(
                    lambda c=connection, g=generation: (
                        ask(c, "GET", "/quick").json["generation"] >= g
                    )
                )
            took.append(time.monotonic() - began)
            assert ask(next(iter(workers.values())), "GET", "/slow").status == 404
        assert run(states, "loading")[0][0] == WORKERS, "it is said that it loads"
    print(
        f"\nbeside a slow initialize: {len(took)} swaps, first {took[0] * 1000:.0f} ms, others at "
        f"most {max(took[1:], default=0) * 1000:.0f} ms"
    )
    assert len(took) > 2
    # The one that comes first may have to wait for the patience of 0.5 s to end.
    assert took[0] < 2 * SWAP_SECONDS
    assert statistics.median(took[1:]) < SWAP_SECONDS
    wait_number(four, "slow", 1, 5.0)
    # A swap of a slow plugin: the old version answers until the new one is there.
    with Requester(four, "slow", threads=4) as requester:
        answer = four.post("/plugins/slow/reload?wait=15")
    assert answer.status == 200, answer
    assert 1.2 < answer.json["seconds"] < 8
    requester.assert_flawless()
    shutil.rmtree(four.plugins / "slow")
    four.wait_gone("slow")


@pytest.mark.soak
def test_a_cleanup_that_blocks_holds_up_nobody(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_DRAIN_SECONDS="1").start()
    blocks = "if not self.trial:\n    threading.Event().wait()"
    publish(server, "blocking", cleanup=blocks)
    publish(server, "free")
    with Requester(server, "free", threads=2) as requester:
        for turn in range(2):
            answer = server.post("/plugins/blocking/reload?wait=5")
            assert (answer.status, answer.json["seconds"] < 2) == (200, True), answer
            server.write("free", counting("free", turn + 2))
            assert wait_number(server, "free", turn + 2) < 2
    requester.assert_flawless()
    wait_until(
        lambda: server.log().count("cleanup did not return within 1 s") == 2 * 2,
        "each is said once",
        8.0,
    )
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15
    assert server.process is not None
    assert server.process.returncode == 0


class Streaming:
    """A stream that is read in a thread; the first line is here when it is made."""

    def __init__(self, server: Server, path: str) -> None:
        self._connection = server.connect()
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        first = self._response.readline().decode()
        self.pid, self.generation = map(int, first.split()[:2])
        self.lines = [first]
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self.lines += self._response.read().decode().splitlines(keepends=True)

    def whole(self, seconds: float = 20.0) -> float:
        """Wait for the end; fail unless all came from one generation; return when it ended."""
        self._thread.join(seconds)
        self._connection.close()
        assert self.lines[-1].startswith("end "), self.lines[-3:]
        assert set(self.lines[:-1]) == {self.lines[0]}, set(self.lines)
        return float(self.lines[-1].split()[1])


def cleanups(file: Path) -> list[tuple[int, int, float]]:
    """Return process, generation and moment of what `NOTE_CLEANUP` has noted."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), int(gen), float(at)) for pid, gen, at in map(str.split, lines)]


@pytest.mark.parametrize(
    "how", ["reload", "edit", pytest.param("toggle", marks=pytest.mark.soak), "remove"]
)
def test_a_stream_arrives_whole_and_is_cleaned_up_after(
    four: Server, tmp_path: Path, how: str
) -> None:
    name, file, until = f"stream_{how}", tmp_path / "cleanups", tmp_path / "until"
    note = NOTE_CLEANUP.format(path=str(file))
    publish(four, name, cleanup=note)
    stream = Streaming(four, f"/{name}/stream?until={until}")
    try:
        if how == "reload":
            assert four.post(f"/plugins/{name}/reload?wait=5").status == 200
            assert {a.json["generation"] for a in four.ask_all(f"/{name}").values()} == {2}
        elif how == "edit":
            four.write(name, counting(name, 2, cleanup=note))
            wait_number(four, name, 2)
        elif how == "toggle":
            assert four.post(f"/plugins/{name}/toggle?wait=5").status == 200
            assert {a.status for a in four.ask_all(f"/{name}").values()} == {404}
        else:
            shutil.rmtree(four.plugins / name)
            four.wait_gone(name)
        # The others have nothing to wait for.
        wait_until(lambda: len(cleanups(file)) == WORKERS - 1, "the others have cleaned up", 2.0)
        assert stream.pid not in {pid for pid, _, _ in cleanups(file)}
    finally:
        until.touch()
    ended = stream.whole()
    wait_until(lambda: len(cleanups(file)) == WORKERS, "its worker has cleaned up", 3.0)
    found = {pid: at for pid, generation, at in cleanups(file) if generation == stream.generation}
    assert found.keys() == four.workers()
    assert found[stream.pid] > ended, "not before the last byte"
    if how != "remove":
        # Another generation comes and goes: the first is not cleaned up a second time.
        assert four.post(f"/plugins/{name}/reload?wait=5").status == 200
        assert four.post(f"/plugins/{name}/toggle?wait=5").status == 200
    counted = [(pid, generation) for pid, generation, _ in cleanups(file)]
    assert len(counted) == len(set(counted)), "once"


@pytest.mark.soak
def test_a_request_that_never_ends_is_not_waited_for(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(WEB_CONCURRENCY="2", BENANA_DRAIN_SECONDS="2").start()
    file, until = tmp_path / "cleanups", tmp_path / "until"
    publish(server, "endless", cleanup=NOTE_CLEANUP.format(path=str(file)))
    stream = Streaming(server, f"/endless/stream?until={until}")
    try:
        began = time.monotonic()
        assert server.post("/plugins/endless/reload?wait=5").status == 200
        assert time.monotonic() - began < 1.5, "the swap does not wait for it"
        wait_until(lambda: len(cleanups(file)) == 2, "cleaned up anyway", 5.0)
        at = {pid: at for pid, _, at in cleanups(file)}[stream.pid]
        assert 1.9 < at - began < 3.5
        assert server.log().count("endless-g1: a request still runs in it after 2 s") == 1
        publish(server, "endless", 2)
    finally:
        until.touch()
    stream.whole()


# --- one edit, one row change ----------------------------------------------------------------


@pytest.mark.soak
def test_eight_workers_that_see_one_edit_change_one_row_once(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY="8").start()
    publish(server, "single")
    for turn in range(2, 4):
        with Notifications(server) as notifications:
            before = server.plugin("single")["generation"]
            server.write("single", counting("single", turn))
            wait_number(server, "single", turn)
            # Once another plugin's edit has gone all the way, no late publish of this one hides.
            publish(server, "fence", turn)
            assert server.plugin("single")["generation"] == before + 1
            found = [n for n in notifications.take() if n["name"] == "single"]
            assert len(found) == 1, found


# --- a start without the database ------------------------------------------------------------


@pytest.mark.soak
def test_a_start_without_the_database_serves_the_last_good(
    make_server: MakeServer, open_path: Path, new_postgres: NewPostgres
) -> None:
    postgres = new_postgres(open_path / "postgres")
    url = postgres.start()
    try:
        server = make_server(database=False, DATABASE_URL=url)
        server.database_url = url
        server.start()
        for name in ("kept", "edited", "damaged", "emptied", "switched", "tampered"):
            server.write(name, counting(name, 1))
        for name in ("kept", "edited", "damaged", "emptied", "switched", "tampered"):
            wait_number(server, name, 1)
        publish(server, "kept", 2)
        assert server.post("/plugins/switched/toggle?wait=5").status == 200
        server.stop()
        postgres.stop()
        served = server.artifacts / ".served"
        (served / "damaged").write_bytes(b"\xff\x00 [")
        (served / "emptied").write_bytes(b"")
        (served / "Not a name").write_text("[]")
        (archive,) = server.artifacts.glob("tampered-*.pyz")
        raw = bytearray(archive.read_bytes())
        raw[len(raw) // 2] ^= 1
        archive.write_bytes(raw)
        server.write("edited", counting("edited", 2))

        began = time.monotonic()
        server.start()  # waits for /whoami of every worker
        print(f"\nup without the database after {time.monotonic() - began:.1f} s")
        assert {number_of(a) for a in server.ask_all("/kept").values()} == {2}
        assert {number_of(a) for a in server.ask_all("/edited").values()} == {1}
        for name in ("damaged", "emptied", "switched", "tampered"):
            assert {a.status for a in server.ask_all(f"/{name}").values()} == {404}, name
        assert server.get("/health/live").status == 200
        ready = server.get("/health/ready")
        assert "degraded" in ready.body.decode(), ready
        assert server.get("/plugins").status == 503
        with Requester(server, "kept", threads=4) as requester:
            postgres = EmbeddedPostgres(open_path / "postgres")
            postgres.start()
            back = time.monotonic()
            wait_until(
                lambda: all(
                    a.status == 200 and a.json["status"] == "ready"
                    for a in server.ask_all("/health/ready").values()
                ),
                "every worker is ready",
                5.0,
            )
            for name in ("damaged", "emptied", "tampered"):
                wait_number(server, name, 1)
            print(f"\nconverged {time.monotonic() - back:.2f} s after the database was there")
            wait_number(server, "edited", 2)
            print(f"\nthe edit was served {time.monotonic() - back:.2f} s after")
        requester.assert_flawless()
        assert {n for _, n in requester.seen} == {2}
        assert server.get("/switched").status == 404
        # What is the same generation is not loaded again.
        wait_until(
            lambda: server.get("/plugins/kept").json["workers"]["behind"] == [], "all follow"
        )
        server.write("kept", source("kept", "three"))
        server.wait_says("kept", "three")
    finally:
        server.kill()
        postgres.stop()
