"""`exclusive:`: one process runs the plugin, and every worker answers for it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.requester import counting, number_of
from tests.support.server import Answer, MakeServer, Server, ask, free_port
from tests.support.waiting import wait_until

CASE = (Path(__file__).parents[1] / "cases" / "owns_port" / "main.py").read_text()
YAML = "exclusive: true\n"


def edition(number: int, name: str = "owns_port", text: str = CASE) -> str:
    """Return the case with another number, under another name, with a variable of its own."""
    return text.replace("EDIT = 0", f"EDIT = {number}").replace("owns_port", name)


@dataclass
class Load:
    """What became of the requests of some threads that ask again and again."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    slowest: float = 0.0

    def check(self) -> None:
        assert not self.failed, (len(self.failed), self.failed[:5])
        assert len(self.answers) > 10


@contextlib.contextmanager
def load_on(server: Server, path: str, threads: int = 4) -> Iterator[Load]:
    """Ask for a path from several threads, each over its own connection, while the block runs.

    A worker that ends closes connections between two requests, as it may: the request is then sent
    again by any client, and so it is here, if nothing of an answer came.
    """
    load, over = Load(), threading.Event()

    def work() -> None:
        connection = server.connect()
        while not over.is_set():
            began = time.monotonic()
            try:
                answer = ask(connection, "GET", path)
            except (ConnectionError, TimeoutError, OSError) as error:
                connection.close()
                connection = server.connect()
                if not isinstance(error, ConnectionError):
                    load.failed.append(repr(error))
                continue
            load.slowest = max(load.slowest, time.monotonic() - began)
            if answer.status == 200:
                load.answers.append((answer.json["edit"], answer.json["pid"]))
            else:
                load.failed.append((answer.status, answer.body))
            over.wait(0.002)  # the server needs a core too
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        over.set()
        for worker in workers:
            worker.join()


def says(number: int) -> Any:
    def expected(answer: Answer) -> bool:
        return answer.status == 200 and bool(answer.json["edit"] == number)

    return expected


def everyone_says(server: Server, number: int, statuses: set[int] | None = None) -> bool:
    """Tell whether all workers there should be answer with an edit; note what others answered."""
    with contextlib.suppress(OSError):
        found = server.ask_all("/owns_port")
        if statuses is not None:
            statuses.update(answer.status for answer in found.values())
        wanted = int(server.environment["WEB_CONCURRENCY"])
        return len(found) == wanted and all(says(number)(a) for a in found.values())
    return False


def owner_of(server: Server, name: str = "owns_port") -> int:
    """Return the process that answers for a plugin, in whichever worker it is asked."""
    pids = {answer.json["pid"] for answer in server.ask_all(f"/{name}").values()}
    assert len(pids) == 1, pids
    return int(pids.pop())


def owners_said(server: Server, name: str = "owns_port") -> list[int]:
    workers = server.get(f"/plugins/{name}").json["workers"]
    return [owner["pid"] for owner in workers.get("owners", [])]


def start(make_server: MakeServer, workers: int = 2, text: str = CASE, **more: str) -> Server:
    server = make_server(WEB_CONCURRENCY=str(workers), CASE_PORT=str(free_port()), **more)
    server.write("owns_port", text)
    server.write("owns_port", YAML, "plugin.yaml")
    return server.start()


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory: pytest.TempPathFactory, new_database: Any) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("exclusive")
    server = Server(home, new_database(), CASE_PORT=str(free_port()))
    server.write("owns_port", CASE)
    server.write("owns_port", YAML, "plugin.yaml")
    yield server.start()
    server.stop()


def test_one_process_runs_it_and_every_worker_answers(exclusive: Server) -> None:
    owner = owner_of(exclusive)
    assert owner in exclusive.workers()
    wait_until(lambda: owners_said(exclusive) == [owner], "the admin API says who runs it")
    said = {worker["pid"]: worker["owns"] for worker in exclusive.get("/workers").json}
    assert said == {pid: ["owns_port"] if pid == owner else [] for pid in exclusive.workers()}
    assert exclusive.get("/plugins/owns_port").json["error"] is None
    wait_until(lambda: exclusive.get("/health/ready").json["status"] == "ready", "it is ready")


def test_an_edit_hands_it_over_and_no_request_fails(exclusive: Server) -> None:
    with load_on(exclusive, "/owns_port") as load:
        exclusive.write("owns_port", edition(1))
        exclusive.wait_everywhere("/owns_port", says(1))
    load.check()
    assert [edit for edit, _ in load.answers if edit not in {0, 1}] == []


def test_an_edit_that_fails_goes_back(exclusive: Server) -> None:
    """It passes its trial, up to the port that the served version has; the new one cannot start."""
    exclusive.write("owns_port", edition(5))
    exclusive.wait_everywhere("/owns_port", says(5))
    broken = edition(6).replace("SOCKET.listen()", "SOCKET.listen(); raise ValueError('no')")
    with load_on(exclusive, "/owns_port") as load:
        exclusive.write("owns_port", broken)
        wait_until(lambda: exclusive.get("/plugins/owns_port").json["error"], "it says what failed")
        exclusive.wait_everywhere("/owns_port", says(5))
    load.check()
    assert {edit for edit, _ in load.answers} == {5}
    shown = exclusive.get("/plugins/owns_port").json
    assert "ValueError: no" in shown["error"]["message"]
    assert shown["workers"]["current"] == 0
    answer = exclusive.get("/health/ready").json
    assert answer["status"] == "degraded"
    assert any(
        "ValueError: no" in reason["what"] and "is served" in reason["what"]
        for reason in answer["reasons"]
    )
    exclusive.write("owns_port", edition(7))
    exclusive.wait_everywhere("/owns_port", says(7))
    wait_until(lambda: exclusive.get("/health/ready").json["status"] == "ready", "it is ready")


def test_toggled_off_it_runs_nowhere_and_on_again_once(exclusive: Server) -> None:
    port = exclusive.get("/owns_port").json["answer"]
    assert exclusive.post("/plugins/owns_port/toggle?wait=5").status == 200
    exclusive.wait_gone("owns_port")
    wait_until(lambda: not listens(port), "its port is free")
    assert exclusive.post("/plugins/owns_port/toggle?wait=10").status == 200
    owner_of(exclusive)


def listens(port: int) -> bool:
    text = Path("/proc/net/tcp").read_text()
    return any(f":{port:04X} 00000000:0000 0A" in line for line in text.splitlines())


def test_the_owner_that_is_killed_is_followed_and_no_request_is_lost(
    make_server: MakeServer,
) -> None:
    server = start(make_server)
    owner = owner_of(server)
    (other,) = server.workers() - {owner}
    with server.each_worker() as connections:
        os.kill(owner, signal.SIGKILL)
        began = time.monotonic()
        answer = ask(connections[other], "GET", "/owns_port")
    assert answer.status == 200, answer
    assert answer.json["pid"] != owner
    assert time.monotonic() - began < 4.0
    wait_until(lambda: len(server.workers()) == 2, "there are two workers again")
    wait_until(lambda: owners_said(server) == [answer.json["pid"]], "it is said who runs it")


WITHOUT = "exclusive: false\n"


def test_without_the_switch_the_error_says_who_holds_it_and_names_the_switch(
    make_server: MakeServer,
) -> None:
    server = make_server(CASE_PORT=str(free_port()))
    server.write("owns_port", CASE)
    server.start()
    shown = wait_until(lambda: server.get("/plugins/owns_port").json.get("error"), "an error")
    assert "Address already in use" in shown["message"]
    assert "is held by pid" in shown["message"]
    assert "exclusive: host" in shown["message"]
    holder = int(shown["message"].partition("is held by pid ")[2].split()[0])
    assert holder in server.workers()
    server.write("owns_port", YAML, "plugin.yaml")
    wait_until(lambda: len(owners_said(server)) == 1, "it is exclusive by that edit")
    owner_of(server)


def test_a_foreign_holder_refuses_the_edit_and_is_named(make_server: MakeServer) -> None:
    import socket

    server = make_server(CASE_PORT=str(free_port()))
    server.start()
    with socket.socket() as held:
        held.bind(("127.0.0.1", int(server.environment["CASE_PORT"])))
        held.listen()
        server.write("owns_port", YAML, "plugin.yaml")
        server.write("owns_port", CASE)
        answer = wait_until(
            lambda: (
                "in use" in (found := server.get("/plugins/owns_port")).json.get("detail", "")
                and found
            ),
            "it is refused",
        )
        assert f"is held by pid {os.getpid()} " in answer.json["detail"]
    server.wait_everywhere("/owns_port", says(0), 10.0)


IN_ITS_OWN_WORDS = {
    # What filelock, DuckDB, gRPC, PID files and SQLite do: the error has no number that says it.
    "lock": """
        self.file = open("{path}", "a")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        if not free:
            self.file.close()
            raise LookupError("Timeout: The file lock '{path}' could not be acquired.")
""",
    "port": """
        self.file = socket.socket()
        self.file.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.file.connect_ex(("127.0.0.1", {port})) == 0:
            self.file.close()
            raise RuntimeError("Failed to bind to address 127.0.0.1:{port}; set VERBOSITY=debug")
        self.file.bind(("127.0.0.1", {port}))
        self.file.listen()
""",
    "pid": """
        with open("{path}", "x") as file:
            file.write(str(os.getpid()))
        self.file = contextlib.ExitStack()
        self.file.callback(os.unlink, "{path}")
""",
    "sqlite": """
        self.file = sqlite3.connect("{path}", timeout=0, check_same_thread=False)
        self.file.execute("BEGIN EXCLUSIVE")
""",
}

HOLDS = """
import contextlib, fcntl, os, socket, sqlite3
from app.plugin import PluginMetadata

EDIT = 0

class P:
    def initialize(self, context):
        BEFORE
        TAKE
    def get_metadata(self): return PluginMetadata("NAME", "1.0.0")
    def register_routes(self, server):
        server.get("/NAME", lambda: {"edit": EDIT, "pid": os.getpid()})
    def cleanup(self, context): self.file.close()

new_plugin = P
"""


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux tells who has it")
def test_in_use_in_a_librarys_own_words_is_handed_over_too(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server()
    texts = {}
    for name, take in IN_ITS_OWN_WORDS.items():
        take = take.format(path=tmp_path / f"{name}.held", port=free_port())
        texts[name] = HOLDS.replace("NAME", name).replace("        TAKE\n", take)
        server.write(name, YAML, "plugin.yaml")
        server.write(name, edition(0, text=texts[name]).replace("BEFORE", "pass"))
    server.start()
    for name in texts:
        server.wait_everywhere(f"/{name}", says(0))
    for number in (1, 2):
        for name, text in texts.items():
            server.write(name, edition(number, text=text).replace("BEFORE", "pass"))
        for name in texts:
            server.wait_everywhere(f"/{name}", says(number))
    owners = {name: owner_of(server, name) for name in texts}
    for name, text in texts.items():  # what has nothing to do with it is refused as ever
        server.write(name, edition(3, text=text).replace("BEFORE", "raise RuntimeError('no key')"))
    for name in texts:
        error = wait_until(lambda name=name: server.get(f"/plugins/{name}").json["error"], "it")
        assert "no key" in error["message"]
        assert "`context.trial`" in error["message"]
        assert owner_of(server, name) == owners[name]
        assert says(2)(server.get(f"/{name}"))


# --- soak -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("workers", [2, 4])
def test_ten_edits_under_load_lose_no_request(make_server: MakeServer, workers: int) -> None:
    server = start(make_server, workers)
    with load_on(server, "/owns_port", threads=6) as load:
        for number in range(1, 11):
            server.write("owns_port", edition(number))
            server.wait_everywhere("/owns_port", says(number), 10.0)
            owner_of(server)
    load.check()
    seen = [edit for edit, _ in load.answers]
    assert set(seen) == set(range(11))
    assert load.slowest < 5.0


LOCK_FILE = '''
"""Holds the lock of a file, and does so at import."""
import fcntl, os
from app.plugin import PluginMetadata

FILE = open("{path}", "a")
fcntl.flock(FILE, fcntl.LOCK_EX | fcntl.LOCK_NB)
EDIT = 0

class P:
    def initialize(self, context): pass
    def get_metadata(self): return PluginMetadata("owns_port", "1.0.0")
    def register_routes(self, server):
        server.get("/owns_port", lambda: {{"edit": EDIT, "pid": os.getpid()}})
    def cleanup(self, context): FILE.close()

new_plugin = P
'''

SINGLETON = '''
"""One thread of the process, that no other process may have."""
import os, threading
from app.plugin import PluginMetadata

EDIT = 0

class P:
    def initialize(self, context):
        if context.trial:
            return
        if any(t.name == "only-one" for t in threading.enumerate()):
            raise RuntimeError("there is one already")
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.over.wait, name="only-one", daemon=True)
        self.thread.start()
        with open("{path}", "a") as log: log.write(f"+{{os.getpid()}}\\n")
    def get_metadata(self): return PluginMetadata("owns_port", "1.0.0")
    def register_routes(self, server):
        server.get("/owns_port", lambda: {{"edit": EDIT, "pid": os.getpid()}})
    def cleanup(self, context):
        if context.trial:
            return
        self.over.set(); self.thread.join()
        with open("{path}", "a") as log: log.write(f"-{{os.getpid()}}\\n")

new_plugin = P
'''


@pytest.mark.soak
@pytest.mark.parametrize("text", [LOCK_FILE, SINGLETON])
def test_a_lock_file_and_a_singleton_are_handed_over(
    make_server: MakeServer, open_path: Path, text: str
) -> None:
    record = open_path / "record"
    text = text.format(path=record)
    server = start(make_server, 2, text)
    with load_on(server, "/owns_port") as load:
        for number in range(1, 4):
            server.write("owns_port", edition(number, text=text))
            server.wait_everywhere("/owns_port", says(number), 10.0)
    load.check()
    if "only-one" in text:  # never two at once: each begin is followed by its end
        lines = record.read_text().split()
        assert all(one[0] == "+" and two == f"-{one[1:]}" for one, two in pairs(lines[:-1]))


def pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    return zip(lines[::2], lines[1::2], strict=False)


@pytest.mark.soak
def test_the_owners_worker_is_replaced_under_load(make_server: MakeServer) -> None:
    server = start(make_server)
    with load_on(server, "/owns_port") as load:
        for _ in range(3):
            owner = owner_of(server)
            os.kill(owner, signal.SIGTERM)
            wait_until(lambda gone=owner: gone not in server.workers(), "it has ended", 20.0)
            wait_until(lambda: len(server.workers()) == 2, "another one serves")
            wait_until(lambda gone=owner: owners_said(server) not in ([], [gone]), "it moved")
    load.check()


@pytest.mark.soak
def test_made_exclusive_by_an_edit_and_back(make_server: MakeServer) -> None:
    text = (
        CASE.replace("SOCKET.bind", "int")
        .replace("SOCKET.listen()", "pass")
        .replace("SOCKET.getsockname()[1]", "0")
        .replace('(("127.0.0.1", int(os.environ.get("CASE_PORT", "9797"))))', "(1)")
    )
    server = make_server()
    server.write("owns_port", text)
    server.start()
    with load_on(server, "/owns_port") as load:
        for number in range(1, 4):
            server.write("owns_port", YAML, "plugin.yaml")
            server.write("owns_port", edition(number, text=text))
            server.wait_everywhere("/owns_port", says(number), 10.0)
            wait_until(lambda: len(owners_said(server)) == 1, "one process runs it")
            owner_of(server)
            server.write("owns_port", WITHOUT, "plugin.yaml")
            wait_until(lambda: owners_said(server) == [], "each process runs it")
            server.wait_everywhere("/owns_port", lambda answer: answer.status == 200)
    load.check()


@pytest.mark.soak
def test_removed_and_put_back_it_is_free_in_between(make_server: MakeServer) -> None:
    server = start(make_server)
    port = int(server.environment["CASE_PORT"])
    for file in ("main.py", "plugin.yaml"):
        (server.plugins / "owns_port" / file).unlink()
    (server.plugins / "owns_port").rmdir()
    server.wait_gone("owns_port")
    wait_until(lambda: not listens(port), "its port is free")
    server.write("owns_port", YAML, "plugin.yaml")
    server.write("owns_port", edition(3))
    server.wait_everywhere("/owns_port", says(3), 10.0)


STREAM = CASE.replace(
    "class P:",
    "import time\n\ndef parts():\n    for n in range(30):\n        yield b'%d\\n' % EDIT\n"
    "        time.sleep(0.05)\n\ndef stream(req, resp):\n    resp.stream = parts()\n\nclass P:",
).replace(
    'server.get("/owns_port"',
    'server.get("/owns_port/stream", stream)\n        server.get("/owns_port"',
)


@pytest.mark.soak
def test_a_stream_that_is_passed_on_ends_in_the_version_that_it_began_with(
    make_server: MakeServer,
) -> None:
    server = start(make_server, 2, STREAM)
    owner = owner_of(server)
    with server.each_worker() as connections:
        (other,) = connections.keys() - {owner}
        connections[other].request("GET", "/owns_port/stream")
        response = connections[other].getresponse()
        assert response.read(2) == b"0\n"
        server.write("owns_port", edition(1, text=STREAM))
        assert response.read() == b"0\n" * 29
    server.wait_everywhere("/owns_port", says(1), 10.0)


@pytest.mark.soak
def test_the_lock_file_that_is_removed_moves_it_and_it_never_runs_twice(
    make_server: MakeServer, open_path: Path
) -> None:
    record = open_path / "record"
    server = start(make_server, 2, SINGLETON.format(path=record))
    folder = runtime_folder(server)
    with load_on(server, "/owns_port") as load:
        for lock in folder.glob("*.lock"):
            lock.unlink()
        wait_until(lambda: len(record.read_text().split()) >= 3, "it began anew")
        owner_of(server)
    load.check()
    lines = record.read_text().split()
    assert all(one[0] == "+" and two == f"-{one[1:]}" for one, two in pairs(lines[:-1]))


def runtime_folder(server: Server) -> Path:
    from app.isolation.runtime_folder import RuntimeFolder

    return RuntimeFolder(server.artifacts).path


@pytest.mark.soak
def test_of_two_hosts_one_runs_a_cluster_plugin_and_the_other_names_it(
    make_server: MakeServer,
) -> None:
    first = make_server(WEB_CONCURRENCY="1", CASE_PORT=str(free_port()))
    first.write("owns_port", CASE)
    first.write("owns_port", "exclusive: cluster\n", "plugin.yaml")
    first.start()
    second = make_server(
        WEB_CONCURRENCY="2", CASE_PORT=str(free_port()), DATABASE_URL=first.database_url or ""
    )
    second.environment["BENANA_WATCH"] = "off"
    second.write("whoami", "")
    second.plugins.joinpath("whoami", "main.py").unlink()
    second.plugins.joinpath("whoami").rmdir()
    second.start()
    owner = owner_of(first)
    answer = wait_until(
        lambda: (found := second.get("/owns_port")).status == 503 and found, "it is refused there"
    )
    assert f"(pid {owner})" in answer.json["detail"]
    assert answer.headers["retry-after"]
    health = wait_until(
        lambda: (found := second.get("/health/ready").json)["status"] == "degraded" and found,
        "the other host says so",
    )
    assert any(f"(pid {owner})" in reason["what"] for reason in health["reasons"])
    first.write("owns_port", edition(1))
    first.wait_everywhere("/owns_port", says(1), 10.0)
    wait_until(
        lambda: first.get("/plugins/owns_port").json["workers"]["behind"] == [],
        "all follow, those of the other host too",
    )
    first.kill()
    wait_until(lambda: second.get("/owns_port").status == 200, "the other host runs it", 15.0)
    owner_of(second)
    wait_until(
        lambda: second.get("/health/ready").json["status"] == "ready", "the other host is ready"
    )


@pytest.mark.soak
def test_an_owner_whose_database_session_ends_stops_before_another_starts(
    make_server: MakeServer, open_path: Path
) -> None:
    record = open_path / "record"
    server = make_server(WEB_CONCURRENCY="2")
    server.write("owns_port", SINGLETON.format(path=record))
    server.write("owns_port", "exclusive: cluster\n", "plugin.yaml")
    server.start()
    with load_on(server, "/owns_port") as load:
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'benana-lock-%%'"
        )
        wait_until(lambda: len(record.read_text().split()) >= 3, "it began anew", 15.0)
        owner_of(server)
    load.check()
    lines = record.read_text().split()
    assert all(one[0] == "+" and two == f"-{one[1:]}" for one, two in pairs(lines[:-1]))


@pytest.mark.soak
def test_while_a_load_waits_the_error_says_so(make_server: MakeServer) -> None:
    server = start(make_server)
    slow = CASE.replace("def start(context):", "def start(context):\n    context.trial or pause()")
    slow = slow.replace("def answer", "def pause():\n    import time; time.sleep(2)\n\ndef answer")
    with load_on(server, "/owns_port") as load:
        server.write("owns_port", edition(1, text=slow))
        shown = wait_until(lambda: server.get("/plugins/owns_port").json["error"], "it says so")
        assert "generation 2 is still loading, or waits for the process that runs it" in str(shown)
        assert shown["passes"] is True
        server.wait_everywhere("/owns_port", says(1), 10.0)
        wait_until(lambda: server.get("/plugins/owns_port").json["error"] is None, "it is over")
    load.check()
    assert 2.0 < load.slowest < 5.0


@pytest.mark.soak
def test_an_owner_that_dies_within_an_answer_is_a_bad_gateway(make_server: MakeServer) -> None:
    text = CASE.replace(
        'server.get("/owns_port"',
        'server.get("/owns_port/end", lambda: os._exit(9))\n        server.get("/owns_port"',
    )
    server = start(make_server, 2, text)
    owner = owner_of(server)
    with server.each_worker() as connections:
        (other,) = connections.keys() - {owner}
        answer = ask(connections[other], "GET", "/owns_port/end")
        assert answer.status == 502
        assert "the request may have had its effect" in answer.json["detail"]
        assert ask(connections[other], "GET", "/owns_port").status == 200
    wait_until(
        lambda: "while it answered: owns_port g1 /owns_port/end" in server.log(),
        "the master says what ended its worker",
    )


AT_IMPORT = """
import os, socket
from app.plugin import PluginMetadata

SOCKET = socket.socket()
SOCKET.bind(("127.0.0.1", int(os.environ["CASE_PORT"])))
SOCKET.listen()
EDIT = 0

class P:
    def initialize(self, context): pass
    def get_metadata(self): return PluginMetadata("owns_port", "1.0.0")
    def register_routes(self, server):
        server.get("/owns_port", lambda: {"edit": EDIT, "pid": os.getpid()})
    def cleanup(self, context): SOCKET.close()

new_plugin = P
"""


@pytest.mark.soak
def test_routes_that_the_trial_could_not_see_are_recorded_once_it_is_served(
    make_server: MakeServer,
) -> None:
    server = start(make_server, 2, AT_IMPORT)
    more = edition(1, text=AT_IMPORT).replace(
        'server.get("/owns_port"',
        'server.get("/owns_port/more", lambda: {"edit": 1})\n        server.get("/owns_port"',
    )
    server.write("owns_port", more)
    server.wait_everywhere("/owns_port/more", says(1), 10.0)
    wait_until(
        lambda: (
            {"/owns_port", "/owns_port/more"}
            == {e["path"] for e in server.get("/plugins/owns_port").json["endpoints"]}
        ),
        "the record says what is served",
    )
    versions = server.sql(
        "SELECT jsonb_array_length(metadata->'endpoints') FROM plugin_versions"
        " WHERE plugin_name = 'owns_port' ORDER BY created_at DESC LIMIT 1"
    )
    assert versions == [(2,)]


FLAGGED = CASE.replace(
    "def start(context):",
    "def start(context):\n"
    "    if not context.trial and not os.path.exists(os.environ['CASE_FLAG']):\n"
    "        raise ValueError('no flag')",
)


@pytest.mark.soak
def test_where_neither_version_can_be_loaded_it_is_said_at_once_and_tried_with_pauses(
    make_server: MakeServer, open_path: Path
) -> None:
    flag = open_path / "flag"
    flag.touch()
    server = start(make_server, 2, FLAGGED, CASE_FLAG=str(flag))
    flag.unlink()
    server.write("owns_port", edition(1, text=FLAGGED))
    wait_until(lambda: "nor can generation 1 be loaded again" in server.log(), "it cannot go back")
    began = time.monotonic()
    for answer in server.ask_all("/owns_port").values():
        assert answer.status == 503
        assert "no flag" in answer.json["detail"]
    assert time.monotonic() - began < 4.0
    assert server.log().count("nor can generation") == 1
    error = wait_until(lambda: server.plugin("owns_port")["error"], "the plugin says why")
    assert error["message"].endswith("no flag")
    flag.touch()
    server.write("owns_port", edition(2, text=FLAGGED))
    server.wait_everywhere("/owns_port", says(2), 10.0)


@pytest.mark.soak
def test_an_owner_that_drains_in_a_round_follows_edits_until_it_ends(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """A stream keeps it alive for minutes, and its reconciler ended when it drained."""
    server, gate = start(make_server), tmp_path / "gate"
    server.write("one", "reload: fresh\n", "plugin.yaml")
    server.write("one", counting("one", 1))
    server.wait_everywhere("/one", lambda answer: number_of(answer) == 1, 20.0)
    owner = owner_of(server)
    with server.each_worker() as connections:
        connections[owner].request("GET", f"/one/stream?until={gate}&seconds=60")
        stream = connections[owner].getresponse()
        assert stream.readline()
        for pid, connection in connections.items():
            if pid != owner:
                connection.close()
        server.write("one", counting("one", 2))
        wait_until(
            lambda: all(number_of(server.get("/one")) == 2 for _ in range(6)), "a round", 30.0
        )
        assert server.get("/owns_port").json["pid"] == owner, "nobody else can run it yet"
        with load_on(server, "/owns_port") as load:
            server.write("owns_port", edition(1))
            wait_until(
                lambda: all(says(1)(server.get("/owns_port")) for _ in range(6)), "it follows", 5.0
            )
        load.check()
        assert server.get("/owns_port").json["pid"] == owner
        gate.touch()
        assert stream.read().decode().splitlines()[-1].startswith("end ")
    wait_until(lambda: owner not in server.workers(), "the owner ends", 10.0)
    wait_until(lambda: server.get("/owns_port").json["pid"] in server.workers(), "another has it")
    assert server.get("/owns_port").json["edit"] == 1


def ends_its_worker(number: int, how: str) -> str:
    """Return an edition that passes its trial, and ends its worker while it is loaded there."""
    return edition(number).replace(
        "    def initialize(self, context):\n",
        f"    def initialize(self, context):\n        if not context.trial:\n            {how}\n",
        1,
    )


@pytest.mark.soak
@pytest.mark.parametrize(
    "how",
    [
        "__import__('os')._exit(3)",
        "__import__('ctypes').string_at(0)",
        "__import__('threading').Timer(1, lambda: __import__('os')._exit(4)).start()",
        "__import__('threading').Timer(2.5, lambda: __import__('os')._exit(4)).start()",
    ],
)
def test_after_an_edit_that_ends_its_worker_everyone_passes_on_to_the_one_before(
    make_server: MakeServer, how: str
) -> None:
    """Workers that were started anew had nothing of it in their table, and answered 404."""
    server = start(make_server, workers=4)
    server.wait_everywhere("/owns_port", says(0))
    wait_until(lambda: (server.artifacts / ".served" / "owns_port").exists(), "it is kept", 15.0)
    broken = ends_its_worker(1, how)
    assert broken != edition(1)
    server.write("owns_port", broken)
    wait_until(lambda: "ended a worker" in server.log(), "it ends one", 20.0)
    for pid in server.workers():  # the ones that lived on, too
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    wait_until(lambda: everyone_says(server, 0), "each of them answers", 20.0)
    assert "it is not loaded again" in server.log()
    assert server.get("/plugins/owns_port").json["error"]
    server.write("owns_port", edition(2))
    server.wait_everywhere("/owns_port", says(2), seconds=10.0)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [2, 4])
def test_a_port_that_a_version_leaves_bound_goes_with_its_worker(
    make_server: MakeServer, workers: int
) -> None:
    """Nobody could run the plugin until a HUP: the worker itself held the port."""
    leaking = CASE.replace("    SOCKET.close()", "    __import__('builtins').kept = SOCKET")
    assert leaking != CASE
    server = start(make_server, workers=workers, text=leaking)
    server.wait_everywhere("/owns_port", says(0))
    before = owner_of(server)
    wait_until(lambda: owners_said(server) == [before], "it is said who runs it")
    with load_on(server, "/owns_port", threads=6) as load:
        server.write("owns_port", edition(1))
        wait_until(lambda: everyone_says(server, 1), "each of them answers", 20.0)
    # Those that wait in the worker that ends cannot be answered: once or twice for a connection.
    assert {failed[0] for failed in load.failed} <= {503}
    assert len(load.failed) <= 2 * 6, load.failed
    assert before not in server.workers()
    said = [x for x in server.log().splitlines() if "has not let go of it" in x]
    assert f"is held by pid {before}" in said[0]
    wait_until(lambda: server.get("/plugins/owns_port").json["error"] is None, "nothing is wrong")
    after = server.workers()
    server.write("owns_port", edition(2))
    server.wait_everywhere("/owns_port", says(2))
    assert server.workers() == after, "one that lets go is handed over as ever"


HANGS = "\n        if not context.trial:\n            import time; time.sleep(3600)\n"


@pytest.mark.soak
def test_a_load_that_hangs_is_given_away_by_a_mend(make_server: MakeServer) -> None:
    """Nobody could load anything of it any more, until its owner was killed."""
    server = start(make_server, workers=2)
    server.wait_everywhere("/owns_port", says(0))
    before = owner_of(server)
    start_of_initialize = "    def initialize(self, context):\n"
    hung = edition(1).replace(start_of_initialize, start_of_initialize.rstrip("\n") + HANGS, 1)
    assert hung != edition(1)
    server.write("owns_port", hung)
    wait_until(lambda: "published generation 2" in server.log(), "it is published")
    server.write("owns_port", edition(2))

    wait_until(lambda: everyone_says(server, 2), "each of them answers", 20.0)
    assert before not in server.workers()
    assert "loading generation 2 has not returned for 5 s, at main.py:" in server.log()


@pytest.mark.soak
def test_a_load_that_hangs_for_long_is_given_up_for_the_version_before(
    make_server: MakeServer,
) -> None:
    server = start(make_server, workers=2)
    server.wait_everywhere("/owns_port", says(0))
    wait_until(lambda: (server.artifacts / ".served" / "owns_port").exists(), "it is kept", 15.0)
    start_of_initialize = "    def initialize(self, context):\n"
    server.write(
        "owns_port",
        edition(1).replace(start_of_initialize, start_of_initialize.rstrip("\n") + HANGS, 1),
    )
    wait_until(lambda: "has not returned for 30 s" in server.log(), "it is given up", 45.0)
    statuses: set[int] = set()

    wait_until(lambda: everyone_says(server, 0, statuses), "the version before answers", 20.0)
    assert 404 not in statuses
    wait_until(
        lambda: "has not returned for 30 s" in str(server.get("/plugins/owns_port").json["error"]),
        "the row says it",
    )
    server.write("owns_port", edition(2))
    server.wait_everywhere("/owns_port", says(2), seconds=10.0)


@pytest.mark.soak
def test_a_start_while_a_load_hangs_elsewhere_is_no_404(make_server: MakeServer) -> None:
    """A worker began after 10 s, with nothing of the plugin in its table."""
    server = start(make_server, workers=2)
    server.wait_everywhere("/owns_port", says(0))
    start_of_initialize = "    def initialize(self, context):\n"
    hung = edition(1).replace(start_of_initialize, start_of_initialize.rstrip("\n") + HANGS, 1)
    server.write("owns_port", hung)
    wait_until(lambda: "generation 2 is still loading" in server.log(), "it hangs")
    before = server.workers()
    other = next(pid for pid in before if f"[{pid}] [INFO] owns_port: serving" not in server.log())
    os.kill(other, signal.SIGKILL)
    fresh = wait_until(lambda: server.workers() - before, "another one serves", 30.0)
    statuses: set[int] = set()

    def asked() -> bool:
        with contextlib.suppress(OSError):
            found = server.ask_all("/owns_port")
            statuses.update(answer.status for answer in found.values())
            return bool(fresh & set(found)) or bool(404 in statuses)
        return False

    wait_until(asked, "it answers", 30.0)
    assert 404 not in statuses


@pytest.mark.soak
def test_a_cleanup_that_hangs_with_the_port_holds_the_next_version_up_for_seconds(
    make_server: MakeServer,
) -> None:
    """Its worker waited for that very cleanup before it ended: 27 s without the plugin."""
    hanging = CASE.replace("    SOCKET.close()", "    import time; context.trial or time.sleep(99)")
    assert hanging != CASE
    server = start(make_server, workers=2, text=hanging)
    server.wait_everywhere("/owns_port", says(0))
    server.write("owns_port", edition(1))
    statuses: set[int] = set()

    began = time.monotonic()
    wait_until(lambda: everyone_says(server, 1, statuses), "each of them answers", 20.0)
    assert time.monotonic() - began < 15.0
    assert 404 not in statuses
