"""Where a server listens, as its sockets say it."""

import os
import socket
from typing import Any


def address_of(listener: Any) -> str:
    """Return where a listening socket listens: `host:port`, or `unix:path`.

    Args:
        listener: a socket, gunicorn's wrapper of one, or a descriptor that was inherited.
    """
    if isinstance(listener, int):
        with socket.socket(fileno=os.dup(listener)) as inherited:
            return address_of(inherited)
    return address_text(listener.getsockname())


def address_text(address: Any) -> str:
    """Return an address of Python's socket module as a text; see `address_of`."""
    if isinstance(address, (str, bytes)):
        path = os.fsdecode(address)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def url_of(address: str, *, tls: bool) -> str:
    """Return an address as a person calls it."""
    return address if address.startswith("unix:") else f"http{'s' if tls else ''}://{address}"
