"""An admin API with canned answers, for the command that calls it."""

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Api:
    """An admin API with canned answers, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append((handler.command, handler.path, headers))
        status, body = self.answers.get(f"{handler.command} {handler.path}", (200, []))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def fails(self, call: str, status: int, detail: str, **members: object) -> None:
        problem = {"type": "about:blank", "title": "Wrong", "status": status, "detail": detail}
        self.answers[call] = (status, {**problem, **members})

    @contextmanager
    def serve(self, kind: type[socketserver.TCPServer], address: Any) -> Iterator[Any]:
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

            def address_string(self) -> str:
                return ""

        with kind(address, Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield server.server_address
            finally:
                server.shutdown()
                thread.join()


class Silence(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)


def plugin(name: str, **more: object) -> dict[str, object]:
    endpoints = [{"method": method, "path": f"/{name}"} for method in ("GET", "POST")]
    shown = {"name": name, "status": "active", "version": "1.0.0", "generation": 1, "error": None}
    return {**shown, "endpoints": endpoints, **more}
