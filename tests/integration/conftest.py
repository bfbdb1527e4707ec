"""What the tests on a real PostgreSQL share."""

from collections.abc import Callable

import pytest

from app.database.connection import Database
from app.database.repository import Repository


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    """One up-to-date database for this file."""
    url = new_database()
    database = Database(url)
    Repository(database).apply_schema()
    database.close()
    return url
