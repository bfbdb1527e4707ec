"""What is asked of the kernel for processes: how one of ours ends, whose another one is."""

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable

_CREDENTIALS = struct.Struct("iII")  # of SO_PEERCRED (unix(7)): process, user, group
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent dies


def process_option(option: int, value: int) -> Callable[[], None]:
    """Return what sets an option of the process that calls it, by prctl(2); Linux only."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: a child just forked should do little
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    return lambda: prctl(option, *arguments)


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a new child calls in order to get a signal when this process dies.

    Linux only; on macOS the next supervisor stops what an earlier one has left behind. A change
    of user clears the wish, so the child asks for it afterwards (prctl(2), PR_SET_PDEATHSIG).
    """
    if sys.platform != "linux":
        return lambda: None
    ask, parent = process_option(PR_SET_PDEATHSIG, number), os.getpid()

    def arm() -> None:
        ask()
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return arm


def uid_of_unix_peer(connection: socket.socket) -> int:
    """Return the user whose process is at the other end of a Unix socket; Linux only.

    Raises:
        OSError: there is none any more.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)
