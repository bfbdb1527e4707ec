"""An application in this process, on real files and a real PostgreSQL."""

import atexit
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import webtest

from app.server import BenanaApp, create_app
from app.settings import Settings
from tests.support.databases import session
from tests.support.plugins import source
from tests.support.waiting import wait_until

# gunicorn hands the connection over; the other end of this one belongs to this process.
CONNECTION, OTHER_END = socket.socketpair()
atexit.register(CONNECTION.close)
atexit.register(OTHER_END.close)


def client_of(app: BenanaApp) -> Any:
    """Return a client whose calls come from a process of the server's own user."""
    return webtest.TestApp(app, extra_environ={"gunicorn.socket": CONNECTION})


@dataclass
class Live:
    """A running application with its folders and its database."""

    app: BenanaApp
    settings: Settings
    client: Any

    def write(self, name: str, text: str) -> None:
        folder = self.settings.plugins_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".main.py.tmp"
        temporary.write_text(text)
        temporary.replace(folder / "main.py")

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        assert self.settings.database_url is not None
        with session(self.settings.database_url) as opened:
            return opened(statement, *parameters)

    def plugin(self, name: str) -> Any:
        return self.client.get(f"/plugins/{name}").json

    def serves(self, name: str, path: str = "") -> None:
        wait_until(
            lambda: self.client.get(path or f"/{name}", status="*").status_code == 200,
            f"{name} is served",
        )

    def add(self, name: str, text: str | None = None) -> None:
        """Have a plugin published by the watcher, and wait until it is served."""
        self.write(name, text or source(name))
        self.serves(name)

    def generation(self, name: str) -> int:
        return self.sql("SELECT generation FROM plugins WHERE name = %s", name)[0][0]


def settings_for(home: Path, url: str, **changes: Any) -> Settings:
    settings = Settings(
        plugins_dir=home / "plugins",
        artifacts_dir=home / "bin",
        data_dir=home / "var",
        database_url=url,
    )
    return replace(settings, **changes)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Live]:
    """The application as gunicorn starts it: published by one, served by another."""
    create_app(settings).manager.publish_at_start()
    app = create_app(settings)
    app.manager.start(lambda: None)
    try:
        yield Live(app, settings, client_of(app))
    finally:
        app.manager.stop()
