"""The plugin `powertable` in tests: a client with a schema of its own, and the usual calls."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import psycopg2
import webtest
from psycopg2 import sql

from app.testing import load_plugin

FOLDER = Path(__file__).parents[2] / "plugins" / "powertable"

Client: TypeAlias = webtest.TestApp
_numbers = itertools.count()


def new_schema() -> str:
    """The name of a schema that nothing else has."""
    return f"powertable_test_{os.getpid()}_{next(_numbers)}"


@contextmanager
def powertable(database_url: str, **config: Any) -> Iterator[Client]:
    """A client of the plugin with a schema of its own, which is dropped at the end."""
    config = {"schema": new_schema(), **config}
    with load_plugin(FOLDER, database_url=database_url, config=config) as plugin:
        yield plugin.client
    drop_schema(database_url, config["schema"])


def drop_schema(database_url: str, schema: str) -> None:
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    connection.close()


def drop_tables(client: Client) -> None:
    for table in client.get("/powertable").json["tables"]:
        client.delete(f"/powertable/{table['name']}")


def import_csv(
    client: Client,
    table: str,
    body: bytes,
    status: int | str = 200,
    media: str = "text/csv",
    **query: Any,
) -> Any:
    return client.post(
        f"/powertable/{table}/import?{urlencode(query)}",
        body,
        headers={"Content-Type": media},
        status=status,
    )


def make(client: Client, table: str, **types: str) -> None:
    columns = [
        {"name": name, "type": kind.rstrip("!"), "required": kind.endswith("!")}
        for name, kind in types.items()
    ]
    client.put_json(f"/powertable/{table}", {"columns": columns}, status=201)
