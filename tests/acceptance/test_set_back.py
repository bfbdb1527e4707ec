"""Databases that are set back to an earlier time below running servers."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import Session, session
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until

SAID_SECONDS = 30.0
"""On a busy machine; usually it is within 5."""


@contextlib.contextmanager
def administrator(server: Server) -> Iterator[tuple[Session, str]]:
    """A session of another database of the same cluster, and the name of the server's."""
    name = str(server.sql("SELECT current_database()")[0][0])
    assert server.database_url is not None
    with session(server.database_url.replace(name, "postgres")) as other:
        yield other, name


def copy(server: Server) -> str:
    """Copy the server's database as a template, which nobody may use meanwhile."""
    with administrator(server) as (sql, name):
        sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)

        def copied() -> bool:
            with contextlib.suppress(Exception):
                sql(f"CREATE DATABASE {name}_snapshot TEMPLATE {name}")
                return True
            return False

        wait_until(copied, "all sessions have ended", 10.0)
        sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    return f"{name}_snapshot"


def set_back(server: Server, snapshot: str) -> None:
    with administrator(server) as (sql, name):
        sql(f"DROP DATABASE {name} WITH (FORCE)")
        sql(f"ALTER DATABASE {snapshot} RENAME TO {name}")


def reasons(server: Server) -> dict[str | None, str]:
    """What every worker says of plugins, by plugin; nothing while they do not say the same."""
    answers = [answer.json for answer in server.ask_all("/health/ready").values()]
    said = [{r["plugin"]: r["what"] for r in answer.get("reasons", ())} for answer in answers]
    return said[0] if said and all(each == said[0] for each in said) else {}


def says(server: Server, *words: tuple[str | None, str]) -> Callable[[], bool]:
    """Whether all workers serve and give these reasons, and no other."""

    def holds() -> bool:
        with contextlib.suppress(OSError):
            found = reasons(server)
            return found.keys() == dict(words).keys() and all(w in found[p] for p, w in words)
        return False

    return holds


BACK = "its folder was published as generation"
UNKNOWN = "neither its row nor that version"


def written(server: Server, name: str, text: str) -> None:
    server.write(name, source(name, text))
    server.wait_says(name, text, 20.0)


@pytest.mark.parametrize("edited", [True, False], ids=["with an edit", "with a new plugin alone"])
def test_a_database_set_back_by_a_copy_is_said(server: Server, edited: bool) -> None:
    """A copy is no other database, as far as what is in it says."""
    old, new = f"old{edited:d}", f"new{edited:d}"
    written(server, old, "before")
    snapshot = copy(server)
    wait_until(says(server), "it is back", 20.0)
    if edited:
        written(server, old, "after")
    written(server, new, "after")
    set_back(server, snapshot)
    expected = [(new, UNKNOWN), *([(old, BACK)] if edited else [])]
    wait_until(says(server, *expected), "what went back is said", SAID_SECONDS)
    assert server.get(f"/{new}").status == 404
    assert server.get(f"/{old}").says == "before", "the row counts"
    if edited:
        before = server.workers()
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & server.workers(), "fresh workers", 30.0)
        wait_until(says(server, *expected), "they say it, too", SAID_SECONDS)
    for name, _ in expected:
        assert server.post(f"/plugins/{name}/reload").status == 202
    wait_until(says(server), "nothing is to be said any more", SAID_SECONDS)
    server.wait_says(new, "after", 20.0)


def test_a_row_that_somebody_deletes_is_no_reason_and_one_that_never_was_is(
    server: Server,
) -> None:
    for name in ("deleted", "unknown"):
        written(server, name, "one")
    server.sql("DELETE FROM plugins WHERE name = 'deleted'")
    server.wait_gone("deleted", 20.0)
    server.sql(
        "DELETE FROM plugin_versions WHERE plugin_name = 'unknown';"
        " DELETE FROM plugins WHERE name = 'unknown'"
    )
    wait_until(says(server, ("unknown", UNKNOWN)), "that one is said alone", SAID_SECONDS)
    (server.plugins / "unknown").rename(server.home / "aside")
    wait_until(says(server), "its folder is gone", SAID_SECONDS)
