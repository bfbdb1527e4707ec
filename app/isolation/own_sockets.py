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
    """Close all of them in a forked child: they stay open in its parent.

    A child that kept one would keep the process at its other end waiting after the parent's end.
    They are not shut down, because that would end them for the parent, too.
    """
    for connection in _sockets:
        if (descriptor := connection.detach()) >= 0:
            with suppress(OSError):
                os.close(descriptor)
