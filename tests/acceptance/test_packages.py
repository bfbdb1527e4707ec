"""The wheel and the sdist: built, installed elsewhere, and used in an empty folder."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.folders import open_folder
from tests.support.readme import FROM_A_WHEEL
from tests.support.server import free_port
from tests.support.waiting import wait_until
from tests.support.web import status_of, text_of

pytestmark = pytest.mark.soak

NOT_SOURCES = shutil.ignore_patterns(
    ".*", "build", "dist", "bin", "var", "*.egg-info", "__pycache__"
)


def bare(**environment: str) -> dict[str, str]:
    """Return this environment without the checkout's Python and without settings of Benana's."""
    ours = ("BENANA_", "DATABASE_URL", "PYTHONPATH", "VIRTUAL_ENV", "WEB_CONCURRENCY")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**kept, **environment}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user can reach: a root server's PostgreSQL runs as another one."""
    with open_folder() as folder:
        yield folder


def run(line: str, folder: Path, environment: Path) -> None:
    """Run a line of a shell in an activated environment, as a person who has set nothing."""
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line.replace(".venv/bin/", "")],
        cwd=folder,
        env=bare(PATH=path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def environment(place: Path) -> Path:
    """A fresh environment, which the wheel is installed in."""
    environment = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    return environment


@pytest.fixture(scope="module")
def packages(place: Path, environment: Path) -> tuple[Path, Path]:
    """The wheel, built from what is in the sdist, and the sdist."""
    source = place / "source"
    shutil.copytree(CHECKOUT, source, ignore=NOT_SOURCES)
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(place), str(source)]
    subprocess.run(build, env=bare(), capture_output=True, check=True)
    shutil.rmtree(source)  # what the sdist lacks is found nowhere
    (sdist,) = place.glob("*.tar.gz")
    shutil.unpack_archive(sdist, place, filter="data")
    unpacked = place / sdist.name.removesuffix(".tar.gz")
    run(FROM_A_WHEEL[0], unpacked, environment)
    shutil.move(unpacked / "dist", place)
    shutil.rmtree(unpacked)
    (wheel,) = (place / "dist").iterdir()
    return wheel, sdist


@pytest.fixture(scope="module")
def commands(place: Path, environment: Path, packages: tuple[Path, Path]) -> Path:
    """The folder with the programs that the wheel's installation has made."""
    run(FROM_A_WHEEL[1], place, environment)
    return environment / "bin"


class Served:
    """A `benana serve` in a folder, with what it logs."""

    def __init__(self, folder: Path, commands: Path, *arguments: str, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = bare(BENANA_BIND=f"127.0.0.1:{self.port}", **settings)
        self._commands = commands
        self._log = folder.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [commands / "benana", "serve", *arguments],
                cwd=folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self, path: str, status: int = 200, url: str = "") -> None:
        """Wait until a path answers with a status."""

        def look() -> bool:
            assert self.process.poll() is None, self.log
            return status_of(f"{url or self.url}{path}") == status

        wait_until(look, f"{path} answers {status}\n{self.log}", 40.0)

    def say(self, *arguments: str) -> str:
        """Run the command beside the server."""
        done = subprocess.run(
            [self._commands / "benana", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr, self.log)
        return done.stdout

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40.0)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def folder(place: Path, request: pytest.FixtureRequest) -> Path:
    """An empty folder."""
    folder = place / request.node.name
    folder.mkdir()
    return folder


def test_the_wheel_holds_the_package_with_the_files_it_needs_and_nothing_else(
    packages: tuple[Path, Path],
) -> None:
    with zipfile.ZipFile(packages[0]) as wheel:
        names = wheel.namelist()
        for shipped in ("schema.sql", "gunicorn.conf.py"):
            assert wheel.read(f"app/{shipped}") == (CHECKOUT / shipped).read_bytes()
    in_checkout = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "app").rglob("*.py")}
    shipped_too = {"app/schema.sql", "app/gunicorn.conf.py", "app/py.typed"}
    static = CHECKOUT / "app" / "admin" / "swagger" / "static"
    shipped_too |= {str(path.relative_to(CHECKOUT)) for path in static.iterdir()}
    assert {name for name in names if ".dist-info/" not in name} == in_checkout | shipped_too


def test_what_the_image_copies_makes_the_same_wheel(
    packages: tuple[Path, Path], environment: Path, folder: Path
) -> None:
    dockerfile = (CHECKOUT / "deploy" / "Dockerfile").read_text()
    (files,) = re.findall(r"^COPY (.*) \./$", dockerfile, re.MULTILINE)
    (package,) = re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE)
    for name in files.split():
        shutil.copy(CHECKOUT / name, folder)
    shutil.copytree(CHECKOUT / package, folder / package, ignore=NOT_SOURCES)
    run(FROM_A_WHEEL[0], folder, environment)
    (made,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(made) as image, zipfile.ZipFile(packages[0]) as wheel:
        assert sorted(image.namelist()) == sorted(wheel.namelist())


def test_the_sdist_holds_all_that_a_checkout_has(packages: tuple[Path, Path]) -> None:
    with tarfile.open(packages[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    listed = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    expected = {
        name for name in listed.splitlines() if not any(p.startswith(".") for p in Path(name).parts)
    }
    assert expected <= names, expected - names


def test_from_an_empty_folder_to_a_plugin_of_ones_own(commands: Path, folder: Path) -> None:
    said = [line.partition("#")[0].strip() for line in FROM_A_WHEEL[2:]]
    assert said == ["benana serve", "benana new hello"]
    with contextlib.ExitStack() as stack:
        served = Served(folder, commands)
        stack.callback(served.end)
        served.wait("/health/ready")
        # The command has become gunicorn, and left nothing between it and who started it.
        command = Path(f"/proc/{served.process.pid}/cmdline").read_bytes().split(b"\0")
        assert str(commands / "gunicorn").encode() in command
        ready = f"{served.url}/health/ready"  # degraded, until it hears of changes
        wait_until(lambda: '"ready"' in text_of(ready), f"it is ready\n{served.log}")
        assert f"plugins go into {folder / 'plugins'}; there is none yet" in served.log
        assert "benana new" in served.say("list")
        assert " serves it:" in served.say("new", "hello")
        served.wait("/hello")
        main = folder / "plugins" / "hello" / "main.py"
        main.write_text(main.read_text().replace("from hello!", "from its edit!"))
        wait_until(lambda: "from its edit!" in text_of(f"{served.url}/hello"), "it is edited")
        assert "active" in served.say("list")
        assert "ok" in served.say("check", "plugins/hello")
        query = "SELECT name FROM plugins"
        assert served.say("psql", "-Atc", query) == "hello\n"
        assert served.stop() == 0
        assert {path.name for path in folder.iterdir()} == {"bin", "plugins", "var"}
        for wrong in ("Traceback", "[ERROR]", "[CRITICAL]"):
            assert wrong not in served.log, served.log
        # And again: what is there is served, and said.
        again = Served(folder, commands)
        stack.callback(again.end)
        again.wait("/hello")
        assert f"(plugins in {folder / 'plugins'})" in again.log
        assert again.stop() == 0


def test_options_reach_gunicorn(commands: Path, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        other = f"127.0.0.1:{free_port()}"
        arguments = ["--", "--workers", "1", "--bind", other]
        served = Served(folder, commands, *arguments, WEB_CONCURRENCY="3")
        stack.callback(served.end)
        served.wait("/health/ready", url=f"http://{other}")
        assert f"Benana serves http://{other}" in served.log
        assert served.log.count("Booting worker") == 1
        assert served.stop() == 0


MINE = """
import os
from app.hooks import *
bind = os.environ["BENANA_BIND"]
workers = 1
"""


def test_a_configuration_in_the_current_folder_is_used(commands: Path, folder: Path) -> None:
    (folder / "gunicorn.conf.py").write_text(MINE)
    with contextlib.ExitStack() as stack:
        served = Served(folder, commands, WEB_CONCURRENCY="3")
        stack.callback(served.end)
        served.wait("/health/ready")
        assert served.log.count("Booting worker") == 1
        assert served.stop() == 0


def test_a_middleware_in_such_a_configuration_is_kept(commands: Path, folder: Path) -> None:
    (folder / "gunicorn.conf.py").write_text(f"{MINE}wsgi_app = 'wrapped:application'\n")
    (folder / "wrapped.py").write_text(
        "from app.wsgi import application as served\n"
        "def application(env, start_response):\n"
        "    if env['PATH_INFO'] != '/mine':\n"
        "        return served(env, start_response)\n"
        "    start_response('200 OK', [('Content-Length', '4')])\n"
        "    return [b'mine']\n"
    )
    with contextlib.ExitStack() as stack:
        served = Served(folder, commands)
        stack.callback(served.end)
        served.wait("/health/ready")
        assert text_of(f"{served.url}/mine") == "mine"
        assert served.stop() == 0


def test_such_a_configuration_without_the_hooks_is_told_the_line(
    commands: Path, folder: Path
) -> None:
    (folder / "gunicorn.conf.py").write_text(MINE.replace("from app.hooks import *", ""))
    with contextlib.ExitStack() as stack:
        served = Served(folder, commands)
        stack.callback(served.end)
        served.wait("/hello", 503)
        assert "from app.hooks import *" in text_of(f"{served.url}/hello")
        assert "from app.hooks import *" in served.log


def test_a_folder_with_another_app_is_refused(commands: Path, folder: Path) -> None:
    (folder / "app.py").touch()
    served = Served(folder, commands)
    assert served.process.wait(20.0) == 2
    assert f"{folder / 'app.py'} would be imported instead" in served.log
