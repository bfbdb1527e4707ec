"""The sockets between the processes of a host, which a forked child must leave alone."""

import os
import socket
import weakref
from contextlib import suppress

_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def note(connection: socket.socket) -> socket.socket:
    """Remember a socket as long as it is there; return it."""
    _sockets.add(connection)
    return connection


def let_go() -> None:
    """Close all of them in a forked child.

    A child that kept one would keep the process at its other end waiting after the parent's end.
    """
    for connection in _sockets:
        close_copy(connection)


def close_copy(connection: socket.socket) -> None:
    """Close a socket in a forked child; it is not shut down, and stays open in the parent."""
    if (descriptor := connection.detach()) >= 0:
        with suppress(OSError):
            os.close(descriptor)
