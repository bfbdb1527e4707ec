"""What breaks around the workers: each fault under a continuous requester.

For each: the last good version keeps answering, every worker serves what the rows say within the
bound, and no row changes that nobody asked for.
"""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres
from tests.support.requester import (
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
LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'benana-listener'"
    " AND datname = current_database()"
)


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    """A server of 4 workers that is broken again and again."""
    running = Server(tmp_path_factory.mktemp("four"), new_database(), WEB_CONCURRENCY=str(WORKERS))
    running.start()
    yield running
    running.stop()
    assert running.process is not None
    assert running.process.returncode == 0


def publish(server: Server, name: str, number: int = 1) -> None:
    server.write(name, counting(name, number))
    wait_number(server, name, number, 10.0)


def raise_generation(server: Server, name: str) -> int:
    """Bump a plugin's generation by SQL and return it."""
    return server.sql(
        "UPDATE plugins SET generation = generation + 1 WHERE name = %s RETURNING generation", name
    )[0][0]


def wait_generation(server: Server, name: str, generation: int, seconds: float) -> float:
    """Wait until every worker serves a generation; return the seconds that it took."""
    return server.wait_everywhere(
        f"/{name}", lambda a: a.status == 200 and a.json["generation"] == generation, seconds
    )


def wait_whole(server: Server) -> None:
    """Wait until all workers are there, and answer."""
    count = int(server.environment["WEB_CONCURRENCY"])
    wait_until(
        lambda: (
            len(server.workers()) == count and server.workers() == set(server.ask_all("/whoami"))
        ),
        "all workers are back",
        15.0,
    )


# --- killed processes ------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_kill_of_a_worker_in_the_middle_of_a_reload(four: Server, kills: int) -> None:
    publish(four, "killed")
    audit, dice = Audit(four), random.Random(5)
    killed: dict[int, float] = {}
    with Requester(four, "killed", threads=8) as requester:
        for number in range(2, 2 + kills):
            victim = dice.choice(sorted(four.workers()))
            four.write("killed", counting("killed", number))
            if number % 2:  # between the edit and its publish, else right after the commit
                wait_published(four, "killed", number)
            os.kill(victim, signal.SIGKILL)
            killed[victim] = time.monotonic()
            wait_until(lambda v=victim: v not in four.workers(), "it is gone")
            wait_whole(four)
            wait_number(four, "killed", number, 3.0)
    requester.assert_flawless(audit, killed)
    print(f"\n{requester.summary()}, {len(killed)} workers killed")
    assert len(audit.changes("killed")) == 1 + kills, "one row change for each edit"


def test_kill_of_the_holder_of_the_watch(four: Server) -> None:
    publish(four, "held")
    audit = Audit(four)
    killed: dict[int, float] = {}
    took = []
    with Requester(four, "held", threads=4) as requester:
        for number in range(2, 4):
            holder = int((four.artifacts / ".watch.lock").read_text())
            os.kill(holder, signal.SIGKILL)
            killed[holder] = time.monotonic()
            four.write("held", counting("held", number))
            began = time.monotonic()
            left = four.workers() - {holder}
            answered: set[int] = set()

            def those_who_live_serve_it(
                n: int = number, left: set[int] = left, answered: set[int] = answered
            ) -> bool:
                with contextlib.suppress(OSError):
                    answer = four.get("/held")
                    if number_of(answer) == n:
                        answered.add(answer.json["pid"])
                return left <= answered

            wait_until(those_who_live_serve_it, "served by those who live", 4.0)
            took.append(time.monotonic() - began)
            wait_whole(four)
            wait_number(four, "held", number)
            wait_until(
                lambda h=holder: (
                    int((four.artifacts / ".watch.lock").read_text() or 0) in four.workers() - {h}
                ),
                "another one watches",
            )
    requester.assert_flawless(audit, killed)
    print(
        f"\n{requester.summary()}; edits after a kill of the holder were served after "
        + ", ".join(f"{seconds:.2f}" for seconds in took)
    )
    assert len(audit.changes("held")) == 1 + 2


def test_kill_of_the_trials_own_process(four: Server) -> None:
    publish(four, "tried")
    audit = Audit(four)
    slow = 'if __package__.endswith(".g0"):\n    time.sleep(0.7)'
    with Requester(four, "tried", threads=4) as requester:
        four.write("tried", counting("tried", 2, prelude=slow))
        holder = psutil.Process(int((four.artifacts / ".watch.lock").read_text()))

        def trying() -> list[psutil.Process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                servers = [c for c in holder.children() if "trial_server" in " ".join(c.cmdline())]
                return [server for server in servers if server.children()]
            return []

        for process in wait_until(trying, "a trial runs"):
            process.kill()
        wait_number(four, "tried", 2, 5.0)
    requester.assert_flawless(audit)
    assert four.plugin("tried")["error"] is None
    assert [change[1:] for change in audit.changes("tried")] == [(1, "1", None), (2, "2", None)]


# --- lost and hung connections ---------------------------------------------------------------


def test_listeners_terminated_again_and_again(four: Server) -> None:
    publish(four, "terminated")
    audit = Audit(four)
    stop = threading.Event()

    def terminate_always() -> None:
        with session(four) as run:
            while not stop.wait(0.2):
                run(LISTENERS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))

    killer = threading.Thread(target=terminate_always)
    changes = 0
    with Requester(four, "terminated", threads=8) as requester:
        killer.start()
        try:
            ends = time.monotonic() + 2.0
            while time.monotonic() < ends:
                changes += 1
                if changes % 3:
                    generation = raise_generation(four, "terminated")
                    wait_generation(four, "terminated", generation, 4.0)
                else:
                    four.write("terminated", counting("terminated", changes))
                    wait_number(four, "terminated", changes, 4.0)
        finally:
            stop.set()
            killer.join()
        generation = raise_generation(four, "terminated")
        took = wait_generation(four, "terminated", generation, 3.0)
    requester.assert_flawless(audit)
    print(f"\n{requester.summary()}, {changes} changes, {took:.2f} s after the last")
    wait_until(lambda: len(four.sql(LISTENERS)) == WORKERS, "all listen again")
    assert len(audit.changes("terminated")) == 1 + changes + 1


def test_a_stopped_backend_of_a_listener_is_noticed(make_server: MakeServer) -> None:
    server = make_server(WEB_CONCURRENCY=str(WORKERS), BENANA_HEARTBEAT_SECONDS="1").start()
    publish(server, "hung")
    audit = Audit(server)
    wait_until(lambda: len(server.sql(LISTENERS)) == WORKERS, "all listen")
    backends = [pid for (pid,) in server.sql(LISTENERS)]
    stopped = backends[:2]
    with Requester(server, "hung", threads=4) as requester:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            generation = raise_generation(server, "hung")
            wait_generation(server, "hung", generation, 15.0)
            took = time.monotonic() - began
            # They listen over new connections, while the stopped ones are still there.
            wait_until(lambda: len(server.sql(LISTENERS)) >= WORKERS + 2, "new ones", 5.0)
            generation = raise_generation(server, "hung")
            again = wait_generation(server, "hung", generation, 2.0)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    requester.assert_flawless(audit)
    print(f"\n{requester.summary()}; noticed after {took:.1f} s, then {again:.2f} s")
    assert len(audit.changes("hung")) == 3


class Silencer:
    """A TCP way to a PostgreSQL's unix socket that can lose what is on it without a word."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._path = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._stop = threading.Event()
        self._silent: set[int] = set()
        self._open: set[int] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://{query['user'][0]}@127.0.0.1:{port}{parts.path}"

    def silence(self) -> int:
        """From now on nothing passes over the connections of now; return how many there are."""
        with self._lock:
            self._silent |= self._open
            return len(self._silent)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._listener.close()

    def _accept(self) -> None:
        number = 0
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                number += 1
                self._open.add(number)
                thread = threading.Thread(target=self._carry, args=(client, number))
                self._threads.append(thread)
                thread.start()

    def _carry(self, client: socket.socket, number: int) -> None:
        with client, socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(self._path)
            pairs = [(client, upstream), (upstream, client)]
            for one, _ in pairs:
                one.settimeout(0.02)
            with contextlib.suppress(OSError):
                while not self._stop.is_set():
                    if number in self._silent:
                        self._stop.wait()  # and the kernel goes on acknowledging
                        return
                    for one, other in pairs:
                        with contextlib.suppress(TimeoutError):
                            raw = one.recv(65536)
                            if not raw:
                                return
                            if number not in self._silent:
                                other.sendall(raw)
        self._open.discard(number)


@pytest.fixture
def postgres(open_path: Path, new_postgres: NewPostgres) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of a test's own."""
    started = new_postgres(open_path / "postgres")
    started.start()
    yield started
    started.stop()


@pytest.mark.soak
def test_a_way_that_goes_silent_is_left_within_15_s(
    make_server: MakeServer, postgres: EmbeddedPostgres
) -> None:
    silencer = Silencer(postgres.uri)
    try:
        server = make_server(
            database=False, DATABASE_URL=silencer.url, WEB_CONCURRENCY=str(WORKERS)
        )
        server.database_url = postgres.uri  # the test's own statements go past it
        server.start()
        publish(server, "cut")
        audit = Audit(server)
        with Requester(server, "cut", threads=4) as requester:
            count = silencer.silence()
            began = time.monotonic()
            raised = raise_generation(server, "cut")
            wait_generation(server, "cut", raised, 15.0)
            took = time.monotonic() - began
            server.write("cut", counting("cut", 2))
            edited = wait_number(server, "cut", 2, 15.0)
            generation = raise_generation(server, "cut")
            after = wait_generation(server, "cut", generation, 2.0)
            wait_until(
                lambda: server.post("/plugins/cut/reload?wait=10").status == 200, "admin calls", 5.0
            )
        requester.assert_flawless(audit)
        print(
            f"\n{requester.summary()}; {count} connections went silent; a row was followed after "
            f"{took:.1f} s, an edit {edited:.1f} s later, the next row {after:.2f} s"
        )
        server.stop()
    finally:
        silencer.close()


@pytest.mark.soak
def test_postgresql_is_away_for_10_s(make_server: MakeServer, postgres: EmbeddedPostgres) -> None:
    server = make_server(database=False, DATABASE_URL=postgres.uri, WEB_CONCURRENCY=str(WORKERS))
    server.database_url = postgres.uri
    server.start()
    publish(server, "away")
    publish(server, "edited")
    audit = Audit(server)
    with (
        Requester(server, "away", threads=6) as requester,
        Requester(server, "edited", threads=2) as second,
    ):
        postgres.stop()
        gone = time.monotonic()
        server.write("edited", counting("edited", 2))
        degraded = wait_until(
            lambda: "degraded" in server.get("/health/ready").body.decode(), "degraded", 5.0
        )
        assert degraded
        while time.monotonic() < gone + 10.0:
            assert server.get("/plugins").status == 503
            threading.Event().wait(0.2)
        postgres.start()
        back = time.monotonic()
        generation = raise_generation(server, "away")
        wait_generation(server, "away", generation, 5.0)
        row = time.monotonic() - back
        wait_number(server, "edited", 2, 5.0)
        edit = time.monotonic() - back
        wait_until(lambda: server.get("/plugins").status == 200, "admin calls", 5.0)
        workers = wait_until(
            lambda: {w["pid"] for w in server.get("/workers").json} == server.workers(),
            "all are listed again",
            5.0,
        )
        assert workers
    requester.assert_flawless(audit)
    second.assert_flawless(audit)
    print(
        f"\n{requester.summary()}; after PostgreSQL's return a row was followed after {row:.2f} s, "
        f"the edit was served after {edit:.2f} s"
    )
    assert row < 2.0
    assert edit < 3.0
    assert [change[0] for change in audit.changes("away")] == ["INSERT", "UPDATE"]
    assert [change[0] for change in audit.changes("edited")] == ["INSERT", "UPDATE"]
    # Of each process one of the turn, one of what joins it after 10 s, and two of the edits.
    lines = server.log().splitlines()
    away = [line for line in lines if "the database is away" in line]
    assert len(away) <= 2 * WORKERS + 2, "\n".join(away)
    assert not any("listening again" in line for line in lines), "its end is that of the turn"
    assert sum("degraded since" in line for line in lines) == WORKERS
    wait_until(
        lambda: sum("over after" in line for line in server.log().splitlines()) == WORKERS,
        "each process says that it is over",
        10.0,
    )


# --- notifications that say nothing ----------------------------------------------------------


def test_garbage_huge_and_spoofed_notifications(four: Server) -> None:
    publish(four, "spoofed")
    audit = Audit(four)
    row = four.plugin("spoofed")
    payloads = [
        "", "x", "{}", "[]", "null", '"spoofed"', '{"name": null}', '{"name": 7}',
        '{"name": "../../etc"}', '{"name": "nobody"}', '{"name": ["spoofed"]}',
        '{"operation": "DELETE", "table": "plugins", "name": "spoofed", "id": "1"}',
        '{"operation": "UPDATE", "name": "spoofed", "new_data": {"generation": 999999}}',
        '{"operation": "TRUNCATE", "name": null}', "x" * 7999, "[" * 7999, '{"name":' * 900,
        '{"name": "' + "n" * 7900 + '"}', '{"name": NaN}', "1e999", "\u2603" * 2000, "-" * 5000,
        '{"name": ' + "9" * 7000 + "}",
    ]  # fmt: skip
    with Requester(four, "spoofed", threads=8) as requester, session(four) as run:
        for _ in range(20):
            for payload in payloads:
                run("SELECT pg_notify('plugin_changes', %s)", payload)
        publish(four, "fence", 1)
        generation = raise_generation(four, "spoofed")
        took = wait_generation(four, "spoofed", generation, 5.0)
    requester.assert_flawless(audit)
    assert len(audit.changes("spoofed")) == 2
    shown = four.plugin("spoofed")
    assert {**shown, "generation": 0, "updated_at": 0} == {
        **row,
        "generation": 0,
        "updated_at": 0,
    }
    assert len(four.sql(LISTENERS)) == WORKERS
    assert "a pass of the reconciler failed" not in four.log()
    print(f"\n{requester.summary()}; after {20 * len(payloads)} notifications {took:.2f} s")


def test_a_thousand_edits_within_a_second(four: Server) -> None:
    publish(four, "typed")
    audit = Audit(four)
    path = four.plugins / "typed" / "main.py"
    with Requester(four, "typed", threads=4, pause=0.02) as requester:
        texts = [counting("typed", number) for number in range(2, 1002)]
        beside = path.with_name("main.py.tmp")
        began = time.monotonic()
        for number, text in enumerate(texts):
            if number % 2:
                path.write_text(text)
            else:
                beside.write_text(text)
                beside.replace(path)
        wrote = time.monotonic() - began
        took = wait_number(four, "typed", 1001, 5.0)
    requester.assert_flawless(audit)
    publishes = len(audit.changes("typed")) - 1
    print(
        f"\n{requester.summary()}; 1,000 edits in {wrote:.2f} s were {publishes} publishes, the "
        f"last was live after {took:.2f} s"
    )
    assert took < 2.0
    assert publishes <= 60
    assert four.plugin("typed")["error"] is None
    assert audit.changes("typed")[-1][2] == "1001"


# --- what gunicorn does with its workers -----------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(("times", "workers"), [(1, 2), (4, WORKERS)])
def test_hup_and_term_under_load(make_server: MakeServer, times: int, workers: int) -> None:
    server = make_server(WEB_CONCURRENCY=str(workers)).start()
    publish(server, "steady")
    audit = Audit(server)
    assert server.process is not None
    with Requester(server, "steady", threads=8, fresh=True, streams=1) as requester:
        for number in range(2, 2 + times):
            old = server.workers()
            server.process.send_signal(signal.SIGHUP)
            server.write("steady", counting("steady", number))
            wait_until(
                lambda o=old: len(server.workers()) == workers and not server.workers() & o,
                "new workers",
                20.0,
            )
            wait_number(server, "steady", number, 5.0)
    print(f"\nHUP: {requester.summary()}")
    requester.assert_flawless(audit)
    assert len(audit.changes("steady")) == 1 + times
    with Requester(server, "steady", threads=8, fresh=True) as requester:
        for _ in range(times):
            victim = min(server.workers())
            os.kill(victim, signal.SIGTERM)  # a worker, gracefully
            wait_until(lambda v=victim: v not in server.workers(), "it has ended", 10.0)
            wait_whole(server)
    print(f"\nTERM of workers: {requester.summary()}")
    requester.assert_flawless(audit)
    # TERM of the whole server: what has been answered was answered right, and then nobody answers.
    requester = Requester(server, "steady", threads=4, fresh=True)
    with requester:
        wait_until(lambda: requester.count > 100, "requests")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20.0) == 0
    assert {fault.what for fault in requester.faults} <= {"lost"}, requester.faults[:3]
    lost = [f for f in requester.faults if "refused" not in f.detail]
    print(f"\nTERM of the server: {requester.summary()}; not refused: {lost[:3]}")
    assert server.sql("SELECT * FROM plugin_workers") == []
    assert "did not end" not in server.log()


@pytest.mark.soak
def test_max_requests_under_load(make_server: MakeServer) -> None:
    server = make_server(
        WEB_CONCURRENCY=str(WORKERS),
        GUNICORN_CMD_ARGS="--max-requests 150 --max-requests-jitter 100",
    ).start()
    publish(server, "limited")
    audit = Audit(server)
    pids: set[int] = set()
    with Requester(server, "limited", threads=6, fresh=True, pause=0.005) as requester:
        for number in range(2, 6):
            server.write("limited", counting("limited", number))
            wait_published(server, "limited", number)
            published = time.monotonic()

            # Workers come and go: asked is whoever answers, until nobody answers with the old.
            def all_are_new(n: int = number) -> bool:
                found = [server.get("/limited") for _ in range(12)]
                pids.update(a.json["pid"] for a in found)
                return {number_of(a) for a in found} == {n}

            wait_until(all_are_new, "all serve the edit", 5.0)
            assert time.monotonic() - published < 3.0
            seen = len(pids)
            wait_until(
                lambda s=seen: all_are_new() and len(pids) >= s + 2, "workers were replaced", 20.0
            )
    print(f"\nmax_requests: {requester.summary()}, {len(pids)} workers")
    requester.assert_flawless(audit)
    assert len(audit.changes("limited")) == 1 + 4
    server.stop()
    assert server.process is not None
    assert server.process.returncode == 0


def test_every_worker_killed_at_once(four: Server) -> None:
    publish(four, "all")
    audit = Audit(four)
    raised = raise_generation(four, "all")
    victims = four.workers()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    four.write("all", counting("all", 2))

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return len(four.workers() - victims) == WORKERS and number_of(four.get("/all")) == 2
        return False

    wait_until(answers, "new workers serve the edit", 15.0)
    wait_whole(four)
    with four.each_worker() as workers:
        assert workers.keys() == four.workers()
        found = {ask(c, "GET", "/all").json["generation"] for c in workers.values()}
    assert found == {raised + 1}
    assert len(audit.changes("all")) == 3
