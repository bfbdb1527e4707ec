"""Listening sockets whose `accept` a plugin cannot break."""

import socket
from typing import Any

_Socket = socket.socket


class Listening(socket.socket):
    """A listening socket: what it accepts is of the class that there was before any plugin.

    `socket.socket.accept` looks the class up each time. While a load has put another one there,
    which is undone at its end, that may raise; the worker would end, and its connections with it.
    """

    __slots__ = ()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection, which does not inherit a timeout, and its address."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # of C, in all versions
        return _Socket(self.family, self.type, self.proto, fileno=descriptor), address


def keep_class(listening: socket.socket) -> None:
    """Make a `Listening` of a listening socket."""
    if type(listening) is _Socket:
        listening.__class__ = Listening
