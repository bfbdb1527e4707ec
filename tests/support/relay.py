"""Passes connections of this machine's port on to a database's unix socket, as who runs it."""

import socket
import sys
import threading
from urllib.parse import parse_qs, urlsplit


def pump(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def main() -> None:
    parts = urlsplit(sys.argv[1])
    query = parse_qs(parts.query)
    folder = query.get("host", [""])[0]
    if not folder.startswith("/"):
        sys.stdout.write(f"{sys.argv[1]}\n")
        sys.stdout.flush()
        return
    door = socket.create_server(("127.0.0.1", 0))
    user = query["user"][0]
    sys.stdout.write(f"postgresql://{user}@127.0.0.1:{door.getsockname()[1]}{parts.path}\n")
    sys.stdout.flush()
    while True:
        client, _ = door.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{folder}/.s.PGSQL.5432")
        for pair in ((client, server), (server, client)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


if __name__ == "__main__":
    main()
