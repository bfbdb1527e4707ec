"""Log lines go where gunicorn's error log goes."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.plugins import source
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until


@pytest.mark.soak
def test_a_broken_edit_of_a_daemon_is_in_its_error_log(make_server: MakeServer) -> None:
    server = make_server()
    log, pidfile = server.home / "error.log", server.home / "pid"
    server.environment["GUNICORN_CMD_ARGS"] = (
        f"--daemon --pid {pidfile} --error-logfile {log} --log-level warning"
    )
    server.start(wait=False)
    wait_until(lambda: _answers(server), "it serves", 30.0)
    master = int(pidfile.read_text())
    try:
        server.write("broken", source("broken"))
        wait_until(lambda: server.get("/broken").status == 200, "it is served")
        server.write("broken", "def f(:\n")
        wait_until(lambda: "broken: compile failed" in log.read_text(), "it is said")
        assert "[INFO]" not in log.read_text()
        os.kill(master, signal.SIGUSR1)  # logrotate's
        log.rename(log.with_suffix(".1"))
        os.kill(master, signal.SIGUSR1)
        wait_until(log.exists, "it is opened anew")
        server.write("broken", "def g(:\n")
        wait_until(lambda: "broken: compile failed" in log.read_text(), "it is said there")
    finally:
        os.kill(master, signal.SIGTERM)
        wait_until(lambda: not pidfile.exists(), "it has ended", 30.0)
    assert server.log() == ""


@pytest.mark.soak
@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("database", [True, False], ids=["external", "embedded"])
def test_standard_files_may_be_closed(make_server: MakeServer, closed: str, database: bool) -> None:
    """What was opened next got their numbers, and the publish at the start did not end well."""
    server = make_server(database=database)
    log = server.home / "error.log"
    server.arguments = ["--error-logfile", str(log)]
    server.program = ["sh", "-c", f'exec "$@" {closed}', "sh", *server.program]
    server.write("there", source("there"))
    server.start()
    server.wait_says("there", "one")
    text = log.read_text()
    assert "published 2 of 2 plugins" in text
    assert "publishing at the start ended" not in text
    for pid in server.workers():
        for number in range(3):
            opened = str(Path(f"/proc/{pid}/fd/{number}").readlink())
            assert opened.startswith(("/dev/", str(server.home))), opened
    server.stop()
    assert "Traceback" not in log.read_text() + server.log()


@pytest.mark.soak
def test_a_refused_start_of_a_daemon_is_in_its_error_log(make_server: MakeServer) -> None:
    running = make_server().start()
    server = make_server(BENANA_BIND=f"127.0.0.1:{running.port}")
    log = server.home / "error.log"
    server.environment["GUNICORN_CMD_ARGS"] = f"--daemon --error-logfile {log}"
    server.start(wait=False)
    said = f"127.0.0.1:{running.port} is in use"
    wait_until(lambda: log.exists() and said in log.read_text(), "it is said", 20.0)


@pytest.mark.soak
def test_the_embedded_databases_lines_are_in_the_error_log(make_server: MakeServer) -> None:
    server = make_server(database=False)
    log = server.home / "error.log"
    server.environment["GUNICORN_CMD_ARGS"] = f"--error-logfile {log}"
    server.start()
    postmaster = int((server.home / "var/postgres/postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    line = "starting PostgreSQL again"
    wait_until(lambda: line in log.read_text(), "it is said")
    said = next(found for found in log.read_text().splitlines() if line in found)
    assert said.startswith("[20")
    assert "] [WARNING] " in said


def _answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.get("/whoami").status == 200
    return False
