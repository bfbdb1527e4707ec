"""Requests that end their worker have no version held back that is loaded meanwhile."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from app.serving.crashes import ROUND_SECONDS
from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until
from tests.support.worker_ends import all_up, error_of

CRASHES = "import ctypes; ctypes.string_at(0)"
EXITS_IN_C = "import ctypes; ctypes.CDLL(None)._exit(3)"
IN_A_THREAD = f"""import concurrent.futures
        def work():
            {CRASHES}
        concurrent.futures.ThreadPoolExecutor(1).submit(work).result()"""


def ending(name: str, how: str, says: str = "answers") -> str:
    """Return a plugin with a route that ends its worker, and one that answers."""
    text = source(name, says).replace(
        "    def get(self):", f"    def end(self):\n        {how}\n\n    def get(self):"
    )
    return text.replace(
        "    def register_routes(self, server):\n",
        f'    def register_routes(self, server):\n        server.get("/{name}/end", self.end)\n',
    )


def slow(text: str, flag: str) -> str:
    """Return a plugin whose load in a worker waits for a file to be gone."""
    wait = f"import os, time\n            while os.path.exists({flag!r}): time.sleep(0.01)"
    return text.replace("        pass\n", f"        if not context.trial:\n            {wait}\n", 1)


@contextlib.contextmanager
def ended(server: Server, path: str) -> Iterator[list[int]]:
    """Ask for what ends a worker, again and again; give how often it was asked for."""
    stop, count = threading.Event(), [0]

    def ask_always() -> None:
        while not stop.wait(0.05):
            with contextlib.suppress(OSError):
                server.get(path)
            count[0] += 1

    thread = threading.Thread(target=ask_always)
    thread.start()
    yield count
    stop.set()
    thread.join(30.0)
    assert not thread.is_alive()


def loads(server: Server, name: str, generation: int) -> int:
    return server.log().count(f"{name}: generation {generation} is still loading")


@pytest.mark.parametrize(
    ("how", "itself"),
    [
        pytest.param(CRASHES, False, id="a crash"),
        pytest.param(CRASHES, True, id="a crash in the version before", marks=pytest.mark.soak),
        pytest.param(EXITS_IN_C, False, id="an exit in C", marks=pytest.mark.soak),
    ],
)
def test_what_loads_meanwhile_goes_live(make_server: MakeServer, how: str, itself: bool) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    name = "ends" if itself else "other"
    server.write("ends", ending("ends", how))
    server.wait_says("ends", "answers")
    if not itself:
        server.write("other", source("other", "first"))
        server.wait_says("other", "first")
    flag = server.home / "flag"
    flag.touch()
    text = ending(name, "return {}", "second") if itself else source(name, "second")
    server.write(name, slow(text, str(flag)))
    wait_until(lambda: loads(server, name, 2), f"it loads\n{server.log()}", 20.0)
    with ended(server, "/ends/end") as count:
        wait_until(
            lambda: server.log().count("while it answered: ends g1") >= 2 or count[0] > 100,
            "workers end",
            20.0,
        )
    flag.unlink()
    wait_until(lambda: all_up(server), "all are up", 30.0)
    server.wait_says(name, "second", 20.0)
    assert f"{name}: loading generation 2 ended" not in server.log()
    assert error_of(server, name) is None


@pytest.mark.soak
def test_a_thread_that_a_request_waits_for_has_no_version_set_back(
    make_server: MakeServer,
) -> None:
    server = make_server(WEB_CONCURRENCY="2").start()
    server.write("ends", ending("ends", IN_A_THREAD, "first"))
    server.wait_says("ends", "first")
    server.write("ends", ending("ends", IN_A_THREAD, "second"))
    server.wait_says("ends", "second")
    began = time.monotonic()
    with ended(server, "/ends/end"):  # for three times, as ends within two seconds are one
        wait_until(
            lambda: (
                time.monotonic() - began > 4 * ROUND_SECONDS
                and server.log().count("while it answered: ends g2") >= 6
            ),
            "workers end",
            60.0,
        )
    wait_until(lambda: all_up(server), "all are up", 30.0)
    server.wait_says("ends", "second", 20.0)
    assert error_of(server, "ends") is None
    for said in ("is not loaded again", "is held back", "a thread or a timer"):
        assert said not in server.log()
