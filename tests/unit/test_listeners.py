"""Where a server listens is what its sockets say."""

import socket

import pytest

from app.admin.guard import Guard
from app.listeners import address_of, url_of
from app.settings import Settings


@pytest.fixture
def listening(tmp_path):
    opened = []

    def listen(family, address):
        found = socket.socket(family)
        opened.append(found)
        found.bind(address)
        found.listen()
        return found

    yield listen
    for found in opened:
        found.close()


def is_local(*places):
    settings = Settings.from_environment({"BENANA_BIND": "127.0.0.1:9999"})
    from dataclasses import replace

    return Guard(replace(settings, listening=places))._local


@pytest.mark.parametrize(
    ("family", "host", "local"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.0.1.1", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::ffff:0.0.0.0", False),
    ],
)
def test_a_socket_says_whether_others_reach_it(listening, family, host, local):
    found = listening(family, (host, 0))
    place = address_of(found)
    assert place == address_of(found.fileno())
    assert place.rpartition(":")[2] == str(found.getsockname()[1])
    assert is_local(place) == local
    assert is_local("127.0.0.1:1", place, "unix:/run/x") == local, "one is enough"


def test_a_unix_socket_is_local_abstract_or_not(listening, tmp_path):
    path = str(tmp_path / "s")
    for address in (path, "\0benana-test"):
        place = address_of(listening(socket.AF_UNIX, address))
        assert place == "unix:" + address.replace("\0", "@")
        assert is_local(place)


def test_what_is_configured_counts_only_where_nothing_listens_yet():
    settings = Settings.from_environment({"BENANA_BIND": "0.0.0.0:9999"})
    assert not settings.bind_is_local
    assert is_local()


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        ("127.0.0.1:1", False, "http://127.0.0.1:1"),
        ("[::1]:1", True, "https://[::1]:1"),
        ("unix:/x", True, "unix:/x"),
    ],
)
def test_the_log_names_a_place_as_it_is_called(address, tls, url):
    assert url_of(address, tls=tls) == url
