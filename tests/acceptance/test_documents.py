"""What is answered is what the document says: asked at random, within bounds, by schemathesis."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.openapi import checked
from tests.support.server import MakeServer

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="it takes schemathesis"),
]

PLUGINS = {
    "hello": CHECKOUT / "plugins" / "hello",
    "powertable": CHECKOUT / "plugins" / "powertable",
    "documented": CHECKOUT / "tests" / "cases" / "documented",
}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def test_nothing_is_answered_that_the_document_does_not_say(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """Of `hello`, `powertable`, the admin API, and a plugin that uses all that is described."""
    server = make_server(WEB_CONCURRENCY="1")
    for name, folder in PLUGINS.items():
        shutil.copytree(folder, server.plugins / name, ignore=shutil.ignore_patterns("__pycache__"))
    server.start()
    document = checked(server.get("/openapi.json").body)
    for name in PLUGINS:
        assert server.plugin(name)["error"] is None
        own = checked(server.get(f"/plugins/{name}/openapi.json").body)
        assert own["paths"].keys() <= document["paths"].keys()
    run = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"http://127.0.0.1:{server.port}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
            *("--max-examples", "15", "--seed", "1", "--request-timeout", "30", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    paths = document["paths"].values()
    count = sum("operationId" in each for item in paths for each in item.values() if each)
    # All but the document itself.
    assert f"Tested: {count - 1}" in run.stdout, run.stdout[-3_000:]
    assert server.get("/health/ready").json["status"] == "ready"
