"""Hosts with other locales than UTF-8, and databases and roles that are read only by default."""

import subprocess
from collections.abc import Callable

import pytest

from tests.support.plugins import source
from tests.support.server import Server

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.soak
@pytest.mark.parametrize("locale", [PLAIN, LATIN], ids=["C", "Latin-1"])
def test_hosts_of_every_locale_serve_and_agree_on_the_schema(
    make_server: Callable[..., Server], locale: dict[str, str]
) -> None:
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout
    if locale is LATIN and "en_US.iso88591" not in known:
        pytest.skip("the locale en_US.ISO-8859-1 is not installed")
    usual = make_server().start()
    mark = "SELECT obj_description('plugins'::regclass), (SELECT max(xmin::text) FROM pg_trigger)"
    before = usual.sql(mark)
    assert usual.database_url is not None
    other = make_server(database=False, DATABASE_URL=usual.database_url, **locale)
    other.database_url = usual.database_url
    other.write("spoken", source("spoken", "日本 café").replace("import os", "import os\n# é 日本"))
    other.write("spoken", "description: 日本 café\n", "plugin.yaml")
    other.start()
    other.wait_says("spoken", "日本 café")
    assert other.plugin("spoken")["description"] == "日本 café"
    assert other.sql(mark) == before, "nobody applied it again"
    other.write("spoken", source("spoken", "again é"))
    usual.wait_says("spoken", "again é")
    assert "Traceback" not in other.log() + usual.log()


@pytest.mark.soak
@pytest.mark.parametrize("of", ["DATABASE", "ROLE"])
def test_a_database_that_is_read_only_by_default_is_written(
    make_server: Callable[..., Server], of: str
) -> None:
    server = make_server()
    (name,) = server.sql(f"SELECT {'current_database()' if of == 'DATABASE' else 'current_user'}")[
        0
    ]
    server.sql(f"ALTER {of} {name} SET default_transaction_read_only = on")
    try:
        server.start()
        server.write("written", source("written", "one"))
        server.wait_says("written", "one")
    finally:
        server.sql(f"SET transaction_read_only = off; ALTER {of} {name} RESET ALL")
