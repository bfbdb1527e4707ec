"""What the tests on a real PostgreSQL share."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from app.database.pool import Database
from app.database.repository import Repository
from app.database.timeouts import Timeouts
from tests.support.databases import PLACES, Session, empty, session
from tests.support.postgres_proxy import Proxy


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
        empty(opened)
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


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    if "host=" not in urlsplit(url).query:
        pytest.skip("the proxy goes to a unix socket")
    proxy = Proxy(url)
    yield proxy
    proxy.close()
