"""A version that ends its workers long after its load, by a thread or a timer of its own."""

import pytest

from tests.support.plugins import source
from tests.support.server import MakeServer
from tests.support.waiting import wait_until
from tests.support.worker_ends import all_up, ending_at_load, error_of, kept

pytestmark = pytest.mark.soak

ENDS = {
    "exits": "threading.Timer(6, os._exit, (7,)).start()",
    "crashes": "threading.Timer(6, lambda: ctypes.string_at(0)).start()",
    "kills": "threading.Timer(6, lambda: os.kill(os.getpid(), 9)).start()",
}
SAID = {"exits": "exit code 7", "crashes": "SIGSEGV", "kills": "SIGKILL"}


def ends_late(name: str, how: str) -> str:
    """Return a plugin that passes its trial, and ends its worker 6 s after its load."""
    return ending_at_load(name, f"import ctypes, threading; {ENDS[how]}", "bad")


@pytest.mark.parametrize(("how", "workers"), [("exits", "2"), ("crashes", "4"), ("kills", "2")])
def test_what_ends_its_workers_again_and_again_gives_way_to_the_version_before(
    make_server: MakeServer, how: str, workers: str
) -> None:
    """The workers ended in a loop for ever, and nobody was blamed."""
    server = make_server(WEB_CONCURRENCY=workers).start()
    for name in ("late", "beside"):
        server.write(name, source(name, "good"))
        server.wait_says(name, "good")
    wait_until(lambda: kept(server, "late") == 1, "it is what this host serves")
    server.write("late", ends_late("late", how))
    server.wait_says("late", "bad")
    server.write("beside", source("beside", "edited"))  # nobody is blamed that is only near
    server.wait_says("beside", "edited")
    error = wait_until(lambda: error_of(server, "late"), "the row says it", 120.0)
    print("\n" + error["message"])
    assert "generation 2 ended the workers that served it" in error["message"]
    assert SAID[how] in error["message"]
    wait_until(lambda: all_up(server), "all are up", 60.0)
    server.wait_says("late", "good", 60.0)
    after = wait_until(lambda: len(server.workers()) == int(workers) and server.workers(), "all")
    server.wait_says("beside", "edited")
    assert error_of(server, "beside") is None
    ends = [
        line for line in server.log().splitlines() if "a thread or a timer of generation" in line
    ]
    print(*ends, sep="\n")
    assert all("late: a thread or a timer of generation 2 ended a worker" in line for line in ends)
    assert 3 <= len(ends) <= 3 * int(workers)
    server.write("late", source("late", "mended"))
    server.wait_says("late", "mended")
    assert error_of(server, "late") is None
    assert server.workers() == after
