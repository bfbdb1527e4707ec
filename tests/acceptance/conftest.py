"""Real servers for the acceptance tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import MakeServer, Server


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    """One running server for all tests of a module; each uses plugin names of its own."""
    running = Server(tmp_path_factory.mktemp("server"), new_database()).start()
    yield running
    running.stop()


@pytest.fixture
def make_server(open_path: Path, new_database: Callable[[], str]) -> Iterator[MakeServer]:
    """Makes servers that a test starts, stops and breaks as it likes."""
    made: list[Server] = []

    def make(*, database: bool = True, **environment: str) -> Server:
        home = open_path / f"server{len(made)}"
        home.mkdir()
        made.append(Server(home, new_database() if database else None, **environment))
        return made[-1]

    yield make
    for server in made:
        server.kill()
