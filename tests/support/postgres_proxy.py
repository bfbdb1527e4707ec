"""A port in front of PostgreSQL that misbehaves when it is told to."""

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """A TCP port in front of the unix socket of PostgreSQL, which can be made to misbehave."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._target = str(Path(query["host"][0]) / ".s.PGSQL.5432")
        self._server = socket.create_server(("127.0.0.1", 0))
        # What is not passed on yet is to stay with who sends it.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        port = self._server.getsockname()[1]
        self.url = f"postgresql://{query['user'][0]}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        self.accepted = 0
        self.open = True
        """Whether new connections reach PostgreSQL; else they are accepted and hear nothing."""
        self.refuses = 0
        """How many of the next connections are closed at once."""
        self.flows = threading.Event()
        """Cleared: nothing is passed on any more, and nothing closed."""
        self.flows.set()
        self.paused = False
        """Whether statements are not passed on, as by PgBouncer's PAUSE: who connects gets in, and
        hears nothing then."""
        self.seconds_per_chunk = 0.0
        """How long each 16 KiB to PostgreSQL take, as over a slow link; less than that takes no
        time."""
        self.drops_notifications = False
        """Whether PostgreSQL's NotificationResponse messages are left out, as by a pooler."""
        self.forwarded: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self._slept = threading.Event()
        self._ended = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._ended:
                client.close()
                return
            self.accepted += 1
            if self.refuses > 0:
                self.refuses -= 1
                client.close()
                continue
            self._sockets.append(client)
            if not self.open:
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._sockets.append(server)
            for source, target, filtered in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pump, args=(source, target, filtered), name="proxy", daemon=True
                ).start()

    def _pump(self, source: socket.socket, target: socket.socket, filtered: bool) -> None:
        rest = b""
        try:
            while chunk := source.recv(65536):
                asks = not filtered and chunk[:1] == b"Q"
                while not self.flows.wait(0.1) or (asks and self.paused):
                    if self._ended:
                        return
                    self._slept.wait(0.02)
                if not filtered and len(chunk) >= 16384:
                    self._slept.wait(len(chunk) / 16384 * self.seconds_per_chunk)
                if filtered:
                    chunk, rest = self._filter(rest + chunk)
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            for one in (source, target):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _filter(self, raw: bytes) -> tuple[bytes, bytes]:
        """Return the whole messages that may pass, and the rest of the last one."""
        passed = []
        while len(raw) >= 5 and len(raw) > (length := int.from_bytes(raw[1:5])):
            message, raw = raw[: length + 1], raw[length + 1 :]
            if not (self.drops_notifications and message[:1] == b"A"):
                passed.append(message)
        return b"".join(passed), raw

    def cut(self) -> None:
        """Close all connections."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self._ended = True
        self.flows.set()
        # A thread inside accept() keeps the port: wake it with a connection of our own.
        with contextlib.suppress(OSError):
            socket.create_connection(self._server.getsockname(), 1).close()
        self._server.close()
        self.cut()
