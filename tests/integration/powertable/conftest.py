"""What the tests of the plugin `powertable` share: a database, a client, and psql beside it."""

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor

from tests.support.powertable import Client, drop_tables, new_schema, powertable


@pytest.fixture(scope="session")
def database_url(new_database: Callable[[], str]) -> str:
    """An empty database for all files; each client has a schema of its own in it."""
    return new_database()


@pytest.fixture(scope="module")
def schema() -> str:
    """The schema of a file's client."""
    return new_schema()


@pytest.fixture(scope="module")
def loaded(database_url: str, schema: str) -> Iterator[Client]:
    """The client of all tests that want no more than a schema without tables."""
    with powertable(database_url, schema=schema) as client:
        yield client


@pytest.fixture
def client(loaded: Client) -> Iterator[Client]:
    """A client without tables; what a test has made is dropped at its end."""
    yield loaded
    drop_tables(loaded)


@pytest.fixture
def psql(client: Client, database_url: str, schema: str) -> Iterator[Cursor]:
    """A session of somebody in psql, in the client's schema: each statement is committed."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO {schema}")
            yield cursor
