"""The addresses that a server is to listen on, looked at before it starts."""

import errno
import os
import socket
from collections.abc import Collection
from typing import Any

from app.errors import SettingsError
from app.listeners import address_text


def refuse_own_queues(configuration: Any) -> None:
    """Refuse `reuse_port`, with which each worker has a queue of its own.

    Raises:
        SettingsError: it is set.
    """
    if configuration.reuse_port:
        raise SettingsError(
            "--reuse-port (reuse_port) gives each worker a queue of its own, and the connections "
            "that wait in it are lost when that worker is replaced: leave it out."
        )


def refuse_busy_port(configuration: Any, known: Collection[int] = ()) -> None:
    """Look whether the addresses are free: gunicorn would try for 5 s, and after the publishing.

    Args:
        configuration: gunicorn's settings.
        known: the ports that this server itself listens on.

    Raises:
        SettingsError: one is not.
    """
    activated = os.environ.get("LISTEN_PID") == str(os.getpid())  # systemd's sockets are there
    if activated or os.environ.get("GUNICORN_FD"):
        return
    for address in configuration.address:
        if isinstance(address, tuple) and address[1] not in known:
            _refuse_busy(*address)


def _refuse_busy(host: str, port: int) -> None:
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = resolved[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is in use: stop the other server"
        else:
            reason = f"cannot be bound ({error.strerror}): choose another address"
        raise SettingsError(f"{address_text((host, port))} {reason}, or set BENANA_BIND.") from None
