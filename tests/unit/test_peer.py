"""Whose process is at the other end: real sockets, and rows as Linux writes them."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.admin import peer
from app.admin.peer import is_own_user, uid_of_peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as somebody else")

STRANGER = 12345
V4, V6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")
MAPPED = (socket.AF_INET6, "::ffff:127.0.0.1")


@contextlib.contextmanager
def listener(family: int, host: str) -> Iterator[socket.socket]:
    with socket.socket(family) as made:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, 0))
        made.listen()
        yield made


@contextlib.contextmanager
def connected(
    server: tuple[int, str] = V4, client: tuple[int, str] = V4
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give the server's end and the client's end of a connection."""
    with listener(*server) as door, socket.socket(client[0]) as ours:
        ours.connect((client[1], door.getsockname()[1]))
        theirs, _ = door.accept()
        with theirs:
            yield theirs, ours


def test_the_other_end_of_a_unix_socket_is_known():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert uid_of_peer(ours) == os.geteuid()


@pytest.mark.parametrize(
    ("server", "client"),
    [(V4, V4), (V6, V6), (V4, MAPPED), ((socket.AF_INET6, "::"), V4)],
    ids=["v4", "v6", "v4-mapped client", "v4 client of a v6 server"],
)
def test_the_other_end_of_a_tcp_connection_is_known(server, client):
    with contextlib.ExitStack() as stack:
        try:
            theirs, _ = stack.enter_context(connected(server, client))
        except OSError:
            pytest.skip("this machine has no IPv6")
        assert uid_of_peer(theirs) == os.geteuid()


def test_who_has_sent_all_and_still_listens_is_known():
    with connected() as (theirs, ours):
        ours.sendall(b"POST / HTTP/1.1\r\n\r\n")
        ours.shutdown(socket.SHUT_WR)
        assert theirs.recv(100)
        assert uid_of_peer(theirs) == os.geteuid()


def test_who_has_closed_is_nobody_and_not_root():
    """Linux writes the user 0 into the row of a socket that nobody holds."""
    with connected() as (theirs, ours):
        ours.sendall(b"POST / HTTP/1.1\r\n\r\n")
        ours.close()
        assert theirs.recv(100)
        assert uid_of_peer(theirs) is None
        client, server = theirs.getpeername(), theirs.getsockname()
        theirs.close()
        assert peer._owner(client, server) is None  # TIME_WAIT


def test_who_has_reset_the_connection_is_nobody():
    with connected() as (theirs, ours):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ours.close()
        assert uid_of_peer(theirs) is None


@as_root
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_another_user_is_told_apart(kind, open_path):
    with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as door:
        door.bind(("127.0.0.1", 0) if kind == "tcp" else str(open_path / "door"))
        if kind == "unix":
            (open_path / "door").chmod(0o777)
        door.listen()
        door.settimeout(10)
        address = door.getsockname()
        there = f"/dev/tcp/127.0.0.1/{address[1]}"
        call = ["bash", "-c", f"exec 3<>{there}; read -u 3"]
        if kind == "unix":
            call = ["curl", "-s", "--unix-socket", address, "http://x/"]
        with subprocess.Popen(call, user=STRANGER) as stranger:
            theirs, _ = door.accept()
            with theirs:
                assert uid_of_peer(theirs) == STRANGER
            stranger.wait(10)
    assert not is_own_user(STRANGER)


@as_root
def test_a_stranger_who_closes_at_once_never_passes():
    """It is seen before, while or after it closes."""
    times = 20
    with listener(*V4) as door:
        door.settimeout(10)
        there = f"/dev/tcp/127.0.0.1/{door.getsockname()[1]}"
        script = f"for i in {{1..{times}}}; do exec 3<>{there}; echo x >&3; exec 3>&-; done"
        with subprocess.Popen(["bash", "-c", script], user=STRANGER):
            found = set()
            for _ in range(times):
                theirs, _ = door.accept()
                with theirs:
                    found.add(uid_of_peer(theirs))
    assert found <= {STRANGER, None}


def row(uid: int, inode: int, state: str = "01") -> bytes:
    return (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        f"   9: 0100007F:C000 0100007F:270F {state} 00000000:00000000 00:00000000 00000000 "
        f"{uid:5d}        0 {inode} 1 00000000c7aa14de 20 4 30 10 -1\n"
    ).encode()


class Table:
    """A file that reads otherwise each time."""

    def __init__(self, *texts: bytes) -> None:
        self.texts = list(texts)

    def read_bytes(self) -> bytes:
        return self.texts.pop(0)


class Connection(socket.socket):
    def getpeername(self):
        return "127.0.0.1", 0xC000

    def getsockname(self):
        return "127.0.0.1", 9999


@pytest.fixture
def connection():
    with Connection() as made:
        yield made


@pytest.mark.parametrize(
    ("texts", "uid"),
    [
        ([row(7, 55)] * 2, 7),
        ([row(0, 55)] * 2, 0),
        ([row(0, 0)] * 2, None),
        ([row(0, 0, "06")] * 2, None),
        ([row(0, 55), row(0, 0)], None),  # read while it was closed
        ([row(0, 55), row(7, 56)], None),  # another one came by its port
        ([row(7, 55), b""], None),
        ([row(7, 55) + row(0, 56)] * 2, None),
        ([row(7, 55) + row(7, 55)] * 2, 7),  # one row, read twice
        ([b""] * 2, None),  # its other end is in another network namespace
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="rows as a little-endian machine has them")
def test_a_row_counts_only_if_somebody_holds_its_socket(monkeypatch, connection, texts, uid):
    monkeypatch.setattr(peer, "TABLES", (Table(*texts), Table(b"", b"")))
    assert uid_of_peer(connection) == uid


def test_a_system_without_the_tables_tells_nothing(monkeypatch, connection):
    monkeypatch.setattr(peer, "TABLES", (Path("/nowhere/tcp"), Path("/nowhere/tcp6")))
    assert uid_of_peer(connection) is None


@pytest.mark.parametrize("connection", [None, "socket", object()])
def test_what_is_no_connection_tells_nothing(connection):
    assert uid_of_peer(connection) is None


def test_root_and_the_own_user_are_own_and_nobody_is_not(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [uid for uid in (0, 1000, 1001, 65534) if is_own_user(uid)] == [0, 1000]
    monkeypatch.setattr(os, "geteuid", lambda: peer.NOBODY)
    assert not is_own_user(peer.NOBODY)


def test_a_closed_connection_says_nothing():
    with connected() as (theirs, _):
        theirs.close()
        assert uid_of_peer(theirs) is None


def test_ten_thousand_connections_are_looked_through(monkeypatch, tmp_path, connection):
    line = row(1000, 1).splitlines(keepends=True)[1]
    others = b"".join(
        line.replace(b":270F", b":%04X" % (number % 9000)) for number in range(20_000)
    )
    table = tmp_path / "tcp"
    table.write_bytes(others + row(7, 55) + others)
    monkeypatch.setattr(peer, "TABLES", (table, table))
    if sys.byteorder == "little":
        assert uid_of_peer(connection) == 7
