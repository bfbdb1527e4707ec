"""How workers are asked: each over its own connection."""

import socket
import threading

from tests.benchmarks.pinned import PinnedConnection, ask_all, until_everywhere

BODIES = {"/over": b"over", "/one": b"new"}


def test_who_was_asked_already_is_asked_once_and_not_again_and_again() -> None:
    asked: list[str] = []

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            while line := requests.readline():
                path = line.split()[1].decode()
                asked.append(path)
                while requests.readline() != b"\r\n":
                    pass
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODIES[path])}\r\n\r\n".encode()
                connection.sendall(head + BODIES[path])

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        workers = {number: PinnedConnection(port) for number in range(2)}
        threads = [threading.Thread(target=answer, args=server.accept()[:1]) for _ in workers]
        for thread in threads:
            thread.start()
        ask_all(workers, "/over")
        try:
            # No pause is made between the two, else it would be too late.
            until_everywhere(
                workers, "/one", lambda _, body: body == b"new", 5.0, pause=30.0, asked=True
            )
        finally:
            for connection in workers.values():
                connection.close()
            for thread in threads:
                thread.join(10.0)
    assert sorted(asked) == ["/one", "/one", "/over", "/over"]
