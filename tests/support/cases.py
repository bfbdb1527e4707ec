"""Plugins out of real use (`tests/cases/plugins`), put on a server, edited and asked under load.

`GET /<name>` answers `{"edit", "pid", "answer"}`; an edit is another number behind `EDIT =`.
"""

import contextlib
import http.client
import re
import shutil
import threading
from collections.abc import Iterator
from typing import Any

from tests.support.checkout import CHECKOUT
from tests.support.server import Answer, Server, ask

CASES = CHECKOUT / "tests" / "cases" / "plugins"

SERVED_SECONDS = 15.0
"""How long an edit may take until every worker serves it, on a machine that is busy."""


def code_of(name: str) -> str:
    """Return the main.py of a case."""
    return (CASES / name / "main.py").read_text()


def add_case(server: Server, name: str, code: str | None = None) -> None:
    """Put a case on a server.

    Args:
        server: where.
        name: the case.
        code: what its main.py is instead.
    """
    shutil.copytree(
        CASES / name, server.plugins / name, ignore=lambda *_: {"main.py"}, dirs_exist_ok=True
    )
    server.write(name, code or code_of(name))


def edited(code: str, number: int) -> str:
    """Return a case's code with another number."""
    return re.sub(r"^EDIT = \d+$", f"EDIT = {number}", code, flags=re.MULTILINE)


def edit_case(server: Server, name: str, number: int) -> None:
    """Edit a case."""
    path = server.plugins / name / "main.py"
    path.write_text(edited(path.read_text(), number))


def wait_for_edit(
    server: Server, name: str, number: int, seconds: float = SERVED_SECONDS
) -> list[Any]:
    """Wait until every worker serves an edit, and return the answer of each."""

    def is_served(answer: Answer) -> bool:
        return answer.status == 200 and bool(answer.json["edit"] == number)

    server.wait_everywhere(f"/{name}", is_served, seconds)
    answers = [found.json["answer"] for found in server.ask_all(f"/{name}").values()]
    assert len(answers) == int(server.environment["WEB_CONCURRENCY"])
    return answers


@contextlib.contextmanager
def light_load(server: Server, path: str, right: Any, seconds: float = 0.02) -> Iterator[list[str]]:
    """Ask a case all the time; give a list of what was not right.

    Args:
        server: whom to ask.
        path: the case's route.
        right: what `answer` has to be each time.
        seconds: how long to wait between two requests.
    """
    stop = threading.Event()
    faults: list[str] = []
    counts: list[int] = []

    def ask_always() -> None:
        count = 0
        with contextlib.closing(server.connect()) as connection:
            while not stop.wait(seconds):
                count += 1
                try:
                    answer = ask(connection, "GET", path)
                except (OSError, http.client.HTTPException) as error:
                    faults.append(repr(error))
                    continue
                if answer.status != 200 or answer.json["answer"] != right:
                    faults.append(f"{answer.status} {answer.body[:300]!r}")
        counts.append(count)

    threads = [threading.Thread(target=ask_always) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield faults
    finally:
        stop.set()
        for thread in threads:
            thread.join(60.0)
    assert len(counts) == len(threads)
    assert sum(counts) > 0, "nothing was asked"
