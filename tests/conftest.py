"""One PostgreSQL for the whole run, and a database of its own for whoever asks."""

import contextlib
import gc
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from app.postgres.server import EmbeddedPostgres
from tests.support.clusters import NewPostgres, copy_cluster, make_cluster
from tests.support.folders import open_folder

_numbers = itertools.count(1)
_teardowns = itertools.count(1)

LOOK_EVERY = 50
"""After how many tests it is looked whether one has unfrozen what collections pass by."""

SHARED = ("not soak", "soak and not alone")
"""What two processes run together: the default suite, and the long runs that mostly wait."""

# Each server is four processes: without bytecode in its place, each compiles all of `app/` again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests: two, or none beside this one.

    This one alone runs the tests that measure; what failed last, which is run without others beside
    it; and single files, where `-s` and a debugger are of use.
    """
    together = config.option.markexpr in SHARED and not config.option.lf
    return 2 if together and all(Path(name).is_dir() for name in config.args) else 0


def pytest_collection_finish() -> None:
    """Have collections look at what tests make alone: all tests and libraries take 0.2 s each."""
    _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Freeze again after tests of what unfreezes: the look takes longer than most tests do."""
    if next(_teardowns) % LOOK_EVERY == 0 and not gc.get_freeze_count():
        _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape what a report may hold and cannot be sent to another process: lone surrogates."""
    return _escaped((yield))


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {key: _escaped(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(map(_escaped, value))
    return value


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder of a test's own that every user can reach."""
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def made_cluster() -> Iterator[Path]:
    """A data folder with a cluster as it is after its first start: to be copied, not used."""
    with open_folder() as folder:
        yield make_cluster(folder / "made")


@pytest.fixture(scope="session")
def new_postgres(made_cluster: Path) -> NewPostgres:
    """Makes a PostgreSQL of a data folder, which starts as fast as one does the second time."""

    def make(data_dir: Path) -> EmbeddedPostgres:
        copy_cluster(made_cluster, data_dir)
        return EmbeddedPostgres(data_dir)

    return make


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL: `TEST_DATABASE_URL`, else an embedded one for this run."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with open_folder() as folder:
        postgres = request.getfixturevalue("new_postgres")(folder / "var")
        url = postgres.start()
        with contextlib.closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                # What these databases hold need not outlive the machine, nor is it ever much.
                for name in ("fsync", "full_page_writes", "autovacuum"):
                    cursor.execute(f"ALTER SYSTEM SET {name} = off")
                cursor.execute("SELECT pg_reload_conf()")
        yield url
        postgres.stop()


@pytest.fixture(scope="session")
def new_database(postgres_url: str) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""

    def make() -> str:
        name = f"benana_test_{os.getpid()}_{next(_numbers)}"
        connection = psycopg2.connect(postgres_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        parts = urlsplit(postgres_url)  # urlunsplit would drop the slashes of an empty host
        return f"{parts.scheme}://{parts.netloc}/{name}?{parts.query}"

    return make


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return new_database()
