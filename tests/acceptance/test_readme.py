"""Every command of the README is run, as it stands there but for the port and the place."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.readme import FROM_A_WHEEL, INSTALLING, README, blocks
from tests.support.server import Server
from tests.support.waiting import wait_until


def run(server: Server, line: str) -> str:
    """Run one line in the server's folder."""
    here = line.replace(":9999", f":{server.port}").replace(".venv/bin/", "")
    done = subprocess.run(
        ["bash", "-c", here],
        cwd=server.home,
        env={
            **os.environ,
            **server.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Server]:
    """A server with the plugin that each test finds, and leaves, served."""
    server = Server(tmp_path_factory.mktemp("readme"), new_database())
    subprocess.run(["cp", "-r", str(CHECKOUT / "plugins" / "hello"), server.plugins], check=True)
    yield server.start()
    server.stop()


def test_the_first_screen(home: Server) -> None:
    (home.plugins / "greet").mkdir()
    (home.plugins / "greet" / "main.py").write_text(blocks("python")[0])
    home.wait_everywhere("/greet/Ada", lambda answer: answer.status == 200)
    for line in blocks("sh")[1].splitlines():
        command, _, expected = (part.strip() for part in line.partition("#"))
        if command.startswith("curl"):
            wait_until(
                lambda c=command, e=expected: run(home, c) == e, f"{command} prints {expected}"
            )
        else:
            run(home, command)
    test = blocks("python")[1].replace("Hello, Ada!", "Good morning, Ada!")
    (home.home / "test_greet.py").write_text(test)
    run(home, f"pytest -q -n 0 -c {CHECKOUT / 'setup.cfg'} --rootdir . test_greet.py")


def test_every_other_command(home: Server) -> None:
    lines = [
        line
        for block in [block for block in blocks("sh") if "greet" not in block]
        for line in block.splitlines()
        if line.strip() and line not in [*INSTALLING, *FROM_A_WHEEL]  # which `test_packages` runs
    ]
    assert len(lines) >= 11
    for line in lines:
        run(home, line)
    assert home.plugin("myplugin")["status"] == "active"
    assert home.plugin("hello")["status"] == "active"


def test_every_statement(home: Server) -> None:
    binary_path = home.plugin("hello")["binary_path"]
    (statements,) = blocks("sql")
    statements = statements.replace("…/hello-<digest>.pyz", binary_path)
    statements = statements.replace("WHERE …", "WHERE name = 'hello'")
    statements = statements.replace("/srv/benana/plugins", str(home.plugins))
    lines = [line for line in statements.splitlines() if line.strip()]
    home.sql(lines[0])
    home.wait_gone("hello")
    home.sql("UPDATE plugins SET status = 'active'")
    home.sql(lines[1])
    home.sql(lines[2])
    home.wait_everywhere("/hello", lambda answer: answer.status == 200)
    home.sql(lines[4])
    home.wait_gone("hello")
    home.sql(lines[3])
    home.wait_everywhere("/hello", lambda answer: answer.status == 200)


def test_the_install_commands_are_the_ones_that_ci_runs() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text()
    serve, suite = (line.partition("#")[0].strip() for line in INSTALLING)
    assert suite.replace("&& .venv/bin/pytest", "&& twice .venv/bin/pytest") in script
    assert serve in script


def test_every_setting_is_in_the_table() -> None:
    source = (CHECKOUT / "app" / "settings.py").read_text()
    for variable in re.findall(r'"([A-Z][A-Z_]+)"', source):
        assert f"| `{variable}` |" in README
