"""From the embedded database to another one, by the commands of docs/deploying.md."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plugins import source
from tests.support.server import Server
from tests.support.waiting import wait_until

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.soak

_SECTION = (CHECKOUT / "docs" / "deploying.md").read_text().split("## Moving from the embedded")[1]
DUMP, RESTORE = (
    block.splitlines()
    for block in re.findall(r"```sh\n(.*?)```", _SECTION.partition("\n## ")[0], re.DOTALL)
)

NOTES = """
from app.plugin import PluginMetadata


class Notes:
    def initialize(self, context):
        self.database = context.database
        with self.database() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS notes (note text)")

    def get_metadata(self):
        return PluginMetadata(name="notes", version="1.0.0")

    def register_routes(self, server):
        server.get("/notes", self.get)
        server.post("/notes", self.post)

    def cleanup(self, context):
        pass

    def get(self):
        with self.database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT note FROM notes ORDER BY note")
            return {"notes": [note for (note,) in cursor]}

    def post(self, body: dict):
        with self.database() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO notes VALUES (%s)", [body["note"]])
        return {"noted": body["note"]}


new_plugin = Notes
"""


def run(server: Server, lines: list[str]) -> None:
    """Run lines of the page in the server's folder, in its environment."""
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines).replace(".venv/", f"{sys.prefix}/")],
        cwd=server.home,
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (lines, done.stdout, done.stderr)


def shown(server: Server) -> dict[str, Any]:
    """Return what is registered, without what a start may change."""
    kept = ("id", "status", "version", "generation", "binary_path", "created_at")
    return {
        plugin["name"]: {key: plugin[key] for key in kept} for plugin in server.get("/plugins").json
    }


def tables(url: str) -> dict[str, int]:
    """Return how many rows each table has that is dumped."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
                " AND relnamespace = 'public'::regnamespace"
            )
            counts = {}
            for (name,) in cursor.fetchall():
                cursor.execute(f"SELECT count(*) FROM {name}")
                ((counts[name],),) = cursor.fetchall()
            return counts
    finally:
        connection.close()


def test_what_was_served_by_the_embedded_database_is_served_by_another(
    make_server: MakeServer, new_database: Callable[[], str], tmp_path: Path
) -> None:
    server = make_server(database=False)
    for name in ("stays", "off", "gone"):
        server.write(name, source(name, "first"))
    server.write("notes", NOTES)
    server.start()
    server.wait_says("stays", "first")
    server.write("stays", source("stays", "second"))
    server.wait_says("stays", "second")
    server.post("/plugins/off/toggle")
    server.wait_gone("off")
    assert server.post("/notes", {"note": "kept"}).status == 200
    before = shown(server)
    run(server, DUMP)
    assert "COPY public.plugin_workers" not in (server.home / "benana.sql").read_text()
    server.stop()

    url = new_database()
    assert "DATABASE_URL" in RESTORE[0]
    assert RESTORE[2] == ".venv/bin/benana serve"
    run(server, [f"export DATABASE_URL='{url}'", RESTORE[1]])
    moved = tables(url)
    assert moved["plugins"] == 5
    assert moved["notes"] == 1
    # A folder that is not there at the new start, as on another host, whose rows came by the dump.
    server.environment["DATABASE_URL"] = server.database_url = url
    server.environment["BENANA_ARTIFACTS_DIR"] = str(server.home / "another" / "bin")
    shutil.move(server.plugins / "gone", server.home)
    server.start()
    for name, says in (("stays", "second"), ("gone", "first")):
        server.wait_says(name, says)
    server.wait_gone("off")
    assert server.get("/notes").json == {"notes": ["kept"]}
    after = shown(server)
    for rows in (before, after):
        for row in rows.values():
            row["binary_path"] = Path(row["binary_path"]).name
    assert after == before, "moved, and not published anew"
    workers = wait_until(lambda: server.get("/workers").json, "they are reported")
    assert {row["pid"] for row in workers} <= server.workers()
    server.write("stays", source("stays", "third"))
    server.wait_says("stays", "third")
