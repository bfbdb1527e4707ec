"""Raw kept-alive connections, each to one worker: asking shall cost the asker next to nothing."""

import json
import re
import select
import socket
import time
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Expected = Callable[[int, bytes], bool]
"""Tells whether a status and a body are what is waited for."""


class PinnedConnection:
    """One kept-alive HTTP/1.1 connection."""

    def __init__(self, port: int, seconds: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, path: str, *, close: bool = False) -> None:
        """Send a GET."""
        extra = "Connection: close\r\n" if close else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())

    def receive(self) -> tuple[int, bytes]:
        """Read one response; return its status and body.

        Raises:
            OSError: the connection ended before the response did.
        """
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more()
        head, _, body = got.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        while length and len(body) < int(length[1]):
            body += self._more()
        return int(head.split(b" ", 2)[1]), body

    def _more(self) -> bytes:
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionResetError("the connection ended before the response did")
        return part

    def ask(self, path: str) -> tuple[int, bytes]:
        """GET a path; return status and body."""
        self.send(path)
        return self.receive()

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def fetch(port: int, path: str, seconds: float = 10.0) -> tuple[int, bytes]:
    """GET a path over a new connection; return status and body."""
    connection = PinnedConnection(port, seconds)
    try:
        connection.send(path, close=True)
        return connection.receive()
    finally:
        connection.close()


def find_workers(
    port: int, count: int, seconds: float = 20.0, path: str = "/whoami"
) -> dict[int, PinnedConnection]:
    """Open connections until each of `count` workers holds one; return them by process id."""
    found: dict[int, PinnedConnection] = {}
    spare: list[PinnedConnection] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        connection = PinnedConnection(port)
        status, body = connection.ask(path)
        pid = json.loads(body)["pid"] if status == 200 else None
        if pid is None or pid in found:
            spare.append(connection)
        else:
            found[pid] = connection
    for connection in spare:
        connection.close()
    return found


def ask_all(workers: dict[int, PinnedConnection], path: str) -> None:
    """Ask every worker a path, and leave its answer to `until_everywhere`."""
    for connection in workers.values():
        connection.send(path)


def until_everywhere(
    workers: dict[int, PinnedConnection],
    path: str,
    expected: Expected,
    seconds: float = 20.0,
    pause: float = 0.003,
    after: float = 0.0,
    asked: bool = False,
) -> float:
    """Ask every worker again and again until each has answered as expected.

    Each is asked on its own: one that is slow to answer does not hold up the others' next question.

    Args:
        workers: a connection to each.
        path: what to ask.
        expected: what is waited for.
        seconds: when to give up.
        pause: seconds between an answer and the next question, so that the asking does not take
            the cores.
        after: `time.monotonic()` before which nobody is asked.
        asked: whether each was asked something already (`ask_all`) that it answers once it is time
            to ask: it is asked `path` at once then, and so nobody is asked in vain.

    Returns:
        `time.monotonic()` of the last worker's first expected answer.
    """
    left = set(workers.values())
    told = set(left) if asked else set()
    ask_at = {} if asked else dict.fromkeys(left, after)
    deadline = time.monotonic() + seconds
    last = time.monotonic()
    poll = select.poll()
    by_fd = {connection.socket.fileno(): connection for connection in left}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    while left:
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"{path} is not as expected within {seconds} s")
        for connection in [c for c, due in ask_at.items() if due <= now]:
            connection.send(path)
            del ask_at[connection]
        wait = min([*ask_at.values(), deadline]) - time.monotonic()
        for fd, _ in poll.poll(max(0.0, wait) * 1000):
            connection = by_fd[fd]
            if expected(*connection.receive()):
                last = time.monotonic()
                left.discard(connection)
            elif connection in told:
                told.discard(connection)
                connection.send(path)
            else:
                ask_at[connection] = time.monotonic() + pause
    return last


def until_new_workers(
    port: int, count: int, path: str, expected: Expected, seconds: float = 60.0
) -> float:
    """Ask over new connections until `count` different processes have answered as expected.

    For servers that replace their processes. Connections that are refused or cut are tried again.

    Returns:
        `time.monotonic()` of the last process's first expected answer.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status, body = fetch(port, path)
        except OSError:
            time.sleep(0.001)
            continue
        if expected(status, body):
            seen.add(json.loads(body)["pid"])
            if len(seen) >= count:
                return time.monotonic()
        time.sleep(0.001)
    raise AssertionError(f"{path}: {len(seen)} of {count} processes after {seconds} s")
