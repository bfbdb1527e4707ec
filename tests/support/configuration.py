"""A server that is started by a configuration file of somebody's own."""

from tests.support.server import Server
from tests.support.waiting import wait_until


def with_file(server: Server, text: str, *arguments: str) -> Server:
    """Start a server by a configuration file of somebody's own, and wait until it answers."""
    server.config = server.home / "mine.py"
    server.config.write_text(text)
    server.arguments = ["--bind", f"127.0.0.1:{server.port}", *arguments]
    server.arguments += [] if "wsgi_app" in text else ["app.wsgi:application"]
    server.start(wait=False)
    wait_until(lambda: status(server, "/health/live"), f"it answers\n{server.log()}", 30.0)
    return server


def status(server: Server, path: str) -> int | None:
    """Return the status of a GET, None where nobody answers."""
    try:
        return server.get(path).status
    except OSError:
        return None
