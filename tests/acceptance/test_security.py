"""Who is let in by a real server, over TCP and a unix socket, as itself and as somebody else."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.folders import open_folder
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until

STRANGER = 12345
AS_STRANGER: dict[str, Any] = {"user": STRANGER, "group": STRANGER, "extra_groups": []}

as_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can run as somebody else"
)


@dataclass
class Doors:
    """A server that listens on a port and on a unix socket."""

    server: Server
    path: Path

    def generation(self) -> int:
        return self.server.plugin("whoami")["generation"]


@pytest.fixture(scope="module")
def doors(new_database: Callable[[], str]) -> Iterator[Doors]:
    with open_folder() as home:
        server = Server(home, new_database())
        path = home / "socket"
        server.environment["GUNICORN_CMD_ARGS"] = f"-b 127.0.0.1:{server.port} -b unix:{path}"
        yield Doors(server.start(), path)
        server.stop()


def curl(*arguments: str, **whose: Any) -> tuple[int, dict[str, Any]]:
    """Call with curl, as somebody else if need be; return the status and the answer."""
    call = ["curl", "-sS", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=True, **whose)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_the_plain_commands_work_for_who_runs_the_server(doors: Doors) -> None:
    url = f"http://localhost:{doors.server.port}/plugins"
    assert curl("-X", "POST", f"{url}/whoami/reload")[0] == 202
    assert curl("-X", "POST", f"{url}/whoami/toggle")[0] == 200
    through = ("--unix-socket", str(doors.path))
    assert curl(*through, "-X", "POST", "http://localhost/plugins/whoami/toggle?wait=5")[0] == 200
    assert doors.server.get("/whoami").status == 200


@as_root
def test_a_write_of_another_user_needs_a_token(doors: Doors) -> None:
    """Such as a proxy on this machine, which says nothing of what it passes on."""
    before = doors.generation()
    url = f"http://127.0.0.1:{doors.server.port}"
    for action in ("reload", "toggle"):
        status, body = curl("-X", "POST", f"{url}/plugins/whoami/{action}", **AS_STRANGER)
        assert status == 403
        assert f"the user {STRANGER}" in body["detail"]
        assert "BENANA_ADMIN_TOKEN" in body["detail"]
    assert curl(f"{url}/plugins/whoami", **AS_STRANGER)[0] == 200
    assert curl(f"{url}/whoami", **AS_STRANGER)[0] == 200
    assert doors.generation() == before


@as_root
def test_a_stranger_who_closes_at_once_writes_nothing(doors: Doors) -> None:
    """Linux writes root into the row of a socket that nobody holds."""
    before = doors.generation()
    call = "POST /plugins/whoami/reload HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
    there = f"/dev/tcp/127.0.0.1/{doors.server.port}"
    script = f'for i in {{1..15}}; do exec 3<>{there}; printf "{call}" >&3; exec 3>&-; done'
    subprocess.run(["bash", "-c", script], check=True, **AS_STRANGER)
    # One after the other, in their order: ours comes after whatever they have begun.
    assert doors.server.post("/plugins/whoami/reload").status == 202
    assert doors.generation() == before + 1


POST = (
    source("{name}")
    .replace('server.get("/{name}", self.get)', 'server.post("/{name}", self.post)')
    .replace("def get(self):", "def post(self, body):")
)


def test_a_plugin_that_says_so_takes_no_calls_of_foreign_pages(doors: Doors) -> None:
    server = doors.server
    server.write("open_one", POST.replace("{name}", "open_one"))
    server.write("same", "origins: same\nhosts: [app.example.com]\n", "plugin.yaml")
    server.write("same", POST.replace("{name}", "same"))
    for name in ("open_one", "same"):
        wait_until(lambda n=name: server.post(f"/{n}", {}).status == 200, f"{name} is served")
    port = server.port
    foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    rebound = {"Origin": f"http://evil.example:{port}", "Host": f"evil.example:{port}"}
    for headers in (foreign, rebound, {"Sec-Fetch-Site": "cross-site"}):
        assert server.call("POST", "/same", b"{}", headers).status == 403
        assert server.call("POST", "/open_one", b"{}", headers).status == 200
    for headers in (
        {"Origin": f"http://127.0.0.1:{port}"},
        {"Origin": "https://app.example.com", "Host": "app.example.com"},
        {"Origin": "https://app.example.com", "X-Forwarded-Host": "app.example.com"},
    ):
        assert server.call("POST", "/same", b"{}", headers).status == 200
    through = ("--unix-socket", str(doors.path), "-d", "{}", "http://localhost/same")
    assert curl(*through, "-H", "Origin: http://localhost")[0] == 200
    assert curl(*through, "-H", "Origin: https://evil.example")[0] == 403


BOOM = """
from app.plugin import PluginMetadata


class Boom:
    def initialize(self, context):
        self.log = context.logger

    def get_metadata(self):
        return PluginMetadata("boom", "1")

    def register_routes(self, server):
        server.get("/boom/{what}", self.get)
        server.get("/boom/exit/{what}", self.exit)

    def cleanup(self, context):
        pass

    def get(self, what):
        self.log.warning("asked for %s", what)
        raise ValueError(what)

    def exit(self, what):
        raise SystemExit(what)


new_plugin = Boom
"""


def test_no_client_writes_a_line_of_the_log(doors: Doors) -> None:
    server = doors.server
    server.write("boom", BOOM)
    wait_until(lambda: server.get("/boom/x").status == 500, "boom is served")
    forged = "[2026-01-01 00:00:00 +0000] [1] [INFO] all is well"
    for end in ("%0a", "%0d", "%c2%85", "%e2%80%a8", "%1b[2J%0a"):
        for path in ("/boom/a", "/boom/exit/a"):
            assert server.get(f"{path}{end}{quote(forged)}").status == 500
    written = server.log_file.read_text(encoding="utf-8")
    lines = written.splitlines()
    assert sum(forged in line for line in lines) >= 25  # request, message and traceback
    event = re.compile(r"(\[[^]]+\] \[\d+\] \[[A-Z]+\] )|    ")
    assert [line for line in lines if not event.match(line)] == []
    assert not any(line.startswith(forged) for line in lines)
    assert "\n    Traceback (most recent call last):\n" in written
    assert "\x1b" not in written


@as_root
def test_a_unix_socket_is_for_its_user_and_group(doors: Doors) -> None:
    assert stat.S_IMODE(doors.path.stat().st_mode) == 0o770
    call = ["curl", "-sS", "--unix-socket", str(doors.path), "http://localhost/whoami"]
    assert subprocess.run(call, capture_output=True, **AS_STRANGER).returncode == 7
    doors.path.chmod(0o777)  # somebody lets all in: their writes are refused all the same
    try:
        through = ("--unix-socket", str(doors.path))
        assert curl(*through, "http://localhost/whoami", **AS_STRANGER)[0] == 200
        reload = ("-X", "POST", "http://localhost/plugins/whoami/reload")
        assert curl(*through, *reload, **AS_STRANGER)[0] == 403
    finally:
        doors.path.chmod(0o770)
