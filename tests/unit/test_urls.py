"""A database URL as people write it; no word of one that cannot be read is ever said."""

import psycopg2
import pytest

from app.database.connection import connection_options
from app.database.sqlstates import reason_of
from app.database.urls import parse_url
from app.errors import SettingsError

READ = {"user": "u", "password": "se/cr@et", "host": "db.example", "port": "5433", "dbname": "shop"}


@pytest.mark.parametrize(
    "scheme",
    [
        "postgresql",
        "postgres",
        "postgresql+psycopg2",
        "postgresql+psycopg",
        "postgresql+asyncpg",
        "postgres+psycopg2",
        "POSTGRESQL+psycopg2",
    ],
)
def test_the_schemes_of_other_libraries_are_taken(scheme):
    assert parse_url(f"{scheme}://u:se%2Fcr%40et@db.example:5433/shop") == READ
    assert connection_options(f"{scheme}:///x?host=/tmp")["dbname"] == "x"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://u@[::1]:5432/x", "::1"),
        ("postgresql://u@[fe80::1%25eth0]/x", "fe80::1%eth0"),
        ("postgresql://u@10.0.0.1/x", "10.0.0.1"),
        ("postgresql://u@a.example:1,b-c.example:2/x", "a.example,b-c.example"),
        ("postgresql:///x?host=/var/run/post gres", "/var/run/post gres"),
        ("postgresql://%2Ftmp/x", "/tmp"),
        ("host=@abstract dbname=x", "@abstract"),
        ("host=db_1 dbname=x", "db_1"),
        ("dbname=x", None),
    ],
)
def test_every_kind_of_host_is_taken(url, host):
    assert parse_url(url).get("host") == host


SECRETS = [
    "mysql://u:secret@h/db",
    "postgresql2+psycopg2://u:secret@h/db",
    "u:secret@h/db",
    "jdbc:postgresql://h/db?user=u&password=secret",
    "u:secret://h",
    "secret",
    "host=h password=not secret",
    "host=h password='secret",
    "postgresql://u:secret%@h/db",
    "postgresql://u:secret%zz@h/db",
    "postgresql://u:secret%00@h/db",
    "postgresql://u:secret@[::1/db",
    "postgresql://u:x@h/db?secret=1",
    "postgresql://u:secret@h/db?pool_size=5",
    "postgresql://u:secret@h/db\udc80",
    "postgresql://u:secret@h:54x/db",
    # Libpq reads these, and would say them when it looks for the host.
    "postgresql://u:my@secret@h/db",
    "postgresql://u:my/secret@h/db",
    "postgresql://u:12/secret@h/db",
    "postgresql://a:b@c:secret@h/db",
    "postgresql+psycopg2://u:my@secret:x@h/db",
    "host='my secret' dbname=x",
    # ... and PostgreSQL these, when it looks for the database.
    "postgresql://u@h/db&password=secret",
    "postgresql://u@h/db;password=secret",
    "postgresql://u:x@h/db sslmode=require password=secret",
    "host=h dbname=db;password=secret",
]


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "BENANA_LISTEN_DATABASE_URL"])
def test_no_word_of_a_url_is_said(url, variable):
    with pytest.raises(SettingsError) as caught:
        parse_url(url, variable)
    said = str(caught.value)
    assert said.startswith(variable)
    assert "secret" not in said
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_an_unknown_scheme_is_named():
    with pytest.raises(SettingsError, match="has the scheme 'mysql'; expected postgresql"):
        parse_url("mysql://u:secret@h/db")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:10%@h/db", "%"),
        ("postgresql://u:p@h/db?pool_size=5", "libpq does not know"),
        ("postgresql://u:p@ss@h/db", "%40"),
        ("postgresql://u:p/ss@h/db", "%2F"),
        ('"postgresql://u:p@h/db"', "begins with a quotation mark"),
        ("'host=h dbname=db'", "begins with a quotation mark"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_ours(url, words):
    with pytest.raises(SettingsError, match=words):
        parse_url(url)


@pytest.mark.parametrize(
    "name",
    ["sslmode", "target_session_attrs", "connect_timeout", "gssencmode", "keepalives_idle"],
)
def test_a_value_that_libpq_refuses_is_not_repeated(name):
    """It may be of a password in which a & was not encoded."""
    options = parse_url(f"postgresql://u@127.0.0.1:1/x?{name}=secret")
    with pytest.raises(psycopg2.OperationalError, match="secret") as caught:
        psycopg2.connect(**options)  # type: ignore[call-overload]
    said = reason_of(caught.value)
    assert "secret" not in said
    assert name in said


def test_what_ended_a_connection_is_read_as_sentences():
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect("host=127.0.0.1 port=1")
    assert "Connection refused. Is the server running" in reason_of(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:a&b=c@h/db", "postgresql://u@h/a%26b", "postgresql://u@h/db?sslmode=allow"],
)
def test_what_only_looks_like_a_parameter_in_a_name_is_taken(url):
    assert parse_url(url)["dbname"] in {"db", "a&b"}
