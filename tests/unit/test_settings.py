"""Settings: what the environment says, checked."""

import re
import socket
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.commands import main
from app.errors import SettingsError
from app.settings import Settings


def read(**environ: str) -> Settings:
    return Settings.from_environment(environ)


VARIABLES = {known.metadata["variable"]: known for known in fields(Settings) if known.metadata}

IN_WORDS = {
    "BENANA_LISTEN_DATABASE_URL": "`DATABASE_URL`",
    "BENANA_URL": "`BENANA_BIND`, by http",
    "BENANA_CA": "the system's",
    "BENANA_PLUGIN_CONNECTIONS": "half of `BENANA_THREADS`, and 2",
}
"""What the documentation says of defaults that follow from something else."""


def documented() -> dict[str, str]:
    """The defaults in the README's table, by variable."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    table = text.partition("### Settings")[2].partition("\n\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split(" | ")] for row in table.splitlines()[2:]]
    return {row[0].strip("|` "): row[1] for row in rows}


def plain(cell: str) -> str:
    """A default without its quotes, and without what is said of it."""
    quoted = re.match(r"`([^`]+)`", cell)
    return quoted[1] if quoted else cell


def test_the_documentation_has_each_variable_once_and_no_other():
    assert sorted(documented()) == sorted(VARIABLES)


@pytest.mark.parametrize("variable", sorted(VARIABLES.keys() - IN_WORDS.keys()))
def test_an_empty_environment_gives_the_documented_default(variable):
    default, value = plain(documented()[variable]), getattr(read(), VARIABLES[variable].name)
    if value is None or value == frozenset():
        assert default.partition(":")[0] == "none"
    elif variable == "BENANA_ADMIN_READ":
        assert (default, value) == ("token", False)
    elif isinstance(value, bool):
        assert default == ("on" if value else "off")
    elif isinstance(value, Path):
        assert Path(default).absolute() == value
    elif isinstance(value, tuple):
        assert default == ",".join(str(network.network_address) for network in value)
    else:
        assert default == str(value)


@pytest.mark.parametrize("variable", sorted(IN_WORDS))
def test_a_default_that_follows_from_something_else_is_documented_in_words(variable):
    assert documented()[variable] == IN_WORDS[variable]


def test_the_commands_help_says_the_same_defaults():
    shown = CliRunner().invoke(main, ["--help"]).output
    for variable in ("BENANA_BIND", "BENANA_PLUGINS_DIR", "BENANA_DATA_DIR"):
        (line,) = [line for line in shown.splitlines() if line.strip().startswith(f"{variable} ")]
        assert line.split()[-1] == plain(documented()[variable])


def test_an_empty_variable_counts_as_not_set():
    # gunicorn's own says with an empty text that no proxy is trusted.
    names = VARIABLES.keys() - {"FORWARDED_ALLOW_IPS"}
    assert read(**dict.fromkeys(names, "")) == read()


def test_folders_are_absolute_and_follow_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(BENANA_PLUGINS_DIR="mine").plugins_dir == tmp_path / "mine"


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(BENANA_DATA_DIR="~/data").data_dir == tmp_path / "data"


def test_the_home_folder_of_an_unknown_user_is_a_settings_error():
    with pytest.raises(SettingsError, match="BENANA_DATA_DIR"):
        read(BENANA_DATA_DIR="~no_such_user_here/data")


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "BENANA_THREADS"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "+2", "1.5", "two", "1025", "²", "٣", "1_0", "0x2", "9" * 5000]
)
def test_a_count_that_is_no_whole_number_in_range_is_refused_by_name(variable, value):
    with pytest.raises(SettingsError, match=variable):
        read(**{variable: value})


@pytest.mark.parametrize(("value", "count"), [("1", 1), (" 4 ", 4), ("1024", 1024), ("007", 7)])
def test_a_count_in_range_is_taken(value, count):
    assert read(BENANA_THREADS=value).threads == count
    assert read(WEB_CONCURRENCY=value).workers == count


@pytest.mark.parametrize("value", ["on", "ON", "true", "Yes", "1", " on "])
def test_a_switch_is_on(value):
    assert read(BENANA_WATCH=value).watch is True


@pytest.mark.parametrize("value", ["off", "OFF", "false", "No", "0"])
def test_a_switch_is_off(value):
    assert read(BENANA_WATCH=value).watch is False


@pytest.mark.parametrize("value", ["maybe", "2", "onn", "-"])
def test_a_switch_that_is_neither_is_refused(value):
    with pytest.raises(SettingsError, match="BENANA_WATCH"):
        read(BENANA_WATCH=value)


@pytest.mark.parametrize(
    "bind",
    [
        "9999",
        "localhost",
        "localhost:",
        ":9999",
        "localhost:http",
        "localhost:65536",
        "unix:",
        "localhost:-1",
        "localhost:99 ",
        "localhost:²",
        "localhost:" + "9" * 5000,
    ],
)
def test_a_bind_that_is_no_address_is_refused(bind):
    with pytest.raises(SettingsError, match="BENANA_BIND"):
        read(BENANA_BIND=bind)


@pytest.mark.parametrize(
    "bind",
    [
        "127.0.0.1:9999",
        "localhost:80",
        "[::1]:9999",
        "127.0.0.2:1",
        "unix:/run/benana.sock",
        "unix:relative.sock",
        "localhost:0",
    ],
)
def test_a_loopback_address_or_a_unix_socket_is_local(bind):
    assert read(BENANA_BIND=bind).bind_is_local


@pytest.mark.parametrize(
    "bind",
    [
        "0.0.0.0:9999",
        "[::]:9999",
        "192.168.1.2:80",
        "example.org:80",
        "localhost.example.org:80",
        "128.0.0.1:80",
        "*:80",
    ],
)
def test_any_other_address_is_not_local(bind):
    assert not read(BENANA_BIND=bind).bind_is_local


def test_a_host_name_that_begins_like_a_loopback_address_is_not_local():
    assert not read(BENANA_BIND="127.example.org:9999").bind_is_local


def test_the_database_and_the_token_are_taken_as_they_are():
    settings = read(
        DATABASE_URL="postgresql://a:b@c/d",
        BENANA_LISTEN_DATABASE_URL="host=x",
        BENANA_ADMIN_TOKEN="s3cret",
    )
    assert settings.database_url == "postgresql://a:b@c/d"
    assert settings.listen_database_url == "host=x"
    assert settings.admin_token == "s3cret"


@pytest.mark.parametrize(
    ("text", "is_open"), [("", False), ("token", False), ("open", True), (" OPEN ", True)]
)
def test_admin_reads_can_be_open(text, is_open):
    assert read(BENANA_ADMIN_READ=text).admin_read_open is is_open


@pytest.mark.parametrize("text", ["on", "true", "closed", "open\x00", "öffentlich"])
def test_an_admin_read_that_is_neither_is_refused_by_name(text):
    with pytest.raises(SettingsError, match=r"BENANA_ADMIN_READ.*expected open.*token"):
        read(BENANA_ADMIN_READ=text)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        (None, ["127.0.0.1/32", "::1/128"]),
        ("", []),
        ("10.0.0.7", ["10.0.0.7/32"]),
        (" 10.1.2.3/8, ::1 ,", ["10.0.0.0/8", "::1/128"]),
        ("*", ["0.0.0.0/0", "::/0"]),
    ],
)
def test_proxies_are_trusted_as_gunicorn_trusts_them(text, networks):
    found = read(**({} if text is None else {"FORWARDED_ALLOW_IPS": text}))
    assert [str(network) for network in found.trusted_proxies] == networks


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/33", "10.0.0.1 10.0.0.2"])
def test_proxies_that_are_no_addresses_are_refused_by_name(text):
    with pytest.raises(SettingsError, match="FORWARDED_ALLOW_IPS"):
        read(FORWARDED_ALLOW_IPS=text)


def test_the_server_knows_its_own_names():
    known = read(BENANA_BIND="Plugins.Example.:80", BENANA_ADMIN_HOSTS="A.example.").known_hosts
    own = socket.gethostname().lower()
    assert known == {"localhost", "127.0.0.1", "::1", "plugins.example", "a.example", own}


def test_admin_hosts_are_split_at_commas_and_spaces_and_lowered():
    assert read(BENANA_ADMIN_HOSTS="A.example, b.Example  c,").admin_hosts == {
        "a.example",
        "b.example",
        "c",
    }


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        read().workers = 3  # type: ignore[misc]


def test_the_environment_itself_is_read_by_default(monkeypatch):
    monkeypatch.setenv("BENANA_THREADS", "5")
    assert Settings.from_environment().threads == 5


def test_what_a_plugin_may_have_of_the_database_follows_the_threads_unless_it_is_set():
    assert read(BENANA_THREADS="20").plugin_connections == 12
    assert read(BENANA_THREADS="1").plugin_connections == 2
    assert read(BENANA_THREADS="20", BENANA_PLUGIN_CONNECTIONS="3").plugin_connections == 3
    assert read(BENANA_PLUGIN_STATEMENT_SECONDS="60").plugin_statement_seconds == 60


@pytest.mark.parametrize(
    "variable",
    [
        "BENANA_LOCK_SECONDS",
        "BENANA_STATEMENT_SECONDS",
        "BENANA_PLUGIN_CONNECTIONS",
        "BENANA_PLUGIN_STATEMENT_SECONDS",
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "never", "5000"])
def test_a_limit_that_is_no_whole_number_is_refused(variable, value):
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'; expected a whole number"):
        read(**{variable: value})
