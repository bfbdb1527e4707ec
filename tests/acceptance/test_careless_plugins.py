"""Plugins whose objects, threads and memory are not as a server would like them to be."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plugins import source
from tests.support.requester import Requester, counting, wait_number
from tests.support.server import Answer, MakeServer, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

CASES = CHECKOUT / "tests" / "cases" / "plugins"
EDITS = 10


@pytest.fixture(scope="module", params=["2", "4"], ids=["2 workers", "4 workers"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[], str],
) -> Iterator[Server]:
    """A server for all cases, with two workers and then with four."""
    home = tmp_path_factory.mktemp("server")
    running = Server(home, new_database(), WEB_CONCURRENCY=request.param).start()
    yield running
    running.stop()


def add(server: Server, name: str) -> None:
    """Put a case on a server, and wait until all workers serve it."""
    shutil.copytree(CASES / name, server.plugins / name)
    wait_edit(server, name, 0)


def edit(server: Server, name: str, number: int, seconds: float = 10.0) -> None:
    """Edit a case, and wait until all workers serve the edit."""
    path = server.plugins / name / "main.py"
    path.write_text(re.sub(r"(?m)^EDIT = \d+$", f"EDIT = {number}", path.read_text()))
    wait_edit(server, name, number, seconds)


def wait_edit(server: Server, name: str, number: int, seconds: float = 10.0) -> None:
    def is_served(answer: Answer) -> bool:
        return answer.status == 200 and bool(answer.json["edit"] == number)

    server.wait_everywhere(f"/{name}", is_served, seconds)


def lines(server: Server, *parts: str) -> list[str]:
    """Return the lines of the log that hold all of some texts."""
    return [line for line in server.log().splitlines() if all(part in line for part in parts)]


def note_cleanups(server: Server, name: str, number: int, file: Path) -> None:
    """Write a plugin that notes each cleanup of it in a file, with its generation."""
    note = f"""
if not self.trial:
    with open({str(file)!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{NUMBER}}\\n")
"""
    server.write(name, counting(name, number, cleanup=note))


def cleaned_up(file: Path, number: int) -> int:
    """Return how many workers have cleaned the generation of a number up."""
    text = file.read_text() if file.exists() else ""
    return sum(line.split()[1] == str(number) for line in text.splitlines())


def generations_alive(server: Server) -> set[int]:
    return {worker["generations_alive"] for worker in server.get("/workers").json}


def test_an_object_that_cannot_be_asked_is_nobodys_trouble(server: Server, tmp_path: Path) -> None:
    workers = len(server.workers())
    file = tmp_path / "cleanups"
    add(server, "lazy_object")
    note_cleanups(server, "beside", 0, file)
    wait_number(server, "beside", 0)
    for number in range(1, EDITS + 1):
        edit(server, "lazy_object", number)
        note_cleanups(server, "beside", number, file)
        wait_number(server, "beside", number)
        wait_until(lambda n=number: cleaned_up(file, n - 1) == workers, "it is cleaned up", 2.0)
    assert not lines(server, "cleaning up failed")
    assert not lines(server, "Traceback")
    # whoami and these two; what was frozen waits for a thorough collection
    wait_until(lambda: max(generations_alive(server)) <= 3, "the memory comes back", 60.0)
    assert not lines(server, "still in memory")


def test_threads_that_a_plugin_leaves_are_said_once_and_counted(server: Server) -> None:
    workers = len(server.workers())
    add(server, "leaves_thread")
    for number in range(1, EDITS + 1):
        edit(server, "leaves_thread", number)

    def left() -> list[str]:
        reasons = server.get("/plugins/leaves_thread").json["reasons"]
        return [reason["what"] for reason in reasons if "10 threads" in reason["what"]]

    said = wait_until(lambda: len(left()) == workers and left(), "all workers count ten", 10.0)
    print("\n" + said[0])
    assert "'exporter' (10)" in said[0]
    shown = [w["reasons"] for w in server.get("/workers").json]
    assert all("leaves_thread" in {r["plugin"] for r in reasons} for reasons in shown)
    found = lines(server, "leaves_thread: ", "'exporter'", "after its end")
    print(found[0])
    assert len(found) == workers, "each worker says it"
    assert len(lines(server, "exporter", "go")) == workers, "once"
    assert len(lines(server, "each load of it leaves behind", "exporter")) == 1, (
        "its rehearsal, too"
    )
    assert server.get("/health/ready").json["status"] == "ready"


def test_memory_that_is_only_reserved_is_none_that_is_taken(server: Server) -> None:
    pytest.importorskip("lmdb")
    add(server, "maps_much")
    # An edit of it is another matter: LMDB opens a folder once in a process.
    assert server.get("/maps_much").json["answer"] == "mapped"


@pytest.mark.parametrize("workers", ["4"])
def test_a_finalizer_that_takes_long_holds_up_no_other_cleanup_and_its_worker_is_replaced(
    make_server: MakeServer, tmp_path: Path, workers: str
) -> None:
    server, count = make_server(WEB_CONCURRENCY=workers).start(), int(workers)
    file = tmp_path / "cleanups"
    note_cleanups(server, "beside", 0, file)
    wait_number(server, "beside", 0)
    add(server, "slow_finalizer")
    old = server.workers()
    edit(server, "slow_finalizer", 1, 60.0)  # the first one waits for a rehearsal that never ends
    for number in range(1, 4):
        note_cleanups(server, "beside", number, file)
        wait_number(server, "beside", number)
        wait_until(lambda n=number: cleaned_up(file, n - 1) == count, "it is cleaned up", 1.5)
    with Requester(server, "beside", threads=2, fresh=True, pause=0.02) as requester:
        path = server.plugins / "slow_finalizer" / "main.py"
        for number in range(2, EDITS + 1):
            path.write_text(re.sub(r"(?m)^EDIT = \d+$", f"EDIT = {number}", path.read_text()))
            wait_until(
                lambda n=number: all(
                    server.get("/slow_finalizer").json["edit"] == n for _ in range(3 * count)
                ),
                f"edit {number} is served",
            )
        place = "slow_finalizer: a finalizer (main.py:11)"
        wait_until(lambda: len(lines(server, place)) >= count, "each worker names it", 20.0)
        wait_until(
            lambda: len(server.workers()) == count and not server.workers() & old,
            "all are new",
            30.0,
        )
    print(f"\n{lines(server, place)[0]}\n{requester.summary()}")
    assert all("replacing this worker" in line for line in lines(server, place))
    requester.assert_flawless()


def test_a_finalizer_that_takes_long_holds_up_the_end_of_a_worker_for_seconds_at_most(
    make_server: MakeServer,
) -> None:
    server = make_server().start()
    add(server, "slow_finalizer")
    began = time.monotonic()
    server.stop()
    took = time.monotonic() - began
    print(f"\nstopped in {took:.1f} s")
    assert took < 15.0, "and not only when the master has lost its patience, after 30 s"


def test_a_load_that_hangs_is_named_after_its_mend_and_counts_as_a_leak(
    make_server: MakeServer,
) -> None:
    """A mend went live at once, and the hung threads were known to nobody."""
    server = make_server(BENANA_MAX_LEAKED_GENERATIONS="2").start()
    server.write("stuck", source("stuck", "zero"))
    server.wait_says("stuck", "zero")
    before = server.workers()

    def hang_and_mend(number: int) -> None:
        hangs = source("stuck", f"hung {number}").replace(
            "        pass\n",
            "        if not context.trial:\n            import time; time.sleep(3600)\n",
            1,
        )
        server.write("stuck", hangs)
        wait_until(lambda: "still loading" in str(server.get("/health/ready").json), "it hangs")
        server.write("stuck", source("stuck", f"mend {number}"))
        server.wait_says("stuck", f"mend {number}")

    hang_and_mend(1)

    def reasons() -> str:
        return str(server.get("/plugins/stuck").json["reasons"])

    wait_until(lambda: "does not return (generation 2, at main.py:10)" in reasons(), "it is named")
    wait_until(lambda: server.get("/health/ready").json["status"] == "ready", "it is ready")
    assert server.workers() == before
    for number in (2, 3):
        hang_and_mend(number)
    wait_until(
        lambda: len(server.workers()) == 2 and not server.workers() & before,
        "fresh workers take the place of those with three",
        20.0,
    )
    assert server.get("/stuck").says == "mend 3"
    wait_until(lambda: reasons() == "[]", "all is well with it")
    assert len(lines(server, "stuck: a load that nobody waits for")) == 2, "once a worker"


def waiting(name: str, away: Path) -> str:
    """Return a plugin whose load hangs as long as a file is there."""
    hangs = (
        f"        import os, time\n        while os.path.exists({str(away)!r}): time.sleep(0.05)\n"
    )
    return source(name, "back").replace("        pass\n", hangs, 1)


def test_loads_that_hang_hold_up_a_start_together_and_not_one_after_the_other(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """Each kept everybody else waiting for 10 s, at every start, HUP or loss of all workers."""
    away = tmp_path / "away"
    server = make_server(WEB_CONCURRENCY="2").start()
    for number in range(4):
        server.write(f"waits{number}", waiting(f"waits{number}", away))
        server.wait_says(f"waits{number}", "back")
    before = server.workers()
    away.touch()
    began = time.monotonic()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    answered_by = wait_until(lambda: _who_answers(server) - before, "the others are answered", 60.0)
    assert len(answered_by) == 1
    took = time.monotonic() - began
    print(f"\nanswered after {took:.1f} s")
    assert took < 20.0, "it was 40 s"
    said = "is still loading after 10 s"
    wait_until(lambda: len(lines(server, said)) == 2 * 4, "each worker says it of each")
    away.unlink()
    for number in range(4):
        server.wait_everywhere(f"/waits{number}", lambda a: a.status == 200)


def test_at_a_hup_those_before_answer_while_a_load_hangs_in_the_new_ones(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """They stopped at once, and nobody answered for 10 s."""
    away = tmp_path / "away"
    server = make_server(WEB_CONCURRENCY="2").start()
    server.write("waits", waiting("waits", away))
    server.wait_says("waits", "back")
    server.write("steady", counting("steady", 1))
    server.wait_everywhere("/steady", lambda answer: answer.status == 200)
    before = server.workers()
    away.touch()
    assert server.process is not None
    with Requester(server, "steady", threads=2, fresh=True) as kept:
        server.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: len(server.workers()) == 2 and not server.workers() & before,
            "two workers of the configuration anew",
            60.0,
        )
    kept.assert_flawless()
    print(f"\n{kept.summary()}")
    assert len(lines(server, "is still loading after 10 s")) == 2
    assert kept.slowest < 4.0, "it was 10 s"
    away.unlink()
    server.wait_everywhere("/waits", lambda answer: answer.status == 200)


def _who_answers(server: Server) -> set[int]:
    """Return the worker that answers; none, where it has just been killed."""
    try:
        return {server.get("/whoami").json["pid"]}
    except OSError:
        return set()
