"""As whom root runs PostgreSQL, on hosts of every kind; nothing here changes this host."""

import os
import pwd
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.errors import EmbeddedDatabaseError
from app.postgres import account
from app.postgres.account import admit, choose_account
from app.postgres.users import Account


class Host:
    """A host with some users, and perhaps with a `useradd` that works."""

    def __init__(self) -> None:
        self.users = {"root": 0, "postgres": 101, "nobody": 65534, "alice": 1000}
        self.useradd: str | None = "/usr/sbin/useradd"
        self.refusal = ""
        self.commands: list[list[str]] = []

    def getpwnam(self, name: str) -> SimpleNamespace:
        uid = self.users[name]
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=uid)

    def getpwuid(self, uid: int) -> SimpleNamespace:
        return self.getpwnam({number: name for name, number in self.users.items()}[uid])

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        self.commands.append(command)
        if not self.refusal:
            self.users[command[-1]] = 999
        return SimpleNamespace(returncode=bool(self.refusal), stderr=self.refusal)


@pytest.fixture
def host(monkeypatch, tmp_path) -> Host:
    host = Host()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", host.getpwnam)
    monkeypatch.setattr(pwd, "getpwuid", host.getpwuid)
    monkeypatch.setattr(subprocess, "run", host.run)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: host.useradd)
    monkeypatch.setattr(Account, "can", lambda *_: True)
    return host


@pytest.fixture
def belongs(monkeypatch, tmp_path):
    """Makes a data folder and a cluster that seem to belong to somebody."""

    def make(cluster_owner: str, folder_owner: str) -> tuple[Path, Path]:
        uids = {tmp_path / "cluster": cluster_owner, tmp_path: folder_owner}
        monkeypatch.setattr(
            Path,
            "stat",
            lambda path, **_: SimpleNamespace(st_uid=pwd.getpwnam(uids[path]).pw_uid, st_gid=1),
        )
        return tmp_path / "cluster", tmp_path

    return make


@pytest.fixture(autouse=True)
def _no_lock(monkeypatch):
    monkeypatch.setattr(account, "locked", lambda _: nullcontext())


def test_an_ordinary_user_runs_it_himself(host, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert choose_account(None, tmp_path, tmp_path) is None
    assert not host.commands


def test_the_user_is_made_once_as_a_system_user(host, tmp_path, caplog):
    caplog.set_level("INFO")
    account = choose_account(None, tmp_path, tmp_path)
    assert account == Account("benana", 999, 999)
    assert choose_account(None, tmp_path, tmp_path) == account
    assert len(host.commands) == 1
    assert "--system" in host.commands[0]
    assert "made the system user benana (uid 999)" in caplog.text


@pytest.mark.parametrize(
    ("useradd", "refusal", "said"),
    [
        (None, "", "there is no useradd here"),
        ("/usr/sbin/useradd", "useradd: cannot lock /etc/passwd", "cannot lock /etc/passwd"),
    ],
)
def test_where_it_cannot_be_made_nobody_and_postgres_are_no_substitute(
    host, tmp_path, useradd, refusal, said
):
    host.useradd, host.refusal = useradd, refusal
    with pytest.raises(EmbeddedDatabaseError, match=said) as caught:
        choose_account(None, tmp_path, tmp_path)
    assert "useradd --system --no-create-home benana" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_another_name_of_root_is_refused(host, tmp_path):
    host.users["benana"] = 0
    with pytest.raises(EmbeddedDatabaseError, match="another name of root"):
        choose_account(None, tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["postgres", "nobody"])
def test_a_shared_accounts_cluster_is_to_be_given_away(host, belongs, name):
    assert choose_account(*belongs(name, "root"), Path("/shared")) == Account("benana", 999, 999)  # type: ignore[call-arg]


def test_an_ordinary_users_cluster_stays_his(host, belongs):
    assert choose_account(*belongs("alice", "alice"), Path("/shared")).name == "alice"  # type: ignore[call-arg]
    assert choose_account(*belongs("alice", "root"), Path("/shared")).name == "alice"  # type: ignore[call-arg]
    assert not host.commands


def test_where_it_cannot_be_given_away_postgres_goes_on_with_a_warning(host, belongs, caplog):
    host.useradd = None
    assert choose_account(*belongs("postgres", "root"), Path("/shared")).name == "postgres"  # type: ignore[call-arg]
    said = caplog.text
    assert "belongs to postgres, which other programs run as" in said
    assert "there is no useradd here" in said


def test_where_it_cannot_be_given_away_nobody_is_refused(host, belongs):
    host.useradd = None
    with pytest.raises(EmbeddedDatabaseError, match="belongs to nobody, which other programs"):
        choose_account(*belongs("nobody", "root"), Path("/shared"))  # type: ignore[call-arg]


def test_the_data_folder_of_the_same_account_is_left_alone(host, belongs, caplog):
    """Their own server, for once started by root: `sudo` must not take the database away."""
    assert choose_account(*belongs("postgres", "postgres"), Path("/shared")).name == "postgres"  # type: ignore[call-arg]
    assert "data folder is postgres's as well" in caplog.text
    with pytest.raises(EmbeddedDatabaseError, match="run Benana as nobody"):
        choose_account(*belongs("nobody", "nobody"), Path("/shared"))  # type: ignore[call-arg]
    assert not host.commands


def test_root_and_our_own_user_are_let_in(host, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    settings = admit(tmp_path, None)
    assert Path(settings["hba_file"]).read_text().endswith("\nlocal all all peer map=benana\n")
    ident = Path(settings["ident_file"]).read_text().splitlines()[1:]
    assert ident == ['benana "alice" all', 'benana "root" all']


def test_a_user_without_a_name_has_the_private_folder_alone(host, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    settings = admit(tmp_path, None)
    assert Path(settings["hba_file"]).read_text().endswith("\nlocal all all trust\n")


def test_a_host_without_a_name_for_root_lets_our_own_user_in(host, monkeypatch, tmp_path):
    del host.users["root"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    settings = admit(tmp_path, None)
    assert "peer map=benana" in Path(settings["hba_file"]).read_text()
    assert Path(settings["ident_file"]).read_text().splitlines()[1:] == ['benana "alice" all']


def test_a_link_in_the_place_of_the_file_is_not_followed(host, tmp_path):
    target = tmp_path / "target"
    target.write_text("as it was")
    for name in ("benana_hba.conf", "benana_hba.new"):
        (tmp_path / name).symlink_to(target)
    admit(tmp_path, None)
    assert target.read_text() == "as it was"
    assert not (tmp_path / "benana_hba.conf").is_symlink()
