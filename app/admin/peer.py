"""Whose process is at the other end of a connection, as Linux tells it."""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.processes import uid_of_unix_peer

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

ROOT = 0
NOBODY = 65534
"""Also what Linux shows for every user that a user namespace does not know: it proves nothing."""

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


def is_own_user(uid: int) -> bool:
    """Tell whether a user may do what this process may: its own user, or root."""
    return uid == ROOT or (uid == os.geteuid() and uid != NOBODY)


def uid_of_peer(connection: object) -> int | None:
    """Return the user whose process opened a connection of this machine.

    Args:
        connection: the server's end: a unix socket, or a TCP one whose other end is in this
            network namespace.

    Returns:
        The user's id; None where it cannot be told, as when the other end is closed already.
    """
    if not isinstance(connection, socket.socket):
        return None
    try:
        if connection.family == socket.AF_UNIX:
            return uid_of_unix_peer(connection)
        client, server = connection.getpeername()[:2], connection.getsockname()[:2]
        # Twice, because a row is not read in one step: of a socket that is closed meanwhile the
        # inode may be that of before, and the user that of after, which is root.
        uid = _owner(client, server)
        return uid if uid is None or uid == _owner(client, server) else None
    except OSError:
        return None


def _owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return who owns the client's socket: fields of /proc/net/tcp, see proc_pid_net(5)."""
    for table, pair in _rows_of(client, server):
        owners = set()
        # Looked for as text: taking 10,000 rows apart takes longer than the kernel needs for them.
        text = table.read_bytes()
        at = text.find(pair)
        while at >= 0:
            fields = text[at + len(pair) : text.find(b"\n", at)].split()
            uid, inode = int(fields[4]), int(fields[6])  # the first one is the state
            # Without an inode the socket is nobody's any more (closed, TIME_WAIT), and root's by
            # the look of it: who sends a request and closes at once would be root.
            owners.add(uid if inode else None)
            at = text.find(pair, at + 1)
        if owners:
            return owners.pop() if len(owners) == 1 else None
    return None


def _rows_of(client: tuple[str, int], server: tuple[str, int]) -> Iterator[tuple[Path, bytes]]:
    """Give the tables in which the client's socket can stand, each with its ends as written."""
    ends = [(_packed(host), port) for host, port in (client, server)]
    if all(address.startswith(_MAPPED_PREFIX) for address, _ in ends):
        yield TABLES[0], _written((address[12:], port) for address, port in ends)
    yield TABLES[1], _written(ends)


def _written(ends: Iterable[tuple[bytes, int]]) -> bytes:
    return b" %s " % b" ".join(_hexadecimal(address, port) for address, port in ends)


def _packed(host: str) -> bytes:
    raw = ipaddress.ip_address(host).packed
    return _MAPPED_PREFIX + raw if len(raw) == 4 else raw


def _hexadecimal(address: bytes, port: int) -> bytes:
    # Words in the machine's own byte order, as the kernel prints them.
    words = struct.unpack(f"={len(address) // 4}I", address)
    return "".join(f"{word:08X}" for word in words).encode() + b":%04X" % port
