"""What the tests on a real PostgreSQL share."""

import atexit
import socket
from collections.abc import Callable, Iterator

import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.timeouts import Timeouts
from tests.integration.test_schema import Session, session

PLACES = 4
"""How many connections the pool of these tests lends at most."""


# gunicorn hands the connection over; the other end of this one belongs to this process.
CONNECTION, OTHER_END = socket.socketpair()
atexit.register(CONNECTION.close)
atexit.register(OTHER_END.close)


@pytest.fixture(scope="session")
def url(new_database: Callable[[], str]) -> str:
    """One up-to-date database for all files."""
    url = new_database()
    database = Database(url)
    Repository(database).apply_schema()
    database.close()
    return url


@pytest.fixture
def sql(url: str) -> Iterator[Session]:
    """A session of somebody else, on emptied tables."""
    with session(url) as opened:
        opened(
            "TRUNCATE plugins, plugin_endpoints, plugin_versions, plugin_failures,"
            " plugin_workers, plugin_loads"
        )
        yield opened


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A small pool, closed at the end; its statements do not wait long for a lock."""
    database = Database(url, max_connections=PLACES, timeouts=Timeouts(lock_seconds=0.5))
    yield database
    database.close()


@pytest.fixture
def repository(sql: Session, database: Database) -> Repository:
    return Repository(database)
