"""Many plugins registered at once, without the trial of each: what a warm host looks like."""

import json
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psycopg2
from psycopg2.extras import execute_values

from app.database.pool import Database
from app.database.repository import Repository
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import read_source
from app.publishing.host_state import HostState, Published
from app.records import HOT, Reload
from tests.benchmarks.generator import LINES, SyntheticPlugin, generate

CHUNK = 250
_REHEARSED = json.dumps(asdict(Reload(HOT, "")))
"""Of a version that was published before: an edit does not wait for its rehearsal."""
Compiled = tuple[str, str, str, bytes, tuple[tuple[str, str], ...]]
"""Name, digest, SHA-256, archive and endpoints of a plugin."""


class Fleet:
    """Plugins `p0000`, `p0001`, … as sources and archives below a folder.

    Args:
        home: where `plugins` and `bin/plugins` are written.
        count: how many.
        lines: the least and the most lines of each.
    """

    def __init__(self, home: Path, count: int, lines: tuple[int, int] = LINES) -> None:
        self.count = count
        self.plugins = home / "plugins"
        self.artifacts = home / "bin" / "plugins"
        self.plugins.mkdir(parents=True)
        (self.artifacts / ".seen").mkdir(parents=True)
        starts = range(0, count, CHUNK)
        self._compiled: list[Compiled] = []
        with ProcessPoolExecutor(2) as pool:
            jobs = [(home, start, min(start + CHUNK, count), lines) for start in starts]
            for part in pool.map(_make, jobs):
                self._compiled += part

    @property
    def names(self) -> list[str]:
        """The plugins' names."""
        return [name for name, *_ in self._compiled]

    def register(self, url: str, first: int = 0, last: int | None = None) -> None:
        """Write the rows of the plugins `first` to `last` into a database."""
        Repository(Database(url)).apply_schema()
        connection = psycopg2.connect(url)
        chosen = self._compiled[first:last]
        with connection, connection.cursor() as cursor:
            for at in range(0, len(chosen), 1000):
                self._insert(cursor, chosen[at : at + 1000])
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        connection.close()

    def _insert(self, cursor: object, part: list[Compiled]) -> None:
        meta = json.dumps({"name": "", "version": "1.0.0", "description": "", "author": ""})
        ids = {name: str(uuid.uuid4()) for name, *_ in part}
        execute_values(
            cursor,
            "INSERT INTO plugins (id, name, type, status, version, source_path, binary_path,"
            " source_digest) VALUES %s",
            [
                (
                    *(ids[name], name, "dynamic", "active", "1.0.0"),
                    *(str(self.plugins / name), str(self.artifacts / f"{name}-{digest}.pyz")),
                    digest,
                )
                for name, digest, *_ in part
            ],
        )
        execute_values(
            cursor,
            "INSERT INTO plugin_versions (plugin_name, source_digest, archive, archive_sha256,"
            " metadata, finding) VALUES %s",
            [
                (n, d, psycopg2.Binary(archive), sha, meta, _REHEARSED)
                for n, d, sha, archive, _ in part
            ],
        )
        execute_values(
            cursor,
            "INSERT INTO plugin_endpoints (plugin_id, method, path, handler) VALUES %s",
            [(ids[n], method, path, "") for n, *_, ends in part for method, path in ends],
            page_size=1000,
        )


def _make(job: tuple[Path, int, int, tuple[int, int]]) -> list[Compiled]:
    home, first, last, lines = job
    plugins, artifacts = home / "plugins", home / "bin" / "plugins"
    seen = HostState(artifacts)
    made: list[Compiled] = []
    for number in range(first, last):
        plugin: SyntheticPlugin = generate(f"p{number:04d}", 1, lines)
        folder = plugin.write(plugins)
        source = read_source(plugins, folder, plugin.name)
        artifact = compile_plugin(source)
        (artifacts / artifact.file_name).write_bytes(artifact.archive)
        seen.record(plugin.name, Published(source.digest))
        made.append(
            (plugin.name, source.digest, artifact.sha256, artifact.archive, plugin.endpoints)
        )
    return made
