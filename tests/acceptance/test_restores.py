"""Dumps that are restored below running servers, with PostgreSQL's own programs."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.postgres.host import find_install
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

FOLLOWED_SECONDS = 5.0

WAYS = {
    "clean": ["--clean", "--if-exists"],
    "clean in one transaction": ["--clean", "--if-exists", "--single-transaction"],
    "data only": ["--data-only", "--single-transaction"],
    "data only, triggers disabled": ["--data-only", "--disable-triggers", "--single-transaction"],
}
DATA_ONLY = ["--data-only", "--no-unlogged-table-data"]
"""Without the processes: those that live are entered already, and would stop the restore."""


def program(name: str, *arguments: str | Path, text: str | None = None) -> str:
    """Run a program of the embedded PostgreSQL."""
    done = subprocess.run(
        [find_install() / "bin" / name, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dump(server: Server, *options: str) -> Path:
    assert server.database_url is not None
    path = server.home / f"{time.monotonic_ns()}.dump"
    program("pg_dump", "-Fc", "-f", path, "-d", server.database_url, *options)
    return path


def restore(server: Server, path: Path, *options: str) -> None:
    assert server.database_url is not None
    program("pg_restore", "-d", server.database_url, "--exit-on-error", *options, path)


def published(server: Server, name: str, says: str) -> None:
    server.write(name, source(name, says))
    server.wait_says(name, says)


def who_says(server: Server, text: str) -> set[str]:
    """The processes that have logged a text: one may do so for each step of a restore."""
    lines = (line for line in server.log().splitlines() if text in line)
    return {line.split("[")[2].partition("]")[0] for line in lines}


def serves(server: Server, name: str, says: str) -> bool:
    """Whether every worker serves that; it may not serve the plugin that tells who it is yet."""
    with contextlib.suppress(OSError):
        return {answer.says for answer in server.ask_all(f"/{name}").values()} == {says}
    return False


@contextlib.contextmanager
def asking(server: Server, name: str) -> Iterator[set[int]]:
    """Ask for a plugin again and again; give the set of all statuses."""
    statuses: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.add(server.get(f"/{name}").status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("way", WAYS)
def test_a_restored_dump_is_followed(server: Server, way: str) -> None:
    name = "restored"
    published(server, name, "one")
    path = dump(server, *(DATA_ONLY if "data" in way else []))
    published(server, name, "two")
    with asking(server, "whoami") as statuses:
        if "data" in way:
            server.sql("TRUNCATE plugins, plugin_endpoints, plugin_versions, plugin_failures")
        restore(server, path, *WAYS[way])
        wait_until(lambda: serves(server, name, "one"), "the dump is followed", FOLLOWED_SECONDS)
    if "data" not in way:
        assert statuses == {200}
    assert server.plugin(name)["endpoints"], "no endpoint is lost"
    always = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'plugins_notify%%' AND tgenabled"
    wait_until(lambda: server.sql(f"{always} = 'A'") == [(3,)], "they fire always")
    published(server, name, "three")


@pytest.mark.parametrize("until", ["CREATE TABLE", "COPY", "CREATE TRIGGER"])
def test_a_restore_that_takes_its_time_unloads_nothing(server: Server, until: str) -> None:
    """It stops with tables missing, with empty tables, and with rows but without triggers."""
    name = "slowly"
    published(server, name, "one")
    path = dump(server)
    published(server, name, "two")
    script = program("pg_restore", "--clean", "--if-exists", "-f", "-", path)
    done, _, rest = script.partition(f"\n{until} ")
    assert rest
    assert server.database_url is not None
    server.log_file.write_text("")
    with asking(server, name) as statuses:
        program("psql", "-q", "-d", server.database_url, text=done)
        wait_until(lambda: len(who_says(server, "is served on")) == 2, "both workers say it", 30.0)
        server.sql("SELECT pg_notify('plugin_changes', %s)", f'{{"name": "{name}"}}')
        time.sleep(6.0)  # all processes have looked, more than once
        answers = server.ask_all(f"/{name}").values()
        assert {answer.says for answer in answers} == {"two"}, "the last good"
        settings = "\n".join(line for line in done.splitlines() if line.startswith("SET "))
        program("psql", "-q", "-d", server.database_url, text=f"{settings}\n{until} {rest}")
        wait_until(lambda: serves(server, name, "one"), "it is followed", FOLLOWED_SECONDS)
    assert statuses == {200}
    assert server.plugin(name)["endpoints"]


def test_rows_that_come_back_alone_get_their_endpoints_back(server: Server) -> None:
    name = "alone"
    published(server, name, "one")
    before = server.plugin(name)
    assert before["endpoints"]
    path = dump(server, "--data-only", "-t", "plugins")
    server.sql("DELETE FROM plugins")
    restore(server, path)
    wait_until(lambda: serves(server, name, "one"), "it is followed", FOLLOWED_SECONDS)
    wait_until(lambda: server.plugin(name)["endpoints"], "they are recorded again", 20.0)
    assert server.plugin(name) == before
